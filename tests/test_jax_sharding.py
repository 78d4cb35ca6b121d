"""JAX arrays spread over devices: the results of one device, the layout kept, and nothing large sent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gate

SCRIPT = Path(__file__).with_name("jax_devices.py")
KINDS = ("Explicit", "Auto")
STEPS = ["step", "momentum", "transport", "polar", "adam", "sgd", "warm"]

# In one process, and compared with numpy: most of the time is that of starting JAX and of compiling.
QUICK = [
    ["thin_sums", "Explicit", "rows", ["step"]],
    ["thin_sums", "Auto", "rows", ["transport"]],
    ["nothing_sent", "Explicit", ["transport"]],
    ["mapped", "Explicit", ["polar"]],
    ["agree", "Explicit", "stack", ["step"], {"context": True}],
    ["mixed_devices_are_refused"],
]
THOROUGH = [
    *(["agree", kind, layout, []] for kind in KINDS for layout in ("rows", "columns", "both", "stack")),
    *(["agree", "Explicit", layout, [], {"context": True}] for layout in ("rows", "stack")),
    ["agree", "Explicit", "stack", ["polar"], {"eager": True}],
    *(["agree", kind, "rows", ["step", "transport", "warm"], {"eager": True}] for kind in KINDS),
    ["agree", "Explicit", "rows", STEPS, {"devices": 1, "dtype": "complex64"}],
    ["agree", "Explicit", "rows", STEPS, {"devices": 2, "n": 1000}],
    ["agree", "Explicit", "rows", STEPS, {"devices": 3, "n": 96, "dtype": "complex64"}],
    ["agree", "Explicit", "rows", STEPS, {"n": 1000, "dtype": "complex64"}],
    ["agree", "Auto", "rows", STEPS, {"n": 1024}],
    *(["thin_sums", kind, "rows", [*STEPS[:-1], "heal"]] for kind in KINDS),
    *(["nothing_sent", kind, []] for kind in KINDS),
    *(["mapped", kind, []] for kind in KINDS),
    *(["training", kind, layout] for kind in KINDS for layout in ("rows", "stack")),
    ["uneven"],
]


@pytest.mark.parametrize(
    "checks",
    [
        pytest.param(QUICK, id="quick"),
        *(pytest.param([check], id=str(check), marks=pytest.mark.thorough) for check in THOROUGH),
    ],
)
def test_arrays_may_be_spread_over_devices(checks):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(checks)],
        env=os.environ | {"XLA_FLAGS": flags.strip()},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr

"""Unitary matrices spread over processes of torch.distributed: DTensor, FSDP2, DDP, checkpoints.

What the processes check is in torch_processes.py.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import profiles
import pytest
import torch

pytestmark = pytest.mark.gate

if (
    not hasattr(os, "fork")
    or not torch.distributed.is_available()
    or not torch.distributed.is_gloo_available()
):
    pytest.skip("needs fork, and a torch with gloo", allow_module_level=True)

CHECKS = (
    "matrices_with_divided_rows_move_as_in_one_process",
    "rows_of_a_stack_move_as_in_one_process",
    "a_divided_stack_moves_as_in_one_process_without_communication",
    "a_step_sends_at_most_three_thin_sums",
    "optimisers_move_spread_parameters_as_whole_ones",
    "a_fully_sharded_network_learns_as_in_one_process_and_is_saved",
    "replicas_take_the_same_step_to_the_last_bit",
    "captured_factors_are_averaged_in_thin_blocks",
    "what_is_laid_out_otherwise_is_refused",
    "a_checkpoint_continues_on_another_number_of_processes",
    "a_dead_process_is_an_error_to_all_others",
)
OF_TWO = tuple(name for name in CHECKS if "checkpoint" not in name)
# What three processes check in the quick profile: uneven shards, empty ones, and a state saved by two.
OF_THREE = (CHECKS[0], CHECKS[2], CHECKS[-2])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes have found, then three, which go on from what two saved; and what they printed."""
    folder = tmp_path_factory.mktemp("processes")
    thorough = profiles.of_profile(quick=False, thorough=True)
    plan = [(2, OF_TWO), (3, CHECKS if thorough else OF_THREE)]
    # Compiled kernels are for the rows of a process what they are for all: quickly, nothing is compiled.
    kernels = {} if thorough else {"LOWRANK_UNITARY_KERNELS": "0"}
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-P", "-c",
         "import json, sys, torch_processes as t; t.run(*json.loads(sys.argv[1]))",
         json.dumps([str(folder), plan, thorough])],
        env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", **kernels},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        errors = process.communicate(timeout=1500)[1]
    finally:
        if process.poll() is None:
            # It and its copies.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    reports = {}
    for size, _ in plan:
        paths = [folder / f"found-{size}-{rank}.json" for rank in range(size)]
        reports[size] = [json.loads(path.read_text()) if path.exists() else {} for path in paths]
    return reports, errors


CASES = [
    *(pytest.param(2, name, id=f"{name}-2") for name in OF_TWO),
    *((pytest.param if name in OF_THREE else profiles.thorough)(3, name) for name in CHECKS),
]


@pytest.mark.parametrize(("size", "check"), CASES)
def test_processes_agree_with_one(found, size, check):
    reports, errors = found
    for rank, report in enumerate(reports[size]):
        if wrong := report.get(check, f"it did not run; printed was: {errors[-2000:]}"):
            pytest.fail(f"process {rank}: {wrong}")

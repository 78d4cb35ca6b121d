"""The console script: messages, exit statuses, and what `info` reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import event

import lowrank_unitary as lu
from lowrank_unitary import cli
from lowrank_unitary._kernels import cpu


class Listener(event.Listener):
    """The names of all functions that numba compiles."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def on_start(self, event: event.Event) -> None:
        self.names.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event: event.Event) -> None:
        pass


def test_info_names_every_version_and_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["lowrank-unitary"].strip() == lu.__version__
    assert np.__version__ in lines["numpy"]
    assert f"numpy {np.__version__}" in lines["array namespaces"]
    for name in ("Python", "platform", "CPU", "scipy", "array-api-compat", "BLAS threads", "GPU"):
        assert lines[name].strip()
    assert lines["fast kernels"].strip().startswith("numba ")


def test_info_imports_no_framework() -> None:
    # Where torch is a CUDA build its GPU is asked for, so torch is left out here.
    code = (
        "import sys; from lowrank_unitary.cli import main; main(['info']); "
        "print(sorted({'jax', 'dask', 'sklearn', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_framework_that_is_not_installed_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torch", "cupy", "jax"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["info"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert "torch" not in lines["array namespaces"]
    assert lines["GPU"].strip() == "none"


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (("rich",), "needs rich:"),
        (("sklearn", "matplotlib"), "needs scikit-learn and matplotlib:"),
        (("sklearn", "rich", "matplotlib"), "needs scikit-learn, rich and matplotlib:"),
    ],
)
def test_a_missing_package_gives_one_line_that_says_what_to_install(
    absent: tuple[str, ...],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["demo"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f'lowrank-unitary demo {named} pip install "lowrank-unitary[demo]"\n'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps: must be a whole number, 1 or more, got '0'"),
        (["--steps", "many"], "--steps: must be a whole number, 1 or more, got 'many'"),
        (["--hidden", "3"], "--hidden: must be a whole number, 4 or more, got '3'"),
        (["--seed", "-1"], "--seed: must be a whole number, 0 or more, got '-1'"),
        (["--output", "curves.csv"], "--output: must end in one of .png, .pdf, .svg, got 'curves.csv'"),
        (["--output", "no/such/figure.png"], "must be in an existing folder"),
    ],
)
def test_a_senseless_option_is_refused_before_any_work(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_command_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_an_interrupt_outside_the_training_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.info, "_gpu", interrupt)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_module_runs_as_the_console_script_does(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lowrank_unitary", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == f"lowrank-unitary {lu.__version__}"


def test_kernels_are_compiled_ahead_of_all_calls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compile", "float32", "complex64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["float32", "complex64"]
    compiled: list[str] = []
    listen = event.install_listener("numba:compile", Listener(compiled))
    with listen:
        for dtype in (np.float32, np.complex64):
            U = lu.random_unitary(64, dtype=dtype, batch=(3,), rng=0)
            U = lu.unitary_step(U, U[::-1], np.full((3,), 0.1), rank=2, rng=1, update="cayley")
            body = lu.tangent_sketch(U, U[::-1], 5, rng=2)
            direction, _ = lu.momentum_step(body, lu.MomentumState.start(U, 5), nesterov=True)
            U = lu.unitary_step(U, direction, 0.1, rank=5, rng=3, heal=2)
            lu.polar_projection(U[0], body.left[0], body.right[0], heal=1, rng=4)
            lu.unitary_transport(U[0], body.left[0][:, :1], body.right[0][:, :1], overwrite_unitary=True)
            U = np.eye(1600, dtype=dtype)
            lu.rotate(lu.unitary_transport(U, U[:, :1], U[:, 2:3]), lu.LowRankRotation(U[:, :0], U[:, :0]))
    assert compiled == []


def test_what_cannot_be_compiled_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compile", "float16"]) == 2
    assert "float32, float64, complex64, complex128, got float16" in capsys.readouterr().err
    monkeypatch.setenv("LOWRANK_UNITARY_KERNELS", "off")
    cpu.active.cache_clear()
    try:
        assert cli.main(["compile"]) == 1
    finally:
        monkeypatch.undo()
        cpu.active.cache_clear()
    assert "no kernels" in capsys.readouterr().err

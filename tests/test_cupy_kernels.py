"""cupy with the CUDA kernels, without a GPU: on a stand-in, the kernels run by the CPU."""

import cuda_on_cpu
import cupy_on_cpu
import numpy as np
import pytest
from test_cupy import CASES, K, N, arrays_in, given_on_device, host, problem

from lowrank_unitary._array import tolerance
from lowrank_unitary._kernels import _cuda

PROBLEMS = [("float32", (2,)), ("complex128", ())]


@pytest.fixture(scope="module")
def machine(request):
    """All kernels that the cases need, compiled in one go."""
    if not cuda_on_cpu.has_compiler():
        pytest.skip("no C++ compiler on this machine")
    made, launches = cuda_on_cpu.Machine(request.config.cache.mkdir("cuda_on_cpu")), []
    with (
        pytest.MonkeyPatch.context() as patch,
        cupy_on_cpu.installed() as cupy,
        cuda_on_cpu.installed(patch, made, 64, cupy=True),
    ):
        patch.setattr(_cuda, "run", lambda launch, *_: launches.append(launch))
        for dtype, batch in PROBLEMS:
            for case in CASES.values():
                case(given_on_device(1, cupy, problem(dtype, batch)))
    made.prepare(launches)
    return made


@pytest.fixture
def cupy(machine, monkeypatch):
    with cupy_on_cpu.installed() as made, cuda_on_cpu.installed(monkeypatch, machine, 64, cupy=True):
        yield made
        assert cupy_on_cpu.Device() == cupy_on_cpu.Device(0)


@pytest.mark.parametrize(("dtype", "batch"), PROBLEMS)
@pytest.mark.parametrize("name", CASES)
def test_routine_gives_what_numpy_gives_on_the_device_of_its_arrays_without_waiting(cupy, name, dtype, batch):
    given = problem(dtype, batch)
    expected = CASES[name](given)
    there = given_on_device(1, cupy, given)
    result = CASES[name](there)
    assert cupy.ledger == cupy_on_cpu.Ledger()
    for x, like in zip(arrays_in(result), arrays_in(expected), strict=True):
        assert x.device == cupy_on_cpu.Device(1)
        assert x.dtype == like.dtype
    for x, original in zip(arrays_in(vars(there).values()), arrays_in(vars(given).values()), strict=True):
        np.testing.assert_array_equal(host(x), original)
    for x, like in zip(arrays_in(host(result)), arrays_in(host(expected)), strict=True):
        scale = float(np.max(np.abs(like.astype(complex)), initial=1.0))
        bound = 10 * tolerance(np, np.dtype(dtype), N, K, scale=scale)
        np.testing.assert_allclose(x.astype(complex), like.astype(complex), rtol=0, atol=bound)


# What the steps are made of, each by a kernel of its own.
EXPECTED = {
    "unitary_transport": {"step_small", "turn", "core", "spread", "rotate", "gather"},
    "unitary_step": {"orthonormalise", "hermitian_eigen", "normal", "assemble", "gram", "core"},
    "rotate": {"lay_out", "rotate"},
    "heal_unitary": {"normal", "gather", "collect"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_steps_reach_the_kernels(cupy, machine, name):
    machine.launched.clear()
    CASES[name](given_on_device(1, cupy, problem("float32", (2,))))
    kinds = {launch.kernel.partition("<")[0] for launch in machine.launched}
    assert EXPECTED[name] - {"step_small", "turn"} <= kinds


def test_kernels_can_be_turned_off(cupy, machine, monkeypatch):
    monkeypatch.setattr(_cuda, "active", lambda: False)
    machine.launched.clear()
    CASES["unitary_step"](given_on_device(1, cupy, problem("float32", (2,))))
    assert not machine.launched

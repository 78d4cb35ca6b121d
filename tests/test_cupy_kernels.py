"""cupy with the CUDA kernels, without a GPU: on a stand-in, the kernels run by the CPU."""

import cuda_on_cpu
import cupy_on_cpu
import pytest
from test_cupy import CASES, check, given_on_device, problem

from lowrank_unitary._kernels import cuda as _cuda

pytestmark = pytest.mark.gate

PROBLEMS = [("float32", (2,)), ("complex128", ())]


@pytest.fixture(scope="module")
def machine(request):
    with cupy_on_cpu.installed() as cupy:

        def calls():
            with cupy_on_cpu.Device(1):
                run_all()

        def run_all():
            for dtype, batch in PROBLEMS:
                for case in CASES.values():
                    case(given_on_device(1, cupy, problem(dtype, batch)))

        return cuda_on_cpu.machine_for(request, calls, cupy=True)


@pytest.fixture
def cupy(machine, monkeypatch):
    with cupy_on_cpu.installed() as made, cuda_on_cpu.installed(monkeypatch, machine, cupy=True):
        with cupy_on_cpu.Device(1):
            yield made
        assert cupy_on_cpu.Device() == cupy_on_cpu.Device(0)


@pytest.mark.parametrize(("dtype", "batch"), PROBLEMS)
@pytest.mark.parametrize("name", CASES)
def test_routine_gives_what_numpy_gives_on_the_device_of_its_arrays_without_waiting(cupy, name, dtype, batch):
    check(cupy, name, dtype, batch)


# What the steps are made of, each by a kernel of its own.
EXPECTED = {
    "unitary_transport": {"scale_columns", "gather", "core", "spread", "rotate"},
    "unitary_step": {"orthonormalise", "hermitian_eigen", "random_numbers", "assemble", "gram", "core"},
    "rotate": {"lay_out", "rotate"},
    "heal_unitary": {"random_numbers", "gather", "collect"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_steps_reach_the_kernels(cupy, machine, name):
    machine.launched.clear()
    CASES[name](given_on_device(1, cupy, problem("float32", (2,))))
    kinds = {launch.kernel.partition("<")[0] for launch in machine.launched}
    assert EXPECTED[name] <= kinds


def test_kernels_can_be_turned_off(cupy, machine, monkeypatch):
    monkeypatch.setattr(_cuda, "active", lambda: False)
    machine.launched.clear()
    CASES["unitary_step"](given_on_device(1, cupy, problem("float32", (2,))))
    assert not machine.launched

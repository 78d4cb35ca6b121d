"""What is moved as unitary, what keeps the mark, and what happens without torch."""

import contextlib
import copy
import io
import pickle
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

import lowrank_unitary as lu
import lowrank_unitary.torch as lut
from lowrank_unitary._array import numpy_view, values_are_at_hand


def marked_layer():
    layer = torch.nn.Linear(3, 3, bias=False)
    lut.mark_unitary(torch.nn.init.orthogonal_(layer.weight))
    return layer


def pickled(layer):
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def loaded(layer, **options):
    layer.load_state_dict({"weight": torch.eye(3)}, **options)
    return layer


@contextlib.contextmanager
def swapping():
    """Modules change their parameters by torch.utils.swap_tensors."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def swapped(layer):
    with swapping():
        return loaded(layer.to(torch.float64).to(torch.float32))


def averaged(layer):
    average = torch.optim.swa_utils.AveragedModel(layer)
    average.update_parameters(layer)
    return average.module


def sent(layer):
    """As to a process that is spawned."""
    return pickle.loads(ForkingPickler.dumps(layer))


def emptied(layer):
    return loaded(layer.to("meta").to_empty(device="cpu"))


KEEPS = {
    "module.to": lambda layer: layer.to(torch.float64),
    "load_state_dict": loaded,
    "pickle": pickled,
    "requires_grad_": lambda layer: layer.requires_grad_(True),
    "deepcopy": copy.deepcopy,
    "deepcopy of a pickle": lambda layer: copy.deepcopy(pickled(layer)),
    "copy of a parameter": lambda layer: torch.nn.ParameterDict({"weight": copy.copy(layer.weight)}),
    "AveragedModel": averaged,
    "swap": swapped,
    "spawn": sent,
    "kept variables": lambda layer: torch.nn.ParameterDict(layer.state_dict(keep_vars=True)),
}
LOSES = {"to_empty": emptied, "assign": lambda layer: loaded(layer, assign=True)}


def trained(optimiser, weight, steps=20):
    for step in range(steps):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)).to(weight)
        optimiser.step()


@pytest.mark.parametrize("way", KEEPS)
@pytest.mark.parametrize("kind", [lut.UnitarySGD, lut.UnitaryAdam])
def test_mark_stays_and_training_stays_on_the_manifold(kind, way):
    kept = KEEPS[way](marked_layer())
    assert lut.is_marked(kept.weight)
    trained(kind(kept.parameters(), lr=0.1), kept.weight)
    assert lu.unitarity_defect(kept.weight.detach()) < 1e-5


@pytest.mark.parametrize("way", LOSES)
def test_mark_is_lost_where_the_documentation_says_so_and_nothing_moves(way):
    layer = LOSES[way](marked_layer())
    assert not lut.is_marked(layer.weight)
    before, optimiser = layer.weight.detach().clone(), lut.UnitarySGD(layer.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="mark_unitary"):
        trained(optimiser, layer.weight)
    assert torch.equal(layer.weight, before)
    lut.mark_unitary(layer.weight)
    trained(optimiser, layer.weight)
    assert lu.unitarity_defect(layer.weight.detach()) < 1e-5


def test_a_swap_below_an_optimiser_leaves_its_parameters_unitary():
    layer = marked_layer()
    optimiser = lut.UnitarySGD(layer.parameters(), lr=0.1)
    trained(optimiser, layer.weight, 3)
    layer.weight.grad = None
    with swapping():
        loaded(layer.to(torch.float64))
    trained(optimiser, layer.weight, 3)
    assert layer.weight.dtype == torch.float64
    assert lu.unitarity_defect(layer.weight.detach()) < 1e-5


def test_files_with_marked_parameters_are_read_as_weights_only():
    buffer = io.BytesIO()
    torch.save({"weight": marked_layer().weight}, buffer)
    buffer.seek(0)
    assert lut.is_marked(torch.load(buffer, weights_only=True)["weight"])


def test_a_copy_of_a_capturing_layer_captures_and_is_trained():
    layer = copy.deepcopy(lut.capture_factors(torch.nn.Linear(4, 4)))
    torch.nn.init.orthogonal_(layer.weight)
    optimiser = lut.UnitarySGD(layer.parameters(), lr=0.1)
    layer(torch.ones(2, 4)).square().sum().backward()
    assert layer.weight.grad is None
    optimiser.step()
    assert lu.unitarity_defect(layer.weight.detach()) < 1e-5


def test_a_marked_parameter_is_one_of_torch_in_all_else():
    layer = torch.nn.Linear(3, 3, bias=False)
    marked, x = copy.deepcopy(layer), torch.ones(2, 3)
    lut.mark_unitary(marked.weight)
    assert isinstance(marked.weight, torch.nn.Parameter)
    assert type(marked.weight.detach()) is type(marked.weight + 1) is torch.Tensor
    assert type(next(iter(marked.state_dict().values()))) is torch.Tensor
    for run in (
        lambda layer: layer(x),
        lambda layer: torch.compile(layer, fullgraph=True, backend="aot_eager")(x),
        lambda layer: torch.export.export(layer, (x,)).module()(x),
        lambda layer: torch.func.vmap(lambda row: torch.func.functional_call(layer, {}, row))(x),
    ):
        assert torch.equal(run(marked), run(layer))


def test_the_kernels_see_the_memory_of_a_marked_parameter():
    weight = marked_layer().weight
    with torch.no_grad():
        assert numpy_view(weight).ctypes.data == weight.data_ptr()
        assert values_are_at_hand(weight)


@pytest.mark.parametrize(
    ("parameter", "error", "word"),
    [
        (torch.ones(3, 0), ValueError, "m, n ≥ 1"),
        (torch.ones(3), ValueError, "add the missing axes"),
        (torch.ones(3, 3, dtype=torch.int64), TypeError, "dtype"),
        ([[1.0]], TypeError, "list"),
    ],
)
def test_what_cannot_be_moved_is_refused(parameter, error, word):
    with pytest.raises(error, match=word):
        lut.mark_unitary(parameter)


def test_missing_torch_is_named_with_the_command_that_installs_it():
    code = "import sys; sys.modules['torch'] = None; import lowrank_unitary; import lowrank_unitary.torch"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "ImportError: lowrank_unitary.torch needs torch, which is not installed: pip install torch"
    )

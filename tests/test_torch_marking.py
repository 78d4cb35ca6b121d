"""What is moved as unitary, what keeps the mark, and what happens without torch."""

import copy
import io
import subprocess
import sys

import pytest
import torch

import lowrank_unitary.torch as lut


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


KEEPS = {
    "module.to": lambda layer: layer.to(torch.float64),
    "load_state_dict": loaded,
    "pickle": pickled,
    "requires_grad_": lambda layer: layer.requires_grad_(False),
}
LOSES = {"deepcopy": copy.deepcopy, "assign": lambda layer: loaded(layer, assign=True)}


@pytest.mark.parametrize("way", KEEPS)
def test_mark_stays(way):
    assert lut.is_marked(KEEPS[way](marked_layer()).weight)


@pytest.mark.parametrize("way", LOSES)
def test_mark_is_lost_where_the_documentation_says_so(way):
    assert not lut.is_marked(LOSES[way](marked_layer()).weight)


@pytest.mark.parametrize(
    ("parameter", "error", "word"),
    [
        (torch.ones(3, 4), ValueError, "square"),
        (torch.ones(3), ValueError, "square"),
        (torch.ones(3, 3, dtype=torch.int64), TypeError, "dtype"),
        ([[1.0]], TypeError, "list"),
    ],
)
def test_what_cannot_be_moved_is_refused(parameter, error, word):
    with pytest.raises(error, match=word):
        lut.mark_unitary(parameter)


def test_missing_torch_is_named_with_the_command_that_installs_it():
    code = "import sys; sys.modules['torch'] = None; import lowrank_unitary; import lowrank_unitary.torch"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == (
        "ImportError: lowrank_unitary.torch needs torch, which is not installed: pip install torch"
    )

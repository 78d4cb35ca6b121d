"""A weight times a trainable low-rank rotation."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

import lowrank_unitary as lu
import lowrank_unitary.torch as lut
from lowrank_unitary import reference
from lowrank_unitary._array import array_namespace, tolerance
from lowrank_unitary.testing import assert_unitary

XP = array_namespace(torch.zeros(1))
UPDATES = ("geodesic", "cayley", "polar")


@pytest.fixture(params=UPDATES)
def update(request):
    return request.param


@pytest.fixture(params=[torch.float64, torch.complex128], ids=str)
def dtype(request):
    return request.param


class Product(torch.nn.Module):
    """x Wᵀ, with a weight of any dtype."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x):
        return x @ self.weight.mT


def rotated(update="geodesic", n=6, m=6, rank=2, dtype=torch.float64):
    """A layer that has been trained for a while, and the weight that it has started from."""
    U = lu.random_unitary(n, rng=0, xp=torch, dtype=dtype)
    weight = U if m == n else torch.randn(m, n, dtype=dtype, generator=torch.Generator().manual_seed(0))
    layer = lut.low_rank_unitary(Product(weight.clone()), rank=rank, update=update, seed=1)
    descent = torch.optim.SGD(trainable(layer), lr=0.05)
    for _ in range(5):
        descent.zero_grad()
        torch.sum(torch.abs(layer.weight - torch.eye(m, n)) ** 2).backward()
        descent.step()
    return layer, weight


def trainable(layer):
    return [p for p in layer.parameters() if p.requires_grad]


def factors(layer):
    rotation = layer.parametrizations.weight[0]
    return rotation.left.detach().numpy(), rotation.right.detach().numpy()


def bound(weight, rank=2):
    return tolerance(XP, weight.dtype, weight.shape[-1], rank, scale=float(torch.linalg.norm(weight)))


def test_it_starts_exactly_at_the_weight_with_gradients_that_are_not_zero(update, dtype):
    U = lu.random_unitary(5, rng=0, xp=torch, dtype=dtype)
    layer = lut.low_rank_unitary(Product(U.clone()), rank=2, update=update)
    assert torch.equal(layer.weight, U)
    torch.sum(torch.abs(layer.weight - torch.eye(5)) ** 2).backward()
    assert torch.linalg.norm(layer.parametrizations.weight[0].left.grad) > 0.1
    assert [p.shape for p in trainable(layer)] == [(5, 2), (5, 2)]


def test_the_weight_is_that_of_the_dense_definition(update, dtype):
    layer, weight = rotated(update, dtype=dtype)
    left, right = factors(layer)
    eye = np.eye(len(left))
    if update == "polar":
        dense = reference.polar(eye, left, right)
    else:
        dense = reference.transport(eye, left, right, "cayley" if update == "cayley" else "geodesic")
    expected = torch.from_numpy((reference.extended(weight.numpy()) @ dense).astype(weight.numpy().dtype))
    assert torch.linalg.norm(weight - expected) > 0.1
    assert torch.linalg.norm(layer.weight.detach() - expected) < bound(weight)


def test_training_lowers_the_loss_and_keeps_the_weight_unitary(update, dtype):
    layer, weight = rotated(update, dtype=dtype)
    assert_unitary(layer.weight.detach())
    eye = torch.eye(len(weight))
    assert torch.linalg.norm(layer.weight.detach() - eye) < torch.linalg.norm(weight - eye) - 0.1


@pytest.mark.parametrize("shape", [(3, 6), (9, 6)])
def test_singular_values_of_a_rectangular_weight_stay(shape, update):
    m, n = shape
    layer, weight = rotated(update, n, m)
    assert torch.linalg.norm(layer.weight.detach() - weight) > 0.1
    before, after = (torch.linalg.svdvals(w.detach()) for w in (weight, layer.weight))
    assert torch.linalg.norm(before - after) < bound(weight)


@pytest.mark.gate
@pytest.mark.parametrize("trained", [False, True])
def test_first_and_second_derivatives_match_finite_differences(trained, update, dtype):
    layer, weight = rotated(update, n=3, m=3, dtype=dtype)
    rotation = layer.parametrizations.weight[0]
    left, right = (p.detach().requires_grad_() for p in (rotation.left, rotation.right))
    if not trained:
        left = torch.zeros_like(left, requires_grad=True)

    def value(left, right):
        return torch.func.functional_call(rotation, {"left": left, "right": right}, (weight,))

    assert torch.autograd.gradcheck(value, (left, right))
    # Along random directions: the whole of it takes seconds.
    assert torch.autograd.gradgradcheck(value, (left, right), fast_mode=True)


def test_removing_it_leaves_the_weight(dtype):
    layer, _ = rotated(dtype=dtype)
    expected = layer.weight.detach().clone()
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    assert isinstance(layer.weight, torch.nn.Parameter)
    # Without gradients the core may be the other one.
    assert torch.linalg.norm(layer.weight.detach() - expected) < bound(expected)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_an_assigned_weight_is_kept(update, dtype):
    layer, _ = rotated(update, dtype=dtype)
    other = lu.random_unitary(6, rng=9, xp=torch, dtype=dtype)
    layer.weight = other
    assert torch.linalg.norm(layer.weight.detach() - other) < bound(other)
    assert not layer.parametrizations.weight.original.requires_grad


def test_state_dict_carries_the_rotation(update):
    layer, weight = rotated(update)
    fresh = lut.low_rank_unitary(Product(torch.zeros_like(weight)), rank=2, update=update)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.weight, layer.weight)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: layer.to(torch.float32).to(torch.float64)])
def test_copies_and_conversions_stay_frozen_and_trainable(copied):
    layer, _ = rotated()
    before = layer.weight.detach().clone()
    other = copied(layer)
    assert len(trainable(other)) == 2
    # The conversion has rounded to single precision.
    rounding = tolerance(XP, torch.float32, 6, 2)
    assert torch.linalg.norm(other.weight.detach() - before) < rounding


def test_seeds_give_different_orthonormal_starts():
    starts = []
    for seed in (0, 0, 1):
        layer = lut.low_rank_unitary(torch.nn.Linear(6, 3), rank=2, seed=seed)
        starts.append(layer.parametrizations.weight[0].right.detach())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert torch.linalg.norm(starts[0].mT @ starts[0] - torch.eye(2)) < tolerance(XP, torch.float32, 6, 2)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"rank": 7}, ValueError, "rank"),
        ({"update": "line"}, ValueError, "update"),
        ({"name": "wait"}, AttributeError, "wait"),
        ({"name": "bias"}, ValueError, "bias"),
    ],
)
def test_arguments_out_of_range_are_refused(options, error, word):
    with pytest.raises(error, match=word):
        lut.low_rank_unitary(torch.nn.Linear(6, 6), **options)


def test_a_weight_that_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"weight must have shape \(m, n\)"):
        lut.low_rank_unitary(torch.nn.Conv2d(8, 8, 3), rank=1)

"""Gradients captured in factors: the same training as from dense ones, and what is gathered when."""

import copy
import io

import pytest
import torch

import lowrank_unitary as lu
import lowrank_unitary.torch as lut
from lowrank_unitary._array import array_namespace, tolerance
from lowrank_unitary.testing import assert_body_factors
from lowrank_unitary.torch import capture

XP = array_namespace(torch.zeros(1))
FIELDS = (torch.float64, torch.complex128)


@pytest.fixture(params=FIELDS, ids=str)
def dtype(request):
    return request.param


def start(n, dtype=torch.float64):
    return torch.nn.Parameter(lu.random_unitary(n, rng=0, xp=torch, dtype=dtype))


def samples(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dense_linear(x, weight):
    return x @ weight.mT


def recurrent_loss(linear, U, inputs):
    """Over time steps (T, batch, n), with a nonlinearity that keeps the phase of complex numbers."""
    h = torch.zeros_like(inputs[0])
    for x in inputs:
        z = linear(h, U) + x
        h = z / torch.sqrt(1 + torch.abs(z) ** 2)
    return torch.mean(torch.abs(h[..., ::2]) ** 2)


def body_gradient(U):
    left, right = lut.captured_factors(U)
    return left @ right.mH


def close(one, other, U, scale=1.0):
    """Sums over as many samples and time steps as n: the bound of a step whose norm is that of the result."""
    scale = max(scale, float(torch.linalg.norm(other.detach())))
    return torch.linalg.norm(one - other) < tolerance(XP, U.dtype, U.shape[-1], scale=scale)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (lut.UnitarySGD, {}),
        (lut.UnitarySGD, {"momentum": 0.9, "nesterov": True}),
        (lut.UnitarySGD, {"update": "polar"}),
        (lut.UnitaryAdam, {}),
    ],
)
# From rank 4 on both ways have as many samples as rows.
@pytest.mark.parametrize("rank", [4, 8])
def test_captured_training_is_that_from_the_dense_gradient(kind, options, rank, dtype):
    n, results = 8, []
    inputs = samples(6, 5, n, dtype=dtype)
    for linear in (lut.unitary_linear, dense_linear):
        U = start(n, dtype)
        descent = kind([U], lr=0.05, rank=rank, unitary=True, **options)
        for _ in range(3):
            descent.zero_grad()
            recurrent_loss(linear, U, inputs).backward()
            descent.step()
        results.append(U.detach())
    assert torch.linalg.norm(results[0] - start(n, dtype).detach()) > 1e-3
    # Adam divides by root mean squares of 1e-2 and less: errors of gradients count a hundred times.
    assert close(*results, U, scale=100.0)


def test_captured_factors_are_those_of_the_gradient(dtype):
    U, x = start(7, dtype), samples(5, 7, dtype=dtype).requires_grad_()
    y = lut.unitary_linear(x, U)
    delta = samples(5, 7, dtype=dtype, seed=1)
    y.backward(delta)
    assert torch.equal(y, dense_linear(x, U))
    assert_body_factors(U.detach(), lu.LowRankFactors(delta.mT, x.detach().mT), lut.captured_factors(U))
    assert torch.equal(x.grad, delta @ U.detach().conj())
    assert U.grad is None


def test_factors_add_up_over_uses_and_backward_passes(dtype):
    U = start(6, dtype)
    inputs = samples(4, 3, 6, dtype=dtype)
    recurrent_loss(lut.unitary_linear, U, inputs).backward()
    recurrent_loss(lut.unitary_linear, U, 2 * inputs).backward()
    recurrent_loss(dense_linear, U, inputs).backward()
    recurrent_loss(dense_linear, U, 2 * inputs).backward()
    assert lut.captured_factors(U).left.shape == (6, 2 * 4 * 3)
    assert close(body_gradient(U), U.detach().mH @ U.grad, U)


def test_memory_of_factors_is_bounded_and_nothing_is_lost(dtype):
    U = start(4, dtype)
    x = samples(20, 4, dtype=dtype)
    for _ in range(5):
        (torch.abs(lut.unitary_linear(x, U)) ** 4).sum().backward()
        (torch.abs(dense_linear(x, U)) ** 4).sum().backward()
        gathered = getattr(U, capture._FACTORS)
        assert gathered.columns <= capture._MOST * 4
    assert gathered.total is not None
    assert close(body_gradient(U), U.detach().mH @ U.grad, U)


@pytest.mark.parametrize("shape", [(7,), (1, 7), (2, 3, 7), (0, 7)])
def test_any_number_of_leading_axes(shape, dtype):
    U, x = start(7, dtype), samples(*shape, dtype=dtype)
    y = lut.unitary_linear(x, U)
    y.abs().square().sum().backward()
    assert y.shape == x.shape
    recurrent_loss(dense_linear, U, x[None])
    torch.sum(dense_linear(x, U).abs() ** 2).backward()
    if x.numel():
        assert close(body_gradient(U), U.detach().mH @ U.grad, U)
    else:
        assert lut.captured_factors(U) is None


def test_nothing_is_captured_where_nothing_is_recorded():
    U, x = start(3), samples(2, 3)
    with torch.no_grad():
        assert not lut.unitary_linear(x, U).requires_grad
    U.requires_grad_(False)
    lut.unitary_linear(x.requires_grad_(), U).sum().backward()
    assert x.grad is not None
    assert lut.captured_factors(U) is None


def test_captured_factors_hold_no_graph():
    U, x = start(3), samples(2, 3).requires_grad_()
    lut.unitary_linear(torch.sin(x), U).sum().backward()
    assert not any(part.requires_grad for part in lut.captured_factors(U))


@pytest.mark.parametrize("act", ["step", "zero_grad"])
def test_optimisers_clear_what_they_took(act):
    U = start(3)
    descent = lut.UnitarySGD([U], lr=0.1)
    lut.unitary_linear(samples(2, 3), U).sum().backward()
    getattr(descent, act)()
    assert lut.captured_factors(U) is None
    assert torch.equal(U, start(3)) == (act == "zero_grad")


def test_a_penalty_beside_a_captured_layer_counts(dtype):
    x, results = samples(5, 4, dtype=dtype), []
    for linear in (lut.unitary_linear, dense_linear):
        U = start(4, dtype)
        descent = lut.UnitarySGD([U], lr=0.02, rank=4, unitary=True)
        loss = torch.sum(torch.abs(linear(x, U)) ** 4) + torch.sum(torch.abs(U) ** 4)
        loss.backward()
        descent.step()
        results.append(U.detach())
    assert close(*results, U)


def test_second_derivatives_are_refused():
    U, x = start(3), samples(2, 3).requires_grad_()
    y = torch.sum(lut.unitary_linear(x, U) ** 2)
    (gradient,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_functions_capture():
    U, x = start(3), samples(2, 3)
    compiled = torch.compile(lambda x: torch.sin(lut.unitary_linear(2 * x, U)).sum(), backend="eager")
    compiled(x).backward()
    torch.sin(dense_linear(2 * x, U)).sum().backward()
    assert close(body_gradient(U), U.detach().mH @ U.grad, U)


def test_autocast_widens_what_is_captured():
    U = torch.nn.Parameter(torch.eye(3))
    x = samples(2, 3, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = lut.unitary_linear(x, U)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad.dtype == torch.float32
    assert {part.dtype for part in lut.captured_factors(U)} == {torch.float32}


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_computes_the_same_and_captures(bias):
    layer = torch.nn.Linear(5, 5, bias=bias, dtype=torch.float64)
    twin = copy.deepcopy(layer)
    x = samples(3, 2, 5)
    assert lut.capture_factors(layer) is layer
    y, expected = layer(x), twin(x)
    assert close(y, expected, layer.weight)
    (y**2).sum().backward()
    (expected**2).sum().backward()
    assert close(body_gradient(layer.weight), layer.weight.detach().mH @ twin.weight.grad, layer.weight)
    if bias:
        assert close(layer.bias.grad, twin.bias.grad, layer.weight)


def pickled(layer):
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_of_a_layer_capture_for_themselves(copied):
    layer = lut.capture_factors(torch.nn.Linear(3, 3))
    layer(torch.ones(2, 3)).sum().backward()
    other = copied(layer)
    assert lut.captured_factors(other.weight) is None
    other(torch.ones(4, 3)).sum().backward()
    assert lut.is_marked(other.weight)
    assert lut.captured_factors(other.weight).left.shape == (3, 4)
    assert lut.captured_factors(layer.weight).left.shape == (3, 2)


@pytest.mark.parametrize(
    ("module", "error", "word"),
    [
        (torch.nn.LazyLinear(3), TypeError, "torch.nn.Linear as it is"),
        (torch.nn.Bilinear(3, 3, 3), TypeError, "unitary_linear"),
    ],
)
def test_modules_that_cannot_capture_are_refused(module, error, word):
    with pytest.raises(error, match=word):
        lut.capture_factors(module)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_rectangular_layers_capture_the_gradient_itself(shape):
    weight = lu.random_unitary(*shape, xp=torch, dtype=torch.float64, rng=0)
    layer = torch.nn.Linear(shape[1], shape[0], bias=False)
    layer.weight = torch.nn.Parameter(weight.clone())
    x = samples(7, shape[1])
    plain = torch.nn.Parameter(weight.clone())
    for model in (lut.capture_factors(layer), lambda x: dense_linear(x, plain)):
        model(x).pow(3).sum().backward()
    factors = lut.captured_factors(layer.weight)
    assert isinstance(factors, lu.LowRankFactors)
    torch.testing.assert_close(factors.dense(), plain.grad)
    norm = lut.clip_grad_norm_([layer.weight], 1.0)
    torch.testing.assert_close(norm, torch.linalg.norm(plain.grad))
    # At full rank the captured and the dense gradient give the same steps.
    plain.grad = plain.grad / norm
    for parameter in (layer.weight, plain):
        lut.UnitarySGD([parameter], lr=0.1, rank=3, unitary=True).step()
    torch.testing.assert_close(layer.weight, plain, atol=1e-6, rtol=0)


def test_a_stack_of_weights_is_refused():
    with pytest.raises(ValueError, match="one matrix"):
        lut.unitary_linear(torch.ones(2, 3), torch.nn.Parameter(torch.ones(2, 3, 3)))


@pytest.mark.parametrize(
    "weight",
    [
        lambda U: torch.nn.Parameter(torch.stack([U, U]))[0],
        lambda U: torch.nn.Parameter(U).mT,
        lambda U: torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(5, 5)).weight,
    ],
)
def test_a_weight_behind_which_factors_would_be_lost_is_refused(weight):
    with pytest.raises(ValueError, match="must be a parameter itself"):
        lut.unitary_linear(samples(3, 5), weight(start(5, torch.float32).detach()))


def test_what_was_captured_does_not_change_with_the_memory_it_came_from(dtype):
    U, buffer = start(6, dtype), torch.zeros(4, 6, dtype=dtype)
    dense = start(6, dtype)
    for seed in range(2):
        with torch.no_grad():
            buffer.copy_(samples(4, 6, dtype=dtype, seed=seed))
        x = buffer.clone().requires_grad_()
        (dense_linear(x, dense) - 1).abs().pow(2).sum().backward()
        # A hook that writes to the gradient on its way, and a buffer that is filled anew.
        x = buffer.detach().requires_grad_()
        z = x * 1
        z.register_hook(lambda grad: grad.mul_(0.1))
        (lut.unitary_linear(z, U) - 1).abs().pow(2).sum().backward()
        (lut.unitary_linear(buffer, U) - 1).abs().pow(2).sum().backward()
    left, right = lut.captured_factors(U)
    bound = 100 * tolerance(XP, dtype, 6)
    assert torch.linalg.norm(left @ right.mH - 2 * U.detach().mH @ dense.grad) <= bound


# Clipping.


def backward_of_both(U, W, count, dtype, penalty, linear):
    x = samples(count, 6, dtype=dtype)
    loss = (torch.abs(linear(x, U) + W) ** 4).sum()
    if penalty:
        loss = loss + (torch.abs(U[0] - 1) ** 2).sum()
    loss.backward()


@pytest.mark.parametrize("count", [1, 4, 6, 60])
@pytest.mark.parametrize("penalty", [False, True])
@pytest.mark.parametrize("max_norm", [0.0, 1e-2, 1e9, torch.inf])
def test_clipping_is_that_of_torch_with_the_dense_gradient(count, penalty, max_norm, dtype):
    made = []
    for linear, clip in (
        (lut.unitary_linear, lut.clip_grad_norm_),
        (dense_linear, torch.nn.utils.clip_grad_norm_),
    ):
        U, W, idle = start(6, dtype), torch.nn.Parameter(samples(6, dtype=dtype, seed=1)), start(2, dtype)
        backward_of_both(U, W, count, dtype, penalty, linear)
        norm = clip([U, W, idle], max_norm)
        made.append((U, W, norm))
    (U, W, norm), (V, X, expected) = made
    found = torch.zeros_like(V) if U.grad is None else U.grad
    found = found + U.detach() @ body_gradient(U)
    scale = float(expected)
    assert abs(float(norm) - scale) < scale * tolerance(XP, dtype, 6)
    for x, y in ((found, V.grad), (W.grad, X.grad)):
        assert torch.linalg.norm(x - y) < min(scale, max_norm) * 2 * tolerance(XP, dtype, 6) + 1e-300


def test_clipping_takes_ordinary_parameters_as_torch_does():
    W, X = (torch.nn.Parameter(samples(3, 2)) for _ in range(2))
    W.grad, X.grad = samples(3, 2, seed=1), samples(3, 2, seed=1)
    assert torch.equal(lut.clip_grad_norm_(W, 0.1), torch.nn.utils.clip_grad_norm_(X, 0.1))
    assert torch.equal(W.grad, X.grad)
    assert lut.clip_grad_norm_([torch.nn.Parameter(W.detach())], 1.0) == 0


def test_clipping_may_raise_for_a_norm_that_is_not_finite():
    U = start(3)
    (torch.inf * lut.unitary_linear(samples(2, 3), U)).sum().backward()
    with pytest.raises(RuntimeError, match="not finite"):
        lut.clip_grad_norm_([U], 1.0, error_if_nonfinite=True)
    for wrong, error in (
        ("x", TypeError),
        (None, TypeError),
        (1j, TypeError),
        (-1.0, ValueError),
        (torch.nan, ValueError),
    ):
        with pytest.raises(error, match="max_norm must be"):
            lut.clip_grad_norm_([U], wrong)

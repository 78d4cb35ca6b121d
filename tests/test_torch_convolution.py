"""Convolution layers of torch: the same results as plain layers, isometries, moved by captured factors."""

import copy
import io

import numpy as np
import pytest
import torch
from profiles import covering, of_profile

import lowrank_unitary as lu
import lowrank_unitary.torch as lut
from lowrank_unitary._array import array_namespace, tolerance

XP = array_namespace(torch.zeros(1))
LAYERS = {1: lut.UnitaryConv1d, 2: lut.UnitaryConv2d, 3: lut.UnitaryConv3d}
# Channels, torus, stride, groups.
SHAPES = [
    (2, (6,), (1,), 1), (2, (5,), (1,), 1), (4, (9,), (3,), 2), (3, (4, 5), (1, 1), 1),
    (2, (4, 6), (2, 2), 1), (4, (6, 9), (2, 3), 2), (4, (3, 4), (1, 1), 4), (2, (2, 3, 4), (1, 1, 1), 1),
    (2, (2, 4, 2), (1, 2, 2), 2), (2, (5, 4), (1, 4), 1), (3, (1,), (1,), 1), (3, (2, 2), (1, 1), 1),
]  # fmt: skip
SHORT = (4, (6, 9), (2, 3), 2)


def made(shape, dtype=torch.float64, init="haar", **options):
    channels, torus, stride, groups = shape
    return LAYERS[len(torus)](
        channels, channels * int(np.prod(stride)), torus,
        stride=stride, groups=groups, init=init, dtype=dtype, rng=0, **options,
    )  # fmt: skip


def signals(shape, dtype=torch.float64, samples=(3,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*samples, shape[0], *shape[1], dtype=dtype, generator=generator)


def with_bias(layer):
    torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(5))
    return layer


def close(one, other, dtype=torch.float64, scale=1.0):
    """Sums over some channels, entries of kernels of full width, and transforms."""
    bound = tolerance(XP, dtype, 24, scale=scale * max(1.0, float(torch.linalg.norm(other.detach()))))
    return float(torch.linalg.norm(one.detach() - other.detach())) <= bound


def body_gradients(layer):
    parts = (layer.real, layer.complex)
    return [lut.captured_factors(part).dense() for part in parts if part is not None]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_is_the_plain_layer_that_it_exports(shape):
    layer, x = with_bias(made(shape)), signals(shape)
    plain = layer.to_conv()
    assert type(plain) is getattr(torch.nn, f"Conv{len(shape[1])}d")
    assert layer(x).shape == plain(x).shape
    assert close(layer(x), plain(x))


@pytest.mark.parametrize("init", ["identity", "delta", "haar"])
@pytest.mark.parametrize(("shape", "dtype"), covering(SHAPES, [torch.float64, torch.complex128]), ids=str)
def test_layer_is_an_isometry_with_its_inverse(shape, dtype, init):
    layer, x = made(shape, dtype, init), signals(shape, dtype)
    with torch.no_grad():
        y = layer(x)
        assert y.dtype == dtype
        assert close(torch.linalg.norm(y), torch.linalg.norm(x))
        with_bias(layer)
        assert close(layer.inverse(layer(x)), x)


def test_initial_layers():
    shape = SHAPES[3]
    x = signals(shape)
    assert close(made(shape, init="identity")(x), x)
    kernel = made(shape, init="delta").to_conv().weight.detach()
    assert close(kernel[..., 1, 2], lu.random_unitary(3, rng=0, xp=torch, dtype=torch.float64))
    assert close(torch.linalg.norm(kernel[..., 1, 2]), torch.linalg.norm(kernel))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_captured_gradient_is_that_of_the_kernel_of_the_plain_layer(shape):
    layer, x = with_bias(made(shape)), signals(shape).requires_grad_()
    plain, z = layer.to_conv(), x.detach().clone().requires_grad_()
    torch.sin(layer(x)).sum().backward()
    torch.sin(plain(z)).sum().backward()
    assert close(x.grad, z.grad, scale=10.0)
    assert close(layer.bias.grad, plain.bias.grad, scale=10.0)
    if layer.stride != (1,) * len(layer.stride):
        return
    groups = shape[3]
    kernel = plain.weight.grad.reshape(groups, -1, *plain.weight.shape[1:])
    expected = lu.spectrum_of_kernel(kernel if groups > 1 else kernel[0], torus=shape[1])
    pulled = [U.mH @ G for U, G in zip(layer.spectrum(), expected, strict=True) if U.numel()]
    for one, other in zip(body_gradients(layer), pulled, strict=True):
        assert close(one, other, scale=10.0)
    assert all(part is None or part.grad is None for part in (layer.real, layer.complex))


# More channels out than in, and fewer; with strides, groups and complex signals.
RECTANGULAR = [(2, 5, (4, 3), 1, 1), (5, 2, (6,), 1, 1), (2, 12, (4, 6), (2, 1), 2), (4, 2, (2, 3, 2), 1, 2)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("case", RECTANGULAR, ids=str)
def test_other_numbers_of_channels_make_an_isometry_one_way(case, dtype):
    fan_in, fan_out, torus, stride, groups = case
    layer = LAYERS[len(torus)](
        fan_in, fan_out, torus, stride=stride, groups=groups, init="haar", dtype=dtype, bias=False, rng=0
    )
    x = signals((fan_in, torus), dtype)
    target = torch.randn(layer(x).shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    plain, y = layer.to_conv(), layer(x)
    assert close(y, plain(x))
    with torch.no_grad():
        if fan_out > fan_in:
            assert close(torch.linalg.norm(y), torch.linalg.norm(x))
            assert close(layer.inverse(y), x)
        else:
            assert close(layer(layer.inverse(y)), y)
    # The captured gradient is that of the kernel of the plain layer, at every frequency.
    for model in (layer, plain):
        (torch.linalg.norm(model(x) - target) ** 2).backward()
    if stride == 1:
        kernel = plain.weight.grad.reshape(groups, -1, *plain.weight.shape[1:])
        expected = lu.spectrum_of_kernel(kernel, torus=torus)
        for part, dense in zip((layer.real, layer.complex), expected, strict=True):
            if part is not None:
                assert isinstance(lut.captured_factors(part), lu.LowRankFactors)
                dense = dense if groups > 1 else dense[0]
                assert close(lut.captured_factors(part).dense(), dense, dtype)
    # And moves the layer downhill.
    optimiser = lut.UnitarySGD(layer.parameters(), lr=1e-3, rank=1)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = torch.linalg.norm(layer(x) - target) ** 2
        losses.append(float(loss.detach()))
        loss.backward()
        optimiser.step()
    assert np.all(np.diff(losses) < 0)
    assert lu.spectrum_defect(layer.spectrum()).max() < 1e-13


def test_captured_gradient_of_the_inverse_of_a_rectangular_layer():
    layer = lut.UnitaryConv1d(2, 3, 5, init="haar", bias=False, dtype=torch.float64, rng=0)
    y = signals((3, (5,)))
    weight = layer.to_conv().weight.detach().requires_grad_()
    # The adjoint of the plain layer, by its derivative.
    x = torch.zeros(3, 2, 5, dtype=torch.float64, requires_grad=True)
    out = torch.nn.functional.conv1d(torch.nn.functional.pad(x, (2, 2), mode="circular"), weight)
    (adjoint,) = torch.autograd.grad(torch.sum(out * y), x, create_graph=True)
    torch.sum(adjoint**3).backward()
    torch.sum(layer.inverse(y) ** 3).backward()
    expected = lu.spectrum_of_kernel(weight.grad, torus=(5,))
    for part, dense in zip((layer.real, layer.complex), expected, strict=True):
        assert close(lut.captured_factors(part).dense(), dense)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("inverse", [False, True])
def test_captured_gradient_is_that_of_the_entries_with_the_weights_of_the_kernel(inverse, dtype):
    layer = made(SHORT, dtype, bias=False)
    x = signals(SHORT, dtype)
    x = layer(x).detach() if inverse else x
    y = layer.inverse(x) if inverse else layer(x)
    (torch.abs(y) ** 4).sum().backward()
    spectrum = lu.Spectrum(*(part.clone().requires_grad_() for part in layer.spectrum()))
    there = x if inverse else lu.pixel_unshuffle(x, (2, 3))
    there = there.reshape(3, 2, 12, 3, 3)
    z = lu.convolve(there, spectrum, torus=(3, 3), adjoint=inverse)
    (torch.abs(z) ** 4).sum().backward()
    entries = lu.Spectrum(*(torch.zeros_like(p) if p.grad is None else p.grad for p in spectrum))
    gradient = lu.spectrum_gradient(entries, torus=(3, 3))
    pulled = [U.detach().mH @ G for U, G in zip(spectrum, gradient, strict=True) if U.numel()]
    for one, other in zip(body_gradients(layer), pulled, strict=True):
        assert close(one, other, scale=10.0)


@pytest.mark.parametrize("many", [False, True])
def test_factors_of_stacks_add_up_and_are_summed_beyond_a_limit(many):
    layer, shape = made(SHAPES[3], bias=False), SHAPES[3]
    # More than eight times as many samples as channels.
    x = signals(shape, samples=(20,) if many else (3,))
    for part in (x, 2 * x):
        layer(part).pow(4).sum().backward()
    together = lut.captured_factors(layer.complex)
    assert together.left.shape[-1] == (3 if many else 6)
    sums = body_gradients(layer)
    for parameter in layer.parameters():
        lut.UnitarySGD([parameter]).zero_grad()
    assert lut.captured_factors(layer.complex) is None
    layer(torch.cat([x, 2 * x])[:, None].squeeze(1)).pow(4).sum().backward()
    for one, other in zip(sums, body_gradients(layer), strict=True):
        assert close(one, other, scale=10.0)


def test_leading_axes_are_samples():
    layer, x = made(SHORT), signals(SHORT, samples=(2, 3))
    y = layer(x)
    assert y.shape == (2, 3, 24, 3, 3)
    assert close(y[1, 2], layer(x[1, 2]))
    y.pow(2).sum().backward()
    assert lut.captured_factors(layer.complex).left.shape == (2, 4, 12, 6)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (lut.UnitarySGD, {"lr": 0.1}),
        (lut.UnitarySGD, {"lr": 0.05, "momentum": 0.5}),
        (lut.UnitaryAdam, {"lr": 0.03}),
    ],
)
@pytest.mark.parametrize("shape", [SHAPES[3], SHORT], ids=str)
def test_optimisers_move_the_layer_towards_another(shape, kind, options):
    layer, target = made(shape, torch.float32, "identity"), made(shape, torch.float32, "delta")
    x = signals(shape, torch.float32, samples=(8,))
    wanted = target(x).detach()
    descent = kind(layer.parameters(), rank=2, **options)
    losses = []
    for _ in range(of_profile(quick=25, thorough=1000)):
        descent.zero_grad()
        losses.append(torch.mean((layer(x) - wanted) ** 2))
        losses[-1].backward()
        descent.step()
    assert losses[-1] < 0.9 * losses[0]
    assert float(lu.spectrum_defect(layer.spectrum()).max()) <= tolerance(XP, torch.float32, 12)
    assert layer.real.dtype == torch.float32


def test_step_of_the_optimiser_is_that_of_the_functions():
    shape = SHAPES[3]
    layer, x, target = made(shape, bias=False), signals(shape), signals(shape, seed=1)
    before = lu.Spectrum(*(part.clone() for part in layer.spectrum()))
    y = layer(x)
    (0.5 * (y - target) ** 2).sum().backward()
    lut.UnitarySGD(layer.parameters(), lr=0.01, rank=3, heal=0).step()
    gradient = lu.convolution_gradient(x, (y - target).detach(), torus=shape[1])
    after = lu.spectrum_step(before, gradient, 0.01, rank=3, heal=0, rng=0)
    for one, other in zip(layer.spectrum(), after, strict=True):
        assert close(one, other, scale=10.0)


# More than eight times as many samples as channels are summed up.
@pytest.mark.parametrize("samples", [3, 30])
def test_layers_of_one_shape_are_moved_as_each_of_them(samples):
    shape, results = SHAPES[3], []
    x = signals(shape, samples=(samples,))
    for together in (True, False):
        layers = [made(shape, bias=False), made(shape, init="delta", bias=False)]
        torch.sin(layers[1](layers[0](x))).sum().backward()
        for some in [layers] if together else [[layer] for layer in layers]:
            parameters = [part for layer in some for part in layer.parameters()]
            lut.UnitarySGD(parameters, lr=0.01, rank=3, heal=0, momentum=0.5).step()
        results.append([part for layer in layers for part in layer.spectrum()])
    assert all(close(one, other, scale=10.0) for one, other in zip(*results, strict=True))


def test_nothing_is_captured_where_nothing_is_recorded():
    layer, x = made(SHORT), signals(SHORT)
    with torch.no_grad():
        assert not layer(x).requires_grad
    layer.requires_grad_(False)
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert lut.captured_factors(layer.real) is None
    assert lut.captured_factors(layer.complex) is None


def test_state_dict_and_copies_carry_the_layer():
    layer, other = with_bias(made(SHORT)), made(SHORT, init="identity")
    x = signals(SHORT)
    assert list(layer.state_dict()) == ["real", "complex", "bias"]
    other.load_state_dict(layer.state_dict())
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for copied in (other, copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(copied(x), layer(x))
        assert lut.is_marked(copied.real)
        assert lut.is_marked(copied.complex)
        copied(x).sum().backward()
        lut.UnitarySGD(copied.parameters(), lr=0.1).step()
        assert not torch.equal(copied(x), layer(x))


@pytest.mark.parametrize(
    "cast",
    [
        lambda layer: layer.double(),
        lambda layer: layer.to(torch.float64),
        lambda layer: layer.to("cpu", torch.float64),
        lambda layer: torch.nn.Sequential(layer).double()[0],
    ],
)
def test_precision_of_both_stacks_changes_together(cast):
    layer = made(SHORT, torch.float32)
    before = layer.spectrum()
    values = [part.clone() for part in before]
    cast(layer)
    assert (layer.real.dtype, layer.complex.dtype) == (torch.float64, torch.complex128)
    assert lut.is_marked(layer.complex)
    for part, value in zip(layer.spectrum(), values, strict=True):
        assert torch.equal(part.to(value.dtype), value)
    assert layer(signals(SHORT)).dtype == torch.float64
    layer.float()
    assert layer.complex.dtype == torch.complex64


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_complex_layers_change_precision():
    layer = made(SHORT, torch.complex64).to(torch.complex128)
    assert layer.real is None
    assert layer.complex.dtype == torch.complex128
    assert made(SHORT, torch.complex64).double().complex.dtype == torch.complex128


def test_autocast_computes_in_the_precision_of_the_layer():
    layer, x = made(SHORT, torch.float32), signals(SHORT, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x.to(torch.bfloat16))
        y.sum().backward()
    assert y.dtype == torch.float32
    assert close(y, layer(x.to(torch.bfloat16).float()), torch.float32)


def test_nan_in_a_gradient_is_not_hidden():
    layer = made(SHORT)
    y = layer(signals(SHORT))
    y.backward(torch.full_like(y, torch.nan))
    lut.UnitarySGD(layer.parameters(), lr=0.1).step()
    assert all(bool(torch.isnan(part).all()) for part in layer.spectrum())


def test_clipping_sees_the_factors_of_stacks():
    layer = made(SHAPES[3], bias=False)
    layer(signals(SHAPES[3])).pow(4).sum().backward()
    total = sum(torch.linalg.norm(G) ** 2 for G in body_gradients(layer)).sqrt()
    assert close(lut.clip_grad_norm_(layer.parameters(), 1.0), total)
    assert close(sum(torch.linalg.norm(G) ** 2 for G in body_gradients(layer)), torch.ones(()), scale=1e7)


def test_layer_says_what_it_is():
    assert repr(made(SHORT, bias=False)) == (
        "UnitaryConv2d(4, 24, torus=(6, 9), stride=(2, 3), groups=2, bias=False)"
    )
    assert repr(made(SHAPES[0])) == "UnitaryConv1d(2, 2, torus=(6,))"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: made(SHORT)(signals((4, (12, 9)))), ValueError, r"input must have the torus \(6, 9\)"),
        (lambda: made(SHORT)(signals((3, (6, 9)))), ValueError, "input must have 4 channels"),
        (lambda: made(SHORT)(signals(SHORT).float()), TypeError, "input must be torch.float64"),
        (lambda: made(SHORT)(signals(SHORT).numpy()), TypeError, "input"),
        (lambda: made(SHORT).inverse(signals(SHORT)), ValueError, "input must have the torus"),
        (lambda: lut.UnitaryConv2d(4, 3, 4, groups=2), ValueError, "groups must divide out_channels"),
        (lambda: lut.UnitaryConv2d(2, 8, 5, stride=2), ValueError, "stride must divide"),
        (lambda: lut.UnitaryConv2d(2, 2, 4, groups=3), ValueError, "groups must divide"),
        (lambda: lut.UnitaryConv2d(2, 2, (4,)), ValueError, "torus must be .* tuple of 2"),
        (lambda: lut.UnitaryConv2d(2, 2, 4, init="dirac"), ValueError, "init must be one of"),
        (lambda: lut.UnitaryConv2d(2, 2, 4, bias=None), TypeError, "bias"),
        (lambda: lut.UnitaryConv2d(2, 2, 4, dtype=torch.float16), TypeError, "dtype"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_matrices_behind_operations_are_refused():
    layer = made(SHORT)
    moved = {name: part * 1 for name, part in layer.named_parameters()}
    with pytest.raises(ValueError, match="parameters themselves"):
        torch.func.functional_call(layer, moved, signals(SHORT))

"""Isometric convolutions on a torus: what they compute, what stays tied, and how they move."""

import itertools

import jax
import numpy as np
import pytest
import torch
from backends import at_once, on_every_backend
from cases import ct, normal
from profiles import covering, of_profile

import lowrank_unitary as lu
from lowrank_unitary._array import array_namespace, to_numpy, tolerance
from lowrank_unitary.convolution import step as step_module
from lowrank_unitary.convolution.frequencies import half_spectrum

# All parities, sizes of 1 and 2 among them, where no frequency or only few come in pairs.
TORI = [
    (4, 6), (5, 4), (4, 5), (3, 5), (1, 4), (2, 2), (1, 1),
    (2, 3, 4), (3, 3, 3), (4, 2, 2), (2, 3, 2, 3),
    *((size,) for size in range(1, 10)),
]  # fmt: skip
FIELDS = ("float64", "complex128")
C = 3


def close(one, other, dtype="float64", scale=1.0):
    """Sums of C products, between transforms whose errors grow as log N: the margin of the bound has both."""
    bound = tolerance(np, np.dtype(dtype), C, C, scale=scale * max(1.0, float(np.linalg.norm(other))))
    return np.linalg.norm(one - other) <= bound


def signal(torus, dtype="float64", channels=C, samples=(2,), seed=0):
    return normal(np.random.default_rng(seed), (*samples, channels, *torus), np.dtype(dtype))


def generic(torus, dtype="float64", shape=(C, C), seed=1):
    """A spectrum of no particular matrices."""
    real = np.dtype(dtype).kind == "f"
    R, P = (len(x) for x in lu.independent_frequencies(torus)) if real else (0, int(np.prod(torus)))
    rng = np.random.default_rng(seed)
    return lu.Spectrum(normal(rng, (R, *shape), np.float64), normal(rng, (P, *shape), np.complex128))


def every_frequency(spectrum, torus):
    """The matrices at all frequencies, in the order of fftn, from the definition of the pairs."""
    if not len(spectrum.real):
        return np.reshape(spectrum.complex, (*torus, *spectrum.complex.shape[1:]))
    every = np.full((*torus, *spectrum.real.shape[-2:]), np.nan, dtype=spectrum.complex.dtype)
    for places, part in zip(lu.independent_frequencies(torus), spectrum, strict=True):
        for f, matrix in zip(places, part, strict=True):
            every[tuple(f)] = matrix
            every[tuple(-f % np.array(torus))] = np.conj(matrix)
    return every


def direct(x, kernel, torus):
    """Circular correlation in space, entry by entry."""
    y = np.zeros((*x.shape[: -len(torus) - 1], kernel.shape[0], *torus), dtype=x.dtype)
    axes = tuple(range(-len(torus), 0))
    for j in itertools.product(*(range(width) for width in kernel.shape[2:])):
        shift = tuple((width - 1) // 2 - i for i, width in zip(j, kernel.shape[2:], strict=True))
        moved = np.roll(x, shift, axis=axes)
        y += np.moveaxis(np.tensordot(kernel[(..., *j)], moved, (1, -len(torus) - 1)), 0, -len(torus) - 1)
    return y


@pytest.mark.parametrize("torus", TORI, ids=str)
def test_independent_frequencies_are_one_of_each_pair_and_all_that_are_their_own_image(torus):
    own, pairs = ({tuple(map(int, f)) for f in part} for part in lu.independent_frequencies(torus))
    mirrored = {tuple(-i % size for i, size in zip(f, torus, strict=True)) for f in pairs}
    assert all(-2 * i % size == 0 for f in own for i, size in zip(f, torus, strict=True))
    assert own | pairs | mirrored == set(itertools.product(*map(range, torus)))
    assert len(own) + 2 * len(pairs) == np.prod(torus)


@pytest.mark.parametrize("xp", [torch, jax.numpy], ids=lambda xp: xp.__name__)
def test_independent_frequencies_are_the_same_on_every_namespace(xp):
    for one, other in zip(
        lu.independent_frequencies((4, 6), xp=xp), lu.independent_frequencies((4, 6)), strict=True
    ):
        assert array_namespace(one) is array_namespace(xp.ones(1))
        assert np.array_equal(np.asarray(one), other)


@pytest.mark.parametrize("torus", TORI, ids=str)
def test_every_place_of_the_half_spectrum_has_one_source(torus):
    half = half_spectrum(np, torus, None)
    places = np.concatenate([half.real, half.complex, half.mirrored])
    assert np.array_equal(places[half.source], np.arange(len(places)))


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize("torus", TORI, ids=str)
def test_convolution_is_a_product_at_every_frequency(torus, dtype):
    spectrum, x = generic(torus, dtype, (2, C)), signal(torus, dtype)
    axes = tuple(range(-len(torus), 0))
    y = lu.convolve(x, spectrum, torus=torus)
    transformed = np.fft.fftn(x, axes=axes)
    expected = np.einsum("...oi,bi...->bo...", every_frequency(spectrum, torus), transformed)
    assert y.dtype == x.dtype
    assert y.shape == (2, 2, *torus)
    assert close(y, np.fft.ifftn(expected, axes=axes))


@pytest.mark.parametrize(
    ("torus", "dtype"), covering([(4, 6), (5, 3), (7,), (8,), (2, 3, 4), (1,)], FIELDS), ids=str
)
def test_convolution_is_the_correlation_with_its_kernel_in_space(torus, dtype):
    spectrum, x = generic(torus, dtype, (2, C)), signal(torus, dtype)
    kernel = lu.kernel_of_spectrum(spectrum, torus=torus)
    assert kernel.dtype == x.dtype
    assert close(lu.convolve(x, spectrum, torus=torus), direct(x, kernel, torus), scale=10.0)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_spectrum_of_a_narrow_kernel_convolves_as_it_does(width):
    torus = (5, 4)
    kernel = normal(np.random.default_rng(0), (2, C, width, 3), np.float64)
    spectrum, x = lu.spectrum_of_kernel(kernel, torus=torus), signal(torus)
    assert close(lu.convolve(x, spectrum, torus=torus), direct(x, kernel, torus), scale=10.0)


@pytest.mark.parametrize("torus", [(5,), (4,), (5, 4), (4, 6), (2, 3, 4)], ids=str)
def test_kernel_is_the_weight_of_a_layer_of_torch_with_circular_padding(torus):
    spectrum, x = generic(torus, shape=(2, C)), signal(torus)
    Layer = getattr(torch.nn, f"Conv{len(torus)}d")
    layer = Layer(C, 2, torus, padding="same", padding_mode="circular", bias=False, dtype=torch.float64)
    layer.weight.data = torch.from_numpy(np.ascontiguousarray(lu.kernel_of_spectrum(spectrum, torus=torus)))
    with torch.no_grad():
        assert close(lu.convolve(x, spectrum, torus=torus), layer(torch.from_numpy(x)).numpy(), scale=10.0)


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize("torus", TORI, ids=str)
def test_kernel_and_spectrum_stand_for_each_other(torus, dtype):
    kernel = normal(np.random.default_rng(0), (2, C, *torus), np.dtype(dtype))
    spectrum = lu.spectrum_of_kernel(kernel, torus=torus)
    if dtype == "complex128":
        # A spectrum of complex signals says so by the absence of real matrices.
        assert len(spectrum.real) == 0
    assert all(part.flags.c_contiguous for part in spectrum)
    assert sum(part.view(np.float64).size for part in spectrum) == kernel.view(np.float64).size
    assert close(lu.kernel_of_spectrum(spectrum, torus=torus), kernel)


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize("torus", TORI, ids=str)
def test_convolution_by_unitary_matrices_is_an_isometry_and_the_adjoint_its_inverse(torus, dtype):
    spectrum = lu.random_spectrum(C, torus=torus, dtype=np.dtype(dtype), rng=0)
    x, z = signal(torus, dtype), signal(torus, dtype, seed=1)
    y = lu.convolve(x, spectrum, torus=torus)
    bound = tolerance(np, np.dtype(dtype), C, C)
    assert abs(np.linalg.norm(y) / np.linalg.norm(x) - 1.0) <= bound
    back = lu.convolve(z, spectrum, torus=torus, adjoint=True)
    assert abs(np.vdot(z, y) - np.vdot(back, x)) <= bound * np.linalg.norm(x) * np.linalg.norm(z)
    assert close(lu.convolve(y, spectrum, torus=torus, adjoint=True), x)


def test_adjoint_of_matrices_that_are_not_square():
    torus, spectrum = (5, 4), generic((5, 4), shape=(2, C))
    x, z = signal(torus), signal(torus, channels=2, seed=1)
    back = lu.convolve(z, spectrum, torus=torus, adjoint=True)
    assert back.shape == x.shape
    assert np.isclose(np.vdot(z, lu.convolve(x, spectrum, torus=torus)), np.vdot(back, x))


def correlate(x, kernel):
    """The whole layer in torch's own words."""
    torus = tuple(kernel.shape[2:])
    pads = [pad for size in reversed(torus) for pad in ((size - 1) // 2, size // 2)]
    function = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[len(torus)]
    return function(torch.nn.functional.pad(x, pads, mode="circular"), kernel)


@pytest.mark.parametrize("torus", [(6,), (5,), (4, 6), (5, 4), (3, 3), (2, 3, 4)], ids=str)
def test_gradient_is_that_of_the_whole_layer_with_respect_to_its_kernel(torus):
    spectrum = lu.random_spectrum(C, torus=torus, rng=0)
    kernel = torch.from_numpy(lu.kernel_of_spectrum(spectrum, torus=torus)).requires_grad_()
    x = torch.from_numpy(signal(torus)).requires_grad_()
    y = correlate(x, kernel)
    y.retain_grad()
    torch.sum(torch.sin(y) * torch.from_numpy(signal(torus, seed=2))).backward()
    expected = lu.spectrum_of_kernel(kernel.grad.numpy(), torus=torus)
    data = x.detach().numpy()
    ambient = lu.convolution_gradient(data, y.grad.numpy(), torus=torus)
    body = lu.convolution_body_gradient(data, x.grad.numpy(), torus=torus)
    for U, G, thin, pulled in zip(spectrum, expected, ambient, body, strict=True):
        assert close(thin.dense(), G, scale=10.0)
        assert close(pulled.dense(), ct(U) @ G, scale=10.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradient_of_the_entries_becomes_that_of_the_kernel(dtype):
    torus = (4, 5)
    spectrum = lu.random_spectrum(C, torus=torus, rng=0, xp=torch, dtype=dtype)
    spectrum = lu.Spectrum(*(part.requires_grad_() for part in spectrum))
    x = torch.from_numpy(signal(torus, str(dtype).removeprefix("torch.")))
    y = lu.convolve(x, spectrum, torus=torus)
    y.retain_grad()
    torch.sum(torch.abs(y) ** 4).backward()
    kept = [torch.zeros_like(part) if part.grad is None else part.grad for part in spectrum]
    entries = lu.spectrum_gradient(lu.Spectrum(*kept), torus=torus)
    thin = lu.convolution_gradient(x, y.grad, torus=torus)
    for one, other in zip(entries, thin, strict=True):
        assert close(one.numpy(), other.dense().numpy(), scale=10.0)


@pytest.mark.parametrize("dtype", FIELDS)
def test_groups_and_samples_are_a_loop(dtype):
    torus = (4, 5)
    spectrum = lu.random_spectrum(C, torus=torus, dtype=np.dtype(dtype), batch=(2, 2), rng=0)
    x = signal(torus, dtype, samples=(3, 2, 2))
    y = lu.convolve(x, spectrum, torus=torus)
    gradient = lu.convolution_body_gradient(x, y, torus=torus, groups=2)
    kernel = lu.kernel_of_spectrum(spectrum, torus=torus)
    for i, j in itertools.product(range(2), range(2)):
        one = lu.Spectrum(*(part[i, j] for part in spectrum))
        assert close(y[:, i, j], lu.convolve(x[:, i, j], one, torus=torus))
        assert close(y[1, i, j], lu.convolve(x[1, i, j], one, torus=torus))
        assert close(kernel[i, j], lu.kernel_of_spectrum(one, torus=torus))
        alone = lu.convolution_body_gradient(x[:, i, j], y[:, i, j], torus=torus)
        for many, few in zip(gradient, alone, strict=True):
            assert close(many.left[i, j], few.left)
            assert close(many.right[i, j], few.right)
    again = lu.spectrum_of_kernel(kernel, torus=torus)
    assert all(close(one, other) for one, other in zip(again, spectrum, strict=True))


def test_no_samples_are_no_signals():
    torus = (4, 5)
    spectrum = lu.random_spectrum(C, torus=torus, rng=0)
    assert lu.convolve(np.empty((0, C, *torus)), spectrum, torus=torus).shape == (0, C, *torus)


def descended(dtype, steps, torus=(4, 5), heal=1, **options):
    spectrum = lu.identity_spectrum(C, torus=torus, dtype=np.dtype(dtype))
    x = signal(torus, dtype, samples=(4,))
    target = lu.convolve(x, lu.delta_spectrum(C, torus=torus, dtype=np.dtype(dtype), rng=1), torus=torus)
    for step in range(steps):
        y = lu.convolve(x, spectrum, torus=torus)
        gradient = lu.convolution_gradient(
            x, y - target + 0.3 * signal(torus, dtype, samples=(4,), seed=step), torus=torus
        )
        spectrum = lu.spectrum_step(spectrum, gradient, 0.003, rank=1, heal=heal, rng=step, **options)
    return spectrum


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_realness_ties_and_isometry_hold_over_many_steps(dtype):
    torus, steps = (4, 5), of_profile(quick=150, thorough=1000)
    spectrum = descended(dtype, steps)
    real = dtype == "float32"
    assert [part.dtype.name for part in spectrum] == ["float32", "complex64"]
    kernel = np.fft.ifftn(every_frequency(spectrum, torus).astype(complex), axes=(0, 1))
    if real:
        # Rounding of the transform in double precision alone.
        assert np.linalg.norm(kernel.imag) <= tolerance(np, np.dtype("float64"), C, C)
    else:
        assert np.linalg.norm(kernel.imag) > 0.01
    # One random probe a step keeps the defect of float32 flat, at about eps n/√2p: no growth with the steps.
    assert lu.spectrum_defect(spectrum) <= tolerance(np, np.dtype(dtype), C)
    x = signal(torus, dtype, seed=5)
    y = lu.convolve(x, spectrum, torus=torus)
    assert y.dtype == x.dtype
    assert abs(np.linalg.norm(y) / np.linalg.norm(x) - 1.0) <= tolerance(np, np.dtype(dtype), C)


def test_steps_heal_an_inherited_defect():
    bent = [1.001 * part for part in lu.random_spectrum(C, torus=(4, 5), rng=0)]
    spectrum, still = lu.Spectrum(*bent), lu.Spectrum(*(np.zeros_like(part) for part in bent))
    for step in range(of_profile(quick=120, thorough=1000)):
        spectrum = lu.spectrum_step(spectrum, still, 0.1, rank=1, heal=1, rng=step)
    # Each probe leaves on average 2/3 of the defect of a 3×3 matrix.
    assert lu.spectrum_defect(spectrum) <= tolerance(np, np.dtype("float64"), C)


@pytest.mark.parametrize("update", ["geodesic", "cayley", "polar"])
def test_a_step_is_one_step_of_each_matrix(update):
    torus = (4, 3)
    spectrum = lu.random_spectrum(C, torus=torus, rng=0)
    x, g = signal(torus), signal(torus, seed=3)
    gradient = lu.convolution_gradient(x, g, torus=torus)
    moved = lu.spectrum_step(spectrum, gradient, 0.02, rank=C, update=update, heal=0, rng=0)
    for U, G, V in zip(spectrum, gradient, moved, strict=True):
        for i in range(len(U)):
            alone = lu.unitary_step(U[i], G.dense()[i], 0.02, rank=C, update=update, heal=0, rng=0)
            assert close(V[i], alone, scale=10.0)
    pulled = lu.convolve(g, spectrum, torus=torus, adjoint=True)
    body = lu.convolution_body_gradient(x, pulled, torus=torus)
    again = lu.spectrum_step(spectrum, body, 0.02, rank=C, update=update, heal=0, rng=0)
    assert all(close(one, other, scale=10.0) for one, other in zip(again, moved, strict=True))


def test_the_two_stacks_draw_numbers_of_their_own():
    # Sizes with as many real as complex matrices.
    made = lu.random_spectrum(C, torus=(4, 2), rng=0)
    haar = lu.random_unitary(C, dtype=np.complex128, batch=(2,), rng=0)
    assert np.array_equal(made.real, lu.random_unitary(C, batch=(4,), rng=0))
    assert not np.allclose(made.complex, haar)


def test_the_steps_of_the_two_stacks_draw_numbers_of_their_own(monkeypatch):
    keys = []
    monkeypatch.setattr(step_module, "unitary_step", lambda U, *args, rng, **options: keys.append(rng) or U)
    spectrum = generic((4, 5))
    for frequencies in (None, 3):
        lu.spectrum_step(spectrum, spectrum, 0.1, 1, rng=7, frequencies=frequencies)
    assert len(set(keys[:2])) == 2
    assert keys[2:] == keys[:2]


def energies(spectrum, gradient):
    body = [ct(U) @ G.dense() for U, G in zip(spectrum, gradient, strict=True)]
    tangent = [np.linalg.norm(B - ct(B), axis=(-2, -1)) ** 2 for B in body]
    return np.concatenate([tangent[0], 2 * tangent[1]], axis=-1)


def test_groups_have_step_sizes_of_their_own():
    torus = (4, 5)
    spectrum = lu.random_spectrum(C, torus=torus, batch=(2,), rng=0)
    for frequencies in (None, 3):
        options = {"rank": C, "heal": 0, "rng": 0, "frequencies": frequencies}
        gradient = lu.Spectrum(spectrum.real[::-1], spectrum.complex[::-1])
        both = lu.spectrum_step(spectrum, gradient, np.array([0.1, 0.2]), **options)
        for i, size in enumerate((0.1, 0.2)):
            one, slope = (lu.Spectrum(*(part[i] for part in some)) for some in (spectrum, gradient))
            alone = lu.spectrum_step(one, slope, size, **options)
            assert all(close(x[i], y, scale=10.0) for x, y in zip(both, alone, strict=True))


@pytest.mark.parametrize("groups", [(), (2,)], ids=str)
@pytest.mark.parametrize("m", [1, 3, 9, 20])
def test_a_budget_moves_the_frequencies_of_the_largest_gradients(m, groups):
    torus = (4, 5)
    spectrum = lu.random_spectrum(C, torus=torus, batch=groups, rng=0)
    x, g = (signal(torus, samples=(2, *groups), seed=seed) for seed in (0, 3))
    gradient = lu.convolution_gradient(x, g, torus=torus, groups=len(groups))
    before = [part.copy() for part in spectrum]
    moved = lu.spectrum_step(spectrum, gradient, 0.1, rank=C, heal=0, rng=0, frequencies=m)
    full = lu.spectrum_step(spectrum, gradient, 0.1, rank=C, heal=0, rng=0)
    sizes = energies(spectrum, gradient)
    chosen = sizes >= np.sort(sizes, axis=-1)[..., max(0, sizes.shape[-1] - m), None]
    R = spectrum.real.shape[-3]
    for part, old, new, every in zip((chosen[..., :R], chosen[..., R:]), before, moved, full, strict=True):
        assert np.array_equal(np.any(old != new, axis=(-2, -1)), part)
        assert close(new[part], every[part])
    assert all(np.array_equal(one, other) for one, other in zip(spectrum, before, strict=True))
    result = lu.spectrum_step(
        spectrum, gradient, 0.1, rank=C, heal=0, rng=0, frequencies=m, overwrite_spectrum=True
    )
    assert all(one is other for one, other in zip(result, spectrum, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(spectrum, moved, strict=True))


@on_every_backend("field", ["complex"])
def test_a_budget_does_not_leave_nan_behind(backend, field):
    torus = (4, 5)
    spectrum = lu.random_spectrum(C, torus=torus, rng=0)
    gradient = generic(torus, seed=4)
    getattr(gradient, field)[3] = np.nan

    def step(spectrum, gradient):
        return lu.spectrum_step(spectrum, gradient, 0.1, rank=1, rng=0, frequencies=1)

    given = (lu.Spectrum(*map(backend.array, some)) for some in (spectrum, gradient))
    moved = lu.Spectrum(*map(to_numpy, at_once(backend.xp, step)(*given)))
    assert np.isnan(getattr(moved, field)[3]).all()
    assert np.array_equal(moved.real, spectrum.real)


@on_every_backend("dtype", ["float32", "complex64"], jax=1)
def test_every_namespace_computes_the_same(backend, dtype):
    torus, xp = (4, 5), backend.xp
    spectrum = lu.random_spectrum(C, torus=torus, dtype=np.dtype(dtype), rng=0)
    x, g = signal(torus, dtype), signal(torus, dtype, seed=3)
    given = lu.Spectrum(*(backend.array(part) for part in spectrum))

    def whole(x, g, spectrum):
        y = lu.convolve(x, spectrum, torus=torus)
        pulled = lu.convolve(g, spectrum, torus=torus, adjoint=True)
        gradient = lu.convolution_body_gradient(x, pulled, torus=torus)
        moved = lu.spectrum_step(spectrum, gradient, 0.01, rank=1, rng=0)
        some = lu.spectrum_step(spectrum, gradient, 0.01, rank=1, rng=0, frequencies=3)
        again = lu.spectrum_of_kernel(lu.kernel_of_spectrum(spectrum, torus=torus), torus=torus)
        return y, lu.spectrum_defect(moved), *moved, *some, *lu.reunitarize_spectrum(again)

    results = at_once(xp, whole)(backend.array(x), backend.array(g), given)
    for one, other in zip(results, whole(x, g, spectrum), strict=True):
        assert not one.ndim or type(one) is type(given.real)
        host = to_numpy(one)
        assert host.dtype == np.asarray(other).dtype
        assert close(host, other, dtype, scale=10.0)


@on_every_backend("start", [lu.random_spectrum, lu.delta_spectrum, lu.identity_spectrum], jax=3)
def test_starts_are_the_same_isometries_on_every_namespace(backend, start):
    torus, seed = (4, 5), {} if start is lu.identity_spectrum else {"rng": 3}
    for name in ("float32", "complex64"):
        options = {"torus": torus, "batch": (2,), **seed}
        here = start(C, dtype=np.dtype(name), **options)
        made = start(C, dtype=getattr(backend.xp, name), xp=backend.xp, device=backend.device, **options)
        assert lu.spectrum_defect(here).shape == (2,)
        assert lu.spectrum_defect(here).max() <= tolerance(np, np.dtype(name), C)
        for one, other in zip(made, here, strict=True):
            assert one.dtype == getattr(backend.xp, other.dtype.name)
            assert close(to_numpy(one), other, name)
        x = signal(torus, name, samples=(2,))
        y = lu.convolve(x, here, torus=torus)
        assert close(y, x, name) == (start is lu.identity_spectrum)


def test_delta_is_a_convolution_of_width_one():
    torus = (4, 5)
    spectrum = lu.delta_spectrum(C, torus=torus, rng=0)
    matrix = lu.random_unitary(C, rng=0)
    x = signal(torus)
    assert close(lu.convolve(x, spectrum, torus=torus), np.einsum("oi,bi...->bo...", matrix, x))


def test_more_than_three_axes_on_jax():
    torus = (2, 3, 2, 2)
    spectrum, x = generic(torus), signal(torus)
    y = lu.convolve(jax.numpy.asarray(x), lu.Spectrum(*map(jax.numpy.asarray, spectrum)), torus=torus)
    assert close(np.asarray(y), lu.convolve(x, spectrum, torus=torus))


def test_derivatives_in_jax_are_those_of_the_adjoint():
    torus = (4, 5)
    spectrum = lu.Spectrum(*map(jax.numpy.asarray, lu.random_spectrum(C, torus=torus, rng=0)))
    x, z = (jax.numpy.asarray(signal(torus, seed=seed)) for seed in (0, 1))
    pulled = jax.jit(jax.grad(lambda x: jax.numpy.vdot(z, lu.convolve(x, spectrum, torus=torus))))(x)
    assert close(np.asarray(pulled), np.asarray(lu.convolve(z, spectrum, torus=torus, adjoint=True)))


def test_defect_bounds_what_the_convolution_does_to_norms():
    torus = (4, 5)
    spectrum = lu.random_spectrum(C, torus=torus, rng=0)
    bent = lu.Spectrum(spectrum.real, spectrum.complex.copy())
    bent.complex[2] *= 1.01
    defect = float(lu.spectrum_defect(bent))
    sigma = np.linalg.svd(every_frequency(bent, torus), compute_uv=False)
    assert np.isclose(defect, np.sqrt(C) * (1.01**2 - 1))
    assert np.max(np.abs(sigma**2 - 1)) <= defect
    repaired = lu.reunitarize_spectrum(bent)
    assert all(close(one, other) for one, other in zip(repaired, spectrum, strict=True))
    bent.complex[1, 0, 0] = np.nan
    assert np.isnan(lu.spectrum_defect(bent))


def test_nan_stays_in_its_sample():
    torus = (4, 5)
    spectrum, x = lu.random_spectrum(C, torus=torus, rng=0), signal(torus)
    x[1, 0, 2, 3] = np.nan
    y = lu.convolve(x, spectrum, torus=torus)
    assert np.isnan(y[1]).all()
    assert close(y[0], lu.convolve(x[0], spectrum, torus=torus))


@pytest.mark.parametrize("stride", [(2, 2), (2, 3), (1, 6)], ids=str)
def test_pixels_go_to_channels_as_in_torch_and_back(stride):
    x = signal((4, 6))
    y = lu.pixel_unshuffle(x, stride)
    assert y.shape == (2, C * np.prod(stride), 4 // stride[0], 6 // stride[1])
    if stride == (2, 2):
        assert np.array_equal(y, torch.pixel_unshuffle(torch.from_numpy(x), 2).numpy())
    assert np.array_equal(lu.pixel_shuffle(y, stride), x)
    rows = [lu.pixel_unshuffle(lu.pixel_unshuffle(x, (1, stride[1])), (stride[0], 1))]
    assert rows[0].shape == y.shape
    assert np.array_equal(np.sort(rows[0], axis=None), np.sort(y, axis=None))


TORUS = (4, 5)
X, S = signal(TORUS), lu.random_spectrum(C, torus=TORUS, rng=0)
PARTS = lu.convolution_gradient(X, X, torus=TORUS)


def read_only(spectrum):
    return lu.Spectrum(*(np.broadcast_to(part, part.shape) for part in spectrum))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: lu.convolve(signal((8, 5)), S, torus=TORUS), ValueError, "signal .* its own torus"),
        (lambda: lu.convolve(X[..., 0], S, torus=TORUS), ValueError, r"signal .*\(4, 5\) in its last"),
        (lambda: lu.convolve(X[0, 0], S, torus=TORUS), ValueError, "signal .*missing axes"),
        (lambda: lu.convolve(X[:, :2], S, torus=TORUS), ValueError, "signal must have 3 channels .* got 2"),
        (lambda: lu.convolve(X.astype("f4"), S, torus=TORUS), TypeError, "signal must be float64"),
        (lambda: lu.convolve(X + 0j, S, torus=TORUS), TypeError, "signal must be float64, .* two parts"),
        (lambda: lu.convolve(X, generic(TORUS, "complex128"), torus=TORUS), TypeError, "complex signals"),
        (lambda: lu.convolve(X, S, torus=(5, 4)), ValueError, r"signal .*\(5, 4\)"),
        (lambda: lu.convolve(X, S, torus=(4, 6)), ValueError, "spectrum must have 4 real and 10 complex"),
        (lambda: lu.convolve(X, S, torus=20), TypeError, "torus"),
        (lambda: lu.convolve(X, S, torus=()), ValueError, "torus"),
        (lambda: lu.convolve(X, S, torus=(0, 5)), ValueError, "torus"),
        (lambda: lu.convolve(X, S, torus=TORUS, adjoint=1), TypeError, "adjoint"),
        (lambda: lu.convolve(X, tuple(S), torus=TORUS), TypeError, "spectrum must be a Spectrum"),
        (lambda: lu.convolve(X, lu.Spectrum(S.complex, S.complex), torus=TORUS), TypeError, "spectrum.real"),
        (lambda: lu.convolve(X, lu.Spectrum(S.real[:, :2], S.complex), torus=TORUS), ValueError, "agree"),
        (lambda: lu.convolve(X, lu.Spectrum(S.real[0], S.complex), torus=TORUS), ValueError, "spectrum.real"),
        (
            lambda: lu.convolve(X, lu.random_spectrum(C, torus=TORUS, batch=(3,)), torus=TORUS),
            ValueError,
            r"signal must have the groups \(3,\)",
        ),
        (lambda: lu.spectrum_of_kernel(np.ones((C, C, 5, 5)), torus=TORUS), ValueError, "kernel .* wider"),
        (lambda: lu.spectrum_of_kernel(np.ones((C, 4, 5)), torus=TORUS), ValueError, "kernel must have"),
        (lambda: lu.spectrum_of_kernel(np.ones((C, C, 1, 1), "f2"), torus=TORUS), TypeError, "kernel"),
        (lambda: lu.random_spectrum(C, torus=TORUS, dtype=np.float16), TypeError, "dtype"),
        (lambda: lu.random_spectrum(0, torus=TORUS), ValueError, "channels"),
        (lambda: lu.convolution_gradient(X, X[:1], torus=TORUS), ValueError, "cotangent"),
        (lambda: lu.convolution_gradient(X, X.astype("f4"), torus=TORUS), TypeError, "cotangent"),
        (lambda: lu.convolution_gradient(X, X, torus=TORUS, groups=2), ValueError, "groups"),
        (lambda: lu.convolution_body_gradient(X, X[:, :2], torus=TORUS), ValueError, "pulled"),
        (lambda: lu.spectrum_gradient(PARTS, torus=TORUS), TypeError, "gradient"),
        (lambda: lu.spectrum_step(S, X, 0.1, 1), TypeError, "gradient must be a Spectrum"),
        (lambda: lu.spectrum_step(S, PARTS, 0.1, 4), ValueError, "rank"),
        (lambda: lu.spectrum_step(S, PARTS, 0.1, 1, frequencies=-1), ValueError, "frequencies"),
        (lambda: lu.spectrum_step(S, PARTS, 0.1, 1, frequencies=True), TypeError, "frequencies"),
        (
            lambda: lu.spectrum_step(read_only(S), PARTS, 0.1, 1, frequencies=2, overwrite_spectrum=True),
            ValueError,
            "spectrum.real must be writeable when overwrite_spectrum=True",
        ),
        (lambda: lu.spectrum_step(S, lu.Spectrum(S.real[0], S.complex), 0.1, 1), ValueError, "gradient.real"),
        (lambda: lu.pixel_unshuffle(X, (3, 1)), ValueError, "stride must divide"),
        (lambda: lu.pixel_shuffle(X, (2, 1)), ValueError, "signal must have a multiple of 2"),
        (lambda: lu.pixel_unshuffle(X, (0, 1)), ValueError, "stride"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("channels", [(4, 2), (2, 4)], ids=str)
@pytest.mark.parametrize("dtype", FIELDS)
def test_rectangular_spectra_stay_isometries_one_way_and_descend(channels, dtype):
    torus = (4, 3)
    outer, inner = channels
    rng = np.random.default_rng(0)
    x, target = (normal(rng, (5, c, *torus), dtype) for c in (inner, outer))
    for start in (lu.random_spectrum, lu.delta_spectrum, lu.identity_spectrum):
        seed = {} if start is lu.identity_spectrum else {"rng": 1}
        spectrum = start(outer, inner, torus=torus, dtype=np.dtype(dtype), **seed)
        losses = []
        for _ in range(30):
            difference = lu.convolve(x, spectrum, torus=torus) - target
            losses.append(np.linalg.norm(difference) ** 2)
            gradient = lu.convolution_gradient(x, difference, torus=torus)
            budget = {} if len(losses) > 15 else {"frequencies": 4}
            spectrum = lu.spectrum_step(spectrum, gradient, 1e-3, rank=1, rng=0, **budget)
        assert np.all(np.diff(losses) < 0)
        assert lu.spectrum_defect(spectrum) <= 4 * tolerance(np, np.dtype(dtype), outer)
        small = x if outer > inner else target
        image = lu.convolve(small, spectrum, torus=torus, adjoint=outer < inner)
        assert np.linalg.norm(image) == pytest.approx(np.linalg.norm(small))


@pytest.mark.parametrize("channels", [(5, 2), (2, 5)], ids=str)
def test_a_budget_of_rectangular_spectra_counts_what_leaves_their_range(channels):
    torus = (4, 5)
    spectrum = lu.random_spectrum(*channels, torus=torus, rng=0)
    rng = np.random.default_rng(1)
    gradient = lu.Spectrum(*(normal(rng, part.shape, part.dtype) for part in spectrum))
    sizes = []
    for weight, H, G in zip((1, 2), spectrum, gradient, strict=True):
        if channels[0] < channels[1]:
            H, G = ct(H), ct(G)
        tangent = G - H @ (ct(H) @ G + ct(G) @ H) / 2
        sizes.append(weight * np.sum(np.abs(tangent) ** 2, axis=(-2, -1)))
    order = np.argsort(np.concatenate(sizes))
    frames = lu.Spectrum(
        *(
            lu.LowRankFactors(G, np.broadcast_to(np.eye(G.shape[-1]), (len(G), *2 * (G.shape[-1],)))).to_body(
                H
            )
            for H, G in zip(spectrum, gradient, strict=True)
        )
    )
    for given, m in itertools.product((gradient, frames), range(1, len(order))):
        moved = lu.spectrum_step(spectrum, given, 0.1, rank=2, rng=0, heal=0, frequencies=m)
        changed = [np.any(old != new, axis=(-2, -1)) for old, new in zip(spectrum, moved, strict=True)]
        assert set(np.nonzero(np.concatenate(changed))[0]) == set(order[-m:])

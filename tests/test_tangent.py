"""Project, then compress: the sketch of the tangent part is two-sided, tangent and descends."""

import jax
import numpy as np
import pytest
from cases import ct, error, normal
from hypothesis import given
from hypothesis import strategies as st

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import tolerance


def skew(x):
    return (x - ct(x)) / 2


@st.composite
def gradients(draw):
    n = draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from(["float32", "float64", "complex64", "complex128"]))
    batch = draw(st.sampled_from([(), (2,)]))
    rng = np.random.default_rng(seed)
    unitary = lu.random_unitary(n, dtype=dtype, batch=batch, rng=rng)
    gradient = normal(rng, (*batch, n, n), dtype)
    # Up to a thousand times more Hermitian than skew, in the body frame.
    gradient = gradient + draw(st.sampled_from([0, 10, 1000])) * unitary @ (gradient + ct(gradient))
    return unitary, gradient.astype(dtype), draw(st.integers(1, n)), seed


def two_sided(A, samples):
    """Every entry of A that touches the range of the samples."""
    B, _ = np.linalg.qr(samples)
    P = B @ ct(B)
    return P @ A + A @ P - P @ A @ P


@given(drawn=gradients())
def test_sketch_without_oversampling_keeps_every_entry_that_touches_its_samples(drawn):
    unitary, gradient, k, seed = drawn
    rng = np.random.default_rng(seed)
    omega = normal(rng, (*unitary.shape[:-1], k), unitary.dtype)
    C, Q = lu.tangent_sketch(unitary, gradient, k, test_matrix=omega)
    assert C.shape == Q.shape == omega.shape
    A = reference.tangent(unitary, gradient).astype(np.result_type(unitary.dtype, np.float64))
    size = np.linalg.norm(gradient, axis=(-2, -1)).max()
    bound = size * tolerance(np, unitary.dtype, unitary.shape[-1], k)
    kept = skew(C @ ct(Q)).astype(A.dtype)
    # Rounding decides the range of samples that depend on one another: what is kept is compared with itself.
    product = np.sum(np.real(np.conj(kept) * A), axis=(-2, -1))
    assert np.abs(product - np.linalg.norm(kept, axis=(-2, -1)) ** 2).max() <= 4 * size * bound
    conditions = np.linalg.cond(A @ omega)
    if conditions.max() < 100:
        assert np.abs(kept - two_sided(A, A @ omega)).max() <= 100 * bound


@given(drawn=gradients(), extra=st.integers(1, 4))
def test_sketch_with_oversampling_is_the_best_part_of_what_the_samples_touch(drawn, extra):
    unitary, gradient, k, seed = drawn
    n = unitary.shape[-1]
    omega = normal(np.random.default_rng(seed), (*unitary.shape[:-1], min(n, k + extra)), unitary.dtype)
    A = reference.tangent(unitary, gradient).astype(np.result_type(unitary.dtype, np.float64))
    if np.linalg.cond(A @ omega).max() < 100:
        C, Q = lu.tangent_sketch(unitary, gradient, k, test_matrix=omega)
        whole = two_sided(A, A @ omega)
        w = np.linalg.eigvalsh(1j * whole)
        positive, negative = np.flip(np.maximum(w, 0), axis=-1), np.maximum(-w, 0)
        best = np.sqrt(np.sum(positive[..., k:] ** 2 + negative[..., k:] ** 2, axis=-1))
        error = np.linalg.norm(whole - skew(C @ ct(Q)), axis=(-2, -1))
        size = np.linalg.norm(gradient, axis=(-2, -1)).max()
        assert np.abs(error - best).max() <= 100 * size * tolerance(np, unitary.dtype, n, k)


@given(drawn=gradients())
def test_sketch_is_a_direction_of_descent(drawn):
    unitary, gradient, k, seed = drawn
    C, Q = lu.tangent_sketch(unitary, gradient, k, rng=seed)
    kept = skew(C @ ct(Q))
    A = reference.tangent(unitary, gradient)
    product = np.sum(np.real(np.conj(kept) * A), axis=(-2, -1))
    size = np.linalg.norm(gradient, axis=(-2, -1)).max()
    # What no sample has touched may take a little away: 0.87 is the least of 12 000 other draws.
    least = 0.5 * np.linalg.norm(kept, axis=(-2, -1)) ** 2
    assert (product >= least - size**2 * tolerance(np, unitary.dtype, unitary.shape[-1], k)).all()


def test_full_rank_sketch_is_the_whole_tangent(dtype):
    rng = np.random.default_rng(0)
    unitary, gradient = lu.random_unitary(6, dtype=dtype, rng=rng), normal(rng, (6, 6), dtype)
    C, Q = lu.tangent_sketch(unitary, gradient, 6, rng=1)
    A = reference.tangent(unitary, gradient)
    assert np.abs(skew(C @ ct(Q)) - A).max() <= 20 * tolerance(np, dtype, 6, 6)


def test_sketch_vanishes_where_the_gradient_does_not_move_the_unitary(dtype):
    # A gradient U S with Hermitian S is normal to the unitary matrices; compress-first would step along it.
    rng = np.random.default_rng(1)
    unitary, S = lu.random_unitary(8, dtype=dtype, rng=rng), normal(rng, (8, 8), dtype)
    gradient = unitary @ (S + ct(S))
    moved = lu.unitary_step(unitary, gradient, 1.0, rank=2, rng=0)
    assert np.abs(moved - unitary).max() <= 100 * tolerance(np, dtype, 8, 2)
    stepped = lu.unitary_step(unitary, gradient, 1.0, rank=2, sketch="lsi", rng=0)
    assert np.abs(stepped - unitary).max() > 0.01


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_sketch_scales_with_the_gradient(dtype, scale):
    rng = np.random.default_rng(2)
    unitary, gradient = lu.random_unitary(8, dtype=dtype, rng=rng), normal(rng, (8, 8), dtype)
    one = lu.tangent_sketch(unitary, gradient, 2, rng=3)
    scaled = lu.tangent_sketch(unitary, gradient * np.float32(scale), 2, rng=3)
    one, scaled = (skew(C @ ct(Q)) for C, Q in (one, scaled))
    assert np.abs(scaled / np.float32(scale) - one).max() <= 100 * tolerance(np, dtype, 8, 2)


def test_oversampling_and_power_iterations_find_directions_that_matter_more():
    rng = np.random.default_rng(0)
    n = 64
    unitary, basis = lu.random_unitary(n, rng=rng), lu.random_unitary(n, rng=rng)
    planes = np.zeros((n, n))
    even = np.arange(0, n, 2)
    planes[even, even + 1] = 1 / np.sqrt(1 + np.arange(n // 2))
    A = basis @ (planes - planes.T) @ basis.T

    def energy(**options):
        found = []
        for seed in range(20):
            C, Q = lu.tangent_sketch(unitary, unitary @ A, 1, rng=seed, **options)
            found.append(np.sum(A**2) - np.sum((A - skew(C @ Q.T)) ** 2))
        return np.mean(found)

    bare = energy(oversample=0)
    wider, powered = energy(oversample=8), energy(oversample=0, power_iterations=1)
    both = energy(oversample=8, power_iterations=2)
    assert 1.5 * bare < wider < both
    assert 1.5 * bare < powered < both
    # The largest plane of all holds 2 · 1².
    assert 0.99 * 2 < both <= 2 + 1e-12


def test_nan_in_the_gradient_gives_nan(dtype):
    unitary = lu.random_unitary(5, dtype=dtype, batch=(2,), rng=0)
    gradient = np.ones_like(unitary)
    gradient[0, 2, 2] = np.nan
    moved = lu.unitary_step(unitary, gradient, 0.1, rank=2, rng=0)
    assert np.isnan(moved[0]).all()
    assert np.isfinite(moved[1]).all()


def procrustes(n, noise, rng):
    """½‖UX − Y‖² with Y = U*X + noise: products for the gradient, a start, the optimum beside the start."""
    X = rng.standard_normal((n, 4 * n)) / np.sqrt(4 * n)
    target, start = (lu.random_unitary(n, rng=rng) for _ in range(2))
    Y = target @ X + noise * rng.standard_normal((n, 4 * n)) / np.sqrt(4 * n)
    u, _, vh = np.linalg.svd(Y @ X.T)
    if np.linalg.det(u @ vh) * np.linalg.det(start) < 0:
        u[:, -1] *= -1
    return X, Y, start, 0.5 * np.linalg.norm(u @ vh @ X - Y) ** 2


def test_project_first_reaches_the_optimum_where_compress_first_stalls():
    X, Y, start, optimum = procrustes(32, 1.0, np.random.default_rng(0))
    XX, YX = X @ X.T, Y @ X.T
    gaps = {}
    for sketch in ("tangent", "exact"):
        U = start.copy()
        rng = np.random.default_rng(1)
        for _ in range(1500):
            lu.unitary_step(U, U @ XX - YX, 0.8, rank=1, sketch=sketch, rng=rng, overwrite_unitary=True)
        gaps[sketch] = 0.5 * np.linalg.norm(U @ X - Y) ** 2 - optimum
    assert abs(gaps["tangent"]) < 1e-9
    assert gaps["exact"] > 0.05


def test_polar_step_turns_by_the_arctangent_of_the_angles_of_transport(dtype):
    # Both updates of a tangent sketch rotate in the same planes.
    rng = np.random.default_rng(6)
    n = 10
    unitary, gradient = lu.random_unitary(n, dtype=dtype, rng=rng), normal(rng, (n, n), dtype)

    def angles(update):
        moved = lu.unitary_step(unitary, gradient, 0.2, rank=2, update=update, rng=7)
        return np.sort(np.angle(np.linalg.eigvals((ct(unitary) @ moved).astype(complex))))

    np.testing.assert_allclose(angles("polar"), np.arctan(angles("geodesic")), atol=1e-5)


@pytest.mark.parametrize("update", ["geodesic", "polar"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_small_step_lowers_the_loss_by_what_its_slope_says(update, dtype):
    rng = np.random.default_rng(3)
    n = 12
    unitary, B = lu.random_unitary(n, dtype=dtype, rng=rng), normal(rng, (n, n), dtype)

    def loss(U):  # Re tr(Bᴴ U), with gradient B
        return float(np.sum(np.real(np.conj(B) * U)))

    C, Q = lu.tangent_sketch(unitary, B, 3, rng=5)
    slope = np.sum(np.real(np.conj(skew(C @ ct(Q))) * skew(ct(unitary) @ B)))
    eta = 1e-5
    moved = lu.unitary_step(unitary, B, eta, rank=3, update=update, rng=5)
    assert (loss(moved) - loss(unitary)) / -eta == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(("n", "k"), [(20, 2), (9, 4), (3, 3), (1, 1)])
@pytest.mark.parametrize("update", ["geodesic", "cayley", "polar"])
def test_a_step_along_a_sketch_is_the_dense_one_of_its_factors_at_every_step_size(update, n, k, dtype):
    rng = np.random.default_rng(n)
    unitary, gradient = lu.random_unitary(n, dtype=dtype, rng=1), normal(rng, (n, n), dtype)
    C, Q = (reference.extended(x) for x in lu.tangent_sketch(unitary, gradient, k, rng=2))
    tangent = skew(C @ ct(Q))
    eye = np.eye(n)
    for eta in (0.0, 2.0**-26, 0.25, 32.0, -(2.0**13)):
        moved = lu.unitary_step(unitary, gradient, eta, k, update=update, heal=0, rng=2)
        if update == "polar":
            rotation = reference.polar(eye, -eta * tangent, eye)
        else:
            rotation = reference.transport(eye, -eta * tangent, eye, update)
        expected = reference.extended(unitary) @ rotation
        # The angles are known to eps of their size.
        size = abs(eta) * float(np.linalg.norm(tangent.astype(complex)))
        assert error(moved, expected) <= tolerance(np, dtype, n, k, scale=1.0 + 10 * size)
        assert lu.unitarity_defect(moved) <= 2 * tolerance(np, dtype, n, k)


@pytest.mark.gate
@pytest.mark.parametrize("update", ["geodesic", "cayley", "polar"])
def test_a_traced_step_of_any_length_is_unitary_in_single_precision(update):
    gradient = jax.random.normal(jax.random.key(0), (64, 64), dtype="float32")
    step = jax.jit(
        lambda U, eta: lu.unitary_step(U, gradient, eta, rank=4, update=update, heal=0, rng=jax.random.key(1))
    )
    for eta in (1.0, 100.0, 1000.0):
        assert lu.unitarity_defect(step(jax.numpy.eye(64, dtype="float32"), eta)) < 1e-5

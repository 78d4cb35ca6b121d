"""Matrices with orthonormal columns or rows: the same routines, against their dense definitions."""

import jax
import numpy as np
import pytest
import torch
from backends import at_once, on_every_backend
from cases import ct, error, normal
from hypothesis import given
from hypothesis import strategies as st
from profiles import covering, of_profile

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import to_numpy, tolerance
from lowrank_unitary.rotation.frame import FrameStep, gram_rotation_in_frame
from lowrank_unitary.testing import assert_unitary

UPDATES = {
    "geodesic": (lu.unitary_transport, reference.rectangular_transport),
    "cayley": (
        lambda *step, **options: lu.unitary_transport(*step, update="cayley", **options),
        lambda *step: reference.rectangular_transport(*step, "cayley"),
    ),
    "polar": (lu.polar_projection, reference.rectangular_polar),
}
KINDS = ("generic", "inside", "outside", "zero", "repeated")
update = pytest.mark.parametrize("update", UPDATES)
SIDES = [(2, 1), (7, 3), (8, 7), (3, 8)]


def step(seed, m, n, k, dtype, kind="generic", norm=1.0, batch=()):
    """U with orthonormal columns or rows, and a step of spectral norm `norm`."""
    rng = np.random.default_rng(seed)
    U = lu.random_unitary(m, n, dtype=dtype, batch=batch, rng=rng)
    a, b = normal(rng, (*batch, m, k), dtype), normal(rng, (*batch, n, k), dtype)
    within = U @ (ct(U) @ a)
    if kind in ("inside", "outside"):
        a = within if kind == "inside" else a - within
    if kind == "zero":
        a = 0 * a
    if kind == "repeated":
        a, b = np.repeat(a[..., :1], k, axis=-1), np.repeat(b[..., :1], k, axis=-1)
    size = np.linalg.norm(a @ ct(b), 2, axis=(-2, -1))[..., None, None]
    return U, (a * (norm / np.where(size > 0, size, 1))).astype(dtype), b


def smallest(U, a, b):
    return float(np.linalg.svd(U + a @ ct(b), compute_uv=False)[..., -1].min())


@st.composite
def sides(draw, most=9):
    n = draw(st.integers(1, most))
    m = draw(st.integers(n + 1, most + 4))
    return (m, n) if draw(st.booleans()) else (n, m)


@update
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=sides(),
    k=st.integers(1, 11),
    dtype=st.sampled_from(["float32", "float64", "complex64", "complex128"]),
    kind=st.sampled_from(KINDS),
    power=st.floats(-9, 1),
    batch=st.sampled_from([(), (3,)]),
)
def test_step_equals_its_dense_definition(update, seed, shape, k, dtype, kind, power, batch):
    apply, dense = UPDATES[update]
    U, a, b = step(seed, *shape, k, dtype, kind, 10.0**power, batch)
    sensitivity = 1.0
    if update == "polar":
        if (least := smallest(U, a, b)) < 0.1:
            return
        sensitivity = 1 / least
    moved = apply(U, a, b)
    assert moved.shape == U.shape
    assert moved.dtype == U.dtype
    bound = tolerance(np, dtype, sum(shape), k, scale=max(1.0, 10.0**power) * max(1.0, sensitivity))
    assert error(moved, dense(U, a, b)) <= bound


@pytest.mark.parametrize(
    ("n", "dtype", "update"), covering([1, 30, 99], ["float64", "complex128", "float32"], UPDATES)
)
def test_step_of_100_rows_has_the_promised_accuracy(n, dtype, update):
    # The promise: 3e-13 in double and 4e-6 in single precision, spectral norm.
    apply, dense = UPDATES[update]
    for kind, norm in (("generic", 10.0), ("inside", 1.0), ("outside", 10.0)):
        U, a, b = step(1, 100, n, 4, dtype, kind, norm)
        if update == "polar" and smallest(U, a, b) < 0.1:
            continue
        difference = reference.extended(apply(U, a, b)) - dense(U, a, b)
        assert reference.spectral_norm(difference) <= (4e-6 if dtype == "float32" else 3e-13)


@update
@pytest.mark.parametrize("core", ["gram", "orthonormal"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_both_cores_agree(dtype, core, update):
    apply, dense = UPDATES[update]
    for shape in SIDES:
        U, a, b = step(2, *shape, 2, dtype, norm=0.5)
        assert error(apply(U, a, b, core=core), dense(U, a, b)) <= tolerance(np, dtype, sum(shape), 2)


# Steps for the orthonormal core, and for the Gram core.
@pytest.mark.parametrize("norm", [1.0, 0.3])
@pytest.mark.parametrize("update", ["geodesic", "polar"])
@pytest.mark.parametrize(("m", "n"), [(24, 23), (24, 12), (12, 24)])
def test_an_inherited_defect_does_not_grow(m, n, update, norm):
    # With a left factor made orthogonal once, 5e-4 grows to 0.2 and beyond in 500 steps of norm 1.
    rng = np.random.default_rng(1)
    U = lu.random_unitary(m, n, rng=0)
    U = U * (1 + 1e-4 * rng.standard_normal(U.shape[-1] if m > n else (m, 1)))
    before = float(lu.unitarity_defect(U))
    for _ in range(of_profile(quick=60, thorough=500)):
        _, a, b = step(rng, m, n, 2, "float64", norm=norm)
        U = UPDATES[update][0](U, a, b)
    assert float(lu.unitarity_defect(U)) <= 1.05 * before


@pytest.mark.parametrize("form", ["gradient", "body factors"])
@pytest.mark.parametrize(("m", "n"), [(24, 23), (23, 24)])
def test_an_inherited_defect_does_not_grow_down_a_gradient(m, n, form):
    rng = np.random.default_rng(1)
    U = lu.random_unitary(m, n, rng=0) * (1 + 1e-3 * rng.standard_normal(n))
    before = float(lu.unitarity_defect(U))
    for seed in range(200):
        G = rng.standard_normal((m, n))
        G /= np.linalg.norm(G, 2)
        if form == "body factors":
            # Of another matrix: part of their lower rows lies in the range of U.
            G = lu.tangent_sketch(lu.random_unitary(m, n, rng=seed), G, 2, rng=seed)
        U = lu.unitary_step(U, G, 1.0, 2, rng=seed, heal=0)
    assert float(lu.unitarity_defect(U)) <= 1.05 * before


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@update
def test_the_gram_core_takes_a_defect_into_account_to_its_third_power(dtype, update):
    # It never sees what leaves the range of U, as the other core does.
    U, a, b = step(3, 9, 6, 2, dtype, norm=0.4)
    E = normal(np.random.default_rng(4), (6, 6), dtype)
    difference = []
    for size in (1e-2, 1e-3):
        V = U @ (np.eye(6) + size * E)
        gram, other = (UPDATES[update][0](V, a, b, core=core) for core in ("gram", "orthonormal"))
        difference.append(np.linalg.norm(gram - other))
    assert difference[1] <= 1e-7
    assert difference[1] <= difference[0] / 500


@update
def test_a_traced_step_beyond_the_gram_core_is_nan_and_not_wrong(update):
    U, a, b = step(5, 9, 6, 2, "float64")
    traced = jax.jit(UPDATES[update][0])
    wrong = []
    for size in 10.0 ** np.arange(1, 13):
        moved = np.asarray(traced(U, size * a, b))
        assert np.isnan(moved).all() or lu.unitarity_defect(moved) <= 1e-7
        wrong.append(np.isnan(moved).any())
    # A Cayley transform is unitary at every size.
    assert wrong[-1] == (update != "cayley")


@update
def test_a_gram_core_in_single_precision_is_nan_where_it_is_wrong(update):
    # As on JAX without float64: a step along b itself, in which large numbers cancel.
    U = lu.random_unitary(9, 6, dtype="float32", rng=0)
    b = normal(np.random.default_rng(1), (6, 2), "float32")
    wrong = []
    for size in 10.0 ** np.arange(4):
        c = np.float32(size) * b
        step = FrameStep(U @ c, c, U.T @ (U @ c), b)
        (left, right), less = gram_rotation_in_frame(np, step, update, "gram")
        upper, lower = left[:6] - less, left[6:]
        moved = U + (U @ upper + lower) @ right[:6].T
        wrong.append(bool(np.isnan(moved).any()))
        assert wrong[-1] or lu.unitarity_defect(moved) <= 4e-3
    assert wrong == sorted(wrong)
    assert wrong[-1]


def test_no_columns_move_nothing():
    for shape in SIDES:
        U, a, b = step(6, *shape, 1, "float64")
        for apply, _ in UPDATES.values():
            np.testing.assert_array_equal(apply(U, a[:, :0], b[:, :0]), U)
            assert not np.array_equal(apply(1.001 * U, a[:, :0], b[:, :0], heal=1, rng=0), 1.001 * U)


def test_what_is_for_square_matrices_only_says_so():
    U, a, b = step(7, 5, 3, 1, "float64")
    for call in (
        lambda: lu.unitary_transport_vjp(U, a, b, U),
        lambda: lu.polar_projection_vjp(U, a, b, U),
        lambda: lu.DelayedUnitary(U).flush(),
        lambda: lu.CompensatedUnitary.split(U.astype("float32"), np.float16),
    ):
        with pytest.raises(ValueError, match="square matrices only"):
            call()


def test_assertion_takes_both_sides():
    for shape in SIDES:
        U = lu.random_unitary(*shape, rng=0)
        assert_unitary(U)
        with pytest.raises(AssertionError, match="UᴴU"):
            assert_unitary(1.01 * U)


def projected(U, G):
    """The projection of G to the tangents at U, G − U (UᴴG + GᴴU)/2."""
    if U.shape[-1] > U.shape[-2]:
        return ct(projected(ct(U), ct(G)))
    return G - U @ ((ct(U) @ G + ct(G) @ U) / 2)


@pytest.mark.parametrize("shape", SIDES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_sketch_of_full_rank_is_the_tangent_and_its_rotation_the_dense_step(dtype, shape):
    rng = np.random.default_rng(3)
    U, G = lu.random_unitary(*shape, dtype=dtype, rng=rng), normal(rng, shape, dtype)
    k = min(shape)
    body = lu.tangent_sketch(U, G, k, rng=1)
    moved = lu.rotate(U, lu.transport_rotation(lu.BodyFactors(-0.3 * body.left, body.right)))
    m, n = shape
    a, b = (G, np.eye(n)) if m > n else (np.eye(m), ct(G))
    expected = reference.rectangular_transport(U, -0.3 * a, b)
    bound = 10 * tolerance(np, dtype, m + n, k)
    assert error(moved, expected) <= bound
    assert error(lu.unitary_step(U, G, 0.3, k, heal=0, rng=1), expected) <= bound
    # A small step is U − ηA U, and A U the projection of the gradient.
    tiny = lu.unitary_step(U, G, 1e-6, k, heal=0, rng=1)
    assert np.linalg.norm((U - tiny) / 1e-6 - projected(U, G)) <= 1e-4


@pytest.mark.parametrize("shape", SIDES)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_gradient_may_be_factors_of_both_frames(dtype, shape):
    U, a, b = step(4, *shape, 1, dtype)
    expected = reference.rectangular_transport(U, -0.5 * a, b)
    factors = lu.LowRankFactors(a, b)
    bound = 4 * tolerance(np, dtype, sum(shape), 1)
    for gradient in (factors, factors.to_body(U), lu.tangent_sketch(U, factors, 1)):
        assert error(lu.unitary_step(U, gradient, 0.5, 1, heal=0), expected) <= bound
    rotated = lu.rotate(U, lu.transport_rotation(factors.scaled(-0.5).to_body(U)))
    assert error(rotated, expected) <= bound
    straight = lu.unitary_step(U, factors, 0.5, 1, heal=0, update="polar", sketch="randomized")
    assert error(straight, reference.rectangular_polar(U, -0.5 * a, b)) <= bound


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("shape", [(12, 4), (4, 12)])
def test_descent_ends_at_the_target_on_the_manifold(shape, update):
    U, target = (lu.random_unitary(*shape, rng=seed) for seed in range(2))
    for seed in range(300):
        U = lu.unitary_step(U, U - target, 0.5, 2, update=update, rng=seed)
    assert np.linalg.norm(U - target) <= 1e-12
    assert lu.is_unitary(U)


@pytest.mark.parametrize("shape", [(16, 15), (16, 4), (4, 16)])
def test_healing_and_repair_bring_the_defect_to_rounding(shape):
    rng = np.random.default_rng(0)
    U = lu.random_unitary(*shape, rng=1) * (1 + 1e-6 * rng.standard_normal(shape[-1]))
    assert not lu.is_unitary(U)
    assert lu.is_unitary(lu.reunitarize(U))
    nearest = np.linalg.svd(U, full_matrices=False)
    np.testing.assert_allclose(lu.reunitarize(U), nearest[0] @ nearest[2], atol=1e-14)
    for seed in range(300):
        U = lu.heal_unitary(U, 2, rng=seed)
    assert lu.is_unitary(U)
    V = U.copy()
    # Steps heal too.
    for seed in range(20):
        V = lu.unitary_step(V, rng.standard_normal(shape), 0.1, 1, rng=seed)
    assert lu.is_unitary(V)


def test_defect_is_that_of_the_smaller_side():
    U = 2 * np.eye(5, 3)
    assert lu.unitarity_defect(U) == pytest.approx(3 * np.sqrt(3))
    assert lu.unitarity_defect(U.T) == pytest.approx(3 * np.sqrt(3))
    estimate = lu.unitarity_defect(U, probes=2000, rng=0)
    assert estimate == pytest.approx(3 * np.sqrt(3), rel=0.1)


CALLS = (
    lambda U, G, a, b: lu.unitary_transport(U, a, b, heal=1, rng=1),
    lambda U, G, a, b: lu.polar_projection(U, a, b),
    lambda U, G, a, b: lu.unitary_step(U, G, 0.3, 2, rng=1),
    lambda U, G, a, b: lu.heal_unitary(U, 2, rng=1),
    lambda U, G, a, b: lu.unitarity_defect(U, probes=2, rng=1)[..., None, None],
)


@on_every_backend("call,shape", range(len(CALLS)), [(6, 3), (3, 6)], jax=5)
def test_every_namespace_gives_the_same(backend, call, shape):
    U, a, b = step(5, *shape, 2, "float32", norm=0.5)
    arrays = U, normal(np.random.default_rng(6), shape, "float32"), a, b
    made = at_once(backend.xp, CALLS[call])(*(backend.array(x) for x in arrays))
    np.testing.assert_allclose(to_numpy(made), CALLS[call](*arrays), atol=2e-6)


@update
def test_batch_is_the_same_as_one_at_a_time_and_inputs_stay(update):
    U, a, b = step(7, 6, 4, 2, "complex64", batch=(2, 3))
    kept = [x.copy() for x in (U, a, b)]
    moved = UPDATES[update][0](U, a, b)
    for where in np.ndindex(2, 3):
        alone = UPDATES[update][0](U[where], a[where], b[where])
        np.testing.assert_allclose(moved[where], alone, atol=2e-6)
    for x, y in zip((U, a, b), kept, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_overwriting_writes_the_result_into_the_matrix(shape):
    U, a, b = step(8, *shape, 2, "float64")
    G = normal(np.random.default_rng(9), shape, "float64")
    for call in (
        lambda U, **o: lu.unitary_transport(U, a, b, **o),
        lambda U, **o: lu.polar_projection(U, a, b, heal=1, rng=0, **o),
        lambda U, **o: lu.unitary_step(U, G, 0.1, 1, rng=0, **o),
    ):
        expected, own = call(U), U.copy()
        assert call(own, overwrite_unitary=True) is own
        np.testing.assert_allclose(own, expected, atol=1e-14)


def test_nan_stays_in_its_matrix():
    U, a, b = step(10, 5, 3, 1, "float64", batch=(2,))
    a[0, 0, 0] = np.nan
    for moved in (lu.unitary_transport(U, a, b), lu.polar_projection(U, a, b)):
        assert np.isnan(moved[0]).all()
        assert np.isfinite(moved[1]).all()


def test_initialiser_is_haar_distributed_on_rectangular_matrices():
    U = lu.random_unitary(5, 2, batch=(4000,), rng=0)
    assert lu.is_unitary(U).all()
    # E u² = 1/5 for every entry; the mean of 4000 has a deviation of 0.003.
    np.testing.assert_allclose((U**2).mean(axis=0), 0.2, atol=0.02)
    np.testing.assert_allclose(U.mean(axis=0), 0, atol=0.03)
    assert lu.random_unitary(2, 5, rng=0).shape == (2, 5)


def test_wrong_shapes_are_named():
    U, a, b = step(0, 5, 3, 1, "float64")
    with pytest.raises(ValueError, match=r"left and right must have shapes \(…, 5, k\) and \(…, 3, k\)"):
        lu.unitary_transport(U, b, a)
    with pytest.raises(ValueError, match=r"gradient must have shape \(…, 5, 3\)"):
        lu.unitary_step(U, U.T, 0.1, 1)
    with pytest.raises(ValueError, match="rank must be between 1 and 3"):
        lu.unitary_step(U, U, 0.1, 4)
    with pytest.raises(ValueError, match=r"left must have shape \(…, 8, k\)"):
        lu.unitary_step(U, lu.BodyFactors(b, b), 0.1, 1)
    with pytest.raises(ValueError, match="heal must be between 0 and n = 3"):
        lu.unitary_transport(U, a, b, heal=4)


@pytest.mark.parametrize(("update", "kind"), covering(UPDATES, ["generic", "inside", "zero"]))
@pytest.mark.parametrize(("shape", "dtype"), [((5, 3), "complex128"), ((3, 5), "float64")])
def test_derivative_by_autograd_is_that_of_the_dense_definition(shape, dtype, update, kind):
    # Also where nothing of the step leaves the range of U, or all is zero.
    (apply, dense), (U, a, b) = UPDATES[update], step(0, *shape, 2, dtype, kind, 0.7)
    rng = np.random.default_rng(1)
    weight, along = rng.standard_normal(shape), [rng.standard_normal(x.shape) for x in (a, b)]

    def moved(h):
        return np.sum(weight * np.real(dense(U, a + h * along[0], b + h * along[1])))

    h = 1e-6
    expected = float((moved(h) - moved(-h)) / (2 * h))
    recorded = [torch.tensor(x, requires_grad=True) for x in (a, b)]
    (torch.tensor(weight) * torch.real(apply(torch.tensor(U), *recorded) + 0j)).sum().backward()
    slope = sum(float(np.sum(x.grad.numpy().real * d)) for x, d in zip(recorded, along, strict=True))
    # The error of the difference is h² and eps/h.
    assert slope == pytest.approx(expected, abs=1e-8)

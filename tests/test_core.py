"""Balancing, the choice of the core and its range."""

import numpy as np
import pytest
from cases import ROTATIONS, error, make_step, normal
from hypothesis import given
from hypothesis import strategies as st

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import tolerance
from lowrank_unitary.rotation import core, polar, transport


@given(
    seed=st.integers(0, 2**32 - 1),
    exponents=st.lists(st.tuples(st.integers(-140, 140), st.integers(-140, 140)), min_size=1, max_size=4),
    dtype=st.sampled_from(["float64", "complex128"]),
)
def test_balancing_keeps_the_product_exactly_and_equalises_norms(seed, exponents, dtype):
    rng = np.random.default_rng(seed)
    p, q = np.array(exponents, dtype=float).T
    c, b = (normal(rng, (5, len(p)), dtype) * 10.0**e for e in (p, q))
    c2, b2, unit = core.balance(np, c, b)
    assert unit == 1
    # Powers of two take no rounding, and their product is 1: the product of the factors is untouched.
    delta_c, delta_b = c2.real / c.real, b2.real / b.real
    for delta in (delta_c, delta_b):
        mantissa, _ = np.frexp(delta)
        np.testing.assert_array_equal(mantissa, 0.5)
        np.testing.assert_array_equal(delta, np.broadcast_to(delta[:1], delta.shape))
    np.testing.assert_array_equal(delta_c * delta_b, 1.0)
    np.testing.assert_array_equal(c2, c * delta_c)
    np.testing.assert_array_equal(b2, b * delta_b)
    ratio = np.linalg.norm(c2, axis=0) / np.linalg.norm(b2, axis=0)
    assert ratio.min() > 0.2
    assert ratio.max() < 5


def test_balancing_leaves_zero_columns_zero_and_makes_their_partners_small():
    c, b = np.zeros((4, 2)), 1e200 * np.ones((4, 2))
    c2, b2, _ = core.balance(np, c, b)
    assert not c2.any()
    assert 0 < np.linalg.norm(b2) < 1e-6
    assert not any(x.any() for x in core.balance(np, c, np.zeros((4, 2)))[:2])


@pytest.mark.parametrize("update", ROTATIONS)
def test_unbalanced_factors_cost_no_digits(update, dtype):
    # Unbalanced by 1e4 : 1e-4 an inverse-free core loses eight digits.
    step = make_step(3, 10, 2, dtype, norm=0.5)
    reference_rotation = lu.rotate(step.unitary, ROTATIONS[update](step.body))
    for ratio in (1e4, 1e-4):
        body = lu.BodyFactors(step.body.left * np.float32(ratio), step.body.right / np.float32(ratio))
        assert error(lu.rotate(step.unitary, ROTATIONS[update](body)), reference_rotation) <= step.tolerance()


@pytest.mark.parametrize("update", ROTATIONS)
@pytest.mark.parametrize("kind", ["generic", "collinear", "opposite"])
def test_gram_core_outside_its_range_gives_nan_and_never_a_wrong_number(update, kind):
    right_answers = 0
    for norm in 10.0 ** np.arange(-1, 7, 0.5):
        body = make_step(0, 8, 2, "float64", kind, norm).body
        exact = reference.rotation_matrix(*ROTATIONS[update](body, core="orthonormal"))
        wrong = error(reference.rotation_matrix(*ROTATIONS[update](body, core="gram")), exact)
        # Half of the digits, as the documentation says, times the sensitivity of the polar factor.
        assert np.isnan(wrong) or wrong <= 1e-6
        right_answers += wrong <= 1e-10
    assert right_answers >= 2


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_gram_core_measures_its_own_defect(dtype):
    # A spoiled M is let through while ‖RᴴR − I‖_F of R = I + W M Wᴴ is below √eps, and is NaN above.
    rng = np.random.default_rng(0)
    W = 3 * normal(rng, (9, 4), dtype)
    K = W.conj().T @ W
    noise = normal(rng, (4, 4), dtype)

    def defect(M):
        return float(reference.unitarity_defect(reference.rotation_matrix(W @ M, W)))

    limit = np.sqrt(np.finfo(dtype).eps)
    unit = limit / (defect(1e-9 * noise) / 1e-9)
    for factor in (0.5, 0.9, 1.1, 2.0):
        M = factor * unit * noise
        assert defect(M) == pytest.approx(factor * limit, rel=1e-3)
        assert np.isnan(core.unless_wrong(np, M, K)).all() == (factor > 1)


@pytest.mark.parametrize("batch", [(), (2,), (2, 2)])
def test_exactly_singular_step_spoils_no_other_matrix_of_its_batch(batch):
    b = np.zeros((*batch, 4, 1))
    b[..., 0, 0] = 1
    c = -b
    c[..., 0, 0] = np.linspace(-0.5, -1.0, max(1, int(np.prod(batch)))).reshape(batch)
    P = lu.rotate(np.eye(4), lu.polar_rotation(lu.BodyFactors(c, b), core="gram")).reshape(-1, 4, 4)
    assert np.isnan(P[-1]).any() or np.allclose(np.abs(P[-1]), np.eye(4))
    for matrix in P[:-1]:
        np.testing.assert_allclose(matrix, np.eye(4), atol=1e-14)


def test_auto_takes_the_gram_core_for_small_steps_and_the_orthonormal_one_for_large_steps():
    step = make_step(0, 9, 2, "float64", norm=1e-2)
    np.testing.assert_array_equal(
        lu.transport_rotation(step.body).left, lu.transport_rotation(step.body, core="gram").left
    )
    step = make_step(0, 9, 2, "float64", norm=5.0)
    np.testing.assert_array_equal(
        lu.polar_rotation(step.body).left, lu.polar_rotation(step.body, core="orthonormal").left
    )


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 6), log_norm=st.floats(-12, 2.5))
def test_phi1_equals_its_definition(seed, size, log_norm):
    # e^A = I + A φ₁(A), for matrices that are similar to a skew one but not normal, as KJ is
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((size, size))
    A = A - A.T
    A *= 10.0**log_norm / max(np.linalg.norm(A), 1e-300)
    phi = transport.phi1(np, A, False)
    assert error(np.eye(size) + A @ phi, reference.exponential(A)) <= 1e-14 * max(1.0, 10.0**log_norm)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 6), spread=st.floats(0, 3))
def test_square_root_squares_to_its_argument(seed, size, spread):
    rng = np.random.default_rng(seed)
    Q = lu.random_unitary(size, rng=rng)
    A = (Q * np.exp(rng.uniform(-spread, spread, size))) @ Q.T
    S = polar.square_root(np, A, 10)
    assert error(S @ S, A) <= 1e-13 * np.exp(spread) ** 2


@pytest.mark.parametrize("update", ROTATIONS)
def test_fewer_steps_suffice_within_the_range_that_auto_uses(update):
    # At the limit of ‖K‖ the spectrum is as wide as it gets; every kind of factors at that limit.
    for kind in ("generic", "collinear", "opposite", "rank one", "repeated"):
        for k in (2, 4):
            step = make_step(k, 20, k, "float64", kind, norm=0.5)
            W, K, _ = core.balanced_gram(np, *step.body)
            size = np.sqrt(0.999 * core.GRAM_LIMIT / np.linalg.norm(np.linalg.matrix_power(K, 8)) ** 0.125)
            assert np.linalg.norm(size**2 * K, 2) >= 0.7 * core.GRAM_LIMIT
            body = lu.BodyFactors(W[:, k:] * size, W[:, :k] * size)
            r = ROTATIONS[update](body)
            np.testing.assert_allclose(np.abs(r.left).sum(), np.abs(W).sum() * size)  # the Gram core's W
            exact = {
                "polar": lambda u, a, b: reference.polar(u, a, b),
                "geodesic": lambda u, a, b: reference.transport(u, a, b),
                "cayley": lambda u, a, b: reference.transport(u, a, b, "cayley"),
            }[update](np.eye(20), *body)
            assert error(lu.rotate(np.eye(20), r), exact) <= 4e-15


def test_square_root_gives_nan_where_it_has_not_converged():
    assert np.isnan(polar.square_root(np, np.diag([1.0, 1e-9]), 10)).all()
    assert np.isfinite(polar.square_root(np, np.diag([1.0, 1e-3]), 10)).all()


def test_tolerance_grows_with_size_rank_and_step_and_shrinks_with_precision():
    base = tolerance(np, np.float64, 100, 1)
    assert 1e-14 < base < 1e-13
    assert tolerance(np, np.float64, 400, 1) == pytest.approx(2 * base)
    assert tolerance(np, np.float64, 100, 8) > 2 * base
    assert tolerance(np, np.float64, 100, 1, scale=10) == pytest.approx(10 * base)
    assert tolerance(np, np.float64, 100, 1, scale=0.1) == base
    assert tolerance(np, np.complex64, 100, 1) == pytest.approx(base * 2.0**29)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_tolerance_is_neither_tight_nor_loose(dtype):
    # Rounding alone stays below the bound, and within a factor of 200 of it.
    ratios = []
    for seed in range(20):
        step = make_step(seed, 24, 2, dtype, norm=0.5)
        wrong = error(lu.unitary_transport(*step.arrays), reference.transport(*step.arrays))
        ratios.append(wrong / step.tolerance())
    assert max(ratios) <= 1
    assert np.median(ratios) >= 0.005


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_newton_step_makes_polar_factors_exact_to_rounding(dtype):
    # An SVD alone is off by 1.1 to 1.5 in these units, and tall factors are 16 eps from orthonormal.
    eps, one, errors, defects = np.finfo(dtype).eps, np.ones((1, 1)), [], []
    for seed in range(20):
        X = 3 * normal(np.random.default_rng(seed), (20, 20), dtype)
        whole = np.eye(20) + reference.extended(X)
        difference = np.eye(20) + polar.dense_change(np, X, one) - reference.polar_factor(whole)
        *_, before, last = np.linalg.svd(np.eye(20) + X, compute_uv=False)
        condition = 1 / last if X.dtype.kind == "c" else 2 / (last + before)
        size = eps * np.linalg.norm(X, 2) * max(1.0, condition)
        errors.append(float(np.sqrt(np.sum(np.abs(difference) ** 2))) / size)
        tall = np.eye(20, 8) + reference.extended(polar.dense_change(np, X[:, :8], one))
        defects.append(float(reference.unitarity_defect(tall)) / eps)
    assert np.median(errors) <= 0.6
    assert np.median(defects) <= 8

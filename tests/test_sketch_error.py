"""What a sketch has missed: bounds hold as often as they say, estimates are unbiased, nothing is silent."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from backends import at_once
from cases import ct, normal
from profiles import of_profile

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import to_numpy

# Differences of given singular values: all the weight on one, on few, on all, and falling.
SPECTRA = {
    "rank one": lambda j: 1.0 * (j == 1),
    "rank two": lambda j: 1.0 * (j <= 2),
    "flat": np.ones_like,
    "slow": lambda j: j**-0.5,
    "fast": lambda j: j**-2.0,
}


def differences(spectrum, draws, m, n, dtype, rng):
    """A batch of matrices E with one spectrum, each beside a matrix A and the rank-2 sketch A − E."""
    size = min(m, n)
    u = lu.random_unitary(m, dtype=dtype, batch=(draws,), rng=rng)[..., :size]
    v = lu.random_unitary(n, dtype=dtype, batch=(draws,), rng=rng)[..., :size, :]
    s = SPECTRA[spectrum](np.arange(1.0, size + 1))
    left, right = normal(rng, (draws, m, 2), dtype), normal(rng, (draws, n, 2), dtype)
    E = ((u * s) @ v).astype(dtype)
    return E + left @ ct(right), lu.LowRankFactors(left, right), s


def within(chance, N):
    """Four standard deviations above what N events of this chance count."""
    return chance * N + 4 * math.sqrt(chance * N) + 1


@pytest.mark.parametrize("spectrum", sorted(SPECTRA))
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_bounds_hold_with_the_stated_probability(spectrum, dtype):
    N, exceeded = of_profile(quick=300, thorough=1200), np.zeros(3)
    rng = np.random.default_rng(0)
    for m, n, probes, q in [(12, 9, 10, 1), (5, 20, 4, 0), (30, 30, 3, 2)]:
        matrix, sketch, s = differences(spectrum, N, m, n, dtype, rng)
        error = lu.sketch_error(matrix, sketch, probes=probes, power_iterations=q, probability=0.95, rng=rng)
        frobenius, spectral = np.linalg.norm(s), s[0]
        slack = 1 + 1e-4
        exceeded[0] += np.sum(error.frobenius_upper * slack < frobenius)
        exceeded[1] += np.sum(error.frobenius_lower > frobenius * slack)
        exceeded[2] += np.sum(error.spectral_upper * slack < spectral)
        assert (error.spectral_lower <= spectral * slack).all()
        assert (error.frobenius_lower <= error.frobenius).all()
        assert (error.frobenius <= error.frobenius_upper).all()
        # The mean square is that of the norm: each has a variance of 2/p at most.
        assert abs(np.mean(error.frobenius**2) / frobenius**2 - 1) < 5 * math.sqrt(2 / probes / N)
    assert (exceeded <= within(0.025, 3 * N)).all()
    if spectrum == "rank one":
        # The bounds are those of this case: they are not met by being far too wide.
        assert (exceeded[:2] >= 0.5 * 0.025 * 3 * N).all()


def test_power_iterations_sharpen_the_spectral_norm():
    matrix, sketch, s = differences("slow", 40, 60, 60, "float64", np.random.default_rng(1))
    widths = []
    for q in (0, 1, 3):
        error = lu.sketch_error(matrix, sketch, power_iterations=q, rng=2)
        widths.append(np.mean(error.spectral_upper / error.spectral_lower))
        assert (error.spectral_lower <= s[0]).all()
        assert (s[0] <= error.spectral_upper).all()
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 1.6


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_estimates_scale_with_the_matrix(scale, dtype):
    rng = np.random.default_rng(3)
    matrix = normal(rng, (8, 6), dtype)
    factor = np.float32(scale)
    one, other = (lu.sketch_error(A, lu.svd_sketch(A, 2, rng=0), rng=1) for A in (matrix, matrix * factor))
    for x, y in zip(one, other, strict=True):
        assert float(y / factor) == pytest.approx(float(x), rel=1e3 * float(np.finfo(dtype).eps))


def test_an_exact_sketch_is_told_from_one_that_is_not(dtype):
    rng = np.random.default_rng(4)
    matrix = normal(rng, (20, 3), dtype) @ ct(normal(rng, (15, 3), dtype))
    size = np.linalg.norm(matrix)
    whole, part = (lu.sketch_error(matrix, lu.svd_sketch(matrix, k, rng=1), rng=2) for k in (3, 2))
    assert whole.frobenius_upper < 100 * np.finfo(dtype).eps * size
    assert part.frobenius_lower > 0.01 * size


def test_nothing_at_all_has_no_error(dtype):
    zero = np.zeros((2, 6, 5), dtype=dtype)
    error = lu.sketch_error(zero, lu.svd_sketch(zero, 2, rng=0), rng=0)
    assert all(not np.any(x) for x in error)
    assert not np.any(lu.leave_one_out_error(zero))


def test_nan_is_seen_in_its_own_matrix_only(dtype):
    matrix = normal(np.random.default_rng(5), (2, 6, 5), dtype)
    sketch = lu.svd_sketch(matrix, 2, rng=0)
    matrix[0, 3, 2] = np.nan
    for x in lu.sketch_error(matrix, sketch, rng=0):
        assert np.isnan(x[0])
        assert np.isfinite(x[1])


def test_all_forms_of_a_matrix_and_of_a_sketch_give_one_estimate(backend):
    rng = np.random.default_rng(6)
    left, right = normal(rng, (9, 4), complex), normal(rng, (7, 4), complex)
    A = left @ ct(right)
    sketch = lu.svd_sketch(A, 2, rng=0)
    expected = lu.sketch_error(A, sketch, rng=1)
    factors = lu.LowRankFactors(backend.array(left), backend.array(right))
    there = lu.SVDSketch(*map(backend.array, sketch))
    for matrix, kept in ((backend.array(A), there), (factors, there.factors())):
        found = at_once(backend.xp, lambda *pair: lu.sketch_error(*pair, rng=1))(matrix, kept)
        for x, y in zip(found, expected, strict=True):
            assert float(to_numpy(x)) == pytest.approx(float(y), rel=1e-11)
    for matrix in (scipy.sparse.csr_array(A), scipy.sparse.linalg.aslinearoperator(A)):
        assert lu.sketch_error(matrix, sketch, rng=1).frobenius == pytest.approx(float(expected.frobenius))


STEPS = {
    "geodesic": lambda A: scipy.linalg.expm(A),
    "cayley": lambda A: np.linalg.solve(np.eye(len(A)) - A / 2, np.eye(len(A)) + A / 2),
    "polar": lambda A: scipy.linalg.polar(np.eye(len(A)) + A)[0],
}


@pytest.mark.parametrize("update", sorted(STEPS))
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_error_in_the_tangent_bounds_that_of_the_step(update, dtype):
    rng = np.random.default_rng(7)
    missed, draws = 0, 60
    for seed in range(draws):
        n, eta = 10, 10.0 ** rng.uniform(-3, 0.5)
        U, G = lu.random_unitary(n, dtype=dtype, rng=rng), normal(rng, (n, n), dtype)
        body = lu.tangent_sketch(U, G, 2, rng=seed)
        error = lu.tangent_error(U, G, body, rng=seed, probability=0.98)
        A = np.asarray(reference.tangent(U, G)).astype(dtype)
        product = body.left @ ct(body.right)
        distance = np.linalg.norm(STEPS[update](-eta * A) - STEPS[update](-eta * (product - ct(product)) / 2))
        missed += distance > eta * error.frobenius_upper
        assert distance <= eta * np.linalg.norm(A - (product - ct(product)) / 2) * (1 + 1e-12)
        if eta < 2e-3:
            # To first order it is the bound.
            assert distance >= 0.9 * eta * error.frobenius_lower
    assert missed <= within(0.01, draws)


def test_factors_of_a_gradient_give_the_error_of_its_sketch():
    rng = np.random.default_rng(8)
    U, left, right = lu.random_unitary(12, rng=rng), *rng.standard_normal((2, 12, 5))
    body = lu.tangent_sketch(U, left @ right.T, 2, rng=0)
    dense = lu.tangent_error(U, left @ right.T, body, rng=1)
    thin = lu.tangent_error(U, lu.LowRankFactors(left, right), body, rng=1)
    known = lu.tangent_error(None, lu.BodyFactors(U.T @ left, right), body, rng=1)
    for x, y, z in zip(dense, thin, known, strict=True):
        assert x == pytest.approx(y, rel=1e-11)
        assert x == pytest.approx(z, rel=1e-11)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("spectrum", ["slow", "fast", "flat"])
def test_leaving_one_out_estimates_the_error_from_the_samples_alone(dtype, spectrum):
    n, width, draws = 40, 8, 400
    s = SPECTRA[spectrum](np.arange(1.0, n + 1))
    samples = s[:, None] * lu.random_test_matrix(n, width, batch=(draws,), dtype=dtype, rng=0)
    estimate = lu.leave_one_out_error(samples)
    # The definition, one column after the other; unbiased for a sketch from one sample fewer.
    squares = []
    for j in range(width):
        Q, _ = np.linalg.qr(np.delete(samples, j, axis=-1))
        rest = samples[..., j : j + 1]
        squares.append(np.linalg.norm(rest - Q @ (ct(Q) @ rest), axis=(-2, -1)) ** 2)
    np.testing.assert_allclose(estimate, np.sqrt(np.mean(squares, axis=0)), rtol=1e-8)
    true = np.sum(s**2) - np.linalg.norm(ct(Q) * s, axis=(-2, -1)) ** 2
    spread = np.std(estimate**2) / math.sqrt(draws) + np.std(true) / math.sqrt(draws)
    assert abs(np.mean(estimate**2) - np.mean(true)) < 5 * spread


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_leaving_one_out_scales_and_survives_dependent_samples(scale, dtype):
    samples = normal(np.random.default_rng(9), (12, 4), dtype)
    scaled = (samples * np.float32(scale)).astype(dtype)
    relative = lu.leave_one_out_error(scaled) / np.float32(scale)
    assert relative == pytest.approx(lu.leave_one_out_error(samples), rel=1e-4)
    # One of a pair is no loss; the two that stand alone are: half of the mean square of the four.
    repeated = np.concatenate([scaled, scaled[:, :2]], axis=1)
    alone = [np.linalg.norm(part) for part in samples[:, 2:].T]
    assert 0 < lu.leave_one_out_error(repeated) / np.float32(scale) < np.linalg.norm(alone)
    twice = lu.leave_one_out_error(np.concatenate([scaled, scaled], axis=1)) / np.float32(scale)
    assert twice <= 1e2 * np.finfo(dtype).eps * np.linalg.norm(samples)
    samples[3, 1] = np.nan
    assert np.isnan(lu.leave_one_out_error(samples))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A, s: lu.sketch_error(A, s, probes=0), ValueError, "probes must be 1 or more, got 0"),
        (
            lambda A, s: lu.sketch_error(A, s, probability=1.0),
            ValueError,
            "probability must be more than 0 and less than 1",
        ),
        (lambda A, s: lu.sketch_error(A.T, s), ValueError, "sketch must stand for a matrix of the shape"),
        (lambda A, s: lu.sketch_error(A, s.U), TypeError, "sketch must be"),
        (lambda A, s: lu.sketch_error(A, s, power_iterations=-1), ValueError, "power_iterations must be 0"),
        (lambda A, s: lu.leave_one_out_error(A.T), ValueError, "samples must have no more columns"),
        (lambda A, s: lu.tangent_error(np.eye(6), np.eye(6), s), TypeError, "body_factors must be"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    A = np.random.default_rng(0).standard_normal((6, 5))
    with pytest.raises(error, match=message):
        call(A, lu.svd_sketch(A, 2, rng=0))

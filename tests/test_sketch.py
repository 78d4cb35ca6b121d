"""Sketches of a matrix: near the optimum, scale-invariant, orthonormal for every rank."""

import numpy as np
import pytest
from cases import ct, normal
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator

import lowrank_unitary as lu
from lowrank_unitary._array import tolerance
from lowrank_unitary.sketch.svd import METHODS

SPECTRA = {
    "flat": lambda j: np.ones_like(j),
    "slow": lambda j: j**-0.5,
    "fast": lambda j: j**-2.0,
    "rank one": lambda j: 1.0 * (j == 1),
    "rank two": lambda j: 1.0 * (j <= 2),
    "zero": lambda j: 0.0 * j,
}

method = pytest.mark.parametrize("method", METHODS)


def matrix_of(rng, m, n, dtype, spectrum, batch=()):
    size = min(m, n)
    left = lu.random_unitary(m, dtype=dtype, batch=batch, rng=rng)[..., :size]
    right = lu.random_unitary(n, dtype=dtype, batch=batch, rng=rng)[..., :size, :]
    s = SPECTRA[spectrum](np.arange(1.0, size + 1))
    return ((left * s) @ right).astype(dtype), s


def dense(sketch):
    return (sketch.U * sketch.S[..., None, :]) @ sketch.Vh


@st.composite
def matrices(draw):
    m, n = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from(["float32", "float64", "complex64", "complex128"]))
    batch = draw(st.sampled_from([(), (2,), (2, 2)]))
    matrix, s = matrix_of(
        np.random.default_rng(seed), m, n, dtype, draw(st.sampled_from(sorted(SPECTRA))), batch
    )
    return matrix, s, draw(st.integers(1, min(m, n))), seed


@method
@given(drawn=matrices())
def test_sketch_is_a_truncated_svd_of_the_stated_shape(method, drawn):
    matrix, s, k, seed = drawn
    sketch = lu.svd_sketch(matrix, k, method=method, rng=seed)
    m, n = matrix.shape[-2:]
    batch = matrix.shape[:-2]
    assert (sketch.U.shape, sketch.S.shape, sketch.Vh.shape) == ((*batch, m, k), (*batch, k), (*batch, k, n))
    assert sketch.U.dtype == sketch.Vh.dtype == matrix.dtype
    assert sketch.S.dtype == np.finfo(matrix.dtype).dtype
    bound = tolerance(np, matrix.dtype, max(m, n), k)
    assert np.abs(ct(sketch.U) @ sketch.U - np.eye(k)).max() <= bound
    assert np.abs(sketch.Vh @ ct(sketch.Vh) - np.eye(k)).max() <= bound
    assert (np.diff(sketch.S) <= bound).all()
    assert (sketch.S >= 0).all()
    # The sketch projects, but for that of a single pass: it never exceeds the matrix.
    assert (s[:k] + bound >= sketch.S).all() or method == "single_pass"
    best = np.sqrt(np.sum(s[k:] ** 2))
    assert (np.linalg.norm(matrix - dense(sketch), axis=(-2, -1)) >= best - bound).all()


@method
@given(drawn=matrices())
def test_sketch_of_a_matrix_of_low_rank_is_that_matrix(method, drawn):
    matrix, s, k, seed = drawn
    if method == "columns":
        # Sampled columns span the range only by chance; a single direction they always hit.
        k = 1
    rank = np.count_nonzero(s)
    if rank <= k:
        options, condition = {"rng": seed}, 1.0
        if method == "lsi" and rank:
            # As many samples as dimensions, and no more: the range is as accurate as their condition allows.
            omega = normal(np.random.default_rng(seed), (*matrix.shape[:-1], k), matrix.dtype)
            options = {"test_matrix": omega}
            seen = np.linalg.svd(ct(omega) @ matrix, compute_uv=False)
            condition = max(1.0, float(np.max(1.0 / seen[..., rank - 1])))
        sketch = lu.svd_sketch(matrix, k, method=method, **options)
        bound = 4 * condition * tolerance(np, matrix.dtype, max(matrix.shape), k)
        assert np.abs(dense(sketch) - matrix).max() <= bound


@given(drawn=matrices())
def test_exact_sketch_is_the_best_approximation(drawn):
    matrix, s, k, _ = drawn
    sketch = lu.svd_sketch(matrix, k, method="exact")
    error = np.linalg.norm(matrix - dense(sketch), axis=(-2, -1))
    bound = tolerance(np, matrix.dtype, max(matrix.shape), k)
    assert np.abs(error - np.sqrt(np.sum(s[k:] ** 2))).max() <= 4 * bound


@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("spectrum", ["flat", "slow", "fast"])
def test_randomized_captures_nearly_the_optimal_energy(k, spectrum, dtype):
    matrix, s = matrix_of(np.random.default_rng(0), 128, 128, dtype, spectrum)
    energies = [np.sum(lu.svd_sketch(matrix, k, rng=seed).S ** 2) for seed in range(20)]
    assert np.mean(energies) >= 0.99 * np.sum(s[:k] ** 2)


@pytest.mark.parametrize("k", [2, 8])
def test_samplers_of_the_paper_capture_what_chance_allows_and_no_more_than_randomized(k):
    matrix, s = matrix_of(np.random.default_rng(1), 64, 64, "float64", "slow")
    energy = {
        method: np.mean([np.sum(lu.svd_sketch(matrix, k, method=method, rng=i).S ** 2) for i in range(40)])
        for method in METHODS
    }
    assert energy["exact"] == pytest.approx(np.sum(s[:k] ** 2))
    assert energy["exact"] >= energy["randomized"] > energy["lsi"]
    assert energy["randomized"] > energy["columns"]
    # Any k-dimensional range holds k/n of the energy on average; sampling by A itself holds more.
    assert min(energy.values()) > 1.5 * k / 64 * np.sum(s**2)


@method
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_sketch_scales_with_its_matrix(method, dtype, scale):
    matrix, _ = matrix_of(np.random.default_rng(2), 9, 7, dtype, "slow")
    one = lu.svd_sketch(matrix, 3, method=method, rng=5)
    scaled = lu.svd_sketch(matrix * np.float32(scale), 3, method=method, rng=5)
    bound = 10 * tolerance(np, dtype, 9, 3)
    np.testing.assert_allclose(scaled.S / np.float32(scale), one.S, rtol=bound)
    assert np.abs(dense(scaled) / np.float32(scale) - dense(one)).max() <= bound


@method
def test_nan_gives_nan_in_its_own_matrix_only(method, dtype):
    matrix, _ = matrix_of(np.random.default_rng(3), 6, 5, dtype, "slow", (2,))
    clean = dense(lu.svd_sketch(matrix, 2, method=method, rng=0))
    matrix[0, 1, 1] = np.nan
    sketch = dense(lu.svd_sketch(matrix, 2, method=method, rng=0))
    assert np.isnan(sketch[0]).all()
    np.testing.assert_allclose(sketch[1], clean[1], rtol=0, atol=tolerance(np, dtype, 6, 2))


def test_power_iterations_and_oversampling_pay():
    matrix, _ = matrix_of(np.random.default_rng(4), 96, 96, "float64", "slow")

    def energy(**options):
        return np.mean([np.sum(lu.svd_sketch(matrix, 4, rng=i, **options).S ** 2) for i in range(30)])

    bare = energy(oversample=0, power_iterations=0)
    wider, powered = energy(oversample=8, power_iterations=0), energy(oversample=0, power_iterations=1)
    assert bare < wider < energy()
    assert bare < powered < energy()


def test_same_seed_gives_the_same_sketch_and_generators_advance():
    matrix, _ = matrix_of(np.random.default_rng(5), 20, 20, "float64", "slow")
    first, second = (lu.svd_sketch(matrix, 2, rng=7, power_iterations=0) for _ in range(2))
    np.testing.assert_array_equal(first.S, second.S)
    rng = np.random.default_rng(7)
    first, second = (lu.svd_sketch(matrix, 2, rng=rng, power_iterations=0) for _ in range(2))
    assert not np.array_equal(first.S, second.S)


def test_given_test_matrix_is_used_and_sets_the_oversampling():
    rng = np.random.default_rng(6)
    matrix, _ = matrix_of(rng, 12, 10, "complex128", "slow")
    top = ct(lu.svd_sketch(matrix, 3, method="exact").Vh)
    exact = lu.svd_sketch(matrix, 2, method="exact")
    by_hand = lu.svd_sketch(matrix, 2, test_matrix=top, power_iterations=0)
    np.testing.assert_allclose(by_hand.S, exact.S, rtol=1e-13)
    samples = lu.svd_sketch(matrix, 2, method="exact").U
    np.testing.assert_allclose(
        lu.svd_sketch(matrix, 2, method="lsi", test_matrix=samples).S, exact.S, rtol=1e-13
    )


def test_factors_of_a_sketch_multiply_to_it(dtype):
    rng = np.random.default_rng(8)
    matrix = normal(rng, (2, 6, 4), dtype)
    sketch = lu.svd_sketch(matrix, 4, method="exact")
    left, right = sketch.factors()
    assert np.abs(left @ ct(right) - matrix).max() <= 10 * tolerance(np, dtype, 6, 4)


def test_lsi_depends_on_the_range_of_its_samples_only():
    # Haar samples: an invertible change of the test matrix must not matter.
    rng = np.random.default_rng(9)
    matrix, _ = matrix_of(rng, 12, 9, "float64", "slow")
    samples = rng.standard_normal((12, 3))
    one = lu.svd_sketch(matrix, 3, method="lsi", test_matrix=samples)
    other = lu.svd_sketch(matrix, 3, method="lsi", test_matrix=samples @ rng.standard_normal((3, 3)))
    np.testing.assert_allclose(dense(one), dense(other), atol=1e-12)


@method
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_where_a_singular_value_overflows_it_is_infinite_and_its_vectors_are_right(method, dtype):
    sign = np.where(np.arange(40) % 3, 1.0, -1.0)
    matrix = (np.full((50, 40), 3e38) * sign).astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        U, S, Vh = lu.svd_sketch(matrix, 1, method=method, rng=0)
    assert np.isposinf(S)
    np.testing.assert_allclose(U @ Vh, np.ones((50, 1)) * sign / np.sqrt(50 * 40), rtol=1e-5)


@method
def test_a_singular_value_near_the_largest_number_is_right_where_products_overflow(method):
    matrix = np.zeros((50, 40), "float32")
    matrix[3] = 3e38 / np.sqrt(40) * np.where(np.arange(40) % 3, 1.0, -1.0)
    with np.errstate(all="ignore"):
        sketch = lu.svd_sketch(matrix, 1, method=method, rng=0)
    np.testing.assert_allclose(sketch.S, 3e38, rtol=1e-5)
    np.testing.assert_allclose(dense(sketch), matrix, atol=1e33)


@method
def test_where_one_matrix_overflows_the_others_of_its_batch_stay(method):
    rng = np.random.default_rng(0)
    small = 1e-30 * rng.standard_normal((50, 1)) @ rng.standard_normal((1, 40))
    stack = np.stack([small, np.full((50, 40), 3e38), np.full((50, 40), np.nan)]).astype("float32")
    with np.errstate(all="ignore"):
        sketch = lu.svd_sketch(stack, 1, method=method, rng=0)
    np.testing.assert_allclose(dense(sketch)[0], small, atol=1e-5 * np.max(np.abs(small)))
    np.testing.assert_allclose(sketch.U[1] @ sketch.Vh[1], np.full((50, 40), 1 / np.sqrt(2000)), rtol=1e-5)
    assert np.isposinf(sketch.S[1])
    assert np.all(np.isnan(sketch.S[2]))


@pytest.mark.parametrize("method", ["randomized", "exact"])
def test_factors_whose_product_overflows_have_singular_vectors(method):
    factors = lu.LowRankFactors(np.full((9, 2), 1e30, "float32"), np.full((7, 2), 1e30, "float32"))
    with np.errstate(over="ignore", invalid="ignore"):
        U, S, Vh = lu.svd_sketch(factors, 1, method=method, rng=0)
    assert np.isposinf(S)
    np.testing.assert_allclose(U @ Vh, np.full((9, 7), 1 / np.sqrt(63)), rtol=1e-5)


@pytest.mark.parametrize("kind", ["LinearOperator", "callables"])
def test_products_of_operators_may_overflow(kind):
    matrix = np.full((50, 40), 3e38, "float32")
    operator = matrix.__matmul__, matrix.T.__matmul__
    test_matrix = lu.random_test_matrix(40, 5, dtype="float32", rng=0)
    if kind == "LinearOperator":
        operator = LinearOperator(
            matrix.shape, *operator, matmat=operator[0], rmatmat=operator[1], dtype="float32"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        U, S, Vh = lu.svd_sketch(operator, 1, test_matrix=test_matrix)
    assert np.isposinf(S)
    np.testing.assert_allclose(U @ Vh, np.full((50, 40), 1 / np.sqrt(2000)), rtol=1e-5)

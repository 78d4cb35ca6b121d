"""A rank for a tolerance: met as often as stated, with few columns to spare, in fixed shapes on request."""

import math
from functools import partial

import jax
import numpy as np
import pytest
from backends import at_once, on_every_backend
from cases import ct, normal
from profiles import of_profile

import lowrank_unitary as lu
from lowrank_unitary._array import to_numpy

SPECTRA = {
    "slow": lambda j: j**-0.5,
    "middle": lambda j: j**-1.0,
    "fast": lambda j: 10.0 ** (-j / 4),
    "step": lambda j: np.where(j <= 5, 1.0, 1e-3),
    "rank one": lambda j: 1.0 * (j == 1),
}


def matrix_of(spectrum, m, n, dtype, rng, batch=()):
    size = min(m, n)
    s = SPECTRA[spectrum](np.arange(1.0, size + 1))
    u = lu.random_unitary(m, dtype=dtype, batch=batch, rng=rng)[..., :size]
    v = lu.random_unitary(n, dtype=dtype, batch=batch, rng=rng)[..., :size, :]
    return ((u * s) @ v).astype(dtype), s


def skew(body):
    product = body.left @ ct(body.right)
    return (product - ct(product)) / 2


def needed(s, tol):
    """The smallest rank that leaves no more than tol of the norm, at least one."""
    tails = np.sqrt(np.append(np.cumsum(s[::-1] ** 2)[::-1], 0.0))
    return max(1, int(np.argmax(tails <= tol * tails[0])))


@pytest.mark.parametrize("spectrum", sorted(SPECTRA))
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_the_tolerance_is_met_with_few_columns_to_spare(spectrum, dtype):
    rng, draws, missed, spare = np.random.default_rng(0), of_profile(quick=20, thorough=60), 0, []
    for seed in range(draws):
        m, n = rng.integers(20, 60, 2)
        tol = 10.0 ** rng.uniform(-3, -0.3)
        matrix, s = matrix_of(spectrum, m, n, dtype, rng)
        sketch = lu.svd_sketch(matrix, rtol=tol, rng=seed)
        error = np.linalg.norm(matrix - (sketch.U * sketch.S) @ sketch.Vh) / np.linalg.norm(matrix)
        missed += error > tol * (1 + 1e-5)
        spare.append(len(sketch.S) - needed(s, tol))
    # One in a hundred is stated, for the worst spectrum.
    assert missed <= 0.01 * draws + 4 * math.sqrt(0.01 * draws)
    assert min(spare) >= 0 or missed
    assert np.mean(spare) <= {"slow": 5, "middle": 5, "fast": 2, "step": 1, "rank one": 0}[spectrum]


@pytest.mark.parametrize("spectrum", sorted(SPECTRA))
def test_the_exact_sketch_takes_the_smallest_rank_there_is(spectrum, dtype):
    matrix, s = matrix_of(spectrum, 20, 30, dtype, np.random.default_rng(1))
    for tol in (0.5, 0.11, 0.013):
        assert len(lu.svd_sketch(matrix, rtol=tol, method="exact").S) == needed(s, tol)
        masked = lu.svd_sketch(matrix, rtol=tol, method="exact", masked=True, max_rank=17)
        assert np.count_nonzero(masked.S) == min(17, needed(s, tol))


@pytest.mark.parametrize("call", ["tangent_sketch", "compress_tangent", "exact"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_tangent_is_held_to_its_tolerance_too(call, dtype):
    rng, missed, spare = np.random.default_rng(2), 0, []
    for seed in range(60):
        n = 30
        U = lu.random_unitary(n, dtype=dtype, rng=rng)
        C, H = normal(rng, (2, n, 8), dtype) / np.arange(1, 9)
        A, tol = skew(lu.BodyFactors(C, H)), 10.0 ** rng.uniform(-2, -0.3)
        if call == "tangent_sketch":
            body = lu.tangent_sketch(U, U @ (C @ ct(H)), rtol=tol, rng=seed)
        else:
            method = "exact" if call == "exact" else "randomized"
            body = lu.compress_tangent(lu.BodyFactors(C, H), rtol=tol, method=method, rng=seed)
        missed += np.linalg.norm(A - skew(body)) > tol * np.linalg.norm(A) * (1 + 1e-10)
        w = np.linalg.eigvalsh(1j * A)
        sizes = np.hypot(np.maximum(w[::-1], 0), np.maximum(-w, 0))[: n // 2]
        spare.append(body.left.shape[-1] - needed(sizes, tol))
    assert missed <= 3
    assert min(spare) >= 0
    assert np.mean(spare) <= (0 if call == "exact" else 2)


def test_max_rank_is_never_exceeded(dtype):
    matrix, _ = matrix_of("slow", 40, 40, dtype, np.random.default_rng(3))
    assert lu.svd_sketch(matrix, rtol=1e-3, max_rank=7, rng=0).S.shape == (7,)
    body = lu.tangent_sketch(lu.random_unitary(40, dtype=dtype, rng=0), matrix, rtol=1e-3, max_rank=7, rng=0)
    assert body.left.shape == (40, 7)


def test_a_batch_takes_the_rank_of_the_matrix_that_needs_most(dtype):
    rng = np.random.default_rng(4)
    parts = [matrix_of(spectrum, 30, 24, dtype, rng)[0] for spectrum in ("rank one", "step", "fast")]
    sketch = lu.svd_sketch(np.stack(parts), rtol=0.05, rng=0)
    counts = np.count_nonzero(sketch.S, axis=-1)
    assert counts.max() == sketch.S.shape[-1]
    assert counts[0] == 1
    assert counts[1] == 5
    dense = (sketch.U * sketch.S[..., None, :]) @ sketch.Vh
    for part, kept in zip(parts, dense, strict=True):
        assert np.linalg.norm(part - kept) <= 0.05 * np.linalg.norm(part)


@pytest.mark.gate
@pytest.mark.parametrize("x64", [True, False])
def test_masked_shapes_do_not_depend_on_values(x64):
    rng = np.random.default_rng(5)
    with jax.enable_x64(x64):
        dtype = "float64" if x64 else "float32"
        sketch = jax.jit(lambda A, key: lu.svd_sketch(A, rtol=0.05, max_rank=9, masked=True, rng=key))
        tangent = jax.jit(
            lambda A, key: lu.tangent_sketch(
                jax.numpy.eye(24, dtype=dtype), A, rtol=0.05, max_rank=9, masked=True, rng=key
            )
        )
        for spectrum, rank in (("rank one", 1), ("step", 5)):
            A = jax.numpy.asarray(matrix_of(spectrum, 24, 24, dtype, rng)[0])
            key = jax.random.key(1)
            U, S, Vh = sketch(A, key)
            assert (U.shape, S.shape, Vh.shape) == ((24, 9), (9,), (9, 24))
            assert int(np.count_nonzero(S)) == rank
            body = tangent(A, key)
            columns = np.count_nonzero(np.linalg.norm(body.left, axis=0))
            assert columns == np.count_nonzero(np.linalg.norm(body.right, axis=0)) < 9


@pytest.mark.gate
@on_every_backend("dtype", ["float32", "complex128"], jax=1)
def test_all_namespaces_find_the_same_rank(backend, dtype):
    matrix, _ = matrix_of("fast", 30, 20, dtype, np.random.default_rng(6))
    expected = lu.svd_sketch(matrix, rtol=0.03, rng=1)
    for masked in (False, True):
        options = {"rtol": 0.03, "rng": 1} | ({"masked": True, "max_rank": 12} if masked else {})
        find = partial(lu.svd_sketch, **options)
        # Without a mask shapes depend on values, and are found one operation after the other.
        sketch = (at_once(backend.xp, find) if masked else find)(backend.array(matrix))
        assert np.count_nonzero(to_numpy(sketch.S)) == len(expected.S)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_rank_does_not_depend_on_the_scale(scale, dtype):
    matrix, _ = matrix_of("middle", 30, 20, dtype, np.random.default_rng(7))
    one, other = (lu.svd_sketch(A, rtol=0.1, rng=1) for A in (matrix, matrix * np.float32(scale)))
    assert one.S.shape == other.S.shape
    U = lu.random_unitary(20, dtype=dtype, rng=2)
    one, other = (lu.tangent_sketch(U, G[:20], rtol=0.1, rng=1) for G in (matrix, matrix * np.float32(scale)))
    assert one.left.shape == other.left.shape


def test_nothing_and_nan_need_one_column(dtype):
    matrix = np.zeros((2, 9, 8), dtype=dtype)
    matrix[1, 3, 3] = np.nan
    sketch = lu.svd_sketch(matrix, rtol=0.1, rng=0)
    assert sketch.S.shape == (2, 1)
    assert sketch.S[0] == 0
    assert np.isnan(sketch.S[1])
    assert lu.svd_sketch(matrix[:0], rtol=0.1, rng=0).S.shape == (0, 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A: lu.svd_sketch(A), ValueError, "give either rank or rtol, got neither"),
        (lambda A: lu.svd_sketch(A, 2, rtol=0.1), ValueError, "give either rank or rtol, got both"),
        (lambda A: lu.svd_sketch(A, rtol=1.0), ValueError, "rtol must be at least 0 and less than 1"),
        (lambda A: lu.svd_sketch(A, rtol=math.nan), ValueError, "rtol must be at least 0 and less than 1"),
        (lambda A: lu.svd_sketch(A, rtol="small"), TypeError, "rtol must be a real number"),
        (lambda A: lu.svd_sketch(A, 2, max_rank=3), ValueError, "max_rank and masked have no meaning"),
        (lambda A: lu.svd_sketch(A, rtol=0.1, max_rank=9), ValueError, "max_rank must be between 1 and 6"),
        (
            lambda A: lu.svd_sketch(A, rtol=0.1, method="lsi"),
            ValueError,
            "rtol has no meaning for method='lsi'",
        ),
        (
            lambda A: jax.jit(lambda x: lu.svd_sketch(x, rtol=0.1, rng=0))(jax.numpy.asarray(A)),
            ValueError,
            "masked must be True with rtol",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(np.random.default_rng(0).standard_normal((6, 7)))

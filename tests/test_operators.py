"""One sketch for one matrix, in whatever form it comes, and clear words where it cannot be taken."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from backends import at_once, on_every_backend
from cases import ONE_OF_EACH, ct, normal

import lowrank_unitary as lu
from lowrank_unitary._array import to_numpy

M, N, R = 23, 17, 6
RANDOM = ("randomized", "krylov", "single_pass", "lsi")


def factors(dtype, seed=0):
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, R + 1)
    return normal(rng, (M, R), dtype) * weights.astype(dtype), normal(rng, (N, R), dtype)


FORMS = {
    "LowRankFactors": lambda a, b: lu.LowRankFactors(a, b),
    "csr": lambda a, b: scipy.sparse.csr_array(a @ ct(b)),
    "csc matrix": lambda a, b: scipy.sparse.csc_matrix(a @ ct(b)),
    "coo": lambda a, b: scipy.sparse.coo_array(a @ ct(b)),
    "aslinearoperator": lambda a, b: scipy.sparse.linalg.aslinearoperator(a @ ct(b)),
    "LinearOperator": lambda a, b: scipy.sparse.linalg.LinearOperator(
        (M, N), matvec=lambda x: a @ (ct(b) @ x), rmatvec=lambda x: b @ (ct(a) @ x), dtype=a.dtype
    ),
}


def dense(sketch):
    return (sketch.U * sketch.S[..., None, :]) @ sketch.Vh


@pytest.mark.parametrize("method", RANDOM)
@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_gives_the_sketch_of_the_array(form, method, dtype):
    left, right = factors(dtype)
    expected = dense(lu.svd_sketch(left @ ct(right), 3, method=method, rng=1))
    sketch = lu.svd_sketch(FORMS[form](left, right), 3, method=method, rng=1)
    assert sketch.U.dtype == np.dtype(dtype)
    size = np.linalg.norm(expected)
    assert np.abs(dense(sketch) - expected).max() <= 2e3 * size * np.finfo(dtype).eps


@on_every_backend("method,dtype", ["randomized", "krylov"], ONE_OF_EACH, jax=1)
def test_a_pair_of_callables_is_enough(backend, method, dtype):
    left, right = factors(dtype)
    left, right = backend.array(left), backend.array(right)
    conjugate = backend.xp.conj if np.dtype(dtype).kind == "c" else lambda x: x
    pair = (lambda x: left @ (conjugate(right.mT) @ x), lambda x: right @ (conjugate(left.mT) @ x))
    if backend.name == "torch":
        pair = (lambda x: left @ (right.mH @ x), lambda x: right @ (left.mH @ x))
    omega = lu.random_test_matrix(
        N, 11, dtype=getattr(backend.xp, dtype), xp=backend.xp, device=backend.device, rng=1
    )
    factors_there = lu.LowRankFactors(left, right)
    sketch, expected = at_once(
        backend.xp,
        lambda omega: [
            lu.svd_sketch(matrix, 3, method=method, test_matrix=omega) for matrix in (pair, factors_there)
        ],
    )(omega)
    for x, y in zip(sketch, expected, strict=True):
        # Singular vectors agree to rounding, their products being the same.
        np.testing.assert_allclose(to_numpy(x), to_numpy(y), atol=1e3 * np.finfo(dtype).eps * float(N))
    error, known = at_once(
        backend.xp,
        lambda sketch: [lu.sketch_error(matrix, sketch, rng=3) for matrix in (pair, factors_there)],
    )(expected)
    assert float(to_numpy(error.frobenius)) == pytest.approx(float(to_numpy(known.frobenius)), rel=1e-4)


def test_factors_with_a_batch_are_taken(dtype):
    rng = np.random.default_rng(2)
    left, right = normal(rng, (2, 1, M, R), dtype), normal(rng, (3, N, R), dtype)
    sketch = lu.svd_sketch(lu.LowRankFactors(left, right), 2, rng=0)
    expected = dense(lu.svd_sketch(left @ ct(right), 2, rng=0))
    assert sketch.U.shape == (2, 3, M, 2)
    assert np.abs(dense(sketch) - expected).max() <= 2e3 * np.linalg.norm(expected) * np.finfo(dtype).eps


def test_an_exact_sketch_of_factors_needs_no_product(dtype):
    left, right = factors(dtype)
    sketch = lu.svd_sketch(lu.BodyFactors(left, right), 2, method="exact")
    expected = lu.svd_sketch(left @ ct(right), 2, method="exact")
    np.testing.assert_allclose(sketch.S, expected.S, rtol=100 * float(np.finfo(dtype).eps))
    assert np.abs(dense(sketch) - dense(expected)).max() <= 1e3 * np.finfo(dtype).eps * sketch.S[0]


@pytest.mark.parametrize("kind", ["rademacher", "sparse_sign"])
@pytest.mark.parametrize("method", ["randomized", "krylov", "single_pass"])
def test_other_kinds_of_test_matrices_do_as_well(kind, method, dtype):
    rng = np.random.default_rng(3)
    s = 2.0 ** -np.arange(30)
    matrix = ((lu.random_unitary(30, rng=rng) * s) @ lu.random_unitary(30, rng=rng)).astype(dtype)
    sketch = lu.svd_sketch(matrix, 4, method=method, test_matrix=kind, rng=0)
    assert np.linalg.norm(matrix - dense(sketch)) < 1.1 * np.sqrt(np.sum(s[4:] ** 2))
    U = lu.random_unitary(30, dtype=dtype, rng=rng)
    body, gaussian = (lu.tangent_sketch(U, U @ matrix, 4, test_matrix=x, rng=0) for x in (kind, "gaussian"))
    errors = [float(lu.tangent_error(U, U @ matrix, x, rng=1).frobenius) for x in (body, gaussian)]
    assert errors[0] < 2 * errors[1]


PAIR = (lambda x: x, lambda x: x)
OMEGA = np.eye(6)[:, :3]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lu.svd_sketch([[1.0]], 1), TypeError, "matrix must be an array, LowRankFactors"),
        (lambda: lu.svd_sketch(None, 1), TypeError, "matrix must be an array, LowRankFactors"),
        (
            lambda: lu.svd_sketch(
                scipy.sparse.linalg.LinearOperator((6, 6), matvec=lambda x: x, dtype=float), 1
            ),
            TypeError,
            "matrix must have an adjoint product",
        ),
        (lambda: lu.svd_sketch(PAIR, 1), ValueError, "test_matrix must be an array of shape"),
        (
            lambda: lu.svd_sketch(PAIR, 1, method="single_pass", test_matrix=OMEGA),
            TypeError,
            "matrix must be more than a pair of callables",
        ),
        (
            lambda: lu.svd_sketch((lambda x: x[:, :1], lambda x: x), 1, test_matrix=OMEGA),
            ValueError,
            "the matmul of matrix must return an array with one column",
        ),
        (
            lambda: lu.svd_sketch((lambda x: x, lambda x: x[:4]), 1, test_matrix=OMEGA),
            ValueError,
            "matrix must have an adjoint product with 6 rows",
        ),
        (
            lambda: lu.svd_sketch((lambda x: x + 1j, lambda x: x), 1, test_matrix=OMEGA),
            TypeError,
            "the matmul of matrix must have a dtype that fits",
        ),
        (
            lambda: lu.svd_sketch((lambda x: x[:2], lambda x: np.eye(6)[:, :2] @ x), 3, test_matrix=OMEGA),
            ValueError,
            "rank must be between 1 and 2",
        ),
        (
            lambda: lu.svd_sketch(scipy.sparse.eye_array(6, dtype=int).tocsr(), 1),
            TypeError,
            "matrix must have one of the dtypes",
        ),
        (
            lambda: lu.svd_sketch(scipy.sparse.csr_array(np.eye(6)), 1, method="exact"),
            TypeError,
            "matrix must be an array for method='exact'",
        ),
        (
            lambda: lu.svd_sketch(scipy.sparse.csr_array(np.eye(6)), 1, method="columns"),
            TypeError,
            "matrix must be an array for method='columns'",
        ),
        (
            lambda: lu.svd_sketch(lu.LowRankFactors(np.ones((6, 2)), np.ones((5, 3))), 1),
            ValueError,
            "left and right must have the same number of columns",
        ),
        (
            lambda: lu.svd_sketch(lu.LowRankFactors(np.ones((6, 0)), np.ones((5, 0))), 1),
            ValueError,
            "left must have shape",
        ),
        (lambda: lu.svd_sketch(np.eye(6), 1, test_matrix="normal"), ValueError, "test_matrix must be one of"),
    ],
)
def test_what_cannot_be_taken_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Fewer columns for thin factors: the best there are, and never the product itself."""

import tracemalloc

import jax
import numpy as np
import pytest
from backends import at_once, on_every_backend
from cases import ONE_OF_EACH, ct, normal
from hypothesis import given
from hypothesis import strategies as st
from profiles import thorough

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import to_numpy, tolerance
from lowrank_unitary.tangent.planes import leading_planes

TYPES = pytest.mark.parametrize("kind", [lu.LowRankFactors, lu.BodyFactors])


def skew(x):
    return (x - ct(x)) / 2


def product(factors):
    return to_numpy(factors.left) @ ct(to_numpy(factors.right))


@st.composite
def thin(draw):
    n, m = draw(st.integers(1, 12)), draw(st.integers(1, 60))
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from(["float32", "float64", "complex64", "complex128"]))
    batch = draw(st.sampled_from([(), (2,)]))
    rng = np.random.default_rng(seed)
    left, right = normal(rng, (2, *batch, n, m), dtype)
    return lu.LowRankFactors(left, right), draw(st.integers(1, n)), seed


@given(drawn=thin(), method=st.sampled_from(["randomized", "exact"]))
def test_compressed_factors_are_the_sketch_of_the_product(drawn, method):
    factors, k, seed = drawn
    # A product of random factors has a condition that random samples feel; without power iterations less so.
    options = {"method": method, "rng": seed} | ({"power_iterations": 0} if method == "randomized" else {})
    compressed = lu.compress_factors(factors, k, **options)
    if factors.left.shape[-1] <= k:
        assert compressed is factors
        return
    sketch = lu.svd_sketch(product(factors), k, **options)
    dtype, n = factors.left.dtype, factors.left.shape[-2]
    expected = (sketch.U * sketch.S[..., None, :]) @ sketch.Vh
    size = np.linalg.norm(factors.left) * np.linalg.norm(factors.right)
    assert compressed.left.shape == compressed.right.shape == (*factors.left.shape[:-1], k)
    assert compressed.left.dtype == dtype
    rounding = 10 * size * tolerance(np, dtype, max(factors.left.shape[-2:]), k)
    best = np.linalg.svd(product(factors), compute_uv=False)
    tail = np.sqrt(np.sum(best[..., k:] ** 2, axis=-1))
    errors = [np.linalg.norm(product(factors) - x, axis=(-2, -1)) for x in (product(compressed), expected)]
    # Where singular values come close the two may keep different ones, equally well.
    assert np.abs(errors[0] - errors[1]).max() <= rounding * (1 + n)
    if method == "exact":
        assert np.abs(errors[0] - tail).max() <= rounding


@TYPES
def test_the_type_is_kept_and_few_columns_are_left_alone(kind):
    rng = np.random.default_rng(0)
    factors = kind(*rng.standard_normal((2, 9, 3)))
    assert lu.compress_factors(factors, 3) is factors
    assert lu.compress_factors(factors, 5) is factors
    compressed = lu.compress_factors(factors, 2)
    assert type(compressed) is kind
    assert type(lu.add_factors(factors, factors, rank=2)) is kind
    assert compressed.left.shape == (9, 2)


@on_every_backend("m,dtype", [200, 3], ONE_OF_EACH, jax=1)
def test_inputs_are_untouched_and_all_namespaces_agree(backend, m, dtype):
    rng = np.random.default_rng(1)
    left, right = (normal(rng, (2, 14, m), dtype) / np.arange(1, m + 1)).astype(dtype)
    expected = product(lu.compress_factors(lu.LowRankFactors(left, right), 2, rng=4))
    given_factors = lu.LowRankFactors(backend.array(left), backend.array(right))
    made = product(at_once(backend.xp, lambda x: lu.compress_factors(x, 2, rng=4))(given_factors))
    bound = 1e3 * np.finfo(dtype).eps * np.linalg.norm(expected)
    assert np.abs(made - expected).max() <= bound
    np.testing.assert_array_equal(to_numpy(given_factors.left), left)
    body = lu.BodyFactors(*given_factors)
    expected = skew(product(lu.compress_tangent(lu.BodyFactors(left, right), 2, rng=4)))
    made = skew(product(at_once(backend.xp, lambda x: lu.compress_tangent(x, 2, rng=4))(body)))
    assert np.abs(made - expected).max() <= 3 * bound


@pytest.mark.gate
def test_a_long_sequence_of_low_rank_is_gathered_exactly_in_little_memory():
    rng = np.random.default_rng(2)
    n, rank, blocks = 200, 6, 1000
    left, right = rng.standard_normal((2, n, rank))
    expected, total = np.zeros((n, n)), None
    tracemalloc.start()
    for _ in range(blocks):
        mixing = rng.standard_normal((rank, 3))
        block = lu.BodyFactors(left @ mixing, right @ rng.standard_normal((rank, 3)))
        expected += product(block)
        total = block if total is None else lu.add_factors(total, block, rank=rank)
        assert total.left.shape[-1] <= rank
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.linalg.norm(product(total) - expected) <= 1e-13 * blocks * np.linalg.norm(expected)
    # The dense sum that it is compared with takes two n×n arrays; thin ones are a thirtieth of that.
    assert peak < 3 * 8 * n**2


@pytest.mark.parametrize("dtype", ["float32", *map(thorough, ["complex128", "float64", "complex64"])])
def test_compression_is_traced_by_jax(dtype):
    rng = np.random.default_rng(3)
    left, right = (normal(rng, (2, 12, 80), dtype) / np.arange(1, 81)).astype(dtype)
    body = lu.BodyFactors(jax.numpy.asarray(left), jax.numpy.asarray(right))
    for call in (lu.compress_factors, lu.compress_tangent):
        made = jax.jit(lambda b, key, call=call: call(b, 3, rng=key))(body, jax.random.key(5))
        expected = call(lu.BodyFactors(left, right), 3, rng=5)
        part = skew if call is lu.compress_tangent else (lambda x: x)
        difference = np.abs(part(product(made)) - part(product(expected))).max()
        assert difference <= 1e3 * np.finfo(dtype).eps * np.linalg.norm(product(expected))


def best_tangent(T, k):
    """The error of the best matrix with k positive and k negative eigenvalues for iT."""
    w = np.linalg.eigvalsh(1j * T)
    positive, negative = np.flip(np.maximum(w, 0), axis=-1), np.maximum(-w, 0)
    return np.sqrt(np.sum(positive[..., k:] ** 2 + negative[..., k:] ** 2, axis=-1))


@given(drawn=thin(), degenerate=st.booleans())
def test_leading_planes_are_the_best_of_their_number(drawn, degenerate):
    (left, right), k, _ = drawn
    if degenerate:
        # Orthonormal columns that all weigh the same: the planes are not unique.
        left, right = (np.linalg.qr(x)[0] for x in (left, right))
    T = skew(left @ ct(right)).astype(np.result_type(left.dtype, np.float64))
    planes = leading_planes(np, left, right, k)
    body, sizes = planes.factors(), planes.sizes
    bound = np.linalg.norm(left) * np.linalg.norm(right) * tolerance(np, left.dtype, left.shape[-2], k)
    kept = skew(product(body)).astype(T.dtype)
    error = np.linalg.norm(T - kept, axis=(-2, -1))
    assert np.abs(error - best_tangent(T, min(k, T.shape[-1]))).max() <= 4 * bound
    assert body.left.dtype == left.dtype
    # The parts are orthogonal: their squares add up.
    assert np.abs(np.linalg.norm(sizes, axis=-1) - np.linalg.norm(kept, axis=(-2, -1))).max() <= 4 * bound


def test_one_column_is_one_plane_even_where_many_are_alike():
    # Ten equal planes in 20 of 30 dimensions: every column holds one of them, and not half of two.
    basis = lu.random_unitary(30, rng=0)[:, :20]
    factors = lu.BodyFactors(basis[:, :10], 2.0 * basis[:, 10:])
    for k in (1, 4, 10):
        body = lu.compress_tangent(factors, k, method="exact")
        w = np.linalg.svd(skew(product(body)), compute_uv=False)
        np.testing.assert_allclose(w[: 2 * k], 1.0, rtol=1e-13)
        np.testing.assert_allclose(w[2 * k :], 0.0, atol=1e-13)


@given(drawn=thin())
def test_a_random_compression_of_the_tangent_is_nearly_the_best(drawn):
    factors, k, seed = drawn
    body = lu.BodyFactors(*factors)
    made = lu.compress_tangent(body, k, method="randomized", rng=seed)
    T = skew(product(body)).astype(np.result_type(factors.left.dtype, np.float64))
    size = np.linalg.norm(factors.left) * np.linalg.norm(factors.right)
    rounding = size * tolerance(np, factors.left.dtype, 60, k)
    if factors.left.shape[-1] > k:
        assert made.left.shape[-1] == min(k, T.shape[-1])
        error = np.linalg.norm(T - skew(product(made)), axis=(-2, -1))
        assert (error <= 1.2 * best_tangent(T, k) + 20 * rounding).all()
    else:
        assert made is body


def test_a_tangent_and_its_gradient_in_factors_give_one_sketch(dtype):
    rng = np.random.default_rng(4)
    U = lu.random_unitary(16, dtype=dtype, rng=rng)
    left, right = normal(rng, (2, 16, 9), dtype)
    dense = lu.tangent_sketch(U, left @ ct(right), 3, rng=1)
    thin_sketch = lu.tangent_sketch(U, lu.LowRankFactors(left, right), 3, rng=1)
    body = lu.compress_tangent(
        lu.BodyFactors(ct(U) @ left, right), 3, rng=1, method="randomized", oversample=7, power_iterations=0
    )
    bound = 1e3 * np.finfo(dtype).eps * np.linalg.norm(left @ ct(right))
    for other in (thin_sketch, body):
        assert np.abs(skew(product(other)) - skew(product(dense))).max() <= bound


@on_every_backend(
    "update,method", ["geodesic", "polar"], [("tangent", 3), ("randomized", 3), ("exact", 4)], jax=1
)
def test_a_step_takes_its_gradient_in_any_form(update, method, backend):
    sketch, k = method
    rng = np.random.default_rng(5)
    # A little too large: healing shrinks it, for every form of the gradient by as much.
    U = lu.random_unitary(12, dtype=np.complex128, rng=rng) * (1 + 1e-4)
    left, right = normal(rng, (2, 12, 3), complex)
    options = {"rank": k, "update": update, "sketch": sketch, "rng": 2, "heal": 1}
    there = backend.array(U)
    move = at_once(backend.xp, lambda U, gradient: lu.unitary_step(U, gradient, 0.1, **options))
    results = [
        to_numpy(move(there, gradient))
        for gradient in (
            backend.array(left @ ct(right)),
            lu.LowRankFactors(backend.array(left), backend.array(right)),
            lu.BodyFactors(backend.array(ct(U) @ left), backend.array(right)),
        )
    ]
    # Three columns hold all of the gradient, so that every form of it gives the same step.
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-12)


@pytest.mark.parametrize("kind", [lu.LowRankFactors, lu.BodyFactors])
@pytest.mark.parametrize(("dtype", "wider"), [("float64", "complex128"), ("float32", "float64")])
def test_factors_wider_than_the_unitary_are_refused(kind, dtype, wider):
    U, factors = np.eye(6, dtype=dtype), kind(*np.ones((2, 6, 2), dtype=wider))
    with pytest.raises(TypeError, match="left must have a dtype that fits into that of unitary"):
        lu.unitary_step(U, factors, 0.1, rank=2, rng=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: lu.compress_factors(tuple(f), 1), TypeError, "factors must be LowRankFactors or"),
        (lambda f: lu.compress_factors(f, 7), ValueError, "rank must be between 1 and 6"),
        (lambda f: lu.compress_factors(f), ValueError, "give either rank or rtol, got neither"),
        (lambda f: lu.compress_factors(f, 1, method="columns"), ValueError, "method must be one of 'exact'"),
        (lambda f: lu.compress_tangent(f, 1), TypeError, "body_factors must be BodyFactors"),
        (
            lambda f: lu.compress_tangent(lu.BodyFactors(*f), 1, method="lsi"),
            ValueError,
            "method must be one of 'exact', 'randomized'",
        ),
        (lambda f: lu.add_factors(f, lu.BodyFactors(*f), rank=2), TypeError, "must be of one type"),
        (
            lambda f: lu.add_factors(f, lu.LowRankFactors(f.left[:5], f.right), rank=2),
            ValueError,
            "more.left must have the rows of factors.left",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    rng = np.random.default_rng(0)
    with pytest.raises(error, match=message):
        call(lu.LowRankFactors(*rng.standard_normal((2, 6, 4))))


# Up to 24 columns a step of rank 1 pulls back before it samples; more of them it samples as they are.
@pytest.mark.parametrize("columns", [2, 24, 25, 60])
@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_a_step_of_more_columns_than_its_rank_is_exact_where_they_hold_no_more(columns, dtype, size):
    n, k, seed = 16, 1, 0
    U = lu.random_unitary(n, dtype=dtype, rng=seed)
    rng = np.random.default_rng(1)
    u, w, weights = (normal(rng, shape, dtype) for shape in ((n, k), (n, k), (1, columns)))
    weights /= np.linalg.norm(weights)
    gradient = lu.LowRankFactors(size * u @ weights, w @ weights)
    moved = lu.unitary_step(U, gradient, 0.1 / size, k, rng=2, heal=0)
    expected = reference.transport(U, -0.1 * u, w)
    assert np.max(np.abs(moved - expected)) < 40 * np.finfo(dtype).eps


@pytest.mark.parametrize("method", ["exact", "randomized"])
@pytest.mark.parametrize("batches", [((3,), ()), ((), (3,)), ((3, 1), (2,))], ids=str)
def test_leading_axes_of_the_two_factors_broadcast(dtype, method, batches):
    rng = np.random.default_rng(6)
    left, right = (normal(rng, (*batch, 30, 2), dtype) for batch in batches)
    whole = lu.BodyFactors(*(x.copy() for x in np.broadcast_arrays(left, right)))
    expected = lu.compress_tangent(whole, 1, method=method, rng=0)
    C, Q = lu.compress_tangent(lu.BodyFactors(left, right), 1, method=method, rng=0)
    assert C.shape == Q.shape == expected.left.shape
    np.testing.assert_array_equal(C, expected.left)
    np.testing.assert_array_equal(Q, expected.right)

"""Random blocks: the same bits everywhere, in every part, and as good as independent numbers."""

import math

import array_api_strict
import jax
import numpy as np
import pytest
import scipy.stats
import torch
from backends import at_once, on_every_backend
from hypothesis import given
from hypothesis import strategies as st
from profiles import covering

import lowrank_unitary as lu
from lowrank_unitary._array import array_namespace, to_numpy
from lowrank_unitary._linalg import KINDS, Key
from lowrank_unitary._linalg import random as _random
from lowrank_unitary.sketch.operator import operator_of
from lowrank_unitary.sketch.samples import Samples

KIND = pytest.mark.parametrize("kind", KINDS)


def block(rows, columns, seed=0, **options):
    return lu.random_test_matrix(rows, columns, rng=seed, **options)


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [  # the known answers that come with Random123
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_scrambling_gives_the_known_answers(key, counter, words):
    assert _random._threefry(Key(*key), *counter, _random._wrapped) == words
    signed = [np.array([[x]], dtype=np.uint32).view(np.int32) for x in (*key, *counter)]
    for scramble in (_random._threefry, _random._threefry_in_place):
        for made, word in zip(scramble(Key(*signed[:2]), *signed[2:]), words, strict=True):
            assert made.view(np.uint32) == word


# JAX takes no larger seed.
@given(st.integers(0, 2**63 - 1), st.sampled_from((1, 2, 17, 1000)))
def test_words_are_those_that_jax_draws_from_the_same_key(seed, size):
    with jax.enable_x64(True):
        key = jax.random.key(seed, impl="threefry2x32")
    # JAX counts its bits in 64: the upper half is the first word of the counter, and both words are mixed.
    with jax.threefry_partitionable(True):
        expected = np.asarray(jax.random.bits(key, (size,), "uint32"))
    counter = np.arange(size, dtype=np.int32)[None, :]
    high, low, _ = _random.key_of(seed, np.empty(0))
    key = Key(_random._signed(high), _random._signed(low))
    w0, w1 = _random._threefry_in_place(key, np.zeros((1, 1), dtype=np.int32), counter)
    np.testing.assert_array_equal((w0 ^ w1)[0], expected)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_numbers_as_keys_wrap_around_like_arrays(high, low):
    # The second pair is chosen such that words and the turns added to them leave 32 bits.
    for key in (Key(high, low), Key(2**31 - 1, 2**31 - 3), Key(2**32 - 1, 2**32 - 2)):
        first = _random._threefry(Key(*map(_random._signed, key)), *np.zeros((2, 1, 1), dtype=np.int32))
        second = _random._threefry(key, 0, 0, _random._wrapped)
        assert [int(x.view(np.uint32)[0, 0]) for x in first] == list(second)


@pytest.mark.parametrize("xp", [np, array_api_strict, torch, jax.numpy], ids=lambda xp: xp.__name__)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_bits_are_the_same_on_every_namespace(xp, batch):
    shape, key = (*batch, 5, 7), Key(0xDEADBEEF, 3)
    expected = _random._words(np, key, 2, shape, (1 << 20, 3), None)
    made = _random._words(xp, key, 2, shape, (1 << 20, 3), None)
    for one, other in zip(made, expected, strict=True):
        host = to_numpy(one)
        assert host.dtype == np.int32 or xp is np
        np.testing.assert_array_equal(host.view(np.uint32), other.view(np.uint32))


@on_every_backend("kind,dtype", KINDS, ["float32", "complex128", "float64", "complex64"])
def test_values_agree_on_every_namespace_and_dtype(kind, backend, dtype):
    expected = block(40, 9, 5, kind=kind, dtype=np.result_type(dtype, np.float64), batch=(2,))
    made = block(
        40,
        9,
        5,
        kind=kind,
        dtype=getattr(backend.xp, dtype),
        batch=(2,),
        xp=backend.xp,
        device=backend.device,
    )
    # A normal number is at most 5.8.
    np.testing.assert_allclose(to_numpy(made), expected, rtol=0, atol=8 * np.finfo(dtype).eps)


@pytest.mark.gate
@pytest.mark.parametrize(
    ("kind", "field"), covering(KINDS, [("complex128", True), ("float32", True), ("complex64", False)])
)
def test_a_traced_jax_key_gives_the_numbers_of_its_seed(kind, field):
    dtype, x64 = field
    with jax.enable_x64(x64):
        like = jax.numpy.zeros((20, 20), dtype=dtype)

        @jax.jit
        def sketch(key, A):
            return lu.svd_sketch(A, 2, rng=key, test_matrix=kind, power_iterations=0).S

        A = lu.random_unitary(20, rng=1, xp=jax.numpy, dtype=dtype) + like
        made = sketch(jax.random.key(7), A)
        raw = sketch(jax.random.PRNGKey(7), A)
        expected = lu.svd_sketch(np.asarray(A), 2, rng=7, test_matrix=kind, power_iterations=0).S
    for S in (made, raw):
        np.testing.assert_allclose(np.asarray(S), expected, rtol=200 * np.finfo(dtype).eps)


@on_every_backend(
    "make,n,dtype",
    [lu.random_unitary, lu.henaff_unitary, lu.cayley_unitary],
    [1, 5, 6],
    ["float32", "complex128", "float64", "complex64"],
)
def test_initialisers_take_a_traced_key_and_give_the_same_on_every_namespace(make, n, backend, dtype):
    expected = make(n, dtype=np.dtype(dtype), rng=7, batch=(2,))
    made = make(n, dtype=getattr(backend.xp, dtype), rng=7, batch=(2,), xp=backend.xp, device=backend.device)
    bound = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(to_numpy(made), expected, rtol=0, atol=bound)
    if backend.xp is jax.numpy:
        traced = jax.jit(lambda key: make(n, dtype=dtype, rng=key, batch=(2,), xp=jax.numpy))
        np.testing.assert_allclose(np.asarray(traced(jax.random.key(7))), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("make", [lu.henaff_unitary, lu.cayley_unitary])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("xp", [torch, jax.numpy], ids=["torch", "jax"])
def test_rotations_of_planes_are_rounded_once_in_half_precision(make, dtype, xp):
    made = make(6, dtype=getattr(xp, dtype), rng=3, xp=xp)
    assert made.dtype == getattr(xp, dtype)
    wide = xp.asarray(make(6, rng=3))
    assert float(abs(made - wide).max()) <= float(xp.finfo(made.dtype).eps) / 2


def test_keys_map_over_a_batch_of_traced_seeds():
    keys = jax.random.split(jax.random.key(3), 4)
    like = jax.numpy.zeros((6, 2))
    made = jax.vmap(lambda key: _random.random_block(jax.numpy, (6, 2), like, key, 0))(keys)
    for key, one in zip(keys, made, strict=True):
        words = np.asarray(jax.random.key_data(key)).tolist()
        np.testing.assert_allclose(one, block(6, 2, Key(*words)), rtol=1e-12)


@KIND
@given(seed=st.integers(0, 2**64 - 1), first=st.integers(0, 50), rows=st.integers(0, 20))
def test_a_part_is_what_the_whole_has_there(kind, seed, first, rows):
    whole = block(80, 10, seed, kind=kind)
    np.testing.assert_array_equal(
        block(rows, 10, seed, kind=kind, first_row=first), whole[first : first + rows]
    )
    if kind != "sparse_sign":
        part = block(rows, 4, seed, kind=kind, first_row=first, first_column=3)
        np.testing.assert_array_equal(part, whole[first : first + rows, 3:7])


def test_large_blocks_are_made_in_panels_of_the_same_numbers():
    whole = block(5000, 13, 1)
    np.testing.assert_array_equal(whole[4321:4330], block(9, 13, 1, first_row=4321))


def test_a_batch_begins_with_the_matrix_alone_and_does_not_depend_on_its_shape():
    alone, four, square = block(7, 3, 1), block(7, 3, 1, batch=(4,)), block(7, 3, 1, batch=(2, 2))
    np.testing.assert_array_equal(four[0], alone)
    np.testing.assert_array_equal(square.reshape(4, 7, 3), four)
    assert block(7, 3, batch=(0,)).shape == (0, 7, 3)


def test_gaussian_numbers_are_normal():
    draws = block(2000, 100, 4).ravel()
    assert scipy.stats.kstest(draws, "norm").pvalue > 1e-3
    z = block(2000, 50, 4, dtype=np.complex128).ravel()
    assert scipy.stats.kstest(np.concatenate([z.real, z.imag]) * math.sqrt(2), "norm").pvalue > 1e-3
    # The first four moments, each within four standard deviations.
    N = draws.size
    for power, (mean, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs(np.mean(draws**power) - mean) < 4 * math.sqrt(variance / N)


def test_uniform_numbers_are_uniform():
    like = np.empty(0)
    draws = _random.uniform_block(np, (2000, 50), like, 1, 2).ravel()
    assert scipy.stats.kstest(draws, "uniform").pvalue > 1e-3
    single = _random.uniform_block(np, (2000, 50), np.empty(0, np.float32), 1, 2)
    assert single.dtype == np.float32
    assert single.min() > 0
    assert single.max() < 1


@KIND
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("columns", [1, 3, 40])
def test_entries_have_mean_zero_and_variance_one_and_rows_are_uncorrelated(kind, dtype, columns):
    draws = block(4000, columns, 2, kind=kind, dtype=dtype)
    gram = draws.conj().T @ draws / 4000
    # Off the diagonal a mean of 4000 products of variance 1 (sparse: 1 as well); on it one of variance ≤ 4.
    assert np.abs(gram - np.eye(columns)).max() < 6 * math.sqrt(4 / 4000)
    assert np.abs(draws.mean(axis=0)).max() < 5 / math.sqrt(4000)
    if kind == "sparse_sign":
        assert (np.count_nonzero(draws, axis=1) == min(8, columns)).all()
        used = np.count_nonzero(draws, axis=0) / 4000
        assert np.abs(used - min(8, columns) / columns).max() < 5 * math.sqrt(0.25 / 4000)
    elif kind == "rademacher":
        np.testing.assert_allclose(np.abs(draws), 1)


def correlations(streams):
    """z-scores of the correlations of all pairs of streams of standard normal numbers."""
    gram = streams @ streams.T / math.sqrt(streams.shape[1])
    return gram[np.triu_indices(len(streams), 1)]


@pytest.mark.parametrize(
    "streams",
    [
        lambda: np.stack([block(40, 50, seed).ravel() for seed in range(60)]),
        lambda: np.stack([block(40, 50, seed << 32).ravel() for seed in range(60)]),
        lambda: np.stack([block(40, 50, 1 << bit).ravel() for bit in range(60)]),
        lambda: block(60, 2000, 3),
        lambda: block(2000, 60, 3).T,
        lambda: block(40, 50, 3, batch=(60,)).reshape(60, -1),
        lambda: np.stack(
            [_random.random_block(np, (40, 50), np.empty(0), 3, purpose).ravel() for purpose in range(60)]
        ),
        lambda: np.stack([block(40, 50, 3, first_row=1 << bit).ravel() for bit in range(6, 30)]),
    ],
    ids=["seeds", "high seeds", "bits of the seed", "rows", "columns", "batch", "purposes", "far rows"],
)
def test_streams_are_uncorrelated(streams):
    z = correlations(streams())
    # Up to 1770 nearly standard normal numbers: the largest is below 5, and their mean square 1.
    assert np.abs(z).max() < 5
    assert abs(np.mean(z**2) - 1) < 5 * math.sqrt(2 / z.size)


def test_a_generator_advances_once_for_every_call():
    matrix, rng = np.eye(9), np.random.default_rng(1)
    first, second = (lu.svd_sketch(matrix, 2, power_iterations=0, rng=rng).U for _ in range(2))
    assert not np.array_equal(first, second)
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    lu.unitary_step(matrix, matrix, 0.1, rank=1, rng=rng)
    lu.heal_unitary(matrix, 1, rng=other)
    assert rng.bit_generator.state == other.bit_generator.state
    # Methods that need several blocks, too.
    for options in ({"method": "single_pass"}, {"method": "lsi"}, {"method": "columns"}, {"rtol": 1e-9}):
        rng, other = np.random.default_rng(1), np.random.default_rng(1)
        lu.svd_sketch(matrix, None if "rtol" in options else 2, rng=rng, **options)
        lu.heal_unitary(matrix, 1, rng=other)
        assert rng.bit_generator.state == other.bit_generator.state
    rng = np.random.default_rng(1)
    lu.svd_sketch(matrix, 2, method="exact", rng=rng)
    assert rng.bit_generator.state == np.random.default_rng(1).bit_generator.state


@on_every_backend("dtype", ["float64", "complex128"], jax=1)
def test_the_same_seed_gives_the_same_step_on_every_namespace(backend, dtype):
    U = lu.random_unitary(12, dtype=np.dtype(dtype), rng=0)
    G = np.asarray(block(12, 12, 9, dtype=np.dtype(dtype)))
    expected = lu.unitary_step(U, G, 0.1, rank=2, heal=2, rng=11)
    move = at_once(backend.xp, lambda U, G: lu.unitary_step(U, G, 0.1, rank=2, heal=2, rng=11))
    made = move(backend.array(U), backend.array(G))
    np.testing.assert_allclose(to_numpy(made), expected, rtol=0, atol=1e-13)


def test_batches_for_different_purposes_have_nothing_in_common():
    like = np.empty(0)
    first, second = (_random.random_block(np, (3, 9, 9), like, 3, purpose) for purpose in (0, 1))
    assert np.abs(first - second).min() > 0


def test_columns_that_measure_are_not_those_of_the_basis():
    op = operator_of("matrix", np.eye(30))
    samples = Samples.of(op, "rademacher", 1, 4, rows=30)
    measuring = samples.measuring(8)
    assert np.abs(measuring - block(30, 8, 4)).min() > 0
    # Gaussian whatever the kind of the others.
    assert len(np.unique(np.abs(measuring))) == measuring.size


def test_sketches_draw_the_public_test_matrix():
    G = block(12, 12, 3)
    given = lu.tangent_sketch(np.eye(12), G, 3, test_matrix=block(12, 2 * 3 + 4, 8, kind="uniform"))
    # A given matrix takes the generic way: the same tangent, in factors of another sign.
    skew, expected = (C @ Q.T - Q @ C.T for C, Q in (lu.tangent_sketch(np.eye(12), G, 3, rng=8), given))
    np.testing.assert_allclose(skew, expected, rtol=0, atol=1e-13)
    expected = lu.svd_sketch(G[:, :11], 2, test_matrix=block(11, 2 + 8, 8))
    np.testing.assert_array_equal(lu.svd_sketch(G[:, :11], 2, rng=8).U, expected.U)


def test_on_a_device_the_numbers_are_those_of_the_host():
    # What arrays on a GPU, compiled torch functions and traced keys get, in place of numpy's numbers.
    xp = array_namespace(torch.zeros(1))
    words = _random._words(xp, Key(0, 5), 0, (3, 2), (0, 0), None)
    np.testing.assert_allclose(
        _random._gaussian(xp, *words, torch.float64).numpy(), block(3, 2, 5), rtol=1e-12
    )


@pytest.mark.parametrize(("kind", "dtype"), covering(KINDS, ["float32", "complex128"]))
def test_compiled_numbers_of_jax_on_a_device_are_those_of_the_host(kind, dtype, monkeypatch):
    options = {"kind": kind, "batch": (2,), "first_row": (1 << 31) - 20, "dtype": dtype}
    expected = block(20, 9, 1 << 63 | 3, **options)
    # Here there are CPUs alone, on which numpy makes them.
    monkeypatch.setattr(_random, "_on_host", lambda key, like: False)
    made = block(20, 9, 1 << 63 | 3, **options, xp=jax.numpy)
    assert made.dtype == dtype
    np.testing.assert_allclose(np.asarray(made), expected, rtol=0, atol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("rng", "error", "message"),
    [
        (-1, ValueError, "rng must be a seed of 0 or more, got -1"),
        (0.5, TypeError, "rng must be a whole number, .* got 0.5 of type float"),
        (True, TypeError, "rng must be a whole number"),
        ("seed", TypeError, "rng must be a whole number"),
        (np.array([0.5, 1.0]), TypeError, "rng must be a whole number"),
        (jax.numpy.zeros(3, dtype="uint32"), TypeError, "rng must be one JAX key"),
        (jax.random.split(jax.random.key(0), 2), TypeError, "rng must be one JAX key"),
    ],
)
def test_wrong_sources_are_named(rng, error, message):
    with pytest.raises(error, match=message):
        block(2, 2, rng)


def test_all_kinds_of_seeds_are_taken():
    blocks = [
        block(2, 2, rng)
        for rng in (7, np.int64(8), 2**70, [1, 2], np.random.SeedSequence(4), np.random.default_rng(3), None)
    ]
    assert len({x.tobytes() for x in blocks}) == len(blocks)
    np.testing.assert_array_equal(block(2, 2, np.array([1, 2], dtype=np.uint32)), blocks[3])
    for same in (np.uint8(7), jax.random.key(7), jax.random.PRNGKey(7)):
        np.testing.assert_array_equal(block(2, 2, same), blocks[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block(2, 2, kind="normal"), "kind must be one of"),
        (lambda: block(-1, 2), "rows must be 0 or more"),
        (lambda: block(2, 2, first_row=-1), "first_row must be 0 or more"),
        (lambda: block(2, 2, first_row=(1 << 31) - 1), "first_row must be at most 2³¹ − 2"),
        (lambda: block(2, 2, first_column=1 << 32), "first_column must be at most 2³¹"),
        (lambda: block(2, 2, kind="sparse_sign", first_column=1), "first_column must be 0"),
    ],
)
def test_wrong_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_test_matrices_of_the_two_sides_do_not_depend_on_one_another():
    op = operator_of("matrix", np.eye(9))
    samples = Samples.of(op, "gaussian", 3, 5, rows=9)
    assert not np.any(samples.left(9, 3) == samples.right(3))

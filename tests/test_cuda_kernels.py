"""The text of the GPU kernels, run on a CPU and compiled for GPUs; how they are launched, by arithmetic."""

import contextlib
import functools
import itertools
import re
import shutil
import subprocess
from types import SimpleNamespace

import cuda_on_cpu
import numpy as np
import pytest
import torch
from cases import KINDS, ct, error, make_step, normal
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import covering, thorough

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import tolerance
from lowrank_unitary._kernels import cpu
from lowrank_unitary._kernels import cuda as _cuda
from lowrank_unitary._kernels.cuda import arrays as _cuda_arrays
from lowrank_unitary._kernels.cuda import launches as _launches
from lowrank_unitary._linalg import whole

pytestmark = pytest.mark.gate

DTYPES = ("float32", "float64", "complex64", "complex128")
UPDATES = {
    "geodesic": reference.transport,
    "cayley": lambda *arrays: reference.transport(*arrays, "cayley"),
    "polar": reference.polar,
}
# Of a block: two warps, so that larger matrices take several entries and several packs a thread.
THREADS = 64


# n: less than a warp, more than one pack for a thread, no multiple of a pack or of the rows of a block.
TRAVERSALS = [
    (264, 1, 1, "float32", ()),
    *(
        (n, k, p, dtype, (3,) if n == 5 else ())
        for n, (k, p), dtype in itertools.product((1, 5, 65), [(1, 1), (3, 0), (4, 2), (17, 1)], DTYPES)
    ),
]
# Rank one by one block or by all, and any rank: narrow, with probes, wider than the kernels.
STEPS = [
    (n, k, p, dtype, (2,) if n == 7 else ())
    for (n, k, p), dtype in itertools.product(
        [(1, 1, 0), (7, 1, 1), (65, 1, 0), (65, 1, 1), (7, 3, 0), (33, 2, 2), (20, 9, 1)], DTYPES
    )
]


def problem(n, k, p, dtype, batch=()):
    rng = np.random.default_rng(n)
    arrays = normal(rng, (*batch, n, n), dtype), *(normal(rng, (*batch, n, x), dtype) for x in (k, k, p))
    # Columns that cancel: sums are not just large numbers.
    return [x / np.float32(max(1, n) ** 0.5) for x in arrays]


def traversals(n, k, p, dtype, batch):
    A, a, b, z = problem(n, k, p, dtype, batch)
    rotated, moved = np.empty_like(A), A.copy()
    results = [rotated, moved]
    if _cuda.apply_to(A, k):
        _cuda.rotate_rows_in_cache(A, a, b, rotated)
        _cuda.rotate_rows_in_cache(moved, a, b, moved)
        results.append(_cuda.product_rows(A, a))
    else:
        # Products by cuBLAS between what the kernels do.
        out = np.empty_like(A)
        _cuda.low_rank_step(A, a[..., :9], b[..., :9], None, "geodesic", out)
        results = []
    return [*results, _cuda.adjoint_product_rows(A, a, z if p else None)]


def probes_of(n, p, dtype, batch):
    Z = np.linalg.qr(normal(np.random.default_rng(8), (*batch, n, max(p, 1)), dtype))[0]
    return np.ascontiguousarray(Z) if p else None


def moved(arrays, probes, update, *, in_place=False):
    """What a step makes of copies of arrays, of numpy or torch."""
    unitary, left, right = (x.clone() if hasattr(x, "clone") else x.copy() for x in arrays)
    out = unitary if in_place else _cuda.empty_like(unitary)
    _cuda.low_rank_step(unitary, left, right, probes, update, out)
    return out


@pytest.fixture(scope="module")
def machine(request):
    """The kernels that the calls need, compiled for this machine."""

    def calls():
        for call in TRAVERSALS:
            traversals(*call)
        for n, k, p, dtype, batch in STEPS:
            moved(make_step(0, n, k, dtype, batch=batch).arrays, probes_of(n, p, dtype, batch), "polar")
            _cuda.rotation(*problem(n, k, p, dtype, batch)[1:3], "polar")
        for dtype in DTYPES:
            _cuda.random_numbers((0, 0), 0, (0, 0), True, np.empty((3, 2), dtype))
            _cuda.orthonormal_columns(np.ones((3, 2), dtype))
            _cuda.hermitian_eigen(np.ones((3, 3), dtype))

    return cuda_on_cpu.machine_for(request, calls)


@pytest.fixture
def on_cpu(machine, monkeypatch):
    with cuda_on_cpu.installed(monkeypatch, machine):
        yield machine


@pytest.mark.parametrize("call", TRAVERSALS, ids=str)
def test_kernels_give_the_products_and_the_rotation_of_their_definition(call, on_cpu):
    n, _, p, dtype, _ = call
    A, a, b, z = problem(*call)
    wide = reference.extended(A)
    exact = wide + (wide @ a) @ ct(b)
    *results, gathered = traversals(*call)
    eps = np.finfo(dtype).eps
    # Sums of n numbers of one size in parts: √n eps, twice where one stands on another.
    bound = 4 * eps * max(1, n) ** 0.5
    if results:
        rotated, in_place, product = results
        np.testing.assert_array_equal(rotated, in_place)
        assert error(rotated, exact) <= 2 * bound * (1 + np.linalg.norm(exact))
        assert error(product, wide @ a) <= bound * np.linalg.norm(a)
    expected = ct(wide) @ np.concatenate([a, wide @ z], axis=-1) if p else ct(wide) @ a
    assert gathered.shape == expected.shape
    assert error(gathered, expected) <= 2 * bound * np.linalg.norm(expected)


@pytest.mark.parametrize(("call", "update"), covering(STEPS, UPDATES), ids=str)
def test_whole_steps_equal_their_dense_definition(call, update, on_cpu):
    n, k, p, dtype, batch = call
    step = make_step(0, n, k, dtype, norm=0.7, batch=batch)
    probes = probes_of(n, p, dtype, batch)
    got = moved(step.arrays, probes, update)
    assert error(got, UPDATES[update](*step.arrays)) <= step.tolerance()
    np.testing.assert_array_equal(got, moved(step.arrays, probes, update, in_place=True))
    # Tensors are seen where they are.
    tensors = [torch.from_numpy(x) for x in step.arrays]
    of_torch = moved(tensors, None if probes is None else torch.from_numpy(probes), update)
    np.testing.assert_array_equal(of_torch.numpy(), got)


@pytest.mark.parametrize(
    ("kind", "update", "call"),
    covering(KINDS, UPDATES, [(7, 1, "float64"), (65, 1, "complex64"), (7, 3, "complex128")]),
)
def test_degenerate_and_unbalanced_steps_equal_their_dense_definition(call, update, kind, on_cpu):
    n, k, dtype = call
    step = make_step(1, n, k, dtype, kind=kind, norm=0.5)
    assert error(moved(step.arrays, None, update), UPDATES[update](*step.arrays)) <= step.tolerance()


@pytest.mark.parametrize("kind", ["generic", "collinear"])
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("norm", [1e-150, 1e-8, 30.0, 1e5])
def test_steps_of_rank_one_are_exact_at_every_size(norm, update, kind, on_cpu):
    for n, dtype in ((7, "float64"), (65, "complex128")):
        step = make_step(2, n, 1, dtype, kind=kind, norm=norm)
        got = moved(step.arrays, None, update)
        assert error(got, UPDATES[update](*step.arrays)) <= step.tolerance()
        assert np.linalg.norm(ct(got) @ got - np.eye(n)) <= tolerance(np, dtype, n)


@pytest.mark.parametrize(("update", "norm"), [("geodesic", 100.0), ("cayley", 100.0), ("polar", 5.0)])
def test_long_steps_of_any_rank_keep_single_precision(update, norm, on_cpu):
    """The core is in double precision, of which norm² eps is left."""
    for dtype in ("float32", "complex64"):
        step = make_step(7, 33, 2, dtype, norm=norm)
        got = moved(step.arrays, None, update)
        # Its size times the rounding of c and b, which is what they are given with.
        assert error(got, UPDATES[update](*step.arrays)) <= step.tolerance()


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("size", [1e300, 1e-300, 1e-312])
def test_columns_at_the_ends_of_the_range_are_no_exception(size, k, on_cpu):
    for n in (7, 65):
        step = make_step(8, n, k, "float64", norm=0.3)
        # Below 1e-308 numbers lose digits; what is left of them is the step.
        left = step.left * size
        right = step.right * min(1 / size, 1e307)
        wide = reference.extended(left) * 1e300, reference.extended(right) * 1e-300
        for update, dense in UPDATES.items():
            assert error(moved((step.unitary, left, right), None, update), dense(step.unitary, *wide)) <= (
                step.tolerance()
            )


def test_pivots_of_zero_are_no_exception(on_cpu):
    """4 e₁e₁ᵀ + 4 e₂e₂ᵀ has no skew part, and a matrix with zeros on its diagonal to be inverted."""
    b = np.eye(9)[:, :2]
    left, right = _cuda.rotation(4.0 * b, b.copy(), "cayley")
    np.testing.assert_allclose(left @ right.T, np.zeros((9, 9)), atol=1e-15)


@pytest.mark.parametrize("update", ["geodesic", "polar"])
@pytest.mark.parametrize(("n", "k", "p"), [(7, 1, 1), (65, 1, 1), (33, 2, 2)])
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_healing_removes_the_defect_along_its_probes(n, k, p, dtype, update, on_cpu):
    batch = (2,) if n == 7 else ()
    step = make_step(3, n, k, dtype, norm=0.3, batch=batch)
    size = 1e-4
    unitary = step.unitary * np.asarray(1 + size, dtype)
    probes = probes_of(n, p, dtype, batch)
    healed = reference.extended(moved((unitary, step.left, step.right), probes, update))
    # The probes turn with the step: a rotation of rank k, of which those of the same update know.
    turned = ct(UPDATES[update](step.unitary, step.left, step.right)) @ (step.unitary @ probes)
    defect = ct(healed) @ (healed @ turned) - turned
    # To first order; what is left is of second order, beside rounding.
    assert np.linalg.norm(defect) <= 20 * p * (size**2 + 4 * n**0.5 * np.finfo(dtype).eps)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(("n", "k", "dtype"), [(7, 3, "float32"), (33, 2, "complex128"), (7, 1, "complex64")])
def test_rotations_of_body_factors_equal_their_dense_definition(n, k, dtype, update, on_cpu):
    batch = (2,) if n == 7 else ()
    step = make_step(4, n, k, dtype, norm=0.8, batch=batch)
    c = np.ascontiguousarray(ct(step.unitary) @ step.left)
    left, right = _cuda.rotation(c, step.right, update)
    assert left.shape == right.shape == (*batch, n, 2 * k)
    eye = np.broadcast_to(np.eye(n), step.unitary.shape)
    exact = UPDATES[update](eye, c, step.right)
    assert error(eye + reference.extended(left) @ ct(right), exact) <= step.tolerance()


@pytest.mark.parametrize(
    ("size", "where", "bad"),
    covering(
        list(itertools.product([7, 65], [1, 2])), ["unitary", "left", "right", "probes"], [np.nan, np.inf]
    ),
)
def test_nan_and_infinity_are_not_lost(size, where, bad, on_cpu):
    n, k = size
    step = make_step(5, n, k, "float32", norm=0.5)
    arrays = dict(
        zip(("unitary", "left", "right"), step.arrays, strict=True), probes=probes_of(n, 1, "float32", ())
    )
    arrays[where][2, 0] = bad
    *arrays, probes = arrays.values()
    for update in UPDATES:
        assert not np.isfinite(moved(arrays, probes, update)).all(axis=-1).any()


def test_zero_beside_nan_is_not_a_zero_step(on_cpu):
    for n, k in itertools.product((7, 65), (1, 2)):
        step = make_step(5, n, k, "float64", kind="zero")
        step.left[0] = np.nan
        assert np.isnan(moved(step.arrays, None, "geodesic")).all()


def test_a_step_too_long_for_the_gram_core_gives_nan_and_no_wrong_matrix(on_cpu):
    for norm in (50.0, 1e3, 1e6, 1e12):
        for update in UPDATES:
            step = make_step(6, 33, 2, "float64", norm=norm, kind="collinear")
            got = moved(step.arrays, None, update)
            if np.isfinite(got).all():
                assert np.linalg.norm(ct(got) @ got - np.eye(33)) <= np.finfo(np.float64).eps ** 0.5
            else:
                assert np.isnan(got).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_numbers_are_those_of_the_cpu(dtype, on_cpu):
    for shape, key, purpose, first in (
        ((5, 3), (0, 7), 0, (0, 0)),
        ((2, 70, 2), (3 << 30, 0xFFFFFFFF), 3, (4, 1)),
        ((0, 3), (0, 7), 0, (0, 0)),
    ):
        double = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
        expected = np.empty(shape, double)
        for gaussian in (True, False):
            stack = expected if len(shape) == 3 else expected[None]
            cpu.random_numbers(key, purpose, first, gaussian, stack)
            got = np.empty(shape, dtype)
            _cuda.random_numbers(key, purpose, first, gaussian, got)
            assert np.abs(got - expected).max(initial=0) <= 10 * np.finfo(dtype).eps
            # The key may be on the device.
            again = np.empty(shape, dtype)
            _cuda.random_numbers(np.array(key, np.uint32).view(np.int32), purpose, first, gaussian, again)
            np.testing.assert_array_equal(again, got)


@pytest.mark.parametrize("dtype", DTYPES)
def test_thin_products_are_those_of_their_definition(dtype, on_cpu):
    for batch, rows, inner, columns in (((), 65, 7, 3), ((2,), 5, 70, 4), ((), 1, 1, 1), ((), 3, 2, 0)):
        rng = np.random.default_rng(rows)
        a, b = normal(rng, (*batch, rows, inner), dtype), normal(rng, (*batch, inner, columns), dtype)
        wide = reference.extended(a) @ b
        # Summed in double precision, and rounded once.
        bound = np.finfo(dtype).eps * 8 * inner
        assert np.abs(_cuda.thin_product(a, b) - wide).max(initial=0) <= bound
        transposed = np.ascontiguousarray(ct(a))
        assert np.abs(_cuda.thin_product(transposed, b, adjoint=True) - wide).max(initial=0) <= bound


@pytest.mark.parametrize("heal", [0, 1])
def test_factors_that_lie_in_a_tensor_are_read_before_it_is_overwritten(heal, on_cpu, monkeypatch):
    monkeypatch.setattr(whole, "for_cuda", lambda xp, *arrays: list(arrays))
    monkeypatch.setattr(whole, "for_kernels", lambda *_: None)
    for n in (8, 33):
        stack = torch.from_numpy(lu.random_unitary(n, dtype="float32", batch=(3,), rng=0))
        # Columns in the rows of the first matrix, which one block moves while the others read.
        left, right = stack.view(-1)[: 6 * n].view(2, 3, n, 1)
        arrays = stack, left, right
        expected = lu.unitary_transport(*(x.clone() for x in arrays), heal=heal, rng=1)
        assert lu.unitary_transport(*arrays, heal=heal, rng=1, overwrite_unitary=True) is arrays[0]
        np.testing.assert_array_equal(stack.numpy(), expected.numpy())


def test_kernels_run_on_the_stream_of_torch(monkeypatch):
    seen = []

    @contextlib.contextmanager
    def entered(x):
        seen.append(x)
        yield

    cuda = SimpleNamespace(
        Device=entered, Stream=SimpleNamespace(from_external=lambda x: entered(x.__cuda_stream__()))
    )
    monkeypatch.setattr(_cuda_arrays, "_cupy", lambda: SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(_cuda_arrays, "index", lambda x: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=40 + index))
    with _cuda_arrays.entered(torch.zeros(1)):
        assert seen == [1, (0, 41)]


BASES = ["generic", "rank 2", "zero columns", "nearly collinear", "repeated", "decaying"]


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_become_orthonormal_whatever_their_rank(dtype, kind, on_cpu):
    for n, width in ((5, 5), (65, 12), (1, 1)):
        rng = np.random.default_rng(n)
        x = normal(rng, (2, n, width), "complex128" if np.dtype(dtype).kind == "c" else "float64")
        if kind == "rank 2":
            x = x[..., :2] @ normal(rng, (min(2, width), width), "float64")
        if kind == "zero columns":
            x[..., ::2] = 0
        if kind == "nearly collinear":
            x = x[..., :1] + 1e-9 * x
        if kind == "repeated":
            x = np.repeat(x[..., :1], width, axis=-1)
        if kind == "decaying":
            x = x * 10.0 ** -np.arange(width)
        # Squares of such numbers are no numbers of single precision.
        x = (1e-25 * x).astype(dtype)
        Q = _cuda.orthonormal_columns(x)
        # Rounding of the sums of n products, and of the result.
        bound = 8 * np.finfo(dtype).eps * width**0.5
        assert np.linalg.norm(ct(Q) @ Q - np.eye(width)) <= 2 * bound
        wide = reference.extended(Q)
        R = ct(wide) @ x
        size = np.abs(x).max()
        assert np.abs(wide @ R - x).max() <= bound * size * n**0.5
        assert np.abs(np.tril(R, -1)).max() <= bound * size * n**0.5


@pytest.mark.parametrize("kind", ["generic", "two values", "zero", "graded"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_eigenvectors_diagonalise_and_values_ascend(dtype, kind, on_cpu):
    for m in (1, 2, 5, 24, 33):
        rng = np.random.default_rng(m)
        matrix = normal(rng, (2, m, m), "complex128" if np.dtype(dtype).kind == "c" else "float64")
        matrix = matrix + ct(matrix)
        if kind == "two values":
            u = np.linalg.qr(matrix)[0]
            matrix = (u * np.sign(np.arange(m) - m / 3)) @ ct(u)
        if kind == "zero":
            matrix = 0 * matrix
        if kind == "graded":
            scale = 10.0 ** -np.arange(m)
            matrix = scale[:, None] * matrix * scale
        matrix = matrix.astype(dtype)
        values, vectors = _cuda.hermitian_eigen(matrix)
        assert values.dtype == np.finfo(dtype).dtype
        assert (np.diff(values) >= 0).all()
        # Every vector is turned a few times with every other one.
        bound = 16 * m * np.finfo(dtype).eps
        assert np.abs(ct(vectors) @ vectors - np.eye(m)).max() <= bound
        wide = reference.extended(vectors)
        assert np.abs(matrix @ wide - wide * values[..., None, :]).max() <= bound * np.abs(matrix).max()


def test_decompositions_of_matrices_that_are_not_finite_are_nan_and_the_rest_is_not(on_cpu):
    for bad in (np.nan, np.inf):
        x = normal(np.random.default_rng(0), (3, 9, 9), "complex64")
        x = x + ct(x)
        x[1, 2, 3] = bad
        for parts in (_cuda.hermitian_eigen(x), [_cuda.orthonormal_columns(x[..., :4])]):
            for part in parts:
                assert np.isnan(part[1]).all()
                assert np.isfinite(part[[0, 2]]).all()


def test_packs_are_read_only_from_where_they_may_be(on_cpu):
    memory = np.zeros(64 * 64 + 8, np.float32)
    first = -(memory.ctypes.data // 4) % 4
    on_cpu.launched.clear()
    for start in (first, first + 1):
        matrix = memory[start : start + 64 * 64].reshape(64, 64)
        _cuda.product_rows(matrix, np.zeros((64, 1), np.float32))
    looks = [launch for launch in on_cpu.launched if launch.kernel.startswith("look")]
    assert [template(launch)[0] for launch in looks] == [4, 1]


@pytest.mark.parametrize(
    ("n", "k", "p", "most"),
    [(16, 1, 0, 1), (16, 1, 1, 1), (65, 1, 0, 5), (65, 1, 1, 6), (65, 3, 1, 9), (65, 9, 0, 10)],
)
def test_a_step_takes_few_launches(n, k, p, most, on_cpu):
    """Each of some microseconds, which is what a small step costs in a graph."""
    step = make_step(7, n, k, "float32")
    on_cpu.launched.clear()
    moved(step.arrays, probes_of(n, p, "float32", ()), "geodesic")
    assert len(on_cpu.launched) <= most


sizes = st.one_of(st.integers(1, 300), st.sampled_from((512, 1000, 4096, 8192, 16384, 10**6)))


@given(
    rows=sizes,
    columns=sizes,
    count=st.integers(1, 600),
    width=st.integers(1, 16),
    itemsize=st.sampled_from((4, 8)),
    aligned=st.booleans(),
)
def test_blocks_cover_all_rows_and_columns_once(rows, columns, count, width, itemsize, aligned):
    if not _launches.takes(rows, columns, width, itemsize):
        return
    launch = _launches.row_wise("rotate", count, rows, columns, width, itemsize, aligned)
    pack, packs, at_once, thin = template(launch)
    assert thin == width
    assert columns % pack == 0
    assert launch.threads % 32 == 0
    assert launch.threads <= 512
    assert pack * packs * launch.threads >= columns
    assert launch.grid[0] == count
    assert max(launch.grid[1:]) <= 65535
    assert 0 <= launch.grid[1] * at_once - rows < at_once
    # Of 128 registers.
    assert packs * pack * itemsize <= 4 * 64
    assert at_once == 1 or at_once * packs * pack * itemsize <= 4 * 32
    assert at_once == 1 or at_once * width * itemsize <= 4 * 16


@given(
    rows=sizes,
    columns=sizes,
    count=st.integers(1, 600),
    given_columns=st.integers(1, 8),
    made=st.integers(0, 4),
    itemsize=st.sampled_from((4, 8)),
    processors=st.sampled_from((1, 108, 132)),
)
@example(rows=4096, columns=4096, count=1, given_columns=1, made=0, itemsize=4, processors=108)
def test_slabs_and_pieces_cover_all_rows_and_columns(
    rows, columns, count, given_columns, made, itemsize, processors
):
    if not _launches.takes(rows, columns, given_columns + made, itemsize):
        return
    plan = _launches.gathering(count, rows, columns, given_columns, made, itemsize, True, processors)
    if plan is None:
        assert made
        assert _launches.gathering(count, rows, columns, given_columns + made, 0, itemsize, True, processors)
        return
    launch, height = plan
    pack, packs, _, first, second = template(launch)
    assert (first, second) == (given_columns, made)
    assert (launch.grid[1] - 1) * height < rows <= launch.grid[1] * height
    assert pack * packs * launch.threads * launch.grid[2] >= columns
    # No more slabs than keep the multiprocessors busy.
    assert launch.grid[1] == 1 or np.prod(launch.grid) <= processors * max(1, 1024 // launch.threads)
    # Probes are looked along by whole rows.
    assert launch.grid[2] == 1 or not made
    assert packs == 1 or (given_columns + made) * packs * pack * itemsize <= 4 * 64


@given(rows=sizes, columns=sizes, itemsize=st.sampled_from((4, 8)), aligned=st.booleans())
def test_products_are_added_to_all_rows_and_columns_once(rows, columns, itemsize, aligned):
    if not _launches.takes(rows, columns, 20, itemsize):
        return
    launch = _launches.changing(3, rows, columns, itemsize, aligned)
    pack, at_once = template(launch)
    assert columns % pack == 0
    assert launch.grid[0] == 3
    assert 0 <= launch.grid[1] * at_once - rows < at_once
    assert 0 <= launch.grid[2] * launch.threads * pack - columns < launch.threads * pack


@given(width=st.integers(1, 100))
def test_groups_take_every_column_once(width):
    taken = [first + i for first, some in _launches.groups(width) for i in range(some)]
    assert taken == list(range(width))
    assert all(some <= 16 for _, some in _launches.groups(width))


@given(n=st.integers(1, 10**6), count=st.integers(1, 600), itemsize=st.sampled_from((4, 8)))
def test_every_entry_of_thin_factors_has_a_thread(n, count, itemsize):
    launch = _launches.entry_wise("lay_out", count, n, itemsize, 1)
    assert launch.grid[0] == count
    assert 0 <= launch.grid[1] * launch.threads - n < launch.threads
    assert launch.grid[1] <= 65535


def template(launch):
    return [int(x) for x in re.search(r"<\w+, (.*)>", launch.kernel)[1].split(",")]


@functools.cache
def instances(all_sizes):
    """Traversals that steps of n = 64 … 16384 and of k = 1 and 4 take, with one probe and without."""
    names = set()
    for n, k, p, (numbers, itemsize) in itertools.product(
        (64, 4096, 16384) if all_sizes else (4096,), (1, 4), (0, 1), ((1, 4), (1, 8), (2, 4))
    ):
        columns, width = n * numbers, 2 * (k + p) * numbers
        if _launches.takes(n, columns, width, itemsize):
            names.add(_launches.row_wise("rotate", 1, n, columns, width, itemsize, True).kernel)
        plan = _launches.gathering(1, n, columns, k * numbers, p * numbers, itemsize, True, 132)
        if plan is None:
            names.add(_launches.row_wise("look", 1, n, columns, p * numbers, itemsize, True).kernel)
            plan = _launches.gathering(1, n, columns, (k + p) * numbers, 0, itemsize, True, 132)
        wide = _launches.gathering(1, n, columns, 16, 0, itemsize, True, 132)
        names |= {plan[0].kernel, wide[0].kernel, _launches.adding(1, n, itemsize).kernel}
        names.add(_launches.row_wise("look", 1, n, columns, 16, itemsize, True).kernel)
        names.add(_launches.changing(1, n, columns, itemsize, True).kernel)
    return sorted(names)


def thin_instances(all_dtypes):
    """Everything on thin factors, for all dtypes or one of them."""
    some = [("float", 1)]
    for number, parts in itertools.product(("float", "double"), (1, 2)) if all_dtypes else some:
        kinds = (
            "lay_out",
            "collect",
            "scale_columns",
            "thin_product",
            "random_numbers",
            "turn",
            "step_small",
        )
        kinds += ("orthonormalise", "hermitian_eigen")
        yield from (f"{kind}<{number}, {parts}>" for kind in kinds)
        kinds = itertools.product(("assemble", "spread"), ("true", "false"))
        yield from (f"{kind}<{number}, {parts}, {flag}>" for kind, flag in kinds)
    yield from (f"{kind}<{parts}>" for kind in ("gram", "core") for parts in ((1, 2) if all_dtypes else (1,)))


@pytest.mark.parametrize("architecture", ["sm_80", thorough("sm_90"), thorough("sm_100")])
def test_kernels_compile_for_a_gpu_and_hold_what_they_hold_in_registers(architecture, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("no CUDA compiler on this machine")
    # A minute for each: of two architectures a part has to do.
    whole = architecture == "sm_90"
    names = [*instances(whole), *thin_instances(whole)]
    # Its address, which somebody takes, has the compiler make a kernel.
    text = [_cuda_arrays.source(), "template <typename T> void take(T) {}", "void all() {"]
    text += [f"  take(&{name});" for name in names]
    (tmp_path / "kernels.cu").write_text("\n".join([*text, "}"]), encoding="utf-8")
    command = ["nvcc", f"-arch={architecture}", "-std=c++17", "-cubin", "-Xptxas", "-v", "kernels.cu"]
    report = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    spilled = [int(x) for x in re.findall(r"(\d+) bytes spill stores", report)]
    assert len(spilled) >= len(names)
    assert max(spilled) <= 64

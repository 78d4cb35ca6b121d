"""Whole steps by the kernels: the same as stage by stage, and as the dense definition."""

import time
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import scipy.linalg
from cases import UPDATES, ct, error, normal
from profiles import covering
from test_kernels import without_kernels

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._kernels import cpu
from lowrank_unitary._kernels.cpu.steps import planes, polar
from lowrank_unitary._kernels.cpu.vectors import blocks, compiling
from lowrank_unitary.tangent.planes import best_columns

DENSE = {
    "geodesic": reference.exponential,
    "cayley": reference.cayley,
    "polar": lambda A: reference.polar_factor(np.eye(len(A)) + A),
}


def problem(dtype, n, batch=(), seed=0):
    rng = np.random.default_rng(seed)
    U = np.broadcast_to(lu.random_unitary(n, dtype=dtype, rng=rng), (*batch, n, n)).copy()
    return U, normal(rng, (*batch, n, n), dtype)


@pytest.fixture
def taken(monkeypatch):
    """How often the kernels have taken a whole step."""
    calls = []
    for name in ("descent_step", "transport_step", "best_columns"):
        kernel = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda *args, f=kernel: calls.append(f) or f(*args))
    return calls


@pytest.mark.parametrize(
    ("n", "k", "heal", "update"),
    covering([1, 2, 5, 64, 130], [1, 3], [0, 2], UPDATES),
)
def test_a_descent_step_is_the_same_with_and_without_kernels(dtype, n, k, heal, update, taken, monkeypatch):
    k, heal = min(k, n), min(heal, n)
    U, G = problem(dtype, n)
    options = {"rank": k, "heal": heal, "update": update, "rng": 3}
    fast = lu.unitary_step(U, G, 0.3, **options)
    assert len(taken) == 1
    with monkeypatch.context() as patch:
        without_kernels(patch)
        slow = lu.unitary_step(U, G, 0.3, **options)
    assert len(taken) == 1
    # A step of norm ‖ηA‖ ≤ 0.3 √n; planes of nearly equal angles may mix, in the last that is kept.
    assert error(fast, slow) <= 60 * np.sqrt(n) * n * np.finfo(dtype).eps
    assert fast.dtype == slow.dtype


@pytest.mark.parametrize(("n", "update"), covering([1, 2, 3, 7, 31], UPDATES))
@pytest.mark.parametrize("eta", [1e-6, 0.3, 30.0])
def test_a_step_of_full_rank_is_the_dense_definition(dtype, n, update, eta, taken):
    U, G = problem(dtype, n)
    A = eta * reference.tangent(U, G)
    expected = reference.extended(U) @ DENSE[update](-A)
    got = lu.unitary_step(U, G, eta, rank=n, heal=0, update=update, rng=0)
    assert len(taken) == 1
    tolerance = 20 * np.sqrt(n) * np.finfo(dtype).eps * (1 + np.linalg.norm(A.astype(complex)))
    assert error(got, expected) <= tolerance


def test_layouts_views_and_read_only_arrays_give_the_same(dtype, taken):
    U, G = problem(dtype, 23)
    expected = lu.unitary_step(U, G, 0.2, rank=2, rng=1)
    frozen = U.copy()
    frozen.flags.writeable = False
    wide = np.empty((23, 46), U.dtype)
    wide[:, ::2] = G
    for matrix in (np.asfortranarray(U), U[::-1].copy()[::-1], frozen):
        for gradient in (np.asfortranarray(G), wide[:, ::2], G):
            np.testing.assert_array_equal(lu.unitary_step(matrix, gradient, 0.2, rank=2, rng=1), expected)
    for target in (np.asfortranarray(U), U.copy(), U[::-1].copy()[::-1]):
        given = G.copy()
        assert lu.unitary_step(target, given, 0.2, rank=2, rng=1, overwrite_unitary=True) is target
        np.testing.assert_array_equal(target, expected)
        np.testing.assert_array_equal(given, G)
    assert len(taken) == 13


def test_stacks_broadcast_and_take_a_step_size_each(dtype, taken, monkeypatch):
    # Larger than the samples, which differ from matrix to matrix.
    U, G = problem(dtype, 24, (2, 3))
    eta = np.array([[0.1, 0.2, 0.3], [0.0, 1.0, 10.0]])
    moved = lu.unitary_step(U, G, eta, rank=2, rng=4)
    shared = lu.unitary_step(U[0, 0], G, 0.1, rank=2, rng=4)
    assert shared.shape == G.shape
    np.testing.assert_array_equal(shared[0, 0], moved[0, 0])
    without_kernels(monkeypatch)
    slow = lu.unitary_step(U, G, eta, rank=2, rng=4)
    assert error(moved, slow) <= 2000 * np.finfo(dtype).eps


def test_a_step_size_in_an_array_compiles_nothing_anew(dtype, taken):
    U, G = problem(dtype, 24, ())
    expected = lu.unitary_step(U, G, 0.5, rank=2, rng=4)
    descend = cpu.rows._compiled("steps.descent").descend
    compiled = descend.signatures
    for eta in (np.asarray(0.5, U.real.dtype), np.full((), 0.5)[()]):
        np.testing.assert_array_equal(lu.unitary_step(U, G, eta, rank=2, rng=4), expected)
    assert descend.signatures == compiled


def test_gradients_may_be_parts_of_the_stack_that_is_overwritten(dtype, taken):
    stack = lu.random_unitary(12, dtype=dtype, batch=(4,), rng=0)
    for matrices, gradients in ((stack[1:], stack[:-1]), (stack, stack[::-1])):
        expected = lu.unitary_step(matrices, gradients, 0.3, rank=2, rng=1)
        held = stack.copy()
        matrices, gradients = (held[1:], held[:-1]) if len(matrices) == 3 else (held, held[::-1])
        lu.unitary_step(matrices, gradients, 0.3, rank=2, rng=1, overwrite_unitary=True)
        np.testing.assert_array_equal(matrices, expected)
    U = stack
    one = U[0].copy()
    lu.unitary_step(one, one[::-1], 0.3, rank=2, rng=1, overwrite_unitary=True)
    np.testing.assert_array_equal(one, lu.unitary_step(U[0], U[0, ::-1], 0.3, rank=2, rng=1))


@pytest.mark.parametrize(("n", "k", "heal"), [(40, 8, 16), (40, 12, 24), (9, 3, 6), (9, 5, 9)])
def test_more_probes_than_columns_heal_as_without_kernels(dtype, n, k, heal, taken, monkeypatch):
    rng = np.random.default_rng(0)
    U = (lu.random_unitary(n, dtype=dtype, rng=rng) * (1 + 1e-3)).astype(dtype)
    a, b = normal(rng, (2, n, k), dtype) / n
    fast = lu.unitary_transport(U, a, b, heal=heal, rng=1)
    assert len(taken) == 1
    without_kernels(monkeypatch)
    assert error(fast, lu.unitary_transport(U, a, b, heal=heal, rng=1)) <= 1000 * np.finfo(dtype).eps


def test_threads_share_matrices_and_rows(dtype, monkeypatch):
    U, G = problem(dtype, 61, (3,))
    a, b = normal(np.random.default_rng(1), (2, 3, 61, 3), dtype)
    alone = lu.unitary_step(U, G, 0.1, rank=2, rng=1), lu.unitary_transport(U, a, b, heal=1, rng=1)
    monkeypatch.setattr(cpu.rows, "_PARALLEL", 1)
    for threads in (2, 3, 4, 7):
        monkeypatch.setattr(cpu.rows, "thread_count", lambda threads=threads: threads)
        shared = lu.unitary_step(U, G, 0.1, rank=2, rng=1), lu.unitary_transport(U, a, b, heal=1, rng=1)
        for one, other in zip(alone, shared, strict=True):
            assert error(one, other) <= 1e4 * np.finfo(dtype).eps


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["unitary", "gradient"])
def test_what_is_not_finite_gives_nan_in_its_matrix_only(dtype, wrong, where, taken):
    U, G = problem(dtype, 12, (3,))
    expected = lu.unitary_step(U, G, 0.1, rank=2, rng=1)
    (U if where == "unitary" else G)[1, 4, 7] = wrong
    with np.errstate(invalid="ignore"):
        got = lu.unitary_step(U, G, 0.1, rank=2, rng=1)
    assert np.isnan(got[1]).all()
    np.testing.assert_array_equal(got[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("size", [np.float32, np.float64])
def test_nan_stays_in_its_matrix_where_rows_are_padded(size):
    n = 4096 // np.dtype(size).itemsize
    U = np.stack([np.eye(n, dtype=size)] * 4)
    rng = np.random.default_rng(0)
    b, G = normal(rng, (4, n, 2), size), normal(rng, (4, n, n), size)
    b[0, 0, 0] = G[0, 0, 0] = np.nan
    for moved in (
        lu.unitary_transport(U, b / n, b),
        lu.polar_projection(U, b / n, b),
        lu.unitary_step(U, G, 0.1, rank=1, rng=0),
        cpu.best_columns(b, b[:, ::-1], 1)[0],
    ):
        assert np.isnan(moved).any(axis=(1, 2)).tolist() == [True, False, False, False]


def test_a_column_major_stack_is_overwritten_along_one_gradient(dtype):
    U, _ = problem(dtype, 8, (3,))
    G = problem(dtype, 8, seed=1)[1]
    expected = lu.unitary_step(U, G, 0.1, rank=2, rng=0)
    target = np.asfortranarray(U)
    assert lu.unitary_step(target, G, 0.1, rank=2, rng=0, overwrite_unitary=True) is target
    np.testing.assert_array_equal(target, expected)


def test_memory_maps_give_plain_arrays(dtype, tmp_path):
    U, G = problem(dtype, 8)
    held = np.memmap(tmp_path / "U", dtype, "w+", shape=U.shape)
    held[:] = U
    moved = lu.unitary_step(held, G, 0.1, rank=2, rng=0), lu.unitary_transport(held, G[:, :2], G[:, 2:4])
    for got in moved:
        assert type(got) is np.ndarray
    np.testing.assert_array_equal(moved[0], lu.unitary_step(U, G, 0.1, rank=2, rng=0))


def test_torch_records_the_step_size():
    torch = pytest.importorskip("torch")
    U, G = (torch.from_numpy(x) for x in problem(np.float64, 6))
    eta = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def moved(eta):
        return lu.unitary_step(U, G, eta, rank=2, rng=0)

    moved(eta)[0, 1].backward()
    h = 1e-6
    by_differences = (moved(eta.detach() + h) - moved(eta.detach() - h))[0, 1] / (2 * h)
    torch.testing.assert_close(eta.grad, by_differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("power", [-100, -60, 60, 100])
def test_a_step_does_not_depend_on_the_scale_of_the_gradient(dtype, power, taken):
    U, G = problem(dtype, 20)
    expected = lu.unitary_step(U, G, 0.5, rank=3, rng=1)
    scaled = np.ldexp(1.0, power).astype(G.real.dtype)
    got = lu.unitary_step(U, G * scaled, 0.5 * 2.0**-power, rank=3, rng=1)
    assert error(got, expected) <= 200 * np.finfo(dtype).eps
    assert len(taken) == 2


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_gradient_of_small_rank_is_followed_exactly(dtype, rank, taken):
    U, _ = problem(dtype, 30)
    x, y = normal(np.random.default_rng(2), (2, 30, rank), dtype)
    G = x @ ct(y)
    expected = reference.extended(U) @ reference.exponential(-0.1 * reference.tangent(U, G))
    got = lu.unitary_step(U, G, 0.1, rank=2, heal=0, rng=1)
    assert error(got, expected) <= 1000 * np.finfo(dtype).eps
    if rank == 0:
        np.testing.assert_array_equal(got, U)


def skew(C, Q):
    return (C @ ct(Q) - Q @ ct(C)) / 2


@pytest.mark.parametrize(("n", "k", "batch"), covering([1, 2, 5, 23, 64], [1, 3], [(), (2, 1, 3)]))
def test_sketches_are_the_same_with_and_without_kernels(dtype, n, k, batch, monkeypatch):
    k = min(k, n)
    U, G = problem(dtype, n, batch)
    body = lu.BodyFactors(*normal(np.random.default_rng(1), (2, *batch, n, 3 * k + 17), dtype))
    calls = []
    for name in ("tangent_factors", "compressed_factors"):
        kernel = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda *args, f=kernel: calls.append(f) or f(*args))

    def sketches():
        dense = lu.tangent_sketch(U, G, k, rng=5)
        return dense, lu.compress_tangent(body, k, method="randomized", rng=5)

    fast = sketches()
    assert len(calls) == 2
    without_kernels(monkeypatch)
    for one, other, scale in zip(fast, sketches(), (n, n * np.sqrt(k)), strict=True):
        assert one.left.shape == other.left.shape == (*batch, n, k)
        assert one.left.dtype == one.right.dtype == dtype
        expected = skew(*(reference.extended(x) for x in other))
        # ‖A‖ is about n, and that of the product of factors √(3k + 17) times as much; the planes that are
        # kept move by eps ‖A‖ over the gap to those that are not.
        got = skew(*(reference.extended(x) for x in one))
        assert error(got, expected) <= 2000 * scale * np.finfo(dtype).eps


@pytest.mark.parametrize("heal", [0, 2])
@pytest.mark.parametrize(
    ("n", "m", "k", "batch"),
    [
        (23, 30, 2, ()),
        (64, 32, 1, (3,)),
        (9, 2, 3, (2,)),
        (9, 1, 3, ()),
        (9, 2, 5, ()),
        (5, 40, 5, ()),
        (1, 3, 1, (2,)),
    ],
)
def test_steps_of_body_factors_are_the_same_with_and_without_kernels(
    dtype, n, m, k, batch, heal, monkeypatch
):
    # With fewer samples than rows the same ones, and as many products with the tangent.
    rng = np.random.default_rng(2)
    U = lu.random_unitary(n, dtype=dtype, batch=batch, rng=rng) * np.dtype(dtype).type(1 + 1e-4)
    body = lu.BodyFactors(*(normal(rng, (2, *batch, n, m), dtype) / np.dtype(dtype).type(np.sqrt(n * m))))
    heal = min(heal, n)
    calls, kernel, options = [], cpu.descent_step, {"rank": k, "rng": 3, "heal": heal}
    monkeypatch.setattr(cpu, "descent_step", lambda *args: calls.append(1) or kernel(*args))

    def steps():
        return [lu.unitary_step(U, body, 0.7, update=update, **options) for update in ("geodesic", "polar")]

    fast = steps()
    assert len(calls) == 2
    without_kernels(monkeypatch)
    for one, other in zip(fast, steps(), strict=True):
        assert error(one, reference.extended(other)) <= 500 * np.sqrt(n) * np.finfo(dtype).eps


def test_planes_that_turn_nothing_do_not_disturb_the_others(dtype):
    # More columns than rows: the basis has zeros, along which eigenvectors of eigenvalue 0 are arbitrary.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        U = lu.random_unitary(7, dtype=dtype, rng=rng)
        a, b = normal(rng, (2, 7, 6), dtype) / 6
        a[:, 0], b[:, -1] = 0, 0
        got = lu.unitary_transport(U, a, b)
        assert error(got, reference.transport(U, a, b)) <= 200 * np.finfo(dtype).eps


def small_of(T):
    m = len(T)
    return planes.Small(T.copy(), np.empty_like(T), np.empty_like(T), np.empty((m, m)), np.empty((5, m)))


@numba.njit
def planes_of(small, parts, pairs, weights, sizes):
    planes.planes(small, parts, pairs, weights, sizes)


@numba.njit
def polar_of(small):
    polar.polar_change(small)


@pytest.mark.parametrize("field", [np.float64, np.complex128])
@pytest.mark.parametrize("m", [2, 4, 6, 12, 40])
@pytest.mark.parametrize(
    "kind", ["random", "equal", "graded", "zero", "half zero", "row zero", "whole numbers"]
)
def test_planes_are_those_of_the_eigenvalues(field, m, kind):
    rng = np.random.default_rng(m)
    T = normal(rng, (m, m), field)
    if kind == "equal":
        Q, _ = np.linalg.qr(T)
        T = Q @ np.kron(np.eye(m // 2), [[0, -1], [1, 0]]) @ ct(Q)
    elif kind == "graded":
        T = T * np.exp(-np.arange(m)[:, None]) * np.exp(-np.arange(m))
    T = (T - ct(T)) / 2
    if kind == "zero":
        T[:] = 0
    elif kind == "half zero":
        T[m // 2 :], T[:, m // 2 :] = 0, 0
    elif kind == "row zero":
        T[m // 3], T[:, m // 3] = 0, 0
    elif kind == "whole numbers":
        T = np.round(T)
    parts = 2 if field == np.complex128 else 1
    pairs = parts * (m // 2)
    weights, sizes = np.empty((parts * m, 2 * pairs)), np.empty(pairs)
    planes_of(small_of(T), parts, pairs, weights, sizes)
    if parts == 2:
        vectors = weights[::2, ::2] + 1j * weights[::2, 1::2]
    else:
        vectors = (weights[:, ::2] + 1j * weights[:, 1::2]) / np.sqrt(2)
    w = sizes if parts == 2 else np.concatenate([sizes, -sizes])
    v = vectors if parts == 2 else np.hstack([vectors, vectors.conj()])
    exact, x = np.linalg.eigh(1j * T)
    if parts == 2:
        # In turn of the largest and the smallest, which must be positive and negative.
        exact[: m // 2], exact[m // 2 :] = np.minimum(exact[: m // 2], 0), np.maximum(exact[m // 2 :], 0)
    tolerance = 1e-14 * m * np.linalg.norm(T)
    assert np.abs(np.sort(w) - exact).max() <= tolerance
    assert np.abs((v * w) @ ct(v) - (x * exact) @ ct(x)).max() <= tolerance


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_has_no_planes_gives_nan(wrong, parts):
    T = np.array([[0.0, -wrong], [wrong, 0.0]]).astype(np.complex128 if parts == 2 else np.float64)
    sizes = np.empty(parts)
    planes_of(small_of(T), parts, parts, np.empty((2 * parts, 2 * parts)), sizes)
    assert np.isnan(sizes).all()


@pytest.mark.parametrize("size", [1e-140, 1e-152, 1e-155, 1e-158, 1e-160, 1e-163, 1e-200])
@pytest.mark.parametrize("field", [np.float64, np.complex128])
def test_a_column_whose_squares_underflow_spoils_no_step(field, size):
    rng = np.random.default_rng(5)
    U, (a, b) = lu.random_unitary(12, dtype=field, rng=rng), normal(rng, (2, 12, 2), field) / 3
    b[:, 1] *= size
    for step, exact in ((lu.unitary_transport, reference.transport), (lu.polar_projection, reference.polar)):
        assert error(step(U, a, b), exact(U, a, b)) <= 200 * np.finfo(field).eps


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("singular", ["first", "all"])
def test_an_exactly_singular_polar_step_of_several_columns_is_unitary(dtype, k, singular, taken):
    n = 6
    U, b = np.eye(n, dtype=dtype)[::-1].copy(), np.eye(n, dtype=dtype)[:, :k]
    a = -U @ b
    if singular == "first":
        a[:, 1:] *= -0.5
    moved = lu.polar_projection(U, a, b)
    assert len(taken) == 1
    assert np.linalg.norm(ct(moved) @ moved - np.eye(n)) <= 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("size", [1e4, 1e9, 1e16, 1e20])
def test_a_long_polar_step_keeps_its_short_columns(dtype, size):
    rng = np.random.default_rng(0)
    U, b = lu.random_unitary(6, dtype=dtype, rng=rng), np.linalg.qr(normal(rng, (6, 2), dtype))[0]
    lengths = np.array([size, -3.0], dtype)
    moved = lu.polar_projection(U, (U @ b) * lengths, b)
    # b is an eigenvector each of I + b lengths bᴴ: the sign of the second turns, whatever the first is.
    exact = U @ (np.eye(6) - 2 * np.outer(b[:, 1], b[:, 1].conj()))
    assert error(moved, reference.extended(exact)) <= 100 * np.finfo(dtype).eps


@pytest.mark.parametrize("layout", ["columns first", "mixed", "strided", "read-only"])
def test_body_factors_of_any_layout_give_the_same(dtype, layout, taken):
    rng = np.random.default_rng(4)
    U = lu.random_unitary(20, dtype=dtype, batch=(3,), rng=rng)
    left, right = normal(rng, (2, 3, 20, 40), dtype) / 20
    expected = lu.unitary_step(U, lu.BodyFactors(left, right), 0.5, 2, rng=1)
    turned = np.ascontiguousarray(left.mT).mT
    if layout == "columns first":
        left, right = turned, np.ascontiguousarray(right.mT).mT
    elif layout == "mixed":
        left = turned
    elif layout == "strided":
        left = np.repeat(left, 2, -1)[..., ::2]
    else:
        left.flags.writeable = False
    np.testing.assert_array_equal(lu.unitary_step(U, lu.BodyFactors(left, right), 0.5, 2, rng=1), expected)
    assert len(taken) == 2


@pytest.mark.parametrize("field", [np.float64, np.complex128])
@pytest.mark.parametrize("m", [2, 6, 24])
@pytest.mark.parametrize("least", [1.0, 1e-3, 1e-9, 1e-14, 1e-17, 0.0])
def test_the_polar_factor_of_a_small_matrix_at_every_singular_value(field, m, least):
    rng = np.random.default_rng(m)
    (u, _), (v, _) = (np.linalg.qr(normal(rng, (m, m), field)) for _ in range(2))
    A = (u * np.r_[np.linspace(30, 0.5, m - 1), least]) @ ct(v)
    small = small_of(A - np.eye(m))
    polar_of(small)
    P = small.T + np.eye(m)
    H = ct(P) @ A
    assert np.linalg.norm(ct(P) @ P - np.eye(m)) <= 5 * m * np.finfo(float).eps
    # Stable: the factor of a matrix as near to A as its rounding.
    assert np.linalg.norm(H - ct(H)) <= 4 * m * 30 * np.finfo(float).eps
    assert np.linalg.eigvalsh((H + ct(H)) / 2)[0] >= -4 * m * 30 * np.finfo(float).eps


@pytest.mark.parametrize("field", [np.float64, np.complex128])
@pytest.mark.parametrize("size", [1e-15, 1e-9, 1e-3, 1.0])
def test_the_polar_factor_of_a_small_step_keeps_its_digits(field, size):
    rng = np.random.default_rng(3)
    X = normal(rng, (6, 6), field)
    X *= size / np.linalg.norm(X, 2)
    small = small_of(X)
    polar_of(small)
    Y, X = small.T, reference.extended(X)
    if size < 1e-6:
        # (I + X)(I + E)^(−½) to second order: the third is below rounding.
        E = X + ct(X) + ct(X) @ X
        exact = X - E / 2 - X @ E / 2 + 3 * E @ E / 8
    else:
        exact = reference.polar_factor(np.eye(6) + X) - np.eye(6)
    assert error(Y, exact) <= 20 * size * np.finfo(float).eps
    assert np.linalg.norm(Y + ct(Y) + ct(Y) @ Y) <= 20 * size * np.finfo(float).eps


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_has_no_polar_factor_gives_nan(wrong):
    small = small_of(np.array([[0.0, wrong], [0.5, 0.0]]))
    polar_of(small)
    assert np.isnan(small.T).all()


@pytest.mark.parametrize("power", [-126, -90, 90, 126])
def test_factors_at_the_ends_of_the_range_give_the_same_step(dtype, power):
    U, _ = problem(dtype, 12)
    a, b = normal(np.random.default_rng(3), (2, 12, 3), dtype) / 8
    expected = lu.unitary_transport(U, a, b)
    up, down = (np.ldexp(1.0, p).astype(a.real.dtype) for p in (power, -power))
    assert error(lu.unitary_transport(U, a * up, b * down), expected) <= 200 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_a_product_with_U_may_leave_the_range_of_single_precision(dtype):
    # 4 · 0.3 times the largest number, which the step's other factor brings back.
    U = (scipy.linalg.hadamard(16) / 4).astype(dtype)
    numbers = np.finfo(dtype)
    a = np.tile([0.3 * numbers.max, 0.15 * numbers.max], (16, 1)).astype(dtype)
    b = normal(np.random.default_rng(0), (16, 2), dtype) * (4 * numbers.tiny)
    expected = reference.transport(U, a, b)
    # max · tiny = 4, and b has some 6 times the size of an entry.
    size = 1.2 * 4 * 4 * 6
    assert error(lu.unitary_transport(U, a, b), expected) <= 100 * size * numbers.eps


@numba.njit
def both_loops(rows, left, out, total):
    blocks.dot_rows(rows, 0, rows.shape[0], left, 0, left.shape[0], out, 0)
    by = (out.shape[1], 1)
    blocks.add_rows(total, 0, total, 0, left.shape[0], rows, (0, rows.shape[0]), (out, 0, *by))


@pytest.mark.parametrize("single", [np.float32, np.float64])
def test_the_loops_end_at_any_column(single):
    rng = np.random.default_rng(0)
    for columns in [*range(1, 70), 1023, 1024, 1025, 2060]:
        count, width = rng.integers(1, 9, 2)
        # Beyond the last column nothing may be read or written: rows of a larger array would show it.
        rows, left = (normal(rng, (size, columns), single) for size in (count, width))
        out, total = np.full((count, width), np.nan, single), np.zeros((width, columns), single)
        both_loops(rows, left, out, total)
        exact = rows.astype(np.longdouble) @ left.T
        eps = np.finfo(single).eps
        assert np.abs(out - exact).max() <= 4 * eps * columns
        assert np.abs(total - exact.T @ rows).max() <= 40 * eps * columns * np.sqrt(columns)


def halved(x):
    return x / 2


class TestCompiling:
    """Kernels are compiled aloud, and also where nothing can be kept."""

    @pytest.fixture(autouse=True)
    def once(self):
        compiling._say_once.cache_clear()
        yield
        compiling._say_once.cache_clear()

    def test_without_a_folder_for_them_kernels_are_compiled_all_the_same(self, monkeypatch, caplog):
        def refused(_):
            raise RuntimeError("cannot cache function: no locator available")

        monkeypatch.setattr(numba.core.dispatcher.Dispatcher, "enable_caching", refused)
        doubled = compiling.outer(lambda x: 2.0 * x)
        tripled = compiling.outer(lambda x: 3.0 * x)
        assert (doubled(1.5), tripled(1.5)) == (3.0, 4.5)
        (record,) = caplog.records
        assert record.name == "lowrank_unitary"
        assert "compiled in every process" in record.message

    def test_what_was_compiled_counts_for_the_same_text_of_all_kernels(self, monkeypatch, tmp_path):
        monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))

        def was_kept():
            made = compiling.outer(halved)
            assert made(3.0) == 1.5
            return bool(made.stats.cache_hits)

        assert [was_kept(), was_kept()] == [False, True]
        # Another file of the kernels has changed, and not that of the function.
        monkeypatch.setattr(compiling, "_sources", lambda: "another text")
        assert [was_kept(), was_kept()] == [False, True]

    @pytest.mark.parametrize(
        ("module", "seconds", "said"), [("cpu", 0.3, 1), ("cpu", 0.0, 0), ("other", 0.3, 0)]
    )
    def test_a_long_compilation_is_announced_once(self, module, seconds, said, monkeypatch, caplog):
        monkeypatch.setattr(compiling, "_PATIENCE", 0.05)
        function = SimpleNamespace(__module__="lowrank_unitary.cpu" if module == "cpu" else "elsewhere")
        started = SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})
        listener = compiling._Announcement()
        for _ in range(2):
            listener.on_start(started)
            # Functions that it calls are compiled within.
            listener.on_start(started)
            time.sleep(seconds)
            listener.on_end(started)
            listener.on_end(started)
        assert [record.name for record in caplog.records] == ["lowrank_unitary"] * said


@pytest.mark.parametrize(("n", "m", "k"), [(40, 4, 2), (7, 5, 3), (6, 2, 2), (1, 1, 1), (300, 9, 4)])
def test_the_best_columns_are_the_same_with_and_without_kernels(dtype, n, m, k, taken, monkeypatch):
    rng = np.random.default_rng(5)
    left, right = (normal(rng, (2, n, m), dtype) for _ in range(2))
    # Of very different sizes, one of them zero and one double.
    left *= np.logspace(0, -3, m, dtype=left.real.dtype)
    left[..., -1], right[1, :, 0] = left[..., 0], 0
    fast = columns_of(left, right, k)
    without_kernels(monkeypatch)
    slow = columns_of(left, right, k)
    assert len(taken) == 1
    # More columns than there are.
    assert columns_of(left, right, min(m + 1, n)).shape == slow.shape
    size = np.abs(slow).max()
    assert np.abs(fast - slow).max() <= 200 * m * np.sqrt(n) * np.finfo(dtype).eps * size


def columns_of(left, right, k):
    """The tangent that is left of skew(left rightᴴ)."""
    C, Q = best_columns(np, left, right, k)
    assert C.shape == Q.shape == (*left.shape[:-1], k)
    assert C.dtype == Q.dtype == left.dtype
    return (C @ ct(Q) - Q @ ct(C)) / 2


def test_the_best_columns_of_nan_and_infinity_are_nan(dtype):
    left, right = problem(dtype, 12)[1][:, :2], problem(dtype, 12, seed=1)[1][:, :2]
    for wrong in (np.nan, np.inf):
        given = left.copy()
        given[3, 1] = wrong
        C, Q = best_columns(np, given, right, 2)
        assert np.isnan(C).all()
        assert np.isnan(Q).all()
    for scale in (1e-30, 1e30):
        C, Q = best_columns(np, left * left.dtype.type(scale), right, 1)
        expected = columns_of(left, right, 1)
        got = (C @ ct(Q) - Q @ ct(C)) / 2 / left.real.dtype.type(scale)
        assert np.abs(got - expected).max() <= 1e3 * np.finfo(dtype).eps * np.abs(expected).max()

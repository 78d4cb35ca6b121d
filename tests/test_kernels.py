"""The fast kernels: as accurate as BLAS at least, safe with threads and forks, and optional."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import ct, normal

import lowrank_unitary as lu
from lowrank_unitary import _kernels, _primitives, reference


@pytest.fixture
def products(dtype):
    """A kernel's results beside those of BLAS, both as errors against extended precision."""

    def errors(rows, columns, k, seed=0):
        rng = np.random.default_rng(seed)
        A = normal(rng, (rows, columns), dtype)
        a, L, R = (normal(rng, (size, k), dtype) for size in (rows, columns, columns))
        exact = reference.adjoint(reference.extended(A)) @ a
        kernel, blas = _kernels.adjoint_product_rows(A, a), ct(A) @ a
        pairs = [(kernel - exact, blas - exact)]
        for p in (1, 2, 3):
            Z = normal(rng, (columns, p), dtype)
            kernel, blas = _kernels.adjoint_product_rows(A, a, Z), ct(A) @ np.hstack([a, A @ Z])
            exact_beside = reference.adjoint(reference.extended(A)) @ (reference.extended(A) @ Z)
            pairs.append((kernel - np.hstack([exact, exact_beside]), blas - np.hstack([exact, exact_beside])))
        exact = A + (reference.extended(A) @ L) @ ct(R)
        out = np.empty_like(A)
        _kernels.rotate_rows_in_cache(A, L, R, out)
        pairs.append((out - exact, A + (A @ L) @ ct(R) - exact))
        in_place = A.copy()
        _kernels.rotate_rows_in_cache(in_place, L, R, in_place)
        np.testing.assert_array_equal(in_place, out)
        return [tuple(float(np.linalg.norm(x.astype(complex))) for x in pair) for pair in pairs]

    return errors


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 1), (7, 64), (66, 515), (131, 129), (600, 1030)])
@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_kernels_are_no_less_accurate_than_blas(products, dtype, shape, k):
    for kernel, blas in products(*shape, k):
        # A few roundings are left to chance where there are few of them to average over.
        assert kernel <= 1.5 * blas + 8 * np.finfo(dtype).eps * np.sqrt(shape[0] * shape[1] * k)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_pull_back_gives_the_same_with_and_without_kernels(dtype, rank, monkeypatch):
    unitary, _, _ = large_step(dtype)
    rng = np.random.default_rng(1)
    thin, probes = normal(rng, (1500, rank), dtype), normal(rng, (1500, 1), dtype)
    both = _primitives.pull_back(np, unitary, thin, probes)
    calls = []
    monkeypatch.setattr(_kernels, "apply_to", lambda *_: calls.append(1))
    for fast, plain in zip(both, _primitives.pull_back(np, unitary, thin, probes), strict=True):
        assert np.abs(fast - plain).max(initial=0.0) <= 100 * np.finfo(dtype).eps
    assert calls


def large_step(dtype, n=1500):
    rng = np.random.default_rng(0)
    unitary = lu.cayley_unitary(n, dtype=dtype, rng=rng)
    left, right = normal(rng, (n, 1), dtype), normal(rng, (n, 1), dtype)
    return unitary, (0.3 * left / n).astype(dtype), right


def test_kernels_take_large_row_major_matrices_and_leave_the_rest(dtype):
    unitary, _, _ = large_step(dtype)
    assert _kernels.apply_to(unitary, 2)
    assert not _kernels.apply_to(np.asfortranarray(unitary), 2)
    assert not _kernels.apply_to(unitary[::2], 2)
    assert not _kernels.apply_to(unitary[None], 2)
    assert not _kernels.apply_to(unitary[:100, :100].copy(), 2)
    assert not _kernels.apply_to(unitary, 9)
    assert not _kernels.apply_to(unitary, 0)
    assert not _kernels.apply_to(unitary.astype(unitary.dtype.newbyteorder()), 2)


def test_steps_agree_with_and_without_kernels(dtype, monkeypatch):
    unitary, left, right = large_step(dtype)
    for apply in (lu.unitary_transport, lu.polar_projection):
        fast = apply(unitary, left, right)
        with monkeypatch.context() as patch:
            patch.setattr(_kernels._rows, "kernels_active", lambda: False)
            assert not _kernels.apply_to(unitary, 2)
            generic = apply(unitary, left, right)
            fortran = apply(np.asfortranarray(unitary), left, right)
        bound = 20 * np.finfo(dtype).eps
        assert np.abs(fast - generic).max() <= bound
        assert np.abs(fortran - generic).max() <= bound
        target = unitary.copy()
        assert apply(target, left, right, overwrite_unitary=True) is target
        np.testing.assert_array_equal(target, fast)


def test_nan_passes_through_the_kernels(dtype):
    unitary, left, right = large_step(dtype)
    for position in range(3):
        arrays = [unitary.copy(), left.copy(), right.copy()]
        arrays[position][3, 0] = np.nan
        assert np.isnan(lu.unitary_transport(*arrays)).any(axis=1).sum() >= 1500 - 1
    rows = unitary.copy()
    rows[5, 7] = np.nan
    rotation = lu.LowRankRotation(np.ones_like(left), right)
    assert np.flatnonzero(np.isnan(lu.rotate(rows, rotation)).any(axis=1)).tolist() == [5]


def test_many_python_threads_may_step_at_once():
    unitary, left, right = large_step("float32")
    expected = lu.unitary_transport(unitary, left, right)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: lu.unitary_transport(unitary, left, right), range(24)))
    for result in results:
        np.testing.assert_array_equal(result, expected)


PROGRAM = """
import os, sys, numpy as np, lowrank_unitary as lu
from lowrank_unitary import _kernels
n = 1500
U = lu.cayley_unitary(n, dtype="float32", rng=0)
a, b = (np.random.default_rng(i).standard_normal((n, 1)).astype("float32") / 40 for i in range(2))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_steps_on():
    code = (
        PROGRAM
        + """
expected = lu.unitary_transport(U, a, b)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(lu.unitary_transport(U, a, b), expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("setup", "active"),
    [
        ("", True),
        ("os.environ['LOWRANK_UNITARY_KERNELS'] = 'off'", False),
        ("sys.modules['numba'] = None; import importlib.util as u; u.find_spec = lambda name: None", False),
    ],
)
def test_kernels_are_optional_and_can_be_turned_off(setup, active):
    code = f"{PROGRAM}\n{setup}\n_kernels.kernels_active.cache_clear()\n" + (
        f"assert _kernels.kernels_active() is {active}\n"
        f"assert lu.is_unitary(lu.unitary_transport(U, a, b), tol=1e-4)\n"
        f"assert bool(sys.modules.get('numba')) is {active}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

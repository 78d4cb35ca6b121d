"""The fast kernels: as accurate as BLAS at least, safe with threads and forks, and optional."""

import itertools
import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import UPDATES, ct, error, make_step, normal
from profiles import covering

import lowrank_unitary as lu
import lowrank_unitary.testing
from lowrank_unitary import _linalg, reference
from lowrank_unitary._kernels import cpu
from lowrank_unitary._linalg import random as _random


@pytest.fixture
def products(dtype):
    """A kernel's results beside those of BLAS, both as errors against extended precision."""

    def errors(rows, columns, k, seed=0):
        rng = np.random.default_rng(seed)
        A = normal(rng, (rows, columns), dtype)
        a, L, R = (normal(rng, (size, k), dtype) for size in (rows, columns, columns))
        exact = reference.adjoint(reference.extended(A)) @ a
        kernel, blas = cpu.adjoint_product_rows(A, a), ct(A) @ a
        pairs = [(kernel - exact, blas - exact)]
        for p in (1, 2, 3):
            Z = normal(rng, (columns, p), dtype)
            kernel, blas = cpu.adjoint_product_rows(A, a, Z), ct(A) @ np.hstack([a, A @ Z])
            exact_beside = reference.adjoint(reference.extended(A)) @ (reference.extended(A) @ Z)
            pairs.append((kernel - np.hstack([exact, exact_beside]), blas - np.hstack([exact, exact_beside])))
        exact = reference.extended(A) @ L
        pairs.append((cpu.product_rows(A, L) - exact, A @ L - exact))
        exact = A + exact @ ct(R)
        out = np.empty_like(A)
        cpu.rotate_rows_in_cache(A, L, R, out)
        pairs.append((out - exact, A + (A @ L) @ ct(R) - exact))
        in_place = A.copy()
        cpu.rotate_rows_in_cache(in_place, L, R, in_place)
        np.testing.assert_array_equal(in_place, out)
        return [tuple(float(np.linalg.norm(x.astype(complex))) for x in pair) for pair in pairs]

    return errors


@pytest.mark.parametrize(
    ("shape", "k"),
    covering([(1, 1), (2, 3), (5, 1), (7, 64), (66, 515), (131, 129), (600, 1030)], [1, 2, 3, 8]),
)
def test_kernels_are_no_less_accurate_than_blas(products, dtype, shape, k):
    for kernel, blas in products(*shape, k):
        # BLAS sums in as many parts as its kernel for this processor has accumulators, which moves its error
        # by a factor of 1.6; and a few roundings are left to chance where there are few to average over.
        assert kernel <= 2 * blas + 8 * np.finfo(dtype).eps * np.sqrt(shape[0] * shape[1] * k)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_pull_back_gives_the_same_with_and_without_kernels(dtype, rank, monkeypatch):
    unitary, _, _ = large_step(dtype)
    rng = np.random.default_rng(1)
    thin, probes = normal(rng, (1500, rank), dtype), normal(rng, (1500, 1), dtype)
    both = _linalg.pull_back(np, unitary, thin, probes)
    calls = []
    monkeypatch.setattr(cpu, "apply_to", lambda *_: calls.append(1))
    for fast, plain in zip(both, _linalg.pull_back(np, unitary, thin, probes), strict=True):
        assert np.abs(fast - plain).max(initial=0.0) <= 100 * np.finfo(dtype).eps
    assert calls


def large_step(dtype, n=1500):
    rng = np.random.default_rng(0)
    unitary = lu.cayley_unitary(n, dtype=dtype, rng=rng)
    left, right = normal(rng, (n, 1), dtype), normal(rng, (n, 1), dtype)
    return unitary, (0.3 * left / n).astype(dtype), right


def without_kernels(patch):
    """Turn every kind of kernel off, as the environment variable does."""
    for module in (cpu, cpu.rows):
        patch.setattr(module, "active", lambda: False)


@pytest.mark.parametrize("function", ["product", "adjoint_product"])
def test_column_major_matrices_are_multiplied_from_their_other_side(function, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    A, thin = normal(rng, (40, 23), dtype), normal(rng, (40, 3), dtype)
    if function == "product":
        A = ct(A)
    calls = []
    for name in ("product_rows", "adjoint_product_rows"):
        kernel = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda *views, f=kernel: calls.append(f) or f(*views))
    got = getattr(_linalg, function)(np, np.asfortranarray(A), thin)
    expected = reference.extended(A if function == "product" else ct(A)) @ thin
    assert len(calls) == 1
    assert error(got, expected) <= 8 * np.sqrt(40) * np.finfo(dtype).eps * np.linalg.norm(expected)


def test_kernels_take_row_major_matrices_and_leave_the_rest(dtype):
    unitary, _, _ = large_step(dtype, 40)
    most = 64 if unitary.dtype.kind == "f" else 32
    for rows_of in (unitary, unitary[:3], np.stack([unitary] * 2), unitary[:, :7].copy()):
        assert cpu.apply_to(rows_of, 1)
        assert cpu.apply_to(rows_of, most)
    assert not cpu.apply_to(np.asfortranarray(unitary), 2)
    assert not cpu.apply_to(unitary[::2], 2)
    assert not cpu.apply_to(unitary[:0], 2)
    assert not cpu.apply_to(unitary, most + 1)
    assert not cpu.apply_to(unitary, 0)
    assert not cpu.apply_to(unitary.astype(unitary.dtype.newbyteorder()), 2)
    assert not cpu.apply_to(unitary.real.astype(np.float16), 2)


@pytest.mark.parametrize(("n", "k", "heal"), covering([1, 2, 5, 64, 700], [1, 3], [0, 1]))
def test_steps_agree_with_and_without_kernels(dtype, n, k, heal, monkeypatch):
    step = make_step(3, n, k, dtype, norm=0.4)
    options = {"heal": heal, "rng": 4}
    for apply in (lu.unitary_transport, lu.polar_projection, cayley):
        fast = apply(*step.arrays, **options)
        fortran = apply(np.asfortranarray(step.unitary), *step.arrays[1:], **options)
        with monkeypatch.context() as patch:
            without_kernels(patch)
            assert not cpu.apply_to(step.unitary, 2)
            generic = apply(*step.arrays, **options)
        assert error(fast, generic) <= 2 * step.tolerance()
        assert error(fortran, generic) <= 2 * step.tolerance()
        for order in "CF":
            target = np.array(step.unitary, order=order)
            assert apply(target, *step.arrays[1:], **options, overwrite_unitary=True) is target
            np.testing.assert_array_equal(target, fast if order == "C" or n == 1 else fortran)


def cayley(*arrays, **options):
    return lu.unitary_transport(*arrays, update="cayley", **options)


RANK_ONE = list(
    itertools.product(
        ["generic", "collinear", "opposite", "zero left", "zero", "unbalanced"],
        [1e-9, 1e-3, 0.9, 1.0, 3.0, 100.0],
    )
)


@pytest.mark.parametrize(
    ("point", "update", "dtype"),
    covering(RANK_ONE, UPDATES, ["float32", "float64", "complex64", "complex128"]),
)
def test_rank_one_agrees_with_the_dense_definition(update, point, dtype):
    (kind, norm), (apply, dense) = point, UPDATES[update]
    if update == "polar" and kind == "opposite" and norm == 1:
        # At 1 the matrix is singular, and the nearest unitary one not unique.
        norm = 1.1
    for n in (2, 3, 33):
        step = make_step(n, n, 1, dtype, kind, norm)
        sensitivity = 1.0 if update != "polar" else 1 / min(1.0, step.smallest_singular_value())
        moved = apply(*step.arrays)
        lu.testing.assert_unitary(moved)
        assert error(moved, dense(*step.arrays)) <= 2 * step.tolerance(sensitivity)


def test_a_singular_step_of_rank_one_gives_a_unitary_matrix(dtype):
    U = lu.random_unitary(6, dtype=dtype, rng=0)
    b = np.eye(6, dtype=dtype)[:, :1]
    for scale in (1, 1 + 1e-7, 1 - 1e-7):
        moved = lu.polar_projection(U, (-scale * U @ b).astype(dtype), b)
        lu.testing.assert_unitary(moved)


@pytest.mark.parametrize("batch", [(1,), (3,), (2, 3), (40,)])
@pytest.mark.parametrize("k", [1, 2])
def test_products_of_stacks_are_those_of_their_matrices(batch, k, dtype, monkeypatch):
    step = make_step(1, 12, k, dtype, batch=batch)
    monkeypatch.setattr(cpu.rows, "_PARALLEL", 0)
    for threads in (1, 2, 3):
        monkeypatch.setattr(cpu.rows, "thread_count", lambda threads=threads: threads)
        together = _linalg.product(np, step.unitary, step.right)
        assert error(together, step.unitary @ step.right) <= step.tolerance(np.linalg.norm(step.right))


@pytest.mark.parametrize("batch", [(1,), (3,), (2, 3), (40,)])
@pytest.mark.parametrize("k", [1, 2])
def test_stacks_are_moved_matrix_by_matrix(batch, k, dtype, monkeypatch):
    step = make_step(1, 12, k, dtype, norm=0.3, batch=batch)
    for threads in (1, 2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(cpu.rows, "_PARALLEL", 0)
            patch.setattr(cpu.rows, "thread_count", lambda threads=threads: threads)
            moved = lu.unitary_transport(*step.arrays)
        for index in np.ndindex(batch):
            alone = lu.unitary_transport(*(x[index] for x in step.arrays))
            assert error(moved[index], alone) <= step.tolerance()


@pytest.mark.parametrize("scale", [1e-100, 1e100])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_columns_out_of_range_take_the_generic_way(scale, threads, monkeypatch):
    monkeypatch.setattr(cpu.rows, "_PARALLEL", 0)
    monkeypatch.setattr(cpu.rows, "thread_count", lambda: threads)
    step = make_step(2, 9, 1, "float64", norm=0.3, batch=(2,))
    left, right = step.left * scale, step.right / scale
    calls = []
    inner = cpu.rank_one_step
    monkeypatch.setattr(cpu, "rank_one_step", lambda *a: calls.append(inner(*a)) or calls[-1])
    target = step.unitary.copy()
    moved = lu.unitary_transport(target, left, right, overwrite_unitary=True)
    assert calls == [False]
    assert error(moved, reference.transport(step.unitary, left, right)) <= step.tolerance()


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("k", [1, 4])
def test_no_step_makes_a_temporary_of_the_size_of_the_matrix(active, k, dtype, monkeypatch):
    if not active:
        without_kernels(monkeypatch)
    U, left, right = large_step(dtype, 1024)
    left, right = np.repeat(left, k, axis=1), np.repeat(right, k, axis=1)
    body = lu.BodyFactors(left, right)
    steps = {
        "transport": lambda: lu.unitary_transport(U, left, right, overwrite_unitary=True),
        "healed": lambda: lu.unitary_transport(U, left, right, heal=1, rng=0, overwrite_unitary=True),
        "polar": lambda: lu.polar_projection(U, left, right, overwrite_unitary=True),
        "known": lambda: lu.rotate(U, lu.transport_rotation(body), overwrite_array=True),
        "gradient": lambda: lu.unitary_step(U, body, 0.1, rank=1, rng=0, overwrite_unitary=True),
        "column-major": lambda: lu.unitary_transport(U.T, left, right, overwrite_unitary=True),
    }
    for name, step in steps.items():
        step()
        tracemalloc.start()
        step()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # A dozen thin blocks in double precision and a panel of rows, beside n² entries.
        assert peak < U.nbytes / 4, name


def test_kernels_refuse_nothing_that_is_read_only(dtype):
    step = make_step(5, 20, 1, dtype, norm=0.3)
    expected = lu.unitary_transport(*step.arrays)
    arrays = [x.copy() for x in step.arrays]
    for x in arrays:
        x.flags.writeable = False
    np.testing.assert_array_equal(lu.unitary_transport(*arrays), expected)


def test_read_only_factors_compile_nothing_anew(dtype):
    # Column by column in memory they could be taken as they are, as those of another type.
    rng = np.random.default_rng(0)
    array, *thin = normal(rng, (8, 8), dtype), *(np.asfortranarray(normal(rng, (8, 3), dtype)) for _ in "LR")
    rotation = lu.LowRankRotation(*thin)
    expected = lu.rotate(array, rotation)
    compiled = cpu.rows._compiled("vectors.blocks").rotate.signatures
    for x in thin:
        x.flags.writeable = False
    np.testing.assert_array_equal(lu.rotate(array, rotation), expected)
    assert cpu.rows._compiled("vectors.blocks").rotate.signatures == compiled


def test_factors_may_be_parts_of_the_stack_that_is_overwritten(dtype):
    stack = np.stack([lu.random_unitary(6, dtype=dtype, rng=i) for i in range(4)])
    # The column for every matrix lies in the first one.
    expected = lu.unitary_transport(
        stack, stack.reshape(-1)[:24].reshape(4, 6, 1).copy(), 0 * stack[..., :1] + 1
    )
    target = stack.copy()
    left = target.reshape(-1)[:24].reshape(4, 6, 1)
    lu.unitary_transport(target, left, 0 * stack[..., :1] + 1, overwrite_unitary=True)
    np.testing.assert_array_equal(target, expected)


def test_factors_may_be_parts_of_the_matrix_that_is_overwritten(dtype):
    U = lu.random_unitary(8, dtype=dtype, rng=3)
    expected = lu.unitary_transport(U, 0.1 * U[:, :1].copy(), U[:, 1:2].copy())
    target = U.copy()
    lu.unitary_transport(target, 0.1 * target[:, :1], target[:, 1:2], overwrite_unitary=True)
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("shape", [(5, 3), (0, 4, 2), (2, 3, 7, 2), (300, 1)])
@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_random_numbers_are_those_of_the_generic_way(shape, kind, dtype, monkeypatch):
    like = np.empty((1, 1), dtype)
    fast = _random.random_block(np, shape, like, 12345678901, 3, kind, first=(2, 1))
    without_kernels(monkeypatch)
    slow = _random.random_block(np, shape, like, 12345678901, 3, kind, first=(2, 1))
    np.testing.assert_allclose(fast, slow, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


class TestTorch:
    """Tensors on the CPU go through the same kernels, without a copy."""

    torch = pytest.importorskip("torch")

    def tensors(self, dtype, n=30, k=1):
        step = make_step(6, n, k, dtype, norm=0.3)
        return step, [self.torch.from_numpy(x.copy()) for x in step.arrays]

    @pytest.mark.parametrize("k", [1, 2])
    def test_results_are_those_of_numpy_to_the_last_bit(self, dtype, k):
        step, tensors = self.tensors(dtype, k=k)
        moved = lu.unitary_transport(*tensors)
        if k == 1:
            np.testing.assert_array_equal(moved.numpy(), lu.unitary_transport(*step.arrays))
        # The probe is brought to length 1 by each library in its own way.
        healed = lu.unitary_transport(*tensors, heal=1, rng=1)
        assert error(healed.numpy(), lu.unitary_transport(*step.arrays, heal=1, rng=1)) <= step.tolerance()
        assert isinstance(healed, self.torch.Tensor)

    def test_in_place_keeps_the_memory_and_is_noted_by_autograd(self, dtype):
        step, (U, a, b) = self.tensors(dtype)
        for target, order in ((U.clone(), "C"), (U.clone().mT.contiguous().mT, "F")):
            memory, version = target.data_ptr(), target._version
            moved = lu.unitary_transport(target, a, b, overwrite_unitary=True)
            assert moved is target
            assert target.data_ptr() == memory, order
            assert target._version > version
            assert error(target.numpy(), lu.unitary_transport(*step.arrays)) <= step.tolerance()

    def test_parameters_are_moved_outside_autograd(self):
        step, (U, a, b) = self.tensors("float32")
        weight = self.torch.nn.Parameter(U)
        with self.torch.no_grad():
            lu.unitary_transport(weight, a, b, overwrite_unitary=True)
        np.testing.assert_array_equal(weight.detach().numpy(), lu.unitary_transport(*step.arrays))

    def test_derivatives_go_the_generic_way(self, monkeypatch):
        _, (U, a, b) = self.tensors("float64")
        monkeypatch.setattr(cpu, "rank_one_step", None)
        loss = lu.unitary_transport(U, a.requires_grad_(), b, core="gram").sum()
        loss.backward()
        assert self.torch.isfinite(a.grad).all()

    def test_a_backward_pass_after_an_overwriting_step_is_refused(self):
        _, (U, a, b) = self.tensors("float32")
        x = self.torch.ones(30, requires_grad=True)
        y = (U @ x).sum()
        lu.unitary_transport(U, a, b, overwrite_unitary=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


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


# The package that these tests use, whose kernels are compiled, and not that of the working folder.
PYTHON = [sys.executable, "-P", "-c"]
PROGRAM = """
import os, sys, numpy as np, lowrank_unitary as lu
from lowrank_unitary._kernels import cpu
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
    subprocess.run([*PYTHON, code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("setup", "active"),
    [
        ("", True),
        ("os.environ['LOWRANK_UNITARY_KERNELS'] = 'off'", False),
        ("sys.modules['numba'] = None; import importlib.util as u; u.find_spec = lambda name: None", False),
    ],
)
def test_kernels_are_optional_and_can_be_turned_off(setup, active):
    code = f"{PROGRAM}\n{setup}\ncpu.active.cache_clear()\n" + (
        f"assert cpu.active() is {active}\n"
        f"assert lu.is_unitary(lu.unitary_transport(U, a, b), atol=1e-4)\n"
        f"assert bool(sys.modules.get('numba')) is {active}\n"
    )
    subprocess.run([*PYTHON, code], check=True, timeout=120)


LATE = """
import atexit, sys, threading, time
import numpy as np
import lowrank_unitary as lu
from lowrank_unitary._kernels import cpu

U = np.eye(1536)
left, right = np.full((2, 1536, 2), 1e-2)
expected = lu.unitary_transport(U, left, right)

def work(where):
    if where == "thread":
        time.sleep(0.5)
    print(where, np.array_equal(lu.unitary_transport(U, left, right), expected), flush=True)

atexit.register(work, "exit")
threading.Thread(target=work, args=("thread",)).start()
"""


def test_steps_go_on_after_the_main_thread_has_ended():
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [*PYTHON, LATE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["thread", "True", "exit", "True"], done.stderr


def test_without_the_compiler_of_numba_the_generic_line_makes_the_numbers():
    code = "import lowrank_unitary as lu; print(*lu.random_test_matrix(4, 2, rng=0).ravel().tolist())"
    done = subprocess.run(
        [*PYTHON[:-1], "-W", "error", "-c", code],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = np.asarray(done.stdout.split(), dtype=float).reshape(4, 2)
    np.testing.assert_allclose(made, lu.random_test_matrix(4, 2, rng=0), rtol=1e-12)

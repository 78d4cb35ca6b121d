"""The text of the GPU kernels, run on a CPU and compiled for GPUs; how they are launched, by arithmetic."""

import ctypes
import functools
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cases import ct, error, normal
from hypothesis import example, given
from hypothesis import strategies as st

from lowrank_unitary import reference
from lowrank_unitary._kernels import _cuda, _launches

HERE = Path(__file__).parent
# n: less than a warp, more than one pack for a thread, no multiple of a pack or of the rows of a block.
SIZES = (1, 5, 130)
# What the kernels take after the pointers to their arrays, and how many of these there are.
POINTERS = {"rotate": 4, "look": 3, "gather": 4, "add_slabs": 2}
PROCESSORS = 3
# Of a block: two warps, so that the rows of larger matrices take several packs a thread.
THREADS = 64


def problem(n, k, p, dtype, batch=()):
    rng = np.random.default_rng(n)
    arrays = normal(rng, (*batch, n, n), dtype), *(normal(rng, (*batch, n, x), dtype) for x in (k, k, p))
    # Columns that cancel: sums are not just large numbers.
    return [x / np.float32(max(1, n) ** 0.5) for x in arrays]


def all_calls():
    """Every function of the module, on every size, dtype and width."""
    dtypes = ("float32", "float64", "complex64", "complex128")
    sizes = itertools.product(SIZES, [(1, 1), (3, 0), (4, 2)], dtypes)
    return [(n, k, p, dtype, (3,) if n == 5 else ()) for n, (k, p), dtype in sizes]


def results(n, k, p, dtype, batch):
    A, a, b, z = problem(n, k, p, dtype, batch)
    rotated, moved = np.empty_like(A), A.copy()
    _cuda.rotate_rows_in_cache(A, a, b, rotated)
    _cuda.rotate_rows_in_cache(moved, a, b, moved)
    probes = z if p else None
    return rotated, moved, _cuda.product_rows(A, a), _cuda.adjoint_product_rows(A, a, probes)


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    """The kernels that the calls need, compiled for this machine, and numpy in place of cupy."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler on this machine")
    patch, needed = pytest.MonkeyPatch(), {}
    patch.setattr(_cuda, "_cupy", lambda: np)
    patch.setattr(_cuda, "_processors", lambda: PROCESSORS)
    patch.setattr(_cuda, "_address", lambda x: x.ctypes.data)
    patch.setattr(_cuda, "run", lambda launch, *arguments: needed.setdefault(launch.kernel, len(needed)))
    with pytest.MonkeyPatch.context() as blocks, np.errstate(all="ignore"):  # results are not written yet
        blocks.setattr(_launches, "_THREADS", THREADS)
        for call in all_calls():
            results(*call)
    folder = tmp_path_factory.mktemp("cuda")
    text = ['#include "cuda_on_cpu.hpp"', _cuda.source()]
    for name, i in needed.items():
        kind, number = re.match(r"(\w+)<(\w+)", name).groups()
        given = [f"({number} *)p[{j}]" for j in range(POINTERS[kind])]
        given += [f"n[{j}]" for j in range({"gather": 3}.get(kind, 2))]
        text.append(
            f'extern "C" void k{i}(const unsigned *g, void **p, const int *n) {{\n'
            f"  turns::run({{g[0], g[1], g[2]}}, g[3], [=] {{ {name}({', '.join(given)}); }});\n}}"
        )
    (folder / "kernels.cpp").write_text("\n".join(text), encoding="utf-8")
    command = ["g++", "-O1", "-std=c++20", "-shared", "-fPIC", f"-I{HERE}", "kernels.cpp", "-o", "kernels.so"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernels.so"))

    def run(launch, *arguments):
        arrays = [x for x in arguments if isinstance(x, np.ndarray)]
        for x in arrays:
            assert x.flags.c_contiguous or x.size == 0
        pointers = (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays))
        grid = (ctypes.c_uint * 4)(*launch.grid, launch.threads)
        numbers = [x for x in arguments if not isinstance(x, np.ndarray)]
        getattr(library, f"k{needed[launch.kernel]}")(grid, pointers, (ctypes.c_int * len(numbers))(*numbers))

    patch.setattr(_cuda, "run", run)
    yield
    patch.undo()


@pytest.fixture
def small_blocks(on_cpu, monkeypatch):
    monkeypatch.setattr(_launches, "_THREADS", THREADS)


@pytest.mark.parametrize("call", all_calls(), ids=str)
def test_kernels_give_the_products_and_the_rotation_of_their_definition(call, small_blocks):
    n, _, p, dtype, _ = call
    A, a, b, z = problem(*call)
    wide = reference.extended(A)
    exact = wide + (wide @ a) @ ct(b)
    rotated, moved, product, gathered = results(*call)
    eps = np.finfo(dtype).eps
    # Sums of n numbers of one size in parts: √n eps, twice where one stands on another.
    bound = 4 * eps * max(1, n) ** 0.5
    np.testing.assert_array_equal(rotated, moved)
    assert error(rotated, exact) <= 2 * bound * (1 + np.linalg.norm(exact))
    assert error(product, wide @ a) <= bound * np.linalg.norm(a)
    expected = ct(wide) @ np.concatenate([a, wide @ z], axis=-1) if p else ct(wide) @ a
    assert gathered.shape == expected.shape
    assert error(gathered, expected) <= 2 * bound * np.linalg.norm(expected)


def test_nan_stays_in_its_row_and_passes_through_sums(small_blocks):
    A, a, b, z = problem(130, 1, 1, "float32")
    A[7, 11] = np.nan
    out = np.empty_like(A)
    _cuda.rotate_rows_in_cache(A, a, b, out)
    assert np.isnan(out[7]).all()
    assert np.isfinite(np.delete(out, 7, axis=0)).all()
    gathered = _cuda.adjoint_product_rows(A, a, z)
    assert np.isnan(gathered[11, 0])
    assert np.isnan(gathered[:, 1]).all()
    assert np.isfinite(np.delete(gathered[:, 0], 11)).all()


def test_packs_are_read_only_from_where_they_may_be(monkeypatch):
    launches = []
    monkeypatch.setattr(_cuda, "_cupy", lambda: np)
    monkeypatch.setattr(_cuda, "_address", lambda x: x.ctypes.data)
    monkeypatch.setattr(_cuda, "run", lambda launch, *arguments: launches.append(launch))
    memory = np.zeros(64 * 64 + 8, np.float32)
    first = -(memory.ctypes.data // 4) % 4
    for start in (first, first + 1):
        matrix = memory[start : start + 64 * 64].reshape(64, 64)
        _cuda.product_rows(matrix, np.zeros((64, 1), np.float32))
    assert [template(launch)[0] for launch in launches] == [4, 1]


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
    assert launch.threads <= 1024
    assert pack * packs * launch.threads >= columns
    assert launch.grid[0] == count
    assert max(launch.grid[1:]) <= 65535
    assert 0 <= launch.grid[1] * at_once - rows < at_once
    assert at_once * packs * pack * itemsize <= 4 * 32
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
    # No more slabs than there are multiprocessors for them.
    assert launch.grid[1] == 1 or np.prod(launch.grid) <= processors
    # Probes are looked along by whole rows.
    assert launch.grid[2] == 1 or not made
    assert packs == 1 or (given_columns + made) * packs * pack * itemsize <= 4 * 32


def template(launch):
    return [int(x) for x in re.search(r"<\w+, (.*)>", launch.kernel)[1].split(",")]


@functools.cache
def instances():
    """Instances that steps of n = 64 … 16384 and of k = 1 and 4 take, with one probe and without."""
    names = set()
    for n, k, p, (numbers, itemsize) in itertools.product(
        (64, 4096, 16384), (1, 4), (0, 1), ((1, 4), (1, 8), (2, 4))
    ):
        columns, width = n * numbers, 2 * (k + p) * numbers
        if _launches.takes(n, columns, width, itemsize):
            names.add(_launches.row_wise("rotate", 1, n, columns, width, itemsize, True).kernel)
        plan = _launches.gathering(1, n, columns, k * numbers, p * numbers, itemsize, True, 132)
        if plan is None:
            names.add(_launches.row_wise("look", 1, n, columns, p * numbers, itemsize, True).kernel)
            plan = _launches.gathering(1, n, columns, (k + p) * numbers, 0, itemsize, True, 132)
        names |= {plan[0].kernel, _launches.adding(1, n, itemsize).kernel}
    return sorted(names)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_kernels_compile_for_a_gpu_and_hold_what_they_hold_in_registers(architecture, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("no CUDA compiler on this machine")
    arguments = {
        "rotate": "const T *, T *, const T *, const T *, int, int",
        "gather": "const T *, const T *, const T *, T *, int, int, int",
        "look": "const T *, const T *, T *, int, int",
        "add_slabs": "const T *, T *, int, int",
    }
    text = [_cuda.source()]
    for name in instances():
        kind, number = re.match(r"(\w+)<(\w+)", name).groups()
        text.append(f"template __global__ void {name}({arguments[kind].replace('T', number)});")
    (tmp_path / "kernels.cu").write_text("\n".join(text), encoding="utf-8")
    command = ["nvcc", f"-arch={architecture}", "-std=c++17", "-cubin", "-Xptxas", "-v", "kernels.cu"]
    report = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    spilled = [int(x) for x in re.findall(r"(\d+) bytes spill stores", report)]
    assert len(spilled) == len(instances())
    # Widths from 8 on spill some of what is on its way to them; arrays that are not held in registers would
    # take more.
    assert max(spilled) <= 352

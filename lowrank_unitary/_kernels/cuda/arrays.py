"""Arrays on a CUDA device, cupy's or torch's, and kernel launches on them.

Memory and streams are those of the library of the array, as its graphs and its allocator need. Nothing here
synchronises with the device.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import allowed
from .launches import Launch

Array = Any

_TEXTS = ("traversals.cu", "thin.cu", "rank_one.cu", "core.cu", "decompositions.cu")
_SINGLE = ("float32", "complex64")
DTYPES = (*_SINGLE, "float64", "complex128")


@functools.cache
def active() -> bool:
    """Whether cupy is installed and finds a CUDA device, and the environment does not turn kernels off."""
    if not allowed() or importlib.util.find_spec("cupy") is None:
        return False
    try:
        cuda = _cupy().cuda
    except ImportError:
        # cupy for another CUDA version: torch may work without it.
        return False
    # Warps of other vendors have 64 threads.
    return bool(cuda.is_available()) and not cuda.runtime.is_hip


def run(launch: Launch, *arguments: Any) -> None:
    """One kernel on the current stream; arrays are passed by address, None as a null pointer."""
    given = tuple(
        np.int32(x) if isinstance(x, int) else np.uint64(0 if x is None else address(x)) for x in arguments
    )
    _compiled(launch.kernel)(launch.grid, (launch.threads, 1, 1), given)


def source() -> str:
    folder = importlib.resources.files(__package__)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in _TEXTS)


@functools.cache
def _compiled(kernel: str) -> Any:
    module = _cupy().RawModule(code=source(), options=("-std=c++17",), name_expressions=(kernel,))
    return module.get_function(kernel)


@contextlib.contextmanager
def entered(x: Array) -> Iterator[None]:
    """Make the device of an array, and its library's current stream there, current in cupy."""
    if not is_torch(x):
        with x.device:
            yield
        return
    cuda, number = _cupy().cuda, index(x)
    theirs = _Stream(_torch().cuda.current_stream(number).cuda_stream)
    with cuda.Device(number), cuda.Stream.from_external(theirs):
        yield


class _Stream:
    """A stream of another library, by the CUDA stream protocol."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


@functools.cache
def processors(index: int) -> int:
    return int(_cupy().cuda.Device(index).attributes["MultiProcessorCount"])


@functools.cache
def _cupy() -> Any:
    import cupy

    return cupy


def is_recorded(x: Array) -> bool:
    """Whether cupy records a graph, in which it refuses its own products."""
    return not is_torch(x) and bool(_cupy().cuda.get_current_stream().is_capturing())


def is_torch(x: Array) -> bool:
    return hasattr(x, "data_ptr")


def index(x: Array) -> int:
    return int(x.device.index if is_torch(x) else x.device.id)


def dtype(x: Array) -> str:
    return str(x.dtype).removeprefix("torch.")


def parts(x: Array) -> int:
    """Real numbers in an entry."""
    return 2 if dtype(x).startswith("complex") else 1


def itemsize(x: Array) -> int:
    return 4 if dtype(x) in _SINGLE else 8


def real(x: Array) -> str:
    """The dtype of the numbers in an entry."""
    return "float32" if dtype(x) in _SINGLE else "float64"


def empty(like: Array, shape: tuple[int, ...], dtype: str) -> Array:
    """Memory from the library of `like`, on its device."""
    if is_torch(like):
        return like.new_empty(shape, dtype=getattr(_torch(), dtype))
    return _cupy().empty(shape, dtype)


def double(like: Array, shape: tuple[int, ...]) -> Array:
    """Memory for numbers in double precision, real or complex like the entries of `like`."""
    return empty(like, shape, "complex128" if parts(like) == 2 else "float64")


def share_memory(x: Array, y: Array) -> bool:
    if is_torch(x):
        return bool(x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr())
    return bool(_cupy().may_share_memory(x, y))


def copied(x: Array) -> Array:
    return x.clone() if is_torch(x) else x.copy()


def empty_like(matrix: Array) -> Array:
    return empty(matrix, tuple(matrix.shape), dtype(matrix))


def hstack(x: Array, y: Array) -> Array:
    return _torch().cat([x, y], dim=-1) if is_torch(x) else _cupy().concatenate([x, y], axis=-1)


def contiguous(x: Array) -> Array:
    """The array itself where it is row-major, else a copy that is."""
    return x.contiguous() if is_torch(x) else _cupy().ascontiguousarray(x)


def is_contiguous(x: Array) -> bool:
    return bool(x.is_contiguous() if is_torch(x) else x.flags.c_contiguous)


def aligned(*arrays: Array) -> bool:
    """Whether the arrays are aligned to 16 bytes."""
    return all(address(x) % 16 == 0 for x in arrays)


def address(x: Array) -> int:
    return int(x.data_ptr() if is_torch(x) else x.data.ptr)


@functools.cache
def _torch() -> Any:
    import torch

    return torch

"""Messages: each names the argument, what it must be, what it was, and what to do."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, SupportsFloat

import array_api_compat as compat
import numpy as np

from .namespace import Array, Namespace, array_namespace, astype, is_torch, is_traced, placement
from .precision import HALF, is_half, real_dtype, thin_dtype

_DTYPES = ("float32", "float64", "complex64", "complex128", *HALF)


NUMPY = array_namespace(np.empty(0))


@functools.cache
def _is_supported(dtype: np.dtype[Any]) -> bool:
    return dtype.name in _DTYPES


def namespace_of(**arrays: Array) -> Namespace:
    """The one namespace of all named arrays, each a floating-point array of a supported dtype."""
    # The common case first: these checks take a large share of a small step.
    for x in arrays.values():
        if type(x) is not np.ndarray or not _is_supported(x.dtype):
            break
    else:
        return NUMPY
    for name, x in arrays.items():
        if not compat.is_array_api_obj(x):
            raise TypeError(
                f"{name} must be an array (numpy, cupy, torch, JAX, …), got {type(x).__name__}: "
                f"convert it first, for instance with numpy.asarray."
            )
    xp = _one_library(arrays)
    supported = {dtype: getattr(xp, dtype) for dtype in _DTYPES if hasattr(xp, dtype)}
    for name, x in arrays.items():
        if x.dtype not in supported.values():
            raise TypeError(
                f"{name} must have one of the dtypes {', '.join(supported)}, got {x.dtype}: convert it first."
            )
    _one_device(arrays)
    return xp


def _one_library(arrays: dict[str, Array]) -> Namespace:
    try:
        return array_namespace(*arrays.values())
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(x).__module__}.{type(x).__name__}" for name, x in arrays.items())
        raise TypeError(
            f"{_and(arrays)} must come from one array library, got {kinds}: convert them to one of these."
        ) from error


def _one_device(arrays: dict[str, Array]) -> None:
    devices = {name: compat.device(x) for name, x in arrays.items() if not is_traced(x)}
    if len(set(map(str, devices.values()))) > 1:
        places = ", ".join(f"{name}: {device}" for name, device in devices.items())
        raise ValueError(f"{_and(arrays)} must be on one device, got {places}: move them first.")
    if (name := next((name for name, x in arrays.items() if compat.is_cupy_array(x)), None)) is not None:
        on_current_device(name, devices[name])


def on_current_device(name: str, device: Any) -> None:
    """For cupy, which computes on the current device and not on that of its arrays."""
    current = sys.modules["cupy"].cuda.Device()
    if device != current:
        raise ValueError(
            f"{name} must be on the current device of cupy, {current}, where it computes, got {device}: call "
            f"this within `with cupy.cuda.Device({device.id}):`."
        )


def plain_rank(unitary: Array, left: Array, right: Array) -> int | None:
    """The rank k of single numpy arrays that fit together; None where full checks are needed."""
    if type(unitary) is not np.ndarray or type(left) is not np.ndarray or type(right) is not np.ndarray:
        return None
    dtype, shape, thin = unitary.dtype, unitary.shape, left.shape
    if left.dtype is not dtype or right.dtype is not dtype or dtype.char not in "fdFD":
        return None
    if not len(shape) == len(thin) == 2 or right.shape != thin or not 0 < shape[0] == shape[1] == thin[0]:
        return None
    return thin[1]


def square(name: str, x: Array) -> int:
    shape = x.shape
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] == 0:
        raise ValueError(
            f"{name} must have shape (…, n, n) with n ≥ 1, got {tuple(shape)}: "
            f"only square matrices can be moved as unitary ones."
        )
    return int(shape[-1])


def matrix(name: str, x: Array) -> tuple[int, int]:
    """The sizes of a stack of non-empty matrices."""
    if x.ndim < 2 or x.shape[-1] == 0 or x.shape[-2] == 0:
        raise ValueError(
            f"{name} must have shape (…, m, n) with m, n ≥ 1, got {tuple(x.shape)}: add the missing axes."
        )
    return int(x.shape[-2]), int(x.shape[-1])


def factor_pair(left_name: str, left: Array, right_name: str, right: Array, n: int | None = None) -> int:
    """The rank k of a pair of thin factors (…, n, k)."""
    shapes = left.shape, right.shape
    for name, shape in zip((left_name, right_name), shapes, strict=True):
        if len(shape) < 2 or shape[-2] == 0 or (n is not None and shape[-2] != n):
            rows = "n" if n is None else str(n)
            hint = " A single column v is v[:, None]." if len(shape) == 1 else ""
            raise ValueError(
                f"{name} must have shape (…, {rows}, k), got {tuple(shape)}: "
                f"the factors of left @ rightᴴ have k columns.{hint}"
            )
    if shapes[0][-2:] != shapes[1][-2:]:
        raise ValueError(
            f"{left_name} and {right_name} must agree in their last two axes (n, k), "
            f"got {tuple(shapes[0])} and {tuple(shapes[1])}."
        )
    return int(shapes[0][-1])


def outer_factors(left: Array, right: Array) -> int:
    """The number of columns of a pair of factors (…, m, k) and (…, n, k) of a matrix of any shape."""
    for name, x in (("left", left), ("right", right)):
        if x.ndim < 2 or x.shape[-2] == 0 or x.shape[-1] == 0:
            raise ValueError(f"{name} must have shape (…, n, k) with n, k ≥ 1, got {tuple(x.shape)}.")
    if left.shape[-1] != right.shape[-1]:
        raise ValueError(
            f"left and right must have the same number of columns, got {tuple(left.shape)} and "
            f"{tuple(right.shape)}."
        )
    return int(left.shape[-1])


def batches(**arrays: Array) -> tuple[int, ...]:
    """The common batch shape: leading axes broadcast."""
    for x in arrays.values():
        if x.ndim != 2:
            break
    else:
        return ()
    try:
        return np.broadcast_shapes(*(tuple(x.shape[:-2]) for x in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name}: {tuple(x.shape)}" for name, x in arrays.items())
        raise ValueError(
            f"the leading (batch) axes of {_and(arrays)} must broadcast, got {shapes}."
        ) from None


def same_dtype(xp: Namespace, base_name: str, base: Array, **others: Array) -> None:
    """The result has the dtype of `base`: others may be neither wider nor complex where it is real."""
    widest = thin_dtype(xp, base.dtype)
    for name, x in others.items():
        if x.dtype is not widest and x.dtype != widest and xp.result_type(widest, x.dtype) != widest:
            note = f", with thin factors of at most {widest}" if is_half(xp, base.dtype) else ""
            raise TypeError(
                f"{name} must have a dtype that fits into that of {base_name} ({base.dtype}{note}), got "
                f"{x.dtype}: the result keeps the dtype of {base_name}, so cast one of the two."
            )


def rank(value: Any, largest: int, name: str = "rank") -> int:
    """A whole number from 1 to `largest`."""
    if not 1 <= count(name, value) <= largest:
        raise ValueError(
            f"{name} must be between 1 and {largest} (the smaller side of the matrix), got {value}: "
            f"choose another {name}."
        )
    return int(value)


def count(name: str, value: Any) -> int:
    """A whole number from 0 on."""
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}.")
    if value.__index__() < 0:
        raise ValueError(f"{name} must be 0 or more, got {value}.")
    return int(value.__index__())


def real_scalar(xp: Namespace, name: str, value: Any, like: Array, like_name: str = "unitary") -> Array:
    """A real number, or one for every matrix of a batch, shaped to multiply a stack of matrices."""
    dtype = real_dtype(xp, thin_dtype(xp, like.dtype))
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "f":
        value = value[()]
    if not compat.is_array_api_obj(value) or isinstance(value, np.generic):
        if isinstance(value, complex | np.complexfloating) or not isinstance(value, SupportsFloat):
            raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}.")
        # Filling an array copies nothing to a device.
        return xp.full((), float(value), dtype=dtype, device=placement(like))
    both = {name: value, like_name: like}
    # JAX takes numpy arrays as constants, torch scalars from the CPU.
    if not any(map(compat.is_jax_array, both.values())):
        _one_library(both)
        if value.ndim or not is_torch(xp):
            _one_device(both)
    if xp.isdtype(value.dtype, "complex floating"):
        raise TypeError(f"{name} must be real, got an array of {value.dtype}: pass its real part.")
    value = astype(xp, value, dtype)
    return value if value.ndim == 0 else value[..., None, None]


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
    return str(value)


def overwritable(name: str, option: str, x: Array, batch: tuple[int, ...]) -> None:
    """An array that is to be written in place; immutable kinds (JAX) return a new one instead."""
    if isinstance(x, np.ndarray) and not x.flags.writeable:
        raise ValueError(
            f"{name} must be writeable when {option}=True, but it is read-only: "
            f"pass a copy, or leave {option}=False."
        )
    if tuple(x.shape[:-2]) != batch:
        raise ValueError(
            f"{name} must have the batch shape of the result, {batch}, when {option}=True, "
            f"got {tuple(x.shape[:-2])}: leave {option}=False."
        )


def _and(names: dict[str, Any]) -> str:
    words = list(names)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def prototype(xp: Namespace, dtype: Any, device: Any) -> Array:
    """An empty array with the dtype and device of those to be made; None means the namespace's default."""
    if not compat.is_cupy_namespace(xp):
        return xp.empty((0,), dtype=dtype, device=device)
    if device is not None:
        if not isinstance(device, sys.modules["cupy"].cuda.Device):
            raise TypeError(
                f"device must be a cupy.cuda.Device or None, got {device!r}: wrap its number in one."
            )
        on_current_device("device", device)
    return xp.empty((0,), dtype=dtype)

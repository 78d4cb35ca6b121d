"""Messages: each names the argument, what it must be, what it was, and what to do."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Sequence
from numbers import Real
from typing import Any, SupportsFloat

import array_api_compat as compat
import numpy as np

from .namespace import Array, Namespace, array_namespace, astype, is_torch, is_traced, numpy_view, placement
from .precision import HALF, is_half, real_dtype, thin_dtype, widest_dtype
from .sharding import check_plain, check_spread, check_square_rows

_DTYPES = ("float32", "float64", "complex64", "complex128", *HALF)


# What a subclass of numpy's arrays may not have its own of: its results would be other ones, or depend on
# which line computes them. A memory map passes; masks, units and np.matrix do not.
_ARITHMETIC = (
    "__array_ufunc__", "__array_function__", "__add__", "__sub__", "__mul__", "__truediv__", "__matmul__",
    "__radd__", "__rsub__", "__rmul__", "__rtruediv__", "__rmatmul__", "__pow__", "__neg__", "__abs__", "sum",
)  # fmt: skip

# The most that an axis can hold, and the largest whole number that any option takes.
_LARGEST = 1 << 31

NUMPY = array_namespace(np.empty(0))


@functools.cache
def _is_supported(dtype: np.dtype[Any]) -> bool:
    return dtype.name in _DTYPES and dtype.isnative


@functools.cache
def _is_plain(kind: type) -> bool:
    """Whether a subclass of numpy's arrays computes as they do."""
    return all(getattr(kind, name) is getattr(np.ndarray, name) for name in _ARITHMETIC)


def namespace_of(**arrays: Array) -> Namespace:
    """The one namespace of all named arrays, each a floating-point array of a supported dtype."""
    # The common case first: these checks take a large share of a small step.
    for x in arrays.values():
        if type(x) is not np.ndarray or not _is_supported(x.dtype):
            break
    else:
        return NUMPY
    if (torch := sys.modules.get("torch")) and _alike_in_torch(torch, *arrays.values()):
        return array_namespace(x)
    for name, x in arrays.items():
        _dense(name, x)
        if not compat.is_array_api_obj(x):
            raise TypeError(
                f"{name} must be an array (numpy, cupy, torch, JAX, …), got {type(x).__name__}: "
                f"convert it first, for instance with numpy.asarray."
            )
    xp = _one_library(arrays)
    supported = {dtype: getattr(xp, dtype) for dtype in _DTYPES if hasattr(xp, dtype)}
    for name, x in arrays.items():
        if x.dtype not in supported.values():
            swapped = isinstance(x.dtype, np.dtype) and not x.dtype.isnative
            cure = "bring its bytes into this machine's order, with x.astype(x.dtype.newbyteorder('='))"
            raise TypeError(
                f"{name} must have one of the dtypes {', '.join(supported)}, got {x.dtype}: "
                f"{cure if swapped else 'convert it first'}."
            )
    _one_device(arrays)
    return xp


def _alike_in_torch(torch: Any, *tensors: Array) -> bool:
    """Whether all are plain dense tensors of one supported dtype on one device: a short test of it."""
    first = tensors[0]
    return all(
        (type(x) is torch.Tensor or type(x) is torch.nn.Parameter)
        and x.layout is torch.strided
        and x.dtype is first.dtype
        and x.device == first.device
        for x in tensors
    ) and first.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128)


def _dense(name: str, x: Array) -> None:
    """An array whose numbers are all there, and which computes as those of its library do."""
    kind: Any = type(x)
    if isinstance(x, np.ndarray) and not _is_plain(kind):
        raise TypeError(
            f"{name} must be a plain array, got {kind.__module__}.{kind.__name__}, whose arithmetic is "
            f"its own: pass what it holds, for instance numpy.asarray of it (of a masked array .filled(…))."
        )
    if compat.is_torch_array(x) and x.layout != sys.modules["torch"].strided:
        raise TypeError(
            f"{name} must be a dense tensor, got one of the layout {x.layout}: pass {name}.to_dense()."
        )
    check_spread(name, x)


def _one_library(arrays: dict[str, Array]) -> Namespace:
    try:
        return array_namespace(*arrays.values())
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(x).__module__}.{type(x).__name__}" for name, x in arrays.items())
        raise TypeError(
            f"{_and(arrays)} must come from one array library, got {kinds}: convert them to one of these."
        ) from error


def _one_device(arrays: dict[str, Array]) -> None:
    # What holds nothing, JAX leaves on any device.
    devices = {name: _where(x) for name, x in arrays.items() if not is_traced(x) and 0 not in x.shape}
    if len(set(map(str, devices.values()))) > 1:
        places = ", ".join(f"{name}: {device}" for name, device in devices.items())
        raise ValueError(f"{_and(arrays)} must be on one device, got {places}: move them first.")
    if (name := next((name for name in devices if compat.is_cupy_array(arrays[name])), None)) is not None:
        on_current_device(name, devices[name])


def _where(x: Array) -> Any:
    """The device of an array; of JAX arrays that are spread over several all of them, however they are."""
    if compat.is_jax_array(x) and len(devices := x.devices()) > 1:
        return sorted(devices, key=lambda device: device.id)
    return compat.device(x)


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
    if left.dtype is not dtype or right.dtype is not dtype:
        return None
    if dtype.char not in "fdFD" or not dtype.isnative:
        return None
    if not len(shape) == len(thin) == 2 or right.shape != thin or not 0 < shape[0] == shape[1] == thin[0]:
        return None
    return thin[1]


def plain_descent(
    unitary: Array, gradient: tuple[Array, ...], step_size: Any, rank: Any, heal: Any
) -> tuple[Any, ...] | None:
    """The namespace of U and its gradient or two body factors, and all as numpy arrays.

    None where checks are needed.
    """
    if type(step_size) is not float or type(rank) is not int or type(heal) is not int:
        return None
    xp: Namespace = NUMPY
    view: Array = unitary
    slopes: list[Array] = list(gradient)
    if type(unitary) is not np.ndarray:
        if isinstance(unitary, np.ndarray):
            return None
        view = numpy_view(unitary)
        slopes = [numpy_view(x) if hasattr(x, "layout") and view is not None else None for x in gradient]
        xp = None if view is None else array_namespace(unitary)
    if xp is None or any(type(slope) is not np.ndarray for slope in slopes):
        return None
    dtype, shape, of_slope = view.dtype, view.shape, slopes[0].shape
    if dtype.char not in "fdFD" or not dtype.isnative:
        return None
    if any(slope.dtype is not dtype or slope.shape != of_slope for slope in slopes):
        return None
    if len(shape) < 2 or not 0 < shape[-1] == shape[-2] or of_slope[:-1] != shape[:-1]:
        return None
    if of_slope[-1] == 0 or (len(slopes) == 1 and of_slope[-1] != shape[-1]):
        return None
    return (xp, view, *slopes) if 0 < rank <= shape[-1] and 0 <= heal <= shape[-1] else None


def square(name: str, x: Array) -> int:
    shape = x.shape
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] == 0:
        raise ValueError(
            f"{name} must have shape (…, n, n) with n ≥ 1, got {tuple(shape)}: this is for square matrices "
            f"only."
        )
    return int(shape[-1])


def is_wide(x: Array) -> bool:
    """Whether matrices have more columns than rows."""
    return bool(x.shape[-1] > x.shape[-2])


def is_tall(x: Array) -> bool:
    """Whether matrices have more rows than columns."""
    return bool(x.shape[-2] > x.shape[-1])


def frame_size(name: str, x: Array) -> int:
    """The size of the frame in which a unitary matrix is moved: n, or m + n for a rectangular one."""
    m, n = matrix(name, x)
    return n if m == n else m + n


def matrix(name: str, x: Array) -> tuple[int, int]:
    """The sizes of a stack of non-empty matrices."""
    if x.ndim < 2 or x.shape[-1] == 0 or x.shape[-2] == 0:
        raise ValueError(
            f"{name} must have shape (…, m, n) with m, n ≥ 1, got {tuple(x.shape)}: add the missing axes."
        )
    check_square_rows(name, x)
    return int(x.shape[-2]), int(x.shape[-1])


def factor_pair(left_name: str, left: Array, right_name: str, right: Array, n: int | None = None) -> int:
    """The rank k of a pair of thin factors (…, n, k)."""
    shapes = left.shape, right.shape
    for name, x, shape in zip((left_name, right_name), (left, right), shapes, strict=True):
        check_plain(name, x)
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


def outer_factors(left: Array, right: Array, of: str = "") -> int:
    """The number of columns of a pair of factors (…, m, k) and (…, n, k) of a matrix of any shape."""
    for name, x in (("left", left), ("right", right)):
        check_plain(f"{of}{name}", x)
        if x.ndim < 2 or x.shape[-2] == 0 or x.shape[-1] == 0:
            raise ValueError(f"{of}{name} must have shape (…, n, k) with n, k ≥ 1, got {tuple(x.shape)}.")
    if left.shape[-1] != right.shape[-1]:
        raise ValueError(
            f"{of}left and {of}right must have the same number of columns, got {tuple(left.shape)} and "
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
        if x.dtype is not widest and x.dtype != widest and widest_dtype(xp, widest, x.dtype) != widest:
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
    return count(name, value)


def count(name: str, value: Any) -> int:
    """A whole number from 0 on."""
    if type(value) is int and 0 <= value <= _LARGEST:
        return value
    number = index(value)
    if number is None:
        raise TypeError(f"{name} must be a whole number, got {_shown(value)}.")
    if not 0 <= number <= _LARGEST:
        limit = "0 or more" if number < 0 else "at most 2³¹, the most in an axis"
        raise ValueError(f"{name} must be {limit}, got {number}.")
    return number


def probes(name: str, value: int, n: int, *, least: int) -> None:
    """A count of orthonormal columns."""
    if not least <= value <= n:
        raise ValueError(f"{name} must be between {least} and n = {n}, got {value}.")


def index(value: Any) -> int | None:
    """A whole number as Python's own; None for anything else, also for what is true or false."""
    dtype = str(getattr(value, "dtype", ""))
    if isinstance(value, bool | np.ma.MaskedArray) or dtype.endswith("bool"):
        return None
    try:
        return operator.index(value)
    # What frameworks raise for an array of several numbers or of fractions, and for a traced one.
    except (TypeError, ValueError, RuntimeError):
        return None


def positive(name: str, value: Any, otherwise: str = "") -> int:
    """A whole number from 1 on."""
    if count(name, value) == 0:
        raise ValueError(f"{name} must be 1 or more{otherwise}, got 0.")
    return count(name, value)


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """A tuple of whole numbers from 0 on."""
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name} must be a tuple of whole numbers, got {_shown(value)}.")
    return tuple(count(name, size) for size in value)


def number(name: str, value: Any) -> float:
    """A real number whose value is known."""
    if type(value) is float or type(value) is int:
        return value
    if compat.is_array_api_obj(value) and not isinstance(value, np.generic):
        if value.ndim == 0 and str(value.dtype).rpartition(".")[2].startswith(("float", "bfloat")):
            try:
                _dense(name, value)
                return float(value)
            # JAX says of a traced number that it has no value, which is a TypeError of its own kind.
            except (TypeError, RuntimeError) as error:
                raise TypeError(f"{name} must be a real number that can be read, got {value!r}.") from error
    elif isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{name} must be a real number, got {_shown(value)}.")


def fraction(name: str, value: Any, meaning: str = "", *, least: bool = True, most: bool = False) -> float:
    """A real number between 0 and 1; whether those two are allowed say `least` and `most`."""
    share = number(name, value)
    if 0 < share < 1 or (share == 0 and least) or (share == 1 and most):
        return share
    limits = f"{'at least' if least else 'more than'} 0 and {'at most' if most else 'less than'} 1"
    raise ValueError(f"{name} must be {limits}{meaning}, got {value}.")


def size(name: str, value: Any) -> float:
    """A real number from 0 on, such as a tolerance."""
    bound = number(name, value)
    if not bound >= 0:
        raise ValueError(f"{name} must be 0 or more, got {value}.")
    return bound


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that only counts as one of them."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {_shown(value)}.")


def real_scalar(
    xp: Namespace,
    name: str,
    value: Any,
    like: Array,
    like_name: str = "unitary",
    *,
    batch: tuple[int, ...] | None = None,
    dtype: Any = None,
) -> Array:
    """A real number, or one for every matrix of a batch, shaped to multiply a stack of matrices."""
    dtype = real_dtype(xp, thin_dtype(xp, like.dtype)) if dtype is None else dtype
    if type(value) is np.ndarray and value.ndim == 0 and value.dtype.kind == "f":
        value = value[()]
    if not compat.is_array_api_obj(value) or isinstance(value, np.generic):
        unreal = isinstance(value, complex | np.complexfloating | bool | np.bool_ | str)
        if unreal or not isinstance(value, SupportsFloat):
            raise TypeError(f"{name} must be a real number, got {_shown(value)}.")
        # Filling an array copies nothing to a device.
        return xp.full((), float(value), dtype=dtype, device=placement(like))
    _dense(name, value)
    both = {name: value, like_name: like}
    # JAX takes numpy arrays as constants, torch scalars from the CPU.
    if not any(map(compat.is_jax_array, both.values())):
        _one_library(both)
        if value.ndim or not is_torch(xp):
            _one_device(both)
    kind = array_namespace(value)
    if kind.isdtype(value.dtype, "complex floating"):
        raise TypeError(f"{name} must be real, got an array of {value.dtype}: pass its real part.")
    if not kind.isdtype(value.dtype, ("real floating", "integral")):
        raise TypeError(f"{name} must hold real numbers, got an array of {value.dtype}.")
    batch = tuple(like.shape[:-2]) if batch is None else batch
    if value.ndim and _broadcast(tuple(value.shape), batch) != batch:
        raise ValueError(
            f"{name} must be one number, or one for each matrix of the batch, {batch}, got an array of shape "
            f"{tuple(value.shape)}: for several of them, give {like_name} a batch axis."
        )
    value = astype(xp, value, dtype)
    return value if value.ndim == 0 else value[..., None, None]


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    if type(value) is str and value in allowed:
        return value
    if not isinstance(value, str) or value not in allowed:
        got = repr(value) if isinstance(value, str) else _shown(value)
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {got}.")
    return str(value)


def _shown(value: Any) -> str:
    """A wrong value and its type; of an array only what kind it is."""
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic | type):
        return f"{kind} of {value.dtype} and shape {tuple(value.shape)}"
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:80] + '…'} of type {kind}"


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
    if not callable(getattr(xp, "empty", None)) or not hasattr(xp, "linalg"):
        raise TypeError(f"xp must be an array namespace such as numpy, torch or jax.numpy, got {_shown(xp)}.")
    if compat.is_cupy_namespace(xp) and device is not None:
        if not isinstance(device, sys.modules["cupy"].cuda.Device):
            raise TypeError(
                f"device must be a cupy.cuda.Device or None, got {device!r}: wrap its number in one."
            )
        on_current_device("device", device)
    try:
        made = _empty(xp, dtype, device)
    except Exception as error:
        if device is not None and not _makes(xp, None, device):
            raise TypeError(f"device must be one of {xp.__name__}, or None, got {_shown(device)}.") from error
        raise TypeError(f"dtype must be one of {xp.__name__}, or None, got {_shown(dtype)}.") from error
    return made


def _makes(xp: Namespace, dtype: Any, device: Any) -> bool:
    try:
        _empty(xp, dtype, device)
    except Exception:
        return False
    return True


def _empty(xp: Namespace, dtype: Any, device: Any) -> Array:
    place = {} if compat.is_cupy_namespace(xp) else {"device": device}
    return xp.empty((0,), dtype=dtype, **place)

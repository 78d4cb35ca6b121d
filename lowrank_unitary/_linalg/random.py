"""Random blocks whose entries are functions of a seed and of their place alone.

Entry (i, j) comes from the counter (i, j) and a key by Threefry-2x32 with twenty rounds (Salmon, Moraes,
Dror, Shaw, SC 2011). Bits agree on every namespace and device, inside and outside of traces, and in every
part of a block; values agree to rounding.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import array_api_compat as compat
import numpy as np

from .._array import (
    Array,
    Namespace,
    complex_dtype,
    core_dtype,
    cuda_view,
    is_compiling,
    is_complex,
    is_spread,
    is_traced,
    local_part,
    local_range,
    move,
    placement,
    real_dtype,
    thin_dtype,
    validate,
)
from .._kernels import cpu, cuda
from .layout import beside


class Key(NamedTuple):
    """Two words of 32 bits: non-negative numbers, or int32 arrays on a device or inside a trace."""

    high: Any
    low: Any
    # The number of the first matrix of a stack that is part of a larger one.
    matrix: int = 0


# A JAX key is an Array, too.
RNG: TypeAlias = "int | Sequence[int] | np.random.SeedSequence | np.random.Generator | Key | Any | None"

KINDS = ("gaussian", "uniform", "rademacher", "sparse_sign")
# Non-zero entries in a row of a sparse sign matrix.
_SPARSITY = 8

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
# Both shifts of a rotation.
_TURNS = [(np.asarray(turn, np.uint32), np.asarray(32 - turn, np.uint32)) for turn in _ROTATIONS]
_WORD = 0xFFFFFFFF
# Numbers made at a time on the host: cache blocking.
_PANEL = 1 << 15


def key_of(rng: RNG, like: Array) -> Key:
    """The key of a seed or JAX key, or one from a generator or, for None, from the operating system."""
    if isinstance(rng, Key):
        return rng
    if type(rng) is int and type(like) is np.ndarray and 0 <= rng < 1 << 63:
        return Key(rng >> 32, rng & _WORD)
    if rng is None:
        if is_spread(like):
            raise ValueError(
                "rng must be a seed, the same on every process, for a matrix that is spread over several, "
                "got None: each process would draw other numbers."
            )
        if is_traced(like):
            raise ValueError(
                "rng must be a seed, a Generator or a JAX key while a function is traced or "
                "differentiated, got None: a number taken here would be a constant of the compiled function. "
                "Pass a JAX key as an argument of the function, a seed to accept that, or a test_matrix."
            )
        return Key(*np.random.SeedSequence().generate_state(2).tolist())
    if isinstance(rng, np.random.Generator):
        return Key(*rng.integers(0, 1 << 32, 2, dtype=np.uint32).tolist())
    if (torch := sys.modules.get("torch")) is not None and isinstance(rng, torch.Generator):
        words = torch.randint(0, 1 << 32, (2,), generator=rng, device=rng.device)
        return Key(*words.tolist()) if rng.device.type == "cpu" else _of_device(words, like)
    if type(rng) is int and 0 <= rng < 1 << 63 and is_compiling(like):
        return _of_symbol(rng, like)
    if compat.is_jax_array(rng):
        return _of_jax(rng)
    if compat.is_cupy_array(rng) or compat.is_torch_array(rng):
        return _of_device(rng, like)
    if type(rng) is np.ndarray and rng.ndim:
        rng = list(rng.tolist())
    if (seed := validate.index(rng)) is not None:
        if seed < 0:
            raise ValueError(f"rng must be a seed of 0 or more, got {seed}.")
        # As jax.random.key.
        if seed >> 64 == 0:
            return Key(seed >> 32, seed & _WORD)
    try:
        if isinstance(rng, bool | np.bool_ | np.ma.MaskedArray):
            raise TypeError
        sequence = rng if isinstance(rng, np.random.SeedSequence) else np.random.SeedSequence(rng)
        return Key(*sequence.generate_state(2).tolist())
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"rng must be a whole number, a sequence of them, a numpy SeedSequence or Generator, a torch "
            f"Generator, a JAX key or None, got {rng!r} of type {type(rng).__name__}."
        ) from error


def key_of_part(rng: RNG, stack: Array) -> Key:
    """The key with which the matrices of a stack that this process holds get the numbers of the whole."""
    first = local_range(stack).start
    return key_of(rng, stack)._replace(matrix=first * math.prod(stack.shape[1:-2]))


def check_rng(rng: RNG, like: Array) -> None:
    """Refuse what is no source of randomness, where none is needed; nothing is drawn from it."""
    if rng is None or isinstance(rng, Key | np.random.Generator) or (type(rng) is int and rng >= 0):
        return
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(rng, torch.Generator):
        key_of(rng, like)


def _of_symbol(seed: int, like: Array) -> Key:
    """The key as tensors, so that torch does not compile for every seed."""
    torch = sys.modules["torch"]
    number = torch.full((), seed, dtype=torch.int64, device=like.device)
    # A word of 32 bits as a signed number.
    words = (((word & _WORD) ^ (1 << 31)) - (1 << 31) for word in (number >> 32, number))
    return Key(*(word.to(torch.int32) for word in words))


def _of_device(rng: Array, like: Array) -> Key:
    """The key in an array, which a recorded graph reads at every replay."""
    xp = compat.array_namespace(rng)
    if xp is not compat.array_namespace(like) or compat.device(rng) != compat.device(like):
        raise TypeError(
            f"rng must be on the device of the matrix if it is an array, got a {type(rng).__name__} on "
            f"{compat.device(rng)} for a {type(like).__name__} on {compat.device(like)}: move it there."
        )
    if tuple(rng.shape) != (2,) or not xp.isdtype(rng.dtype, "integral"):
        raise TypeError(
            f"rng must hold two whole numbers if it is an array, got one of {rng.dtype} and "
            f"shape {tuple(rng.shape)}: the upper and the lower 32 bits of a seed."
        )
    words = xp.astype(rng, xp.int32)
    return Key(words[0], words[1])


def _of_jax(rng: Array) -> Key:
    jax = sys.modules["jax"]
    if jax.dtypes.issubdtype(rng.dtype, jax.dtypes.prng_key):
        rng = jax.random.key_data(rng)
    if rng.shape != (2,) or rng.dtype != np.uint32:
        raise TypeError(
            f"rng must be one JAX key of the kind 'threefry2x32', of two words, got an array of {rng.dtype} "
            f"and shape {tuple(rng.shape)}."
        )
    if not is_traced(rng):
        return Key(*np.asarray(rng).tolist())
    return Key(*jax.lax.bitcast_convert_type(rng, np.int32))


def random_block(
    xp: Namespace,
    shape: tuple[int, ...],
    like: Array,
    rng: RNG,
    purpose: int,
    kind: str = "gaussian",
    first: tuple[int, int] = (0, 0),
) -> Array:
    """Independent entries of mean 0 and E|ω|² = 1, from row and column `first` on, as thin factors of `like`.

    Rows of "sparse_sign" have at most eight non-zeros, whose places depend on the width of the block.
    """
    dtype = thin_dtype(xp, like.dtype)
    values = {
        "gaussian": _gaussian, "uniform": _centred, "rademacher": _signs, "sparse_sign": _sparse_signs,
    }[kind]  # fmt: skip
    return beside(xp, _block(xp, shape, like, rng, purpose, first, dtype, values), like)


def uniform_block(xp: Namespace, shape: tuple[int, ...], like: Array, rng: RNG, purpose: int) -> Array:
    """Independent entries uniform in the open interval (0, 1)."""
    dtype = real_dtype(xp, thin_dtype(xp, like.dtype))
    return beside(xp, _block(xp, shape, like, rng, purpose, (0, 0), dtype, _uniform), like)


def _block(
    xp: Namespace,
    shape: tuple[int, ...],
    like: Array,
    rng: RNG,
    purpose: int,
    first: tuple[int, int],
    dtype: Any,
    values: Callable[..., Array],
) -> Array:
    key, like = key_of(rng, like), local_part(like)
    rows = shape[-2]
    # The kernels count matrices from the first one on.
    simple = (values is _gaussian or values is _centred) and not key.matrix
    if simple and _kernels_take(xp, like, dtype):
        out = xp.empty(shape, dtype=dtype, device=placement(like))
        words = tuple(key[:2]) if isinstance(key.high, int) else xp.stack([key.high, key.low])
        cuda.random_numbers(words, purpose, first, values is _gaussian, out)
        return out
    wide = complex_dtype if is_complex(xp, dtype) else real_dtype
    if not _on_host(key, like):
        if compat.is_jax_array(like) and isinstance(key.high, int):
            counts = np.asarray([*key[:2], *first], dtype=np.uint32).view(np.int32)
            made = _compiled(xp, shape, purpose, wide(xp, core_dtype(xp, dtype)), values)
            return xp.astype(made(move(xp, counts, like, xp.int32)), dtype)
        words = _words(xp, key, purpose, shape, first, placement(like))
        made = values(xp, *words, wide(xp, core_dtype(xp, dtype)))
        return xp.astype(made, dtype)
    double = np.complex128 if is_complex(xp, dtype) else np.float64
    out = np.empty(shape, dtype=double)
    if simple and cpu.active():
        stack = out.reshape(math.prod(shape[:-2]), *shape[-2:])
        cpu.random_numbers(key[:2], purpose, first, values is _gaussian, stack)
        return move(xp, out, like, dtype)
    height = max(1, _PANEL // max(1, math.prod(shape) // max(1, rows)))
    for start in range(0, rows, height):
        panel = (*shape[:-2], min(height, rows - start), shape[-1])
        words = _words(np, key, purpose, panel, (first[0] + start, first[1]), None)
        out[..., start : start + height, :] = values(np, *words, double)
    return move(xp, out, like, dtype)


def _kernels_take(xp: Namespace, like: Array, dtype: Any) -> bool:
    """Whether the kernels make the numbers, on the GPU of `like`."""
    if not (compat.is_cupy_array(like) or compat.is_torch_array(like)) or cuda_view(like) is None:
        return False
    return dtype in (xp.float32, xp.float64, xp.complex64, xp.complex128) and cuda.active()


def _on_host(key: Key, like: Array) -> bool:
    """Whether numpy may make the numbers: the key has values, and `like` is on a CPU."""
    if not isinstance(key.high, int) or compat.is_cupy_array(like):
        return False
    if compat.is_torch_array(like):
        return like.device.type == "cpu" and not is_compiling(like)
    if compat.is_jax_array(like) and not is_traced(like):
        return all(device.platform == "cpu" for device in like.devices())
    return True


@functools.cache
def _compiled(
    xp: Namespace, shape: tuple[int, ...], purpose: int, dtype: Any, values: Callable[..., Array]
) -> Callable[[Array], Array]:
    """For JAX on a GPU: one compiled kernel in place of two hundred."""

    def make(counts: Array) -> Array:
        high, low, *first = counts
        return values(xp, *_words(xp, Key(high, low), purpose, shape, tuple(first), None), dtype)

    compiled: Callable[[Array], Array] = sys.modules["jax"].jit(make)
    return compiled


def _words(
    xp: Namespace, key: Key, purpose: int, shape: tuple[int, ...], first: tuple[Any, Any], device: Any
) -> tuple[Array, Array]:
    """Two words, int32, for every entry."""
    *batch, rows, columns = shape
    key = _stream(xp, key, purpose, tuple(batch), device)
    i = xp.arange(rows, dtype=xp.int32, device=device)[:, None] + first[0]
    j = xp.arange(columns, dtype=xp.int32, device=device)[None, :] + first[1]
    return _threefry_in_place(key, i, j) if xp is np else _threefry(key, i, j)


def _stream(xp: Namespace, key: Key, purpose: int, batch: tuple[int, ...], device: Any) -> Key:
    """The key of a purpose, and of every matrix of a batch; the first is that of a single matrix."""
    key = Key(*map(_signed, key))
    if batch:
        count = xp.arange(math.prod(batch), dtype=xp.int32, device=device) + key.matrix
        part = _threefry(key, purpose + 0 * count, count)
        return Key(*(xp.reshape(word, (*batch, 1, 1)) for word in part))
    if isinstance(key.high, int):
        return Key(*map(_signed, _threefry(Key(*(word & _WORD for word in key[:2])), purpose, 0, _wrapped)))
    return Key(*_threefry(key, purpose, 0))


def _threefry(key: Key, x0: Any, x1: Any, wrap: Callable[[Any], Any] = lambda word: word) -> tuple[Any, Any]:
    """The words of the counter (x0, x1): int32 arrays, which wrap around, or numbers, which `wrap` wraps."""
    words = (key.high, key.low, key.high ^ key.low ^ 0x1BD11BDA)
    x0, x1 = wrap(x0 + words[0]), wrap(x1 + words[1])
    for step in range(20):
        x0 = wrap(x0 + x1)
        turn = _ROTATIONS[step % 8]
        # The mask makes an arithmetic shift to the right a logical one.
        x1 = wrap(x1 << turn) | ((x1 >> (32 - turn)) & ((1 << turn) - 1))
        x1 = x1 ^ x0
        if step % 4 == 3:
            turn = step // 4 + 1
            x0, more = wrap(x0 + words[turn % 3]), words[(turn + 1) % 3] + turn
            x1 = wrap(x1 + (_signed(more & _WORD) if isinstance(more, int) else more))
    return x0, x1


def _threefry_in_place(key: Key, x0: Any, x1: Any) -> tuple[Any, Any]:
    """The same on numpy arrays of the shape of both together, in a third of the time."""
    high, low = key[:2]
    words = [
        np.asarray(word, dtype=np.int32).view(np.uint32) for word in (high, low, high ^ low ^ 0x1BD11BDA)
    ]
    shape = np.broadcast(x0, x1, words[0]).shape
    x0, x1 = (
        np.add(x.view(np.uint32), word, np.empty(shape, np.uint32))
        for x, word in zip((x0, x1), words, strict=False)
    )
    part = np.empty(shape, np.uint32)
    # A small block costs a hundred calls; positional arguments and ready arrays halve that.
    add, left, right, either, xor = np.add, np.left_shift, np.right_shift, np.bitwise_or, np.bitwise_xor
    for step in range(20):
        turn, rest = _TURNS[step % 8]
        add(x0, x1, x0)
        left(x1, turn, part)
        right(x1, rest, x1)
        either(x1, part, x1)
        xor(x1, x0, x1)
        if step % 4 == 3:
            more = step // 4 + 1
            add(x0, words[more % 3], x0)
            add(x1, np.add(words[(more + 1) % 3], more, dtype=np.uint32), x1)
    return x0, x1


def _wrapped(word: int) -> int:
    return word & _WORD


def _signed(word: Any) -> Any:
    return word - (1 << 32) if isinstance(word, int) and word >> 31 else word


def _fraction(xp: Namespace, word: Array) -> Array:
    """The upper 23 bits as the middle of one of 2²³ intervals of [0, 1]: exact in float32."""
    real = core_dtype(xp, xp.float32)
    return (xp.astype((word >> 9) & 0x7FFFFF, real) + 0.5) * 2.0**-23


def _sign(xp: Namespace, word: Array, bit: int) -> Array:
    return 1.0 - 2.0 * xp.astype((word >> bit) & 1, core_dtype(xp, xp.float32))


def _uniform(xp: Namespace, w0: Array, w1: Array, dtype: Any) -> Array:
    return _fraction(xp, w0)


def _complex(xp: Namespace, real: Array, imag: Array, dtype: Any) -> Array:
    return xp.astype(real, dtype) + 1j * xp.astype(imag, dtype)


def _gaussian(xp: Namespace, w0: Array, w1: Array, dtype: Any) -> Array:
    """By G. E. P. Box and M. E. Muller, Ann. Math. Stat. 29 (1958)."""
    radius, angle = xp.sqrt(-xp.log(_fraction(xp, w0))), (2 * math.pi) * _fraction(xp, w1)
    if is_complex(xp, dtype):
        return _complex(xp, radius * xp.cos(angle), radius * xp.sin(angle), dtype)
    return math.sqrt(2.0) * radius * xp.cos(angle)


def _centred(xp: Namespace, w0: Array, w1: Array, dtype: Any) -> Array:
    """Uniform, of mean 0 and variance 1: without logarithms and cosines."""
    if is_complex(xp, dtype):
        half = math.sqrt(6.0)
        return _complex(xp, half * (_fraction(xp, w0) - 0.5), half * (_fraction(xp, w1) - 0.5), dtype)
    return math.sqrt(12.0) * (_fraction(xp, w0) - 0.5)


def _signs(xp: Namespace, w0: Array, w1: Array, dtype: Any) -> Array:
    if is_complex(xp, dtype):
        half = math.sqrt(0.5)
        return _complex(xp, half * _sign(xp, w0, 31), half * _sign(xp, w1, 31), dtype)
    return _sign(xp, w0, 31)


def _sparse_signs(xp: Namespace, w0: Array, w1: Array, dtype: Any) -> Array:
    columns = w0.shape[-1]
    chosen = min(_SPARSITY, columns)
    lot = w1 & 0x7FFFFFFF
    most = xp.sort(lot, axis=-1)[..., chosen - 1 : chosen]
    size = xp.where(lot <= most, math.sqrt(columns / chosen), 0.0)
    sign = size * _sign(xp, w0, 31)
    if is_complex(xp, dtype):
        # ±1 or ±i.
        along = 0.5 * (1.0 + _sign(xp, w0, 30))
        return _complex(xp, sign * along, sign * (1.0 - along), dtype)
    return sign

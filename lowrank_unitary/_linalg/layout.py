"""Layouts of JAX arrays on a mesh of explicit axes, where that of every result has to be stated.

An n×n array keeps its layout. Thin blocks are whole on every device, and split along the leading axes as the
n×n array is. On every other mesh the compiler decides, and nothing is done here.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from .._array import Array, Namespace, is_jax, is_traced, placement

# For every axis of an array the axes of the mesh that it is split over, or None.
Split = tuple[Any, ...]
_WHOLE = (None, None)


def split_of(xp: Namespace, x: Array) -> Split:
    """How the rows and the columns of a matrix are split over explicit axes."""
    return _split(x)[-2:] if is_jax(xp) else _WHOLE


def replicated(xp: Namespace, *blocks: Array, rows: Any = None) -> list[Array]:
    """Thin blocks, whole on every device that holds their part of a stack; or their rows split."""
    if (stack := _stack_of(xp, *blocks)) is None:
        return list(blocks)
    return [_laid_out(x, stack, (rows, None)) for x in blocks]


def beside(xp: Namespace, block: Array, like: Array) -> Array:
    """A thin block as those of `like`, which inside shard_map may differ from device to device."""
    if not is_jax(xp):
        return block
    more = _type(like).manual_axis_type.varying - _type(block).manual_axis_type.varying
    if more:
        # Else scan refuses a state that starts with zeros.
        block = sys.modules["jax"].lax.pcast(block, tuple(more), to="varying")
    if (stack := _stack_of(xp, like)) is not None:
        return _laid_out(block, stack, _WHOLE)
    place = _beside_stack(block, like)
    return block if place is None else sys.modules["jax"].device_put(block, place)


def columns(xp: Namespace, block: Array, part: slice) -> Array:
    """Some columns of a thin block, also none, which outside jit JAX has no slice for on explicit axes."""
    first, end, _ = part.indices(block.shape[-1])
    if first < end:
        return block[..., part]
    return beside(xp, xp.zeros((*block.shape[:-1], 0), dtype=block.dtype, device=placement(block)), block)


def alike(xp: Namespace, x: Array, like: Array) -> Array:
    """A matrix split as another of the same shape is."""
    return x if (stack := _stack_of(xp, like)) is None else _laid_out(x, stack, split_of(xp, like))


def matmul(
    xp: Namespace, left: Array, right: Array, *, rows: Any = None, inner: Any = None, columns: Any = None
) -> Array:
    """Left @ right with its rows, columns and the axis summed over split as stated."""
    if (stack := _stack_of(xp, left, right)) is None:
        return left @ right
    left = _laid_out(left, stack, (_unless(inner, split_of(xp, left)[0]), inner))
    right = _laid_out(right, stack, (inner, _unless(inner, split_of(xp, right)[1])))
    of_result = _sharding(stack.mesh, (*stack.split, rows, columns))
    return xp.matmul(left, right, out_sharding=of_result)


def qr(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """The thin QR, inside which JAX refuses a stack that is split under a mesh of the context."""
    if (stack := _stack_of(xp, x)) is None:
        return tuple(xp.linalg.qr(x))
    place = _sharding(stack.mesh, (*stack.split, *_WHOLE))
    automatic = sys.modules["jax"].sharding.auto_axes
    return automatic(lambda x: tuple(xp.linalg.qr(x)), out_sharding=(place, place))(x)


class _Stack(NamedTuple):
    """A mesh, and how the leading axes of a stack of matrices are split over it."""

    mesh: Any
    split: Split


def _stack_of(xp: Namespace, *arrays: Array) -> _Stack | None:
    """The stack that arrays broadcast to; None where nothing is split over explicit axes."""
    if not is_jax(xp):
        return None
    mesh = next((_type(x).sharding.mesh for x in arrays if any(_split(x))), None)
    if mesh is None:
        return None
    ahead = max(x.ndim for x in arrays) - 2
    leading = (_padded(_split(x)[:-2], ahead) for x in arrays)
    return _Stack(mesh, tuple(next(filter(None, axis), None) for axis in zip(*leading, strict=True)))


def _beside_stack(block: Array, like: Array) -> Any:
    """Where a block is beside a stack that is split over axes which the compiler decides on inside jit."""
    leading = max(0, like.ndim - 2)
    # Empty blocks are left whole by the compiler, too.
    if is_traced(block, like) or not leading or not block.size or not hasattr(like.sharding, "spec"):
        return None
    split = ((*like.sharding.spec, *(None,) * leading))[:leading]
    return _sharding(like.sharding.mesh, (*_padded(split, block.ndim - 2), *_WHOLE)) if any(split) else None


def _padded(split: Split, count: int) -> Split:
    """The last axes of a stack, as shapes broadcast."""
    return ((None,) * count + split)[len(split) :]


def _laid_out(x: Array, stack: _Stack, last: Split) -> Array:
    leading = zip(_padded(stack.split, x.ndim - 2), x.shape, strict=False)
    split = (*(axis if size > 1 else None for axis, size in leading), *last)
    if split == _split(x):
        return x
    return sys.modules["jax"].sharding.reshard(x, _sharding(stack.mesh, split))


def _unless(other: Any, split: Any) -> Any:
    """What one axis is split over, unless another of the same array is split over part of it."""
    one, two = ({*axis} if isinstance(axis, tuple) else {axis} for axis in (split, other))
    return None if one & two else split


def _type(x: Array) -> Any:
    return sys.modules["jax"].typeof(x)


def _split(x: Array) -> Split:
    return tuple(_type(x).sharding.spec)


def _sharding(mesh: Any, split: Split) -> Any:
    sharding = sys.modules["jax"].sharding
    return sharding.NamedSharding(mesh, sharding.PartitionSpec(*split))

"""Matrices spread over the processes of torch.distributed, as DTensors.

Rows of a matrix may be divided among processes, in shards of any sizes; the matrices of a stack may be, or be
whole on every process. Thin blocks are plain tensors, the same on all processes.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from .namespace import Array, note_change


def is_spread(x: Array) -> bool:
    """Whether an array is a DTensor; torch.distributed.tensor is not imported for it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def local_part(x: Array) -> Array:
    """What this process holds of a DTensor, in the same memory; any other array itself."""
    return x.to_local() if is_spread(x) else x


def whole(x: Array) -> Array:
    """A DTensor gathered on every process; any other array itself."""
    return x.full_tensor() if is_spread(x) else x


def spread_as(part: Array, like: Array, *, written: bool = False) -> Array:
    """The parts of all processes as one DTensor, laid out as `like`; `like` itself if they lie in it."""
    if written:
        note_change(like)
        return like
    # Sizes are given, as the parts of other processes may have another number of rows.
    size = (like.shape[0], *part.shape[1:]) if _axis(like) == 0 else (*part.shape[:-2], *like.shape[-2:])
    stride = tuple(math.prod(size[i + 1 :]) for i in range(len(size)))
    kind: Any = type(like)
    return kind.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=size, stride=stride
    )  # fmt: skip


def has_divided_rows(x: Array) -> bool:
    """Whether no process holds a whole matrix of `x`."""
    return is_spread(x) and _axis(x) == x.ndim - 2


def has_divided_stack(x: Array) -> bool:
    """Whether every process holds some matrices of a stack, each of them whole."""
    return is_spread(x) and x.ndim > 2 and _axis(x) == 0


def own_matrices(x: Any, like: Array, axes: int = 2) -> Any:
    """Those of a stack, of factors, or of numbers with fewer axes, that belong to the matrices held here."""
    if isinstance(x, tuple):
        return type(x)(*(own_matrices(part, like, axes) for part in x))
    if is_spread(x):
        return local_part(x)
    shape: tuple[int, ...] = tuple(getattr(x, "shape", ()))
    stacked = len(shape) - axes == like.ndim - 2 and shape[0] == like.shape[0]
    return x[local_range(like)] if stacked else x


def local_range(x: Array) -> slice:
    """The places along the divided axis of a DTensor that this process holds; all where none is divided."""
    axis = _axis(x)
    if axis is None:
        return slice(None)
    mesh = x.device_mesh
    dimension = _divided(x)
    # As torch.chunk divides.
    height = -(-int(x.shape[axis]) // mesh.size(dimension))
    first = height * mesh.get_local_rank(dimension)
    return slice(first, first + height)


def local_rows(matrix: Array, thin: Array) -> Array:
    """The rows of a thin block that belong to the rows of a matrix on this process."""
    return thin[..., local_range(matrix), :] if has_divided_rows(matrix) else thin


def summed(matrix: Array, part: Array) -> Array:
    """The sum of the parts that the processes sharing the rows of a matrix have, on all of them."""
    if not has_divided_rows(matrix):
        return part
    distributed = sys.modules["torch"].distributed
    total = part.contiguous()
    try:
        distributed.all_reduce(total, group=matrix.device_mesh.get_group(_divided(matrix)))
    except RuntimeError as error:
        raise RuntimeError(
            f"a sum over the processes that share a matrix failed: one of them has ended, or has not called "
            f"the same function within the timeout of the process group. Look for the first error in their "
            f"logs, and start all of them again. Here it is: {error}"
        ) from error
    return total


def check_spread(name: str, x: Array) -> None:
    """Raise for a DTensor laid out otherwise, or one that gradients are recorded for."""
    if not is_spread(x):
        return
    divided = [i for i, placement in enumerate(x.placements) if not placement.is_replicate()]
    axes = [getattr(x.placements[i], "dim", None) for i in divided]
    plain = all(type(x.placements[i]).__name__ == "Shard" for i in divided)
    if x.ndim < 2 or len(divided) > 1 or not plain or any(axis not in (0, x.ndim - 2) for axis in axes):
        raise ValueError(
            f"{name} must be whole on every process, or be divided by its rows or along the first axis of a "
            f"stack (Shard(0)), over one dimension of its mesh, got placements {tuple(x.placements)} for the "
            f"shape {tuple(x.shape)}: pass {name}.redistribute(placements=[Shard(0)])."
        )
    if has_divided_rows(x) and x.requires_grad and sys.modules["torch"].is_grad_enabled():
        raise RuntimeError(
            f"{name} is divided by its rows, and nothing is differentiated through sums over processes: call "
            f"this under torch.no_grad(), or pass {name}.detach()."
        )


def check_alike(name: str, x: Array, like_name: str, like: Array) -> None:
    """Raise for a DTensor that is not laid out as the matrix that it belongs to."""
    if not is_spread(x):
        return
    if not is_spread(like) or x.placements != like.placements or x.device_mesh != like.device_mesh:
        where = f"placements {tuple(like.placements)}" if is_spread(like) else "a plain tensor"
        raise ValueError(
            f"{name} must be laid out over the processes as {like_name} is, {where}, got placements "
            f"{tuple(x.placements)}: redistribute one of the two."
        )


def check_whole_stack(name: str, x: Array) -> None:
    """Raise for a stack whose matrices are divided among processes, where thin results are returned."""
    if has_divided_stack(x):
        raise TypeError(
            f"{name} must not be a stack that is divided among processes here, whose result is thin blocks: "
            f"pass {name}.to_local(), and that of the gradient, for those of this process."
        )


def check_square_rows(name: str, x: Array) -> None:
    """Raise for a rectangular matrix whose rows are divided: the lower part of its frame would be, too."""
    if has_divided_rows(x) and x.shape[-1] != x.shape[-2]:
        raise ValueError(
            f"{name} must be square where its rows are divided among processes, got {tuple(x.shape)}: "
            f"pass {name}.redistribute(placements=[Replicate()])."
        )


def check_plain(name: str, x: Array) -> None:
    """Raise for a thin block that is a DTensor."""
    if is_spread(x):
        raise TypeError(
            f"{name} must be a plain tensor, the same on every process, got a DTensor with placements "
            f"{tuple(x.placements)}: pass {name}.full_tensor()."
        )


def _divided(x: Array) -> int:
    """The dimension of the mesh that an axis is divided over."""
    return next(i for i, placement in enumerate(x.placements) if placement.is_shard())


def _axis(x: Array) -> int | None:
    """The axis of a DTensor that is divided."""
    return next((int(placement.dim) for placement in x.placements if placement.is_shard()), None)

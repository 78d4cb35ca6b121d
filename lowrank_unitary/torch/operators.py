"""Whole steps as operators of torch, opaque to autograd, torch.compile and vmap, with own derivatives."""

from __future__ import annotations

from typing import Any

import torch

from .._array import values_are_at_hand
from ..rotation.derivatives import step_cotangents
from ..step import polar_projection, unitary_transport

Tensors = tuple[torch.Tensor, ...]


def moved(
    unitary: torch.Tensor, left: torch.Tensor, right: torch.Tensor, update: str, core: str
) -> torch.Tensor:
    """The moved U."""
    arrays = unitary, left, right
    if _only_products_do(*arrays):
        return _step(arrays, update, core)
    made: torch.Tensor = _recorded(_move, _Move, *arrays, update, core)
    return made


def overwrite(unitary: torch.Tensor, left: torch.Tensor, right: torch.Tensor, update: str, core: str) -> None:
    """The same, written into U, and outside of autograd."""
    # torch undoes lazy conjugates and negatives for an operator, but not for one that writes.
    plain, left, right = (x.resolve_conj().resolve_neg() for x in (unitary, left, right))
    _move_(plain, left, right, update, core)
    if plain is not unitary:
        unitary.copy_(plain)


def _step(arrays: Tensors, update: str, core: str, **options: bool) -> torch.Tensor:
    """The function behind the operators."""
    made: torch.Tensor
    if update == "polar":
        made = polar_projection(*arrays, core=core, **options)
    else:
        made = unitary_transport(*arrays, update=update, core=core, **options)
    return made


# An operator declares its strides: results are contiguous. So is the U that it moves: a column-major one may
# be moved from its other side, which has another derivative in the n² entries.


@torch.library.custom_op("lowrank_unitary::move", mutates_args=())
def _move(
    unitary: torch.Tensor, left: torch.Tensor, right: torch.Tensor, update: str, core: str
) -> torch.Tensor:
    arrays = unitary.detach().contiguous(), left.detach(), right.detach()
    return _step(arrays, update, core).contiguous()


@torch.library.custom_op("lowrank_unitary::move_", mutates_args={"unitary"})
def _move_(unitary: torch.Tensor, left: torch.Tensor, right: torch.Tensor, update: str, core: str) -> None:
    _step((unitary.detach(), left.detach(), right.detach()), update, core, overwrite_unitary=True)


@torch.library.custom_op("lowrank_unitary::move_vjp", mutates_args=())
def _move_vjp(
    unitary: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    cotangent: torch.Tensor,
    update: str,
    of_unitary: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cotangents of U, left and right; an empty one of U where it is a constant."""
    U, a, b, cotangent = (x.detach() for x in (unitary, left, right, cotangent))
    if values_are_at_hand(U):
        of_U, of_left, of_right = step_cotangents(U, a, b, cotangent, update, of_unitary=of_unitary)
    else:
        # On a GPU eigenvalues and singular values would need a synchronisation.
        of_U, of_left, of_right = _gram_vjp((U, a, b), cotangent, update, of_unitary)
    first = U.new_empty(0) if of_U is None else of_U.contiguous()
    return first, of_left.contiguous(), of_right.contiguous()


@_move.register_fake
def _(unitary: torch.Tensor, left: torch.Tensor, right: torch.Tensor, update: str, core: str) -> torch.Tensor:
    batches = (x.shape[:-2] for x in (unitary, left, right))
    batch = torch.broadcast_shapes(*batches)  # type: ignore[no-untyped-call]
    return unitary.new_empty((*batch, *unitary.shape[-2:]))


@_move_vjp.register_fake
def _(
    unitary: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    cotangent: torch.Tensor,
    update: str,
    of_unitary: bool,
) -> Tensors:
    return tuple(
        x.new_empty(x.shape if wanted else 0)
        for x, wanted in ((unitary, of_unitary), (left, True), (right, True))
    )


class _Move(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> torch.Tensor:
        return _move(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        *arrays, ctx.update, _ = inputs
        ctx.save_for_backward(*arrays)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        arrays, of_unitary = ctx.saved_tensors, ctx.needs_input_grad[0]
        if _only_products_do(*arrays, grad):
            of_U, of_left, of_right = _gram_vjp(arrays, grad, ctx.update, of_unitary)
        else:
            of_U, of_left, of_right = _recorded(_move_vjp, _MoveVjp, *arrays, grad, ctx.update, of_unitary)
        return of_U if of_unitary else None, of_left, of_right, None, None


class _MoveVjp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Tensors:
        return _move_vjp(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        *arrays, ctx.update, ctx.of_unitary = inputs
        ctx.save_for_backward(*arrays)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        def pulled(*arrays: torch.Tensor) -> Tensors:
            return _gram_vjp(arrays[:3], arrays[3], ctx.update, ctx.of_unitary)

        return *torch.func.vjp(pulled, *ctx.saved_tensors)[1](grads), None, None


_move.register_autograd(_Move.backward, setup_context=_Move.setup_context)
_move_vjp.register_autograd(_MoveVjp.backward, setup_context=_MoveVjp.setup_context)


def _recorded(operator: Any, function: Any, *args: Any) -> Any:
    """An operator; for torch.func, which finds no derivative in it, the Function around it."""
    around = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    return function.apply(*args) if around else operator(*args)


def _only_products_do(*arrays: torch.Tensor) -> bool:
    """Whether forward mode, which operators lack, or a compiled torch.func needs plain products."""
    if torch.compiler.is_compiling():
        return torch._C._are_functorch_transforms_active()
    functorch = torch._C._functorch
    around = functorch.get_interpreter_stack() or ()
    if any(transform.key() == functorch.TransformType.Jvp for transform in around):
        return True
    dual: Any = torch.autograd.forward_ad.unpack_dual
    return any(dual(x).tangent is not None for x in arrays)


def _gram_vjp(arrays: Tensors, cotangent: torch.Tensor, update: str, of_unitary: bool) -> Tensors:
    """As the operator, by matrix products, which torch differentiates to any order."""
    constant, variable = ((), arrays) if of_unitary else (arrays[:1], arrays[1:])

    def step(*arrays: torch.Tensor) -> torch.Tensor:
        return _step((*constant, *arrays), update, "gram")

    cotangents: Tensors = torch.func.vjp(step, *variable)[1](cotangent)
    return cotangents if of_unitary else (cotangent.new_empty(0), *cotangents)


def _mapped_first(in_dims: tuple[int | None, ...], *arrays: torch.Tensor) -> list[torch.Tensor]:
    """Views with the mapped axis of each tensor as the first batch axis, ahead of all others."""
    sizes = [x.ndim - (dim is not None) for x, dim in zip(arrays, in_dims, strict=False)]
    moved = []
    for x, dim, size in zip(arrays, in_dims, sizes, strict=False):
        missing = (None,) * (max(sizes) - size)
        moved.append(x if dim is None else x.movedim(dim, 0)[(slice(None), *missing)])
    return moved


@_move.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[torch.Tensor, int]:
    *arrays, update, core = args
    return _move(*_mapped_first(in_dims, *arrays), update, core), 0


@_move_.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[None, None]:
    *arrays, update, core = args
    if in_dims[0] is None:
        raise ValueError(
            "unitary must be mapped where left or right is and overwrite_unitary=True, as one matrix cannot "
            "hold all results: leave overwrite_unitary=False."
        )
    _move_(*_mapped_first(in_dims, *arrays), update, core)
    return None, None


@_move_vjp.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensors, tuple[int | None, int, int]]:
    *arrays, update, of_unitary = args
    # An argument that is not mapped still has one cotangent for every element.
    each = [
        x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(arrays, in_dims, strict=False)
    ]
    made = _move_vjp(*_mapped_first((0, 0, 0, 0), *each), update, of_unitary)
    wanted = (of_unitary, True, True)
    shaped = tuple(y.reshape(x.shape) if w else y for x, y, w in zip(each, made, wanted, strict=False))
    return shaped, (0 if of_unitary else None, 0, 0)

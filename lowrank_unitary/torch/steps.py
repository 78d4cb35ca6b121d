"""Low-rank steps as operators of torch, which use the compiled kernels also inside autograd."""

from __future__ import annotations

from typing import Any

import torch

from .. import step
from .._array import is_spread, validate
from ..rotation.core import CORES
from ..rotation.transport import TRANSPORTS
from .operators import moved, overwrite

_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def unitary_transport(
    unitary: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    /,
    *,
    update: str = "geodesic",
    core: str = "auto",
    overwrite_unitary: bool = False,
) -> torch.Tensor:
    """The step of :func:`lowrank_unitary.unitary_transport` as one operator of torch.

    Parameters
    ----------
    unitary, left, right, update : as for :func:`lowrank_unitary.unitary_transport`
    core : {"auto", "gram", "orthonormal"}
        As there, but ``"auto"`` chooses by value on the CPU also inside autograd, torch.compile and vmap. The
        derivative does not depend on it.
    overwrite_unitary : bool
        Write the result into `unitary`, which must not be part of a recorded step.

    Returns
    -------
    torch.Tensor, shape (…, n, n)
        With the dtype of U: `unitary` itself where it is overwritten, else new and contiguous.

    Raises
    ------
    RuntimeError
        If `unitary` was to be overwritten where autograd records the step.

    Notes
    -----
    The compiled kernels run also inside autograd, ``torch.compile`` and ``torch.func``; a U of other strides
    is copied first. The derivative on the CPU is :func:`lowrank_unitary.unitary_transport_vjp`, exact to
    rounding at every step size. On a GPU, for second derivatives, in forward mode, and for ``torch.func``
    inside a compiled function it is that of the Gram core. No healing.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary as lu
    >>> import lowrank_unitary.torch as lut
    >>> U = lu.random_unitary(6, rng=0, xp=torch, dtype=torch.float64)
    >>> left = torch.zeros(6, 2, dtype=torch.float64, requires_grad=True)
    >>> V = lut.unitary_transport(U, left, torch.ones_like(left))
    >>> V[0].sum().backward()
    >>> torch.equal(V, U), left.grad.shape
    (True, torch.Size([6, 2]))
    """
    validate.choice("update", update, TRANSPORTS)
    return _applied(unitary, left, right, update, core, overwrite_unitary)


def polar_projection(
    unitary: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    /,
    *,
    core: str = "auto",
    overwrite_unitary: bool = False,
) -> torch.Tensor:
    """The step of :func:`lowrank_unitary.polar_projection` as one operator of torch.

    Parameters
    ----------
    unitary, left, right, core, overwrite_unitary : as for :func:`unitary_transport`

    Notes
    -----
    As for :func:`unitary_transport`, with the derivative of :func:`lowrank_unitary.polar_projection_vjp`: NaN
    where U + left rightᴴ is singular.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary as lu
    >>> import lowrank_unitary.torch as lut
    >>> U = torch.eye(4)
    >>> left, right = 0.5 * U[:, :1], torch.ones(4, 1)
    >>> V = lut.polar_projection(U, left, right, overwrite_unitary=True)
    >>> V is U, bool(lu.is_unitary(U))
    (True, True)
    """
    return _applied(unitary, left, right, "polar", core, overwrite_unitary)


def _applied(
    unitary: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    update: str,
    core: str,
    overwrite_unitary: bool,
) -> torch.Tensor:
    validate.choice("core", core, CORES)
    validate.flag("overwrite_unitary", overwrite_unitary)
    given = {"unitary": unitary, "left": left, "right": right}
    for name, x in given.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(
                f"{name} must be a torch tensor, got {type(x).__name__}: the functions of lowrank_unitary "
                f"itself take arrays of other kinds."
            )
    if is_spread(unitary) or (unitary.ndim > 1 and unitary.shape[-1] != unitary.shape[-2]):
        # In the frame of a rectangular matrix, or on the rows of this process, by operations of torch.
        options: dict[str, Any] = {"core": core, "overwrite_unitary": overwrite_unitary}
        if update == "polar":
            return step.polar_projection(unitary, left, right, **options)
        return step.unitary_transport(unitary, left, right, update=update, **options)
    # All checks together take as long as a small step: a short test for the common case.
    batch = tuple(unitary.shape[:-2])
    if not _fit(unitary, left, right):
        xp = validate.namespace_of(**given)
        validate.factor_pair("left", left, "right", right, validate.square("unitary", unitary))
        batch = validate.batches(**given)
        validate.same_dtype(xp, "unitary", unitary, left=left, right=right)
    if not overwrite_unitary:
        return moved(unitary, left, right, update, core)
    validate.overwritable("unitary", "overwrite_unitary", unitary, batch)
    recorded = [name for name, x in given.items() if x.requires_grad]
    if recorded and torch.is_grad_enabled():
        raise RuntimeError(
            f"overwrite_unitary=True cannot be differentiated, and gradients are recorded for "
            f"{', '.join(recorded)}: call it under torch.no_grad(), or leave overwrite_unitary=False."
        )
    overwrite(unitary, left, right, update, core)
    return unitary


def _fit(unitary: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether all have one supported dtype, one device, and shapes that fit without broadcasting."""
    shape, dtype, device = unitary.shape, unitary.dtype, unitary.device
    return (
        dtype in _DTYPES
        and left.dtype == right.dtype == dtype
        and left.device == right.device == device
        and unitary.layout == left.layout == right.layout == torch.strided
        and len(shape) > 1
        and shape[-1] == shape[-2] > 0
        and left.shape == right.shape
        and left.shape[:-1] == shape[:-1]
    )

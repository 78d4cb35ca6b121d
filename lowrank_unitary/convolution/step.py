"""One descent step of all matrices of a spectrum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._array import (
    Array,
    Namespace,
    astype,
    is_cupy,
    is_jax,
    is_numpy,
    is_torch,
    is_traced,
    placement,
    validate,
)
from .._linalg import RNG, adjoint, key_of
from ..step import unitary_step
from ..tangent.sketch import Tangent
from ..types import BodyFactors, LowRankFactors, transposed_gradient
from .spectrum import Spectrum, checked_stacks
from .starts import another


def spectrum_step(
    spectrum: Spectrum,
    gradient: Spectrum,
    step_size: Any,
    /,
    rank: int,
    *,
    update: str = "geodesic",
    sketch: str = "tangent",
    heal: int = 1,
    rng: RNG = None,
    frequencies: int | None = None,
    overwrite_spectrum: bool = False,
) -> Spectrum:
    """One descent step of the matrices at all frequencies; what they stand for stays an isometry.

    Parameters
    ----------
    spectrum : Spectrum
        Of unitary matrices, or of such with orthonormal columns or rows.
    gradient : Spectrum
        Of arrays, LowRankFactors or BodyFactors, in the metric of the kernel: :func:`convolution_gradient`,
        :func:`convolution_body_gradient`, or :func:`spectrum_gradient` of what automatic differentiation
        returns.
    step_size : float or real array broadcasting against the groups
        η; positive descends.
    rank : int
        k, from 1 to the smaller number of channels, for every matrix.
    update, sketch, heal, rng : as for :func:`unitary_step`
    frequencies : int, optional
        m: of each group move only the m stored matrices whose gradient has the largest tangent part, in the
        norm of the kernel, where a matrix that stands for a pair counts twice. By default all.
    overwrite_spectrum : bool
        Write the result into the arrays of `spectrum`, where their kind allows it.

    Returns
    -------
    Spectrum

    Notes
    -----
    O(kC²) for each matrix. A choice of frequencies forms their gradients first, O(mC²) for factors of m
    columns. A step of the geodesic never changes the signs of the determinants of the real matrices.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> x, pulled = np.random.default_rng(0).standard_normal((2, 10, 4, 6, 6))
    >>> spectrum = lu.identity_spectrum(4, torus=(6, 6))
    >>> gradient = lu.convolution_body_gradient(x, pulled, torus=(6, 6))
    >>> moved = lu.spectrum_step(spectrum, gradient, 0.01, rank=1, rng=0, frequencies=5)
    >>> changed = [np.any(new != old, axis=(-2, -1)).sum() for new, old in zip(moved, spectrum)]
    >>> int(sum(changed)), bool(lu.spectrum_defect(moved) < 1e-14)
    (5, True)
    """
    validate.flag("overwrite_spectrum", overwrite_spectrum)
    xp = checked_stacks(spectrum)
    gradients = _checked_gradient(spectrum, gradient)
    if overwrite_spectrum:
        for field, U in spectrum._asdict().items():
            validate.overwritable(f"spectrum.{field}", "overwrite_spectrum", U, tuple(U.shape[:-2]))
    if getattr(step_size, "ndim", 0):
        # One number for each group, for all of its frequencies.
        step_size = step_size[..., None]
    first = key_of(rng, spectrum.complex)
    how: dict[str, Any] = {"rank": rank, "update": update, "sketch": sketch, "heal": heal}
    parts = zip(spectrum, gradients, (first, another(first)), strict=True)
    if frequencies is None:
        return Spectrum(
            *(
                unitary_step(U, G, step_size, rng=key, overwrite_unitary=overwrite_spectrum, **how)
                if math.prod(U.shape)
                else U
                for U, G, key in parts
            )
        )
    m = validate.count("frequencies", frequencies)
    gradients = Spectrum(*(_fitted(xp, U, G) for U, G in zip(spectrum, gradients, strict=True)))
    parts = zip(spectrum, gradients, (first, another(first)), strict=True)
    moved = []
    for (U, G, key), (index, among) in zip(parts, _chosen(xp, spectrum, gradients, m), strict=True):
        if not math.prod(index.shape):
            moved.append(U)
            continue
        some = _gathered(xp, U, index)
        steps = unitary_step(some, _each_array(_gathered, xp, G, index), step_size, rng=key, **how)
        steps = xp.where(among[..., None, None], steps, some)
        moved.append(_put(xp, U, index, steps, overwrite=overwrite_spectrum))
    return Spectrum(*moved)


def _checked_gradient(spectrum: Spectrum, gradient: Spectrum) -> Spectrum:
    """The gradient itself, with a matrix for each of the spectrum, or an error."""
    if not isinstance(gradient, Spectrum):
        raise TypeError(
            f"gradient must be a Spectrum of arrays or factors, got {type(gradient).__name__}: "
            f"convolution_gradient makes one."
        )
    for field, part, U in zip(spectrum._fields, gradient, spectrum, strict=True):
        for x in part if _is_thin(part) else (part,):
            shape, count = tuple(getattr(x, "shape", ())), U.shape[-3]
            # What is no array is refused with the others, by the routine for the stack.
            if hasattr(x, "shape") and (len(shape) < 3 or shape[-3] != count):
                raise ValueError(
                    f"gradient.{field} must have {count} frequencies on axis -3 as the spectrum, got "
                    f"{shape}: pass the gradient at each of them."
                )
    return gradient


def _chosen(xp: Namespace, spectrum: Spectrum, gradients: Spectrum, m: int) -> list[tuple[Array, Array]]:
    """Of both stacks the numbers of candidates, as many as may be among the m, and whether they are.

    Sizes are static: how many of the m are real is known by value only.
    """
    sizes = [
        count * _tangent_energy(xp, U, G) for count, U, G in zip((1.0, 2.0), spectrum, gradients, strict=True)
    ]
    R = sizes[0].shape[-1]
    every = xp.concat(sizes, axis=-1)
    # NaN must not be left where it is, and the standard says nothing of its order.
    every = xp.where(xp.isnan(every), xp.inf, every)
    place = xp.argsort(xp.argsort(every, axis=-1, descending=True), axis=-1)
    chosen = []
    for some in (place[..., :R], place[..., R:]):
        order = xp.argsort(some, axis=-1)[..., : min(m, some.shape[-1])]
        chosen.append((order, xp.sort(some, axis=-1)[..., : order.shape[-1]] < m))
    return chosen


def _tangent_energy(xp: Namespace, unitary: Array, gradient: Any) -> Array:
    """The squared Frobenius norm of the tangent part of every gradient, up to a common factor."""
    if isinstance(gradient, BodyFactors):
        body = gradient.left @ adjoint(xp, gradient.right)
        n = min(int(size) for size in unitary.shape[-2:])
        # In the frame of a rectangular matrix its first columns are the tangent part.
        return xp.linalg.matrix_norm((body - adjoint(xp, body))[..., :n]) ** 2
    if validate.is_wide(unitary):
        unitary, gradient = unitary.mT, transposed_gradient(xp, gradient)
    if isinstance(gradient, LowRankFactors):
        gradient = gradient.left @ adjoint(xp, gradient.right)
    body = adjoint(xp, unitary) @ gradient
    inside = xp.linalg.matrix_norm(body - adjoint(xp, body)) ** 2
    if not validate.is_tall(unitary):
        return inside
    return inside + 4.0 * xp.linalg.matrix_norm(gradient - unitary @ body) ** 2


def _fitted(xp: Namespace, unitary: Array, gradient: Any) -> Any:
    """The gradient with one matrix for each of the stack and the dtype of the stack, or an error."""
    batch = tuple(unitary.shape[:-2])
    if np.broadcast_shapes(Tangent.of(unitary, gradient, of_unitary=True).batch, batch) != batch:
        raise ValueError(
            f"gradient must have no more leading axes than spectrum, {batch}, where frequencies are chosen: "
            f"give the groups of the gradient to the spectrum, too."
        )

    def fit(x: Array) -> Array:
        return xp.broadcast_to(astype(xp, x, unitary.dtype), (*batch, *x.shape[-2:]))

    return type(gradient)(*map(fit, gradient)) if _is_thin(gradient) else fit(gradient)


def _is_thin(gradient: Any) -> bool:
    return isinstance(gradient, LowRankFactors | BodyFactors)


def _each_array(function: Any, xp: Namespace, gradient: Any, index: Array) -> Any:
    if _is_thin(gradient):
        return type(gradient)(*(function(xp, x, index) for x in gradient))
    return function(xp, gradient, index)


def _flat(xp: Namespace, index: Array, count: int) -> Array:
    """The numbers of matrices among those of all groups."""
    groups = index.shape[:-1]
    first = xp.arange(math.prod(groups), dtype=index.dtype, device=placement(index)) * count
    return xp.reshape(index + xp.reshape(first, (*groups, 1)), (-1,))


def _gathered(xp: Namespace, stack: Array, index: Array) -> Array:
    """The chosen matrices (groups…, m, rows, columns) of a stack."""
    shape = tuple(stack.shape)
    matrices = xp.reshape(stack, (math.prod(shape[:-2]), *shape[-2:]))
    some = xp.take(matrices, _flat(xp, index, shape[-3]), axis=0)
    return xp.reshape(some, (*index.shape, *shape[-2:]))


def _put(xp: Namespace, stack: Array, index: Array, moved: Array, *, overwrite: bool) -> Array:
    """The stack with other matrices in the chosen places."""
    shape = tuple(stack.shape)
    count, flat = math.prod(shape[:-2]), _flat(xp, index, shape[-3])
    moved = xp.reshape(moved, (-1, *shape[-2:]))
    if is_jax(xp):
        return xp.reshape(xp.reshape(stack, (count, *shape[-2:])).at[flat].set(moved), shape)
    if is_numpy(xp) or is_cupy(xp) or (is_torch(xp) and not is_traced(stack, moved)):
        # Not by a flat view, which other strides may not have.
        result = stack if overwrite else xp.asarray(stack, copy=True)
        result[tuple(_unravelled(flat, shape[:-2]))] = moved
        return result
    # The number of every matrix among those that have moved; where there is none, that of the first.
    same = flat[None, :] == xp.arange(count, dtype=flat.dtype, device=placement(stack))[:, None]
    number = xp.argmax(xp.astype(same, xp.int32), axis=-1)
    new = xp.reshape(xp.take(moved, number, axis=0), shape)
    return xp.where(xp.reshape(xp.any(same, axis=-1), (*shape[:-2], 1, 1)), new, stack)


def _unravelled(flat: Array, shape: tuple[int, ...]) -> list[Array]:
    """The indices along every axis."""
    axes = []
    for size in reversed(shape):
        axes.append(flat % size)
        flat = flat // size
    return axes[::-1]

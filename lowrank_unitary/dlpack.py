"""The library for arrays of frameworks without the array API, such as TensorFlow."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import array_api_compat as compat
import numpy as np

__all__ = ["via_dlpack"]


def via_dlpack(
    function: Callable[..., Any], /, *, back: Callable[[Any], Any] | None = None
) -> Callable[..., Any]:
    """The same routine for arrays of other frameworks, by way of numpy views.

    Parameters
    ----------
    function : callable
        Any routine of the library that takes and returns arrays, alone or in (named) tuples.
    back : callable, optional
        Makes an array of the framework from a numpy array. By default ``convert_to_tensor``, or else
        ``from_dlpack``, of the framework's top module.

    Returns
    -------
    callable
        With the arguments of `function`. Arrays with ``__dlpack__`` are used without a copy; those with only
        ``__array__`` (a TensorFlow variable) are converted by it. Other arguments, and arrays of numpy,
        torch, JAX or cupy, pass through.

    Notes
    -----
    Arrays must be on the CPU, from one framework and of a dtype that numpy has; `function` cannot overwrite
    them. ``from_dlpack`` takes results without a copy; ``convert_to_tensor`` copies, O(n²), as TensorFlow's
    kernels need an alignment that numpy does not guarantee. Results are constants for automatic
    differentiation.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary.dlpack import via_dlpack
    >>> step = via_dlpack(lu.unitary_step)   # for TensorFlow: U = step(U, gradient, 0.1, rank=2)
    >>> U = lu.random_unitary(6, rng=0)
    >>> bool(np.all(step(U, U - 1, 0.1, rank=2, rng=1) == lu.unitary_step(U, U - 1, 0.1, rank=2, rng=1)))
    True
    """

    for name, value in (("function", function), ("back", back)):
        if not callable(value) and not (name == "back" and value is None):
            raise TypeError(f"{name} must be callable, got {value!r} of type {type(value).__name__}.")

    @functools.wraps(function)
    def converting(*args: Any, **kwargs: Any) -> Any:
        found: list[Any] = []

        def viewed(x: Any) -> Any:
            if compat.is_array_api_obj(x) or not (hasattr(x, "__dlpack__") or hasattr(x, "__array__")):
                return x
            found.append(x)
            return _read_only(x)

        args = _each(viewed, args)
        kwargs = {name: _each(viewed, value) for name, value in kwargs.items()}
        if not found:
            return function(*args, **kwargs)
        make = _way_back(found) if back is None else back
        result = function(*args, **kwargs)
        return _each(lambda x: make(_exportable(x)) if isinstance(x, np.ndarray | np.generic) else x, result)

    return converting


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """`change` of a value, or of everything in a tuple."""
    if not isinstance(value, tuple):
        return change(value)
    parts = (_each(change, part) for part in value)
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _read_only(x: Any) -> np.ndarray[Any, Any]:
    try:
        view = (np.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(x)).view()
    except (BufferError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"arrays must be on the CPU, hold values and have a dtype of numpy's, got {type(x).__module__}."
            f"{type(x).__name__}, which numpy cannot read ({error}): move or convert it first."
        ) from error
    view.flags.writeable = False
    return view


def _exportable(x: Any) -> np.ndarray[Any, Any]:
    """A writeable array: DLPack cannot export the read-only one of an argument that is returned."""
    x = np.asarray(x)
    return x if x.flags.writeable else x.copy()


def _way_back(found: list[Any]) -> Callable[[Any], Any]:
    roots = sorted({type(x).__module__.partition(".")[0] for x in found})
    if len(roots) > 1:
        raise TypeError(
            f"arrays must come from one framework, got {' and '.join(roots)}: convert them to one."
        )
    # In this order: TensorFlow's from_dlpack accepts any alignment, and its kernels then crash.
    for name in ("convert_to_tensor", "from_dlpack"):
        if hasattr(sys.modules[roots[0]], name):
            make: Callable[[Any], Any] = getattr(sys.modules[roots[0]], name)
            return make
    raise TypeError(
        f"back must be given for arrays of {roots[0]}, which has neither convert_to_tensor nor from_dlpack: "
        f"pass the function that makes one of its arrays from a numpy array."
    )

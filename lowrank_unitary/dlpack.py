"""The library for arrays of frameworks that the array API does not cover, such as TensorFlow's."""

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
    """The same routine for arrays of other frameworks: numpy sees them, and the results are theirs again.

    Parameters
    ----------
    function : callable
        Any routine of the library that takes and returns arrays, alone or in (named) tuples.
    back : callable, optional
        Makes an array of the framework from a numpy array. By default ``convert_to_tensor``, or else
        ``from_dlpack``, of the top module of the framework that the array arguments come from.

    Returns
    -------
    callable
        With the arguments of `function`. Arrays with ``__dlpack__`` are seen where they are, with no copy;
        what has only ``__array__`` (a TensorFlow variable) is converted by it. All other arguments, and calls
        with arrays of numpy, torch, JAX or cupy only, pass through.

    Raises
    ------
    TypeError
        For arrays of several such frameworks, on a device other than the CPU, of a dtype that numpy does not
        have, or from a framework that `back` is needed for. All else is raised by `function`.

    Notes
    -----
    The arrays are read-only for `function`, which refuses to overwrite them. ``from_dlpack`` takes the memory
    of a result as it is; ``convert_to_tensor`` copies it, O(n²): TensorFlow's kernels want an alignment that
    numpy does not keep. Results are constants for automatic differentiation.

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

        def seen(x: Any) -> Any:
            if compat.is_array_api_obj(x) or not (hasattr(x, "__dlpack__") or hasattr(x, "__array__")):
                return x
            found.append(x)
            return _read_only(x)

        args = _each(seen, args)
        kwargs = {name: _each(seen, value) for name, value in kwargs.items()}
        if not found:
            return function(*args, **kwargs)
        make = _way_back(found) if back is None else back
        result = function(*args, **kwargs)
        return _each(lambda x: make(_exportable(x)) if isinstance(x, np.ndarray | np.generic) else x, result)

    return converting


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """`value` with all that is in it changed, if it is a tuple."""
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
            f"{type(x).__name__}, which numpy cannot see ({error}): move or convert it first."
        ) from error
    view.flags.writeable = False
    return view


def _exportable(x: Any) -> np.ndarray[Any, Any]:
    """An array that may leave: what is returned as it came in is read-only, which DLPack has no word for."""
    x = np.asarray(x)
    return x if x.flags.writeable else x.copy()


def _way_back(found: list[Any]) -> Callable[[Any], Any]:
    roots = sorted({type(x).__module__.partition(".")[0] for x in found})
    if len(roots) > 1:
        raise TypeError(
            f"arrays must come from one framework, got {' and '.join(roots)}: convert them to one."
        )
    # In this order: TensorFlow's own from_dlpack takes any memory, and its kernels end the process over it.
    for name in ("convert_to_tensor", "from_dlpack"):
        if hasattr(sys.modules[roots[0]], name):
            make: Callable[[Any], Any] = getattr(sys.modules[roots[0]], name)
            return make
    raise TypeError(
        f"back must be given for arrays of {roots[0]}, which has neither convert_to_tensor nor from_dlpack: "
        f"pass the function that makes one of its arrays from a numpy array."
    )

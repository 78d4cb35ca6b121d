"""Where cupy computes: on the current device, and not on that of its arrays."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import array_api_compat as compat

from ._namespace import Array, Namespace

P = ParamSpec("P")
R = TypeVar("R")


def on_device_of_arrays(function: Callable[P, R]) -> Callable[P, R]:
    """Let a public function run on the device of the cupy arrays, or of the cupy device, that it is given.

    Without cupy it costs a look into a dictionary. Other libraries know by themselves where to compute.
    """

    @functools.wraps(function)
    def placed(*args: P.args, **kwargs: P.kwargs) -> R:
        if "cupy" not in sys.modules or (device := _device_among((*args, *kwargs.values()))) is None:
            return function(*args, **kwargs)
        with device:
            return function(*args, **kwargs)

    return placed


def _device_among(values: Iterable[Any]) -> Any:
    """The device of the first cupy array, also within tuples, or the first cupy device."""
    for value in values:
        if isinstance(value, tuple):
            if (device := _device_among(value)) is not None:
                return device
        elif compat.is_cupy_array(value):
            return value.device
        elif type(value).__name__ == "Device" and isinstance(value, sys.modules["cupy"].cuda.Device):
            return value
    return None


def prototype(xp: Namespace, dtype: Any, device: Any) -> Array:
    """An array of no elements, for the dtype and device of those to be made, and their namespace."""
    if not compat.is_cupy_namespace(xp):
        return xp.empty((0,), dtype=dtype, device=device)
    if device is not None and not isinstance(device, sys.modules["cupy"].cuda.Device):
        raise TypeError(f"device must be a cupy.cuda.Device or None, got {device!r}: wrap its number in one.")
    # cupy has no such argument: the device is the current one by now.
    return xp.empty((0,), dtype=dtype)

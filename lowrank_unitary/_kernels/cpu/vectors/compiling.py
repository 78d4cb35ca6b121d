"""How kernels are compiled: once for a dtype, kept on disk, and not in silence."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import event

Function = TypeVar("Function", bound=Callable[..., Any])

# Seconds after which a compilation is announced.
_PATIENCE = 1.0
_PACKAGE = __name__.partition(".")[0]
# Inner functions have no wrappers for Python and C, which take longer to compile than some of them.
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# Full fastmath would assume that there are no NaN.
_REORDERED = {"fastmath": {"reassoc", "contract", "nsz"}}


def outer(function: Function) -> Function:
    """Compiled, to be called from Python."""
    return _compiled(function)


def inner(function: Function) -> Function:
    """Compiled, to be called from compiled code."""
    return _compiled(function, **_INNER)


def summing(function: Function) -> Function:
    """An inner function whose sums may be reordered, so that they are vectorised."""
    return _compiled(function, **_INNER, **_REORDERED)


def _compiled(function: Function, **options: Any) -> Function:
    made = numba.njit(nogil=True, error_model="numpy", **options)(function)
    try:
        made.enable_caching()
        _tie(made)
    except RuntimeError:  # neither the folder of the package nor that of the user can be written to
        _say_once("no folder for compiled kernels can be written to: they are compiled in every process")
    return cast(Function, made)


def _tie(made: Any) -> None:
    """Compiled code on disk counts for the present text of all kernels, those that it calls included.

    Numba looks at the file of the function alone. Kernels of two versions would disagree about what lies
    where in memory.
    """
    # Numba may keep its stamps elsewhere, and a file may not be readable.
    with contextlib.suppress(AttributeError, OSError):
        file = made._cache._cache_file
        file._source_stamp = (file._source_stamp, _sources())


@functools.cache
def _sources() -> str:
    """The text of all kernels, by its hash."""
    files = sorted(Path(__file__).parents[2].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@functools.cache
def _say_once(message: str) -> None:
    logging.getLogger(_PACKAGE).warning(message)


class _Announcement(event.Listener):
    """Says that kernels are compiled where this takes longer than a moment."""

    def __init__(self) -> None:
        self.depth, self.timer = 0, threading.Timer(0.0, _say_once)

    # Numba holds its lock on the compiler from start to end, so that only one thread is here at a time.
    def on_start(self, event: Any) -> None:
        if self.depth == 0 and event.data["dispatcher"].py_func.__module__.startswith(_PACKAGE):
            message = "compiling kernels for a dtype that was not used before; they are kept on disk"
            self.timer = threading.Timer(_PATIENCE, _say_once, (message,))
            self.timer.daemon = True
            self.timer.start()
        self.depth += 1

    def on_end(self, event: Any) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.timer.cancel()


event.register("numba:compile", _Announcement())  # type: ignore[no-untyped-call]

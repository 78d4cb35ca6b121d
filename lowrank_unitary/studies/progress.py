"""How far a long measurement is: told by the measurement, heard by whoever runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_listener: Callable[[float], None] | None = None


def tell(fraction: float) -> None:
    """Say which fraction of a measurement is done, from within it.

    Parameters
    ----------
    fraction : float
        From 0 to 1, in proportion to the time that it takes. The first call says where the measurement
        begins: at 0, or at what an earlier run has done. Calls cost little: one for each step of some
        milliseconds is fine.

    Notes
    -----
    Nothing happens outside of a run of studies.
    """
    if _listener is not None:
        _listener(min(max(float(fraction), 0.0), 1.0))


@contextlib.contextmanager
def heard_by(listener: Callable[[float], None]) -> Iterator[None]:
    """Hand what is told in the meantime to `listener`."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before

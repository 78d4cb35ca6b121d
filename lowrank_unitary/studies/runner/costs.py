"""How long studies take."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence

from ..study import Case, Study

# In seconds; longer times are given in hours.
_MINUTE, _HOUR, _MINUTES_UP_TO = 60, 3600, 5400


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def estimate(cases: Iterable[tuple[Study, Case]], jobs: int | None = None) -> float:
    """Rough seconds that cases take on a number of processes, by default one for each CPU."""
    cases = list(cases)
    alone = [study.cost(case) for study, case in cases if study.alone]
    others = [study.cost(case) for study, case in cases if not study.alone]
    # No case is divided.
    return math.fsum(alone) + max([math.fsum(others) / (jobs or cpus()), *others])


def total_cost(studies: Sequence[Study], full: bool) -> float:
    """Rough seconds on one core."""
    return math.fsum(study.cost(case) for study in studies for case in study.cases(full))


def duration(seconds: float) -> str:
    """A rough time in words."""
    if seconds < _MINUTE:
        return "less than a minute"
    if seconds < _MINUTES_UP_TO:
        minutes = round(seconds / _MINUTE)
        return f"about {minutes} minutes" if minutes > 1 else "about a minute"
    return f"about {seconds / _HOUR:.1f} hours"


def processes(count: int) -> str:
    """A number of processes in words."""
    return "one process" if count == 1 else f"{count} processes"

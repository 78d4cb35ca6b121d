"""The parts of a study: units of work, a measurement, a figure and a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value: TypeAlias = "str | int | float | bool"
Case: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """One study.

    `name` is that on the command line, `title` one line, `text` paragraphs: the question, the measurement,
    how to read the figure. ``cases(full)`` lists the units of work, flat dictionaries of plain values;
    ``cost(case)`` is roughly the seconds on one core. ``measure(case, seed, scratch)`` gives the rows of a
    case, a pure function of case and seed; a long measurement saves its state in the path and continues from
    it. ``figure(rows)`` and ``table(rows)``, a header and lines of key numbers, show the rows.

    Cases of a study that is `alone` are timed: they are measured one at a time, in one process, whatever the
    number of processes. ``so_far(scratch)`` gives the rows that an interrupted case has measured, from the
    state in its path, and none where there is nothing. They are shown, with ``unfinished`` set in each, and
    never kept. Worker processes are ended at any moment: a state is written aside, and renamed.
    """

    name: str
    title: str
    text: str
    cases: Callable[[bool], list[Case]]
    cost: Callable[[Case], float]
    measure: Callable[[Case, np.random.SeedSequence, Path], list[Row]]
    figure: Callable[[list[Row]], Figure]
    table: Callable[[list[Row]], tuple[list[str], list[list[str]]]]
    alone: bool = False
    so_far: Callable[[Path], list[Row]] | None = None

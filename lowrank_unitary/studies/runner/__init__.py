"""Run studies: every case once, on all cores, into one CSV file a study; runs can be continued."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..study import Case, Row, Study
from .costs import cpus, duration, estimate, processes, total_cost
from .results import Results, UnreadableResults, case_number, case_seed, state_path, text, value
from .workers import Task, WorkerDied, in_parallel, in_turn

__all__ = [
    "Outcome",
    "Results",
    "UnreadableResults",
    "WorkerDied",
    "case_number",
    "case_seed",
    "cpus",
    "duration",
    "estimate",
    "processes",
    "run_studies",
    "text",
    "total_cost",
    "unmeasured",
    "value",
]

Watch = Callable[[Study, Case], None]
Hear = Callable[[Study, Case, float], None]


@dataclass
class Outcome:
    """The outcome of a run of studies."""

    failures: list[tuple[Study, Case, str]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether every case was measured."""
        return not self.failures and not self.interrupted


class _Unit(NamedTuple):
    study: Study
    results: Results
    case: Case


def run_studies(
    studies: Sequence[Study],
    output: Path,
    *,
    full: bool = False,
    seed: int = 0,
    jobs: int | None = None,
    watch: Watch | None = None,
    hear: Hear | None = None,
) -> Outcome:
    """Measure all cases that have not been measured, into one CSV file a study in the folder `output`.

    A seed gives the same rows in any order and on any number of processes. `full` selects the long list of
    cases, `jobs` the number of processes, by default one for each CPU that this process may use; cases of
    studies that are `alone` come first, one at a time in this process.
    ``watch(study, case)`` is called for every finished case, those of earlier runs first, and
    ``hear(study, case, fraction)`` for a case under way whenever it has told how far it is. Raises WorkerDied
    where a worker process ended by itself, for want of memory for example, UnreadableResults where a file of
    the folder is no table of results, and OSError where one cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    units = []
    for study in studies:
        results = Results(study, output, seed)
        for case in study.cases(full):
            if case not in results:
                units.append(_Unit(study, results, case))
            elif watch:
                watch(study, case)
    # Longest first, for an even load.
    units.sort(key=lambda unit: -unit.study.cost(unit.case))
    try:
        # Closed at once, whatever ends the loop: its worker processes end with it.
        with contextlib.closing(_measured(units, output, seed, jobs or cpus(), hear)) as measured:
            for (study, results, case), rows in measured:
                if isinstance(rows, BaseException):
                    outcome.failures.append((study, case, f"{type(rows).__name__}: {rows}"))
                    continue
                results.add(case, rows)
                shutil.rmtree(state_path(output, study, case, seed).parent, ignore_errors=True)
                if watch:
                    watch(study, case)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        for study in studies:
            _remove_empty(output, study)
    return outcome


def _measured(
    units: Sequence[_Unit], output: Path, seed: int, jobs: int, hear: Hear | None
) -> Generator[tuple[_Unit, list[Row] | BaseException], None, None]:
    alone = [unit for unit in units if unit.study.alone]
    others = [unit for unit in units if not unit.study.alone]
    # Before any worker process is there, which could disturb a time.
    for group, most in ((alone, 1), (others, jobs)):
        tasks = [
            Task(study.measure, case, case_seed(case, seed), state_path(output, study, case, seed))
            for study, _, case in group
        ]

        def told(index: int, fraction: float, group: Sequence[_Unit] = group) -> None:
            if hear:
                hear(group[index].study, group[index].case, fraction)

        workers = min(most, len(tasks))
        running = in_turn(tasks, told) if workers <= 1 else in_parallel(tasks, told, workers)
        with contextlib.closing(running):
            for index, rows in running:
                yield group[index], rows


def _remove_empty(output: Path, study: Study) -> None:
    folder = output / f".{study.name}-state"
    # Empty ones; rmdir refuses the others.
    for empty in (*folder.glob("*"), folder):
        with contextlib.suppress(OSError):
            empty.rmdir()


def unmeasured(studies: Sequence[Study], output: Path, full: bool, seed: int) -> list[tuple[Study, Case]]:
    """The cases that a run into the folder would measure."""
    found: list[tuple[Study, Case]] = []
    for study in studies:
        results = Results(study, output, seed)
        found += [(study, case) for case in study.cases(full) if case not in results]
    return found

"""Run studies: every case once, on all cores, into one CSV file a study; runs can be continued."""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import multiprocessing
import os
import shutil
import signal
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from .. import __version__
from .study import Case, Row, Study

# The origin of a row; rows of other origins are measured again.
_ORIGIN = ("seed", "lowrank_unitary", "numpy")
# How many rows its case has: with fewer in the file, which was cut, the case is measured anew.
_COUNT = "rows"

Watch = Callable[[Study, Case], None]


class UnreadableResults(RuntimeError):
    """A file in the place of results that is none."""


class WorkerDied(RuntimeError):
    """A worker process ended by itself; finished cases are in the files."""


@dataclass
class Outcome:
    """The outcome of a run of studies."""

    failures: list[tuple[Study, Case, str]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether every case was measured."""
        return not self.failures and not self.interrupted


class Results:
    """The CSV file of a study: one line a row, rewritten whenever a case is finished."""

    def __init__(self, study: Study, output: Path, seed: int | None) -> None:
        self.study, self.path = study, output / f"{study.name}.csv"
        self._seed = seed
        every = [*study.cases(False), *study.cases(True)]
        self._columns = list(dict.fromkeys(itertools.chain.from_iterable(every)))
        self._order = {self._key(case): None for case in every}
        self._lists = {name: {*map(self._key, study.cases(name == "full"))} for name in ("full", "default")}
        self._rows: dict[tuple[str, ...], list[Row]] = {}
        self._read()

    def __contains__(self, case: Case) -> bool:
        """Whether a case was measured, with the same seed and versions."""
        return self._key(case) in self._rows

    def _read(self) -> None:
        """Add the new cases of the file."""
        if not self.path.exists():
            return
        found: dict[tuple[str, ...], list[Row]] = {}
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    if all(line.get(name) == text for name, text in self._origin().items()):
                        row = {name: value(text) for name, text in line.items() if name and text}
                        found.setdefault(self._key(row), []).append(row)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UnreadableResults(f"{self.path} is no table of results ({error}): move it away.") from error
        whole = {
            key: rows for key, rows in found.items() if all(row.get(_COUNT) == len(rows) for row in rows)
        }
        self._rows = whole | self._rows

    def add(self, case: Case, rows: list[Row]) -> None:
        """Keep the rows of a finished case, and write the file."""
        # Another run into the same folder may have added some.
        self._read()
        count = {_COUNT: len(rows)}
        self._rows[self._key(case)] = [{**case, **row, **count, **self._origin()} for row in rows]
        lines = self.rows()
        last = [name for name in (_COUNT, *_ORIGIN) if any(name in line for line in lines)]
        names = [name for name in dict.fromkeys(itertools.chain.from_iterable(lines)) if name not in last]
        temporary = self.path.with_suffix(f".csv.{os.getpid()}.part")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*names, *last], lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: text(cell) for name, cell in line.items()} for line in lines)
        os.replace(temporary, self.path)

    def rows(self) -> list[Row]:
        """All rows, in the order of the cases."""
        known = [key for key in self._order if key in self._rows]
        others = sorted(key for key in self._rows if key not in self._order)
        return [row for key in (*known, *others) for row in self._rows[key]]

    def extent(self) -> str:
        """The number of cases, and which list they are from."""
        for name, keys in self._lists.items():
            if keys <= self._rows.keys():
                return f"{len(self._rows)} cases ({name} list)"
        missing = len(self._lists["default"] - self._rows.keys())
        return f"{len(self._rows)} cases (incomplete: {missing} of the default list are missing)"

    def _key(self, row: Row) -> tuple[str, ...]:
        return tuple(text(row[name]) if name in row else "" for name in self._columns)

    def _origin(self) -> dict[str, str]:
        origin = dict(zip(_ORIGIN, (str(self._seed), __version__, np.__version__), strict=True))
        # A file holds rows of one seed; readers accept any.
        return origin if self._seed is not None else {name: origin[name] for name in _ORIGIN[1:]}


def text(cell: Any) -> str:
    """A cell of the CSV file; numbers keep all of their digits."""
    return repr(float(cell)) if isinstance(cell, float) else str(cell)


def value(cell: str) -> str | int | float | bool:
    """The value of a cell of the CSV file."""
    if cell in ("True", "False"):
        return cell == "True"
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def case_number(case: Case) -> int:
    """A number from the contents of a case alone."""
    return zlib.crc32(";".join(f"{key}={text(case[key])}" for key in sorted(case)).encode())


def case_seed(case: Case, seed: int) -> np.random.SeedSequence:
    """The seed of a case, whatever else is measured."""
    return np.random.SeedSequence([seed, case_number(case)])


def run_studies(
    studies: Sequence[Study],
    output: Path,
    *,
    full: bool = False,
    seed: int = 0,
    jobs: int | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Measure all cases that have not been measured, into one CSV file a study in the folder `output`.

    A seed gives the same rows in any order and on any number of processes. `full` selects the long list of
    cases, `jobs` the number of processes, by default one for each CPU that this process may use.
    ``watch(study, case)`` is called for every finished case, those of earlier runs first. Raises WorkerDied
    where a worker process ended by itself, for want of memory for example, UnreadableResults where a file of
    the folder is no table of results, and OSError where one cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    tasks = []
    for study in studies:
        results = Results(study, output, seed)
        for case in study.cases(full):
            if case not in results:
                tasks.append((study, results, case))
            elif watch:
                watch(study, case)
    # Longest first, for an even load.
    tasks.sort(key=lambda task: -task[0].cost(task[2]))
    workers = min(jobs or _cpus(), len(tasks))
    measured = _in_turn(tasks, output, seed) if workers <= 1 else _in_parallel(tasks, output, seed, workers)
    try:
        # Closed at once, whatever ends the loop: its worker processes end with it.
        with contextlib.closing(measured):
            for index, rows in measured:
                study, results, case = tasks[index]
                if isinstance(rows, BaseException):
                    outcome.failures.append((study, case, f"{type(rows).__name__}: {rows}"))
                    continue
                results.add(case, rows)
                shutil.rmtree(_scratch(output, study, case, seed).parent, ignore_errors=True)
                if watch:
                    watch(study, case)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        for study in studies:
            _remove_empty(output, study)
    return outcome


def _in_turn(tasks: list[Any], output: Path, seed: int) -> Generator[tuple[int, Any], None, None]:
    with threadpool_limits(1):
        for index, (study, _, case) in enumerate(tasks):
            try:
                yield index, _measure(study.measure, case, seed, _scratch(output, study, case, seed))
            except Exception as error:  # reported with the case, the others go on
                yield index, error


def _in_parallel(
    tasks: list[Any], output: Path, seed: int, workers: int
) -> Generator[tuple[int, Any], None, None]:
    # Not forked: threads of BLAS and of the kernels do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
    futures: dict[Future[list[Row]], int] = {}
    try:
        with _interrupts_held():
            for index, (study, _, case) in enumerate(tasks):
                scratch = _scratch(output, study, case, seed)
                futures[pool.submit(_measure, study.measure, case, seed, scratch)] = index
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                raise WorkerDied(
                    "a worker process ended by itself, probably for want of memory: what was finished is "
                    "kept, run the same command again with fewer --jobs."
                ) from error
            yield futures[future], error or future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start processes with interrupts blocked until they ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # New processes inherit the mask; here a pending interrupt is raised at the end.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _one_thread() -> None:
    # A keyboard interrupt reaches all processes. Only the first one acts on it: a worker that ends by it
    # could be mistaken for one without memory.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)


def _measure(
    measure: Callable[[Case, np.random.SeedSequence, Path], list[Row]], case: Case, seed: int, scratch: Path
) -> list[Row]:
    scratch.parent.mkdir(parents=True, exist_ok=True)
    return measure(case, case_seed(case, seed), scratch)


def _scratch(output: Path, study: Study, case: Case, seed: int) -> Path:
    """The folder for the state of a long case, named after all that it depends on."""
    name = f"{__version__}-{seed}-{case_number(case):08x}"
    return output / f".{study.name}-state" / name / "state"


def _remove_empty(output: Path, study: Study) -> None:
    folder = output / f".{study.name}-state"
    # Empty ones; rmdir refuses the others.
    for empty in (*folder.glob("*"), folder):
        with contextlib.suppress(OSError):
            empty.rmdir()


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_cost(studies: Sequence[Study], full: bool) -> float:
    """Rough seconds on one core."""
    return math.fsum(study.cost(case) for study in studies for case in study.cases(full))

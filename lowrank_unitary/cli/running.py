"""Run studies in a terminal: a bar while they are measured, then their tables, figures and page."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..studies import report, runner
from ..studies.study import Case, Study
from .arguments import INTERRUPTED

_FILE_WIDTH = 140


class Pace:
    """What is done of a run, in rough seconds, and how long the rest takes at the pace of this run."""

    def __init__(self, total: float) -> None:
        self._total, self._finished = total, 0.0
        # Of cases under way: how much is done, and how much of it an earlier run has done.
        self._parts: dict[tuple[str, int], tuple[float, float]] = {}
        self._gained, self._began, self._last = 0.0, time.monotonic(), time.monotonic()

    @property
    def done(self) -> float:
        """Rough seconds of finished cases and of the parts of others."""
        return self._finished + sum(part for part, _ in self._parts.values())

    def hear(self, key: tuple[str, int], part: float) -> None:
        """A case has told that a part of it is done; the first time, what an earlier run has done."""
        _, start = self._parts.get(key, (part, part))
        self._parts[key] = part, start
        self._last = time.monotonic()

    def finish(self, key: tuple[str, int], cost: float, earlier: bool) -> None:
        """A case is done, or was done by an earlier run."""
        _, start = self._parts.pop(key, (0.0, 0.0))
        self._finished += cost
        self._gained += 0.0 if earlier else cost - start
        self._last = time.monotonic()

    def left(self) -> float | None:
        """The seconds that are left, None before anything was done."""
        gained = self._gained + sum(part - start for part, start in list(self._parts.values()))
        if gained <= 0:
            return None
        pace = (self._last - self._began) / gained
        return max(0.0, pace * (self._total - self.done) - (time.monotonic() - self._last))


class _Left(ProgressColumn):
    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        left = self._pace.left()
        shown = "-:--:--" if left is None else str(timedelta(seconds=round(left)))
        return Text(shown, style="progress.remaining")


def run(
    command: str,
    studies: Sequence[Study],
    output: Path,
    *,
    full: bool,
    seed: int,
    jobs: int | None,
    of_page: Sequence[Study],
    page: report.Page,
) -> int:
    """Measure studies and show them; return the exit status.

    `of_page` are the studies that the page may show: what other runs left in the folder, too.
    """
    # In a file or a pipe the tables may be wider than 80 columns.
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    died: Exception | None = None
    try:
        with _ended_in_order():
            outcome = _measure(studies, output, console, full=full, seed=seed, jobs=jobs)
    except (runner.WorkerDied, runner.UnreadableResults, OSError) as error:
        outcome, died = runner.Outcome(), error
    try:
        for study in studies:
            _show(runner.Results(study, output, seed), output, console)
        path = report.write_report(of_page, output, page)
        console.print(f"Report: {path}", highlight=False, soft_wrap=True)
    except (runner.UnreadableResults, OSError) as error:
        died = died or error
    for study, case, message in outcome.failures:
        print(f"{study.name} {case} failed: {message}", file=sys.stderr)
    if outcome.interrupted:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    if died:
        print(f"lowrank-unitary {command}: {died}", file=sys.stderr)
    return 1 if outcome.failures or died else 0


def writable(command: str, output: Path) -> bool:
    """Make the folder; say where nothing can be written to it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        print(f"lowrank-unitary {command} cannot write to the folder {output}: {error}", file=sys.stderr)
        return False
    return True


def _measure(
    studies: Sequence[Study], output: Path, console: Console, *, full: bool, seed: int, jobs: int | None
) -> runner.Outcome:
    every = [(study, case) for study in studies for case in study.cases(full)]
    unmeasured = runner.unmeasured(studies, output, full, seed)
    new = {_key(*pair) for pair in unmeasured}
    processes = jobs or runner.cpus()
    if full and new:
        expected = runner.duration(runner.estimate(unmeasured, processes))
        console.print(
            f"{len(new)} cases are to be measured, {expected} on {runner.processes(processes)}. After an "
            "interrupt the same command goes on.",
            highlight=False,
            soft_wrap=True,
        )

    def cost(study: Study, case: Case) -> float:
        # In time: cases of other studies share the processes.
        return study.cost(case) / (1 if study.alone else processes)

    total, count = sum(cost(*pair) for pair in every), 0
    pace = Pace(total)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[cases]} cases"),
        TimeElapsedColumn(),
        TextColumn("left"),
        _Left(pace),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        bar = progress.add_task("", total=total, cases=f"0/{len(every)}")

        def watch(study: Study, case: Case) -> None:
            nonlocal count
            count += 1
            pace.finish(_key(study, case), cost(study, case), _key(study, case) not in new)
            shown = f"{count}/{len(every)}"
            progress.update(bar, completed=pace.done, description=study.name, cases=shown)

        def hear(study: Study, case: Case, fraction: float) -> None:
            pace.hear(_key(study, case), fraction * cost(study, case))
            progress.update(bar, completed=pace.done, description=study.name)

        return runner.run_studies(studies, output, full=full, seed=seed, jobs=jobs, watch=watch, hear=hear)


def _key(study: Study, case: Case) -> tuple[str, int]:
    return study.name, runner.case_number(case)


def _show(results: runner.Results, output: Path, console: Console) -> None:
    study, rows = results.study, results.rows_so_far()
    if not rows:
        return
    header, lines = study.table(rows)
    console.print(f"\n{study.title}", style="bold", markup=False, highlight=False)
    table = Table(*header, box=box.SIMPLE, padding=(0, 1))
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)
    if sentence := report.unfinished(results):
        console.print(sentence, markup=False, highlight=False)
    report.write_figure(study, rows, output)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM raise, as an interrupt does, so that worker processes are ended first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""The CSV file of a study, and what cases under way have left beside it."""

from __future__ import annotations

import csv
import itertools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ..study import Case, Row, Study

# The origin of a row; rows of other origins are measured again.
_ORIGIN = ("seed", "lowrank_unitary", "numpy")
# How many rows its case has: with fewer in the file, which was cut, the case is measured anew.
_COUNT = "rows"
# In rows of a case under way, which no file has.
_UNFINISHED = "unfinished"

Key = tuple[str, ...]


class UnreadableResults(RuntimeError):
    """A file in the place of results that is none."""


class Results:
    """The CSV file of a study: one line a row, rewritten whenever a case is finished."""

    def __init__(self, study: Study, output: Path, seed: int | None) -> None:
        self.study, self.path = study, output / f"{study.name}.csv"
        self._output, self._seed = output, seed
        every = [*study.cases(False), *study.cases(True)]
        self._columns = list(dict.fromkeys(itertools.chain.from_iterable(every)))
        self._cases = {self._key(case): case for case in every}
        self._lists = {name: {*map(self._key, study.cases(name == "full"))} for name in ("full", "default")}
        self._rows: dict[Key, list[Row]] = {}
        self._read()

    def __contains__(self, case: Case) -> bool:
        """Whether a case was measured, with the same seed and versions."""
        return self._key(case) in self._rows

    def _read(self) -> None:
        """Add the new cases of the file."""
        if not self.path.exists():
            return
        found: dict[Key, list[Row]] = {}
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
        """The rows of all finished cases, in the order of the cases."""
        return self._in_order(self._rows)

    def rows_so_far(self) -> list[Row]:
        """Those of :meth:`rows`, and with them what cases under way have measured, marked `unfinished`."""
        under_way = {self._key(case): rows for case, rows in self.unfinished() if rows}
        return self._in_order(self._rows | under_way)

    def unfinished(self) -> list[tuple[Case, list[Row]]]:
        """The cases that were begun and are in no file, with the rows that they have so far."""
        found = []
        for case, seed, scratch in self._states():
            try:
                rows = self.study.so_far(scratch) if self.study.so_far else []
            except Exception:  # a state that was cut while it was written: the case begins anew
                rows = []
            origin = self._origin() | {"seed": str(seed)}
            lines = [{**case, **row, _UNFINISHED: True, **origin} for row in rows]
            # With the types that a file would give them.
            found.append((case, [{name: value(text(line[name])) for name in line} for line in lines]))
        return found

    def changed(self) -> int:
        """When the file or a state was last written, in nanoseconds."""
        states = itertools.chain.from_iterable(path.parent.rglob("*") for _, _, path in self._states())
        return max((path.stat().st_mtime_ns for path in (self.path, *states) if path.exists()), default=0)

    def extent(self) -> str:
        """The number of cases, and which list they are from."""
        for name, keys in self._lists.items():
            if keys <= self._rows.keys():
                return f"{len(self._rows)} cases ({name} list)"
        missing = len(self._lists["default"] - self._rows.keys())
        return f"{len(self._rows)} cases (incomplete: {missing} of the default list are missing)"

    def _in_order(self, rows: dict[Key, list[Row]]) -> list[Row]:
        known = [key for key in self._cases if key in rows]
        others = sorted(key for key in rows if key not in self._cases)
        return [row for key in (*known, *others) for row in rows[key]]

    def _states(self) -> Iterator[tuple[Case, int, Path]]:
        """Cases under way, with seed and path of their state."""
        folders = [path for path in _states(self._output, self.study).glob("*") if any(path.glob("*"))]
        seeds: dict[str, int] = {}
        # The newest one last, which is taken where any seed will do.
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime_ns):
            made_by, seed, number = folder.name.rsplit("-", 2)
            if made_by == __version__ and seed in self._seeds(seed):
                seeds[number] = int(seed)
        for key, case in self._cases.items():
            number = f"{case_number(case):08x}"
            if key not in self._rows and number in seeds:
                yield case, seeds[number], state_path(self._output, self.study, case, seeds[number])

    def _seeds(self, any_seed: str) -> set[str]:
        """The seeds that a row may have: a file holds rows of one, to which a reader adds none of others."""
        if self._seed is not None:
            return {str(self._seed)}
        return {str(row["seed"]) for rows in self._rows.values() for row in rows} or {any_seed}

    def _key(self, row: Row) -> Key:
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


def state_path(output: Path, study: Study, case: Case, seed: int) -> Path:
    """The path for the state of a long case, in a folder named after all that it depends on."""
    return _states(output, study) / f"{__version__}-{seed}-{case_number(case):08x}" / "state"


def _states(output: Path, study: Study) -> Path:
    return output / f".{study.name}-state"

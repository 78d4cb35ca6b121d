"""The journal of a matrix in a file while its rows are rewritten."""

from __future__ import annotations

import contextlib
import os
import zipfile
from typing import Any, NamedTuple

import numpy as np

from .._array import Array


class Journal(NamedTuple):
    """What it takes to go on from a panel of rows that may be written in part, in one file.

    It is replaced as a whole, once all of the panel before is on the disk.
    """

    left: Array
    right: Array
    # Those that take the place of the rows from `start` on.
    rows: Array
    start: Any
    # Of the matrix in its file, in bytes.
    offset: Any

    def write(self, path: Any) -> None:
        """Write it beside the file of the matrix, and wait for the disk."""
        with open(journal_of(path) + ".new", "wb") as file:
            np.savez(file, **self._asdict())
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, journal_of(path))
        _to_disk(os.path.dirname(journal_of(path)))

    def put(self, unitary: Array) -> None:
        """Write the rows to the file of the matrix, and wait for the disk."""
        unitary[self.start : self.start + len(self.rows)] = self.rows
        unitary.flush()

    @staticmethod
    def remove(path: Any) -> None:
        """Remove it: the matrix is whole."""
        os.remove(journal_of(path))
        _to_disk(os.path.dirname(journal_of(path)))

    @classmethod
    def read(cls, path: str) -> Journal:
        """That beside the file of a matrix, or an error."""
        name = journal_of(path)
        if not os.path.exists(name):
            raise FileNotFoundError(
                f"path must be that of a matrix whose step was interrupted, but there is no {name}: "
                f"nothing is to be resumed."
            )
        try:
            # numpy compares check sums.
            with open(name, "rb") as file, np.load(file) as parts:
                return cls(**parts)
        except (zipfile.BadZipFile, ValueError, EOFError, TypeError) as error:
            raise ValueError(
                f"path must have a journal that can be read, but {name} is damaged ({error}): rows from some "
                f"one on have not been moved. Restore the matrix from a copy and delete its journal."
            ) from error


def journal_of(path: Any) -> str:
    """The name of the journal beside the file of a matrix."""
    return os.path.realpath(path) + ".journal"


def _to_disk(folder: str) -> None:
    """Make changes of names in a folder outlast a failure of power, where the system has a way to."""
    # Windows opens no folders.
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""Arguments of the commands, and the packages that they need."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

INTERRUPTED = 130
# Modules that commands import beyond the library's dependencies, and their distributions.
PACKAGES = {"rich": "rich", "matplotlib": "matplotlib", "threadpoolctl": "threadpoolctl"}
FIGURE_KINDS = (".png", ".pdf", ".svg")


def folder(text: str) -> Path:
    """A folder, which may be missing."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, got {text!r}, which is a file")
    return path


def whole_number(least: int) -> Callable[[str], int]:
    """What reads a whole number that is not below the least one."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, got {text!r}")
        return value

    return parse


def figure_file(text: str) -> Path:
    """A picture in a folder that is there."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, got {text!r}, which is a folder")
    if path.suffix.lower() not in FIGURE_KINDS:
        kinds = ", ".join(FIGURE_KINDS)
        raise argparse.ArgumentTypeError(f"must end in one of {kinds}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"must be in an existing folder, got {text!r}: create the folder first"
        )
    return path


def lacks(command: str, packages: dict[str, str], extra: str = "demo", more: Sequence[str] = ()) -> bool:
    """Say what is to be installed, if any of the modules is missing: an extra, and what it does not have."""
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        needed = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        install = " ".join([f'pip install "lowrank-unitary[{extra}]"', *more])
        print(f"lowrank-unitary {command} needs {needed}: {install}", file=sys.stderr)
    return bool(missing)

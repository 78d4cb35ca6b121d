"""The console script ``lowrank-unitary``: arguments go in, one command runs, its exit status comes out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from . import compile, demo, info, studies
from .arguments import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit status.

    0; 1 where something needed is missing; 130 where the user interrupted. SystemExit with 2 for an invalid
    command line, with 0 after ``--help`` and ``--version``.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lowrank-unitary", description="Move n×n unitary matrices by low-rank steps."
    )
    parser.add_argument("--version", action="version", version=f"lowrank-unitary {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo.add(commands)
    studies.add(commands)
    compile.add(commands)
    info.add(commands)
    return parser

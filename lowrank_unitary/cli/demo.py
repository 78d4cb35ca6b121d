"""The command ``demo``: a recurrent network learns handwritten digits in six ways."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from .arguments import INTERRUPTED, PACKAGES, figure_file, lacks, whole_number

_PACKAGES = {"sklearn": "scikit-learn", **PACKAGES}
# Where one would choose low-rank steps: a matrix that is large beside what is read with it.
_HIDDEN, _PIXELS, _STEPS = 512, 8, 240
# `--quick` takes these unless other values are given.
_QUICK_STEPS = 20
# The largest rank of the comparison.
_SMALLEST_HIDDEN = 4


def add(commands: Any) -> None:
    """Add the command."""
    demo = commands.add_parser(
        "demo",
        help="train a recurrent network on handwritten digits in six ways, side by side",
        description="Train a recurrent network with an orthogonal recurrent matrix on handwritten digits, "
        "moving that matrix in six ways; print a table, write a figure and a CSV file of the curves.",
        epilog="BLAS runs on one thread: the pools of numpy and scipy would compete in the dense geodesic.",
    )
    demo.add_argument("--quick", action="store_true", help=f"{_QUICK_STEPS} steps unless --steps is given")
    demo.add_argument("--seed", type=whole_number(0), default=0, help="of all random numbers (default 0)")
    demo.add_argument(
        "--hidden",
        type=whole_number(_SMALLEST_HIDDEN),
        default=_HIDDEN,
        metavar="N",
        help=f"size of the recurrent matrix (default {_HIDDEN})",
    )
    demo.add_argument(
        "--pixels",
        type=int,
        choices=[1 << i for i in range(7)],
        default=_PIXELS,
        help=f"of the 64 pixels of an image so many are read at a time (default {_PIXELS}, a row)",
    )
    demo.add_argument("--steps", type=whole_number(1), metavar="N", help=f"training steps (default {_STEPS})")
    demo.add_argument(
        "--output",
        type=figure_file,
        default=Path("digits_demo.png"),
        metavar="FILE",
        help="the figure (.png, .pdf or .svg; default digits_demo.png); curves next to it as .csv",
    )
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    if lacks("demo", _PACKAGES):
        return 1
    # Imported here: the library and the other commands work without these packages.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from threadpoolctl import threadpool_limits

    from ..demo import digits
    from ..demo import report as digits_report

    curves = options.output.with_suffix(".csv")
    try:
        # Before minutes of training, not after.
        with tempfile.TemporaryFile(dir=options.output.parent):
            pass
        for file in filter(Path.exists, (options.output, curves)):
            file.open("r+b").close()
    except OSError as error:
        print(f"lowrank-unitary demo cannot write its results: {error}", file=sys.stderr)
        return 1
    steps = options.steps or (_QUICK_STEPS if options.quick else _STEPS)
    settings = digits.Settings(hidden=options.hidden, pixels=options.pixels, steps=steps, seed=options.seed)
    console = Console()
    data = digits.load_digits()
    console.print(
        f"{len(data.train_labels)} handwritten digits to learn from, {len(data.test_labels)} to be "
        f"tested on, {settings.pixels} of their {data.train_sequences.shape[1]} pixels at a time; "
        f"n = {settings.hidden}, {steps} steps of {settings.batch_size} images for each method, "
        f"seed {settings.seed}.",
        highlight=False,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # With two of them the dense geodesic takes twice as long at n = 512.
    limit = threadpool_limits(1, user_api="blas")
    with limit, Progress(*columns, console=console, refresh_per_second=4) as progress:
        bar = progress.add_task("", total=steps * len(digits.METHODS))

        def watch(run: digits.Run) -> None:
            progress.update(bar, advance=1, description=f"{run.method}: loss {run.steps[-1].loss:.3f}")

        runs, complete = digits.compare(data, settings, watch)
    if not complete:
        console.print("Interrupted; the results so far:")
    if not any(run.evaluations for run in runs):
        console.print("none yet, and no file was written.")
        return INTERRUPTED
    console.print(digits_report.table(runs))
    figure, failed = digits_report.figure(runs, settings), None
    for folder in (options.output.parent, Path(tempfile.gettempdir())):
        # A disk may have filled up meanwhile: then into the folder of temporary files.
        output = folder / options.output.name
        try:
            digits_report.write_curves(runs, output.with_suffix(".csv"))
            figure.savefig(output, dpi=150)
        except OSError as error:
            failed = error
            print(f"lowrank-unitary demo cannot write {output}: {error}", file=sys.stderr)
            continue
        console.print(
            f"Figure: {output}\nCurves: {output.with_suffix('.csv')}", highlight=False, soft_wrap=True
        )
        break
    if failed:
        return 1
    return 0 if complete else INTERRUPTED

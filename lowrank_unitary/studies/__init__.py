"""The studies behind the console script."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .study import Study

# Names on the command line, and their help. These need numpy alone.
_ACCURACY = {
    "one-step": "error and defect of one step against its norm",
    "drift": "defect against the number of steps, with and without healing",
    "inherited-defect": "what steps make of a defect that is there",
    "near-singular": "polar steps close to a singular matrix",
    "sketch": "what samplers capture, and what they do to the update",
    "descent": "gap against steps: project first or compress first",
}
# These train networks with torch, for minutes, and are no part of "all".
NETWORKS = {
    "depth": "100 convolutions without shortcuts, orthogonal and not",
}
STUDIES = _ACCURACY | NETWORKS
# These run the experiments of the projUNN paper, by a command of their own.
EXPERIMENTS = {
    "permuted-mnist": "real digits read pixel by pixel in a fixed random order",
    "adding": "two marked numbers of a long sequence, added",
    "copying": "ten symbols said again after a long silence",
    "random-unitary": "a random unitary matrix found from pairs of vectors",
    "runtime": "time of a step against n, next to dense methods and the published form",
    "sequence-length": "gradients through hundreds of steps, unitary and not",
}


def load_study(name: str) -> Study:
    """The study of a name of :data:`STUDIES` or :data:`EXPERIMENTS`, whose module is imported here."""
    room = "paper" if name in EXPERIMENTS else "networks" if name in NETWORKS else "accuracy"
    study: Study = import_module(f".{room}.{name.replace('-', '_')}", __name__).STUDY
    return study

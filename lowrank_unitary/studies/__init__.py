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


def load_study(name: str) -> Study:
    """The study of a name of :data:`STUDIES`, whose module is imported here."""
    room = "networks" if name in NETWORKS else "accuracy"
    study: Study = import_module(f".{room}.{name.replace('-', '_')}", __name__).STUDY
    return study

"""Methods, costs and unfinished records of training runs; without importing torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ...study import Case, Row

LOW_RANK = tuple((name, rank) for name in ("transport", "polar") for rank in (1, 4, 16))
DENSE = (("dense", 0), ("Cayley map", 0), ("exponential map", 0))
OTHERS = (("unconstrained", 0), ("LSTM", 0))


def every_method() -> tuple[tuple[str, int], ...]:
    """All pairs of a method and a rank, 0 where it has none."""
    peers = (("geoopt", 0),) if find_spec("geoopt") else ()
    return (*LOW_RANK, *DENSE, *peers, *OTHERS)


def label(row: Row) -> str:
    """A method and its rank, as in figures and tables."""
    name = str({"transport": "T", "polar": "D"}.get(row["method"], row["method"]))
    return name + (f", k = {row['rank']}" if row["rank"] else "")


def seconds(case: Case, *, batch: int, length: int) -> float:
    """Of a run on one core, roughly: products at 22 GF/s, calls, and a dense function of W."""
    n, gates = int(case["hidden"]), 4 if case["method"] == "LSTM" else 1
    products = 6 * gates * batch * length * n**2 / 2.2e10
    dense = 6e-10 * n**3 if case["method"] in ("dense", "exponential map") else 0.0
    return int(case["steps"]) * (products + 1.2e-4 * length + dense)


def so_far(scratch: Path) -> list[Row]:
    """The records of an interrupted run."""
    if not scratch.exists():
        return []
    import torch

    rows: list[Row] = torch.load(scratch, weights_only=False)["rows"]
    return rows

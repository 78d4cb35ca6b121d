"""A study that takes no time, in a module of its own: worker processes import it."""

import os
from pathlib import Path

import numpy as np

from lowrank_unitary.studies.study import Study


def cases(full):
    sizes = (1, 2, 3, 4) if full else (1, 2)
    return [{"n": n, "scale": scale, "kind": "plain"} for n in sizes for scale in (0.1, 1e-300)]


def cost(case):
    return float(case["n"])


def measure(case, seed, scratch: Path):
    # What a case was measured for is noted beside the output folder.
    log = os.environ.get("FAKE_STUDY_LOG")
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{case['n']} {case['scale']}\n")
    if os.environ.get("FAKE_STUDY_FAILS") == str(case["n"]):
        raise ValueError("no number came of it")
    if os.environ.get("FAKE_STUDY_INTERRUPTS") == str(case["n"]):
        raise KeyboardInterrupt
    scratch.write_text("state")
    draw = float(np.random.default_rng(seed).standard_normal())
    return [
        {"step": i, "value": draw * case["scale"] + i, "flag": i > 0, "missing": np.nan} for i in range(2)
    ]


def figure(rows):
    from matplotlib.figure import Figure

    result = Figure()
    axes = result.subplots()
    axes.plot([row["step"] for row in rows], [row["value"] for row in rows])
    return result


def table(rows):
    return ["n <&>", "value"], [[str(row["n"]), f"{row['value']:.2g}"] for row in rows]


STUDY = Study(
    name="fake",
    title="A title with <angles> & ampersands",
    text="First paragraph.\n\nSecond <b>paragraph</b>.",
    cases=cases,
    cost=cost,
    measure=measure,
    figure=figure,
    table=table,
)

"""Studies that take no time, in a module of their own: worker processes import it."""

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np

from lowrank_unitary.studies.progress import tell
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

STEPS = 4


def measure_in_steps(case, seed, scratch: Path):
    """One draw a step: the state has the rows so far and the state of the generator."""
    generator, rows = np.random.default_rng(seed), []
    if scratch.exists():
        rows, generator.bit_generator.state = json.loads(scratch.read_text())
    while len(rows) < STEPS:
        tell(len(rows) / STEPS)
        if os.environ.get("FAKE_STUDY_STOPS") == f"{case['n']} {len(rows)}":
            raise KeyboardInterrupt
        if log := os.environ.get("FAKE_STUDY_LOG"):
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{case['n']} {case['scale']} {len(rows)}\n")
        time.sleep(float(os.environ.get("FAKE_STUDY_PAUSE", "0")))
        rows.append({"step": len(rows), "value": float(generator.standard_normal())})
        aside = scratch.with_suffix(".part")
        aside.write_text(json.dumps([rows, generator.bit_generator.state]))
        os.replace(aside, scratch)
    tell(1.0)
    return rows


def so_far(scratch: Path):
    return json.loads(scratch.read_text())[0] if scratch.exists() else []


IN_STEPS = dataclasses.replace(STUDY, measure=measure_in_steps, so_far=so_far)


def measure_where(case, seed, scratch: Path):
    threads = {name: os.environ[name] for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")}
    return [{"process": os.getpid(), **threads}]


WHERE = dataclasses.replace(STUDY, measure=measure_where)

"""What the studies of drift, sketches and descent must show, on small cases."""

import math

import numpy as np
import pytest
from profiles import thorough

from lowrank_unitary.studies.accuracy import descent, drift, sketch
from lowrank_unitary.studies.accuracy.inherited_defect import random_steps

pytestmark = pytest.mark.gate

SEED = np.random.SeedSequence([0, 1])


def drift_case(**changes):
    case = {"dtype": "float32", "form": "ours", "update": "geodesic", "probes": 0, "every": 1, "steps": 1000}
    return case | {"n": 32, "k": 1} | changes


def last(rows):
    return rows[-1]["defect"]


@pytest.mark.parametrize(
    ("dtype", "update"),
    [("float32", "geodesic"), thorough("float32", "polar"), thorough("float64", "geodesic"),
     ("complex64", "geodesic"), ("float16", "geodesic")],
)  # fmt: skip
def test_drift_without_healing_is_a_random_walk(dtype, update, tmp_path):
    rows = drift.measure(drift_case(dtype=dtype, update=update), SEED, tmp_path / "state")
    assert last(rows) == pytest.approx(0.3 * drift.EPS[dtype] * math.sqrt(32 * 1000), rel=0.3)
    assert rows[0]["step"] == 1
    assert rows[-1]["step"] == 1000


@pytest.mark.parametrize(("dtype", "probes"), [("float32", 1), ("float64", 1), ("bfloat16", 4)])
def test_healing_makes_drift_flat_at_the_stated_level(dtype, probes, tmp_path):
    rows = drift.measure(drift_case(dtype=dtype, probes=probes), SEED, tmp_path / "state")
    defects = {row["step"]: row["defect"] for row in rows}
    assert defects[1000] < 1.3 * defects[316]
    assert defects[1000] == pytest.approx(0.3 * drift.EPS[dtype] * 32 / math.sqrt(2 * probes), rel=0.5)


def test_published_forms_drift_far_above_double_precision(tmp_path):
    for update in ("geodesic", "polar"):
        case = drift_case(dtype="float64", form="published", update=update, steps=300)
        assert last(drift.measure(case, SEED, tmp_path / "state")) > 1e-8


def test_a_compensated_pair_is_near_single_precision(tmp_path):
    pair = last(
        drift.measure(drift_case(dtype="float16", form="compensated", steps=300), SEED, tmp_path / "s")
    )
    assert pair < 3 * last(drift.measure(drift_case(steps=300), SEED, tmp_path / "s"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_that_is_continued_gives_the_same_rows_bit_for_bit(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "_BLOCK", 50)
    monkeypatch.setattr(drift, "_SAVED_EVERY", 100)
    case = drift_case(dtype=dtype, probes=1, steps=330)
    whole = drift.measure(case, SEED, tmp_path / "never")
    (tmp_path / "never").unlink()
    stopped = drift._Run.advance

    def advance(self, step, *rest):
        if step == 273:
            raise KeyboardInterrupt
        stopped(self, step, *rest)

    monkeypatch.setattr(drift._Run, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        drift.measure(case, SEED, tmp_path / "state")
    steps = []
    monkeypatch.setattr(
        drift._Run, "advance", lambda self, step, *rest: (steps.append(step), stopped(self, step, *rest))
    )
    assert drift.measure(case, SEED, tmp_path / "state") == whole
    assert steps[0] == 201


def test_no_two_blocks_of_a_run_make_the_same_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "_BLOCK", 10)
    drawn = []

    def record(rng, *arguments, **options):
        drawn.append(rng.standard_normal())
        return random_steps(rng, *arguments, **options)

    monkeypatch.setattr(drift, "random_steps", record)
    drift.measure(drift_case(steps=40), SEED, tmp_path / "state")
    assert len(set(drawn)) == 4


def test_samplers_keep_what_they_promise(tmp_path):
    case = {"n": 48, "spectrum": "10^(-j/10)", "k": 4}
    rows = sketch.measure(case, SEED, tmp_path / "state")

    def median(name, quantity="lost"):
        return float(np.median([row[quantity] for row in rows if row["sampler"] == name]))

    assert abs(median("exact SVD")) < 1e-12
    assert 0 <= median("randomized, q = 2") < 1e-3
    assert median("lsi") == pytest.approx(median("published lsi"), abs=0.15)
    assert median("published lsi, gradient × 1e-6") > median("published lsi") + 0.2
    best = median("best tangent of rank 2k", "update_error")
    assert all(
        row["update_error"] >= 0.99 * best or "best" in row["sampler"] for row in rows if row["draw"] == 0
    )


@pytest.mark.parametrize("k", [1, 4])
def test_projecting_first_reaches_the_minimum_where_compressing_first_stalls(k, tmp_path):
    case = {"problem": "procrustes", "n": 16, "noise": 1.0, "k": k, "steps": 600, "method": "all"}
    rows = descent.measure(case, SEED, tmp_path / "state")
    gaps = {row["name"]: row["gap"] for row in rows if row["step"] == 600}
    # This problem is hard for the dense method too: its smallest singular values nearly cancel.
    assert gaps["project first (tangent)"] < 3 * gaps["dense geodesic"] < 1e-3
    for name in ("compress first, exact SVD", "compress first, LSI", "published form"):
        assert gaps[name] > 100 * gaps["project first (tangent)"]
    assert all(row["gap"] > 0 for row in rows)


def test_every_method_learns_the_random_target_and_more_rank_is_faster(tmp_path):
    gaps = {}
    for method, k in (("tangent", 1), ("tangent", 4), ("columns", 4), ("published", 4), ("all 16", 16)):
        case = {"problem": "target", "n": 32, "noise": 0.0, "k": k, "steps": 60, "method": method}
        rows = descent.measure(case, SEED, tmp_path / "state")
        assert rows[0]["gap"] == pytest.approx(math.sqrt(2), rel=0.1)
        gaps[method, k] = rows[-1]["gap"]
    assert gaps["all 16", 16] < gaps["tangent", 4] < gaps["tangent", 1] < 1.3
    assert max(gaps["columns", 4], gaps["published", 4]) < 1.3


def test_figures_and_tables_are_made_of_whatever_rows_there_are(tmp_path):
    drifting = [drift_case(n=128, steps=3), drift_case(n=128, steps=3, dtype="float64")]
    small = {"n": 24, "spectrum": "flat", "k": 1}
    problem = {"problem": "procrustes", "n": 8, "noise": 0.0, "k": 1, "steps": 3, "method": "all"}
    for study, listed in ((drift.STUDY, drifting), (sketch.STUDY, [small]), (descent.STUDY, [problem])):
        rows = [{**case, **row} for case in listed for row in study.measure(case, SEED, tmp_path / "state")]
        quantity = {"drift": "defect", "sketch": "lost", "descent": "gap"}[study.name]
        for shown in (rows[:1], [*rows, {**rows[-1], quantity: math.nan}]):
            study.figure(shown).savefig(tmp_path / "figure.png", dpi=40)
            header, lines = study.table(shown)
            assert all(len(line) == len(header) for line in lines)

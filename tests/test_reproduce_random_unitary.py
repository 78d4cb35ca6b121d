"""What the study of a random unitary target must show, on toy sizes."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")

from lowrank_unitary.studies.paper import random_unitary as study
from lowrank_unitary.studies.paper.figures import random_unitary as drawn

pytestmark = pytest.mark.gate

SEED = np.random.SeedSequence([0, 1])
TIMES = ("update_seconds", "seconds")


@pytest.fixture(autouse=True)
def small_minibatches(monkeypatch):
    # With 16 of 32 dimensions the chosen step sizes are too long.
    monkeypatch.setattr(study, "BATCH", 2)


def toy(**changes):
    return {"n": 32, "method": "project", "k": 2, "until": 1e-2, "steps": 800} | changes


def without_times(rows):
    return [{name: cell for name, cell in row.items() if name not in TIMES} for row in rows]


@pytest.mark.parametrize("method", sorted(study.METHODS))
@pytest.mark.parametrize("k", [1, 2])
def test_every_method_finds_the_target(method, k, tmp_path):
    rows = study.measure(toy(method=method, k=k), SEED, tmp_path / "state")
    assert rows[0]["step"] == 0
    assert rows[0]["error"] == pytest.approx(math.sqrt(2), rel=0.1)
    assert rows[-1]["error"] <= 0.01
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert all(0 <= row["update_seconds"] <= row["seconds"] for row in rows)


def test_more_rank_needs_fewer_steps(tmp_path):
    steps = [study.measure(toy(k=k, until=0.1), SEED, tmp_path / "state")[-1]["step"] for k in (1, 2)]
    assert steps[0] > 1.2 * steps[1]


def test_a_run_ends_at_the_first_record_that_is_small_enough(tmp_path):
    rows = study.measure(toy(until=0.3), SEED, tmp_path / "state")
    assert rows[-1]["error"] <= 0.3 < rows[-2]["error"]


def test_every_pair_is_drawn_once_in_an_epoch():
    epochs = [np.concatenate([study._minibatch([0, 32], 32 * e + i) for i in range(32)]) for e in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(64))
    assert list(epochs[0]) != list(epochs[1])


@pytest.mark.parametrize("method", sorted(study.METHODS))
def test_a_run_that_is_continued_gives_the_same_rows_bit_for_bit(method, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_SAVED_EVERY", 0.0)
    case = toy(method=method, k=1, steps=60)
    whole = study.measure(case, SEED, tmp_path / "never")
    assert without_times(study.measure(case, SEED, tmp_path / "again")) == without_times(whole)
    step, calls = study._step, []

    def interrupted(*arguments):
        # One call before the first step.
        calls.append(None)
        if len(calls) == 39:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(study, "_step", interrupted)
    assert study.so_far(tmp_path / "state") == []
    with pytest.raises(KeyboardInterrupt):
        study.measure(case, SEED, tmp_path / "state")
    before = study.so_far(tmp_path / "state")
    assert without_times(before) == without_times(whole)[: len(before)]
    assert before[-1]["step"] > 25
    calls = [None] * 100
    after = study.measure(case, SEED, tmp_path / "state")
    assert without_times(after) == without_times(whole)
    assert len(calls) - 100 == 1 + 60 + 1 - 37
    # Seconds go on, too.
    assert after[: len(before)] == before
    assert after[-1]["seconds"] > before[-1]["seconds"]


def test_another_seed_is_another_problem_and_all_methods_have_the_same(tmp_path):
    first, other = (
        study.measure(toy(steps=2), np.random.SeedSequence([seed, 1]), tmp_path / "state")[0]["error"]
        for seed in (0, 1)
    )
    assert first != other
    for case in (toy(steps=2, method="published"), toy(steps=2, k=1)):
        assert study.measure(case, np.random.SeedSequence([0, 7]), tmp_path / "s")[0]["error"] == first


@pytest.mark.parametrize("full", [False, True])
def test_cases_are_distinct_flat_dictionaries_with_a_cost(full):
    listed = study.cases(full)
    assert len({tuple(sorted(case.items())) for case in listed}) == len(listed)
    assert all(isinstance(value, str | int | float) for case in listed for value in case.values())
    assert all(study.cost(case) > 0 for case in listed)
    assert any(case["n"] == 2048 for case in listed)


def test_the_figure_and_the_table_are_made_of_whatever_rows_there_are(tmp_path):
    listed = [toy(steps=20), toy(steps=20, method="polar", k=1), toy(steps=20, method="compress", k=1)]
    listed.append(toy(steps=20, n=48))
    rows = [{**case, **row} for case in listed for row in study.measure(case, SEED, tmp_path / "state")]
    for shown in ([], rows[:1], [{**rows[0], "error": math.nan}, *rows]):
        study.STUDY.figure(shown).savefig(tmp_path / "figure.png", dpi=40)
        header, lines = study.STUDY.table(shown)
        assert all(len(line) == len(header) for line in lines)
    assert len(lines) == 4


def test_the_table_reads_levels_between_records():
    run = [{"step": s, "seconds": 2.0 * s, "error": 10.0**-s} for s in range(4)]
    assert drawn._reached(run, 10**-1.5, "step") == pytest.approx(1.5)
    assert drawn._reached(run, 10**-1.5, "seconds") == pytest.approx(3.0)
    assert drawn._reached(run, 2.0, "step") == 0
    assert math.isnan(drawn._reached(run, 1e-9, "step"))

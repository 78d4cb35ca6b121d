"""Long descents continue where they stopped, and figures need no complete set of rows."""

import math

import numpy as np
import pytest

from lowrank_unitary.studies.accuracy import descent

pytestmark = pytest.mark.gate

SEED = np.random.SeedSequence([0, 1])


def target_case(**changes):
    return {"problem": "target", "n": 32, "noise": 0.0, "k": 4, "steps": 57, "method": "tangent"} | changes


@pytest.mark.parametrize(("method", "k"), [("tangent", 4), ("columns", 4), ("published", 4), ("all 16", 16)])
def test_a_descent_that_is_continued_gives_the_same_rows_bit_for_bit(method, k, tmp_path, monkeypatch):
    monkeypatch.setattr(descent, "_SAVED_EVERY", 10)
    monkeypatch.setattr(descent, "_LARGE", 20)
    case = target_case(method=method, k=k)
    whole = descent.measure(case, SEED, tmp_path / "never")
    move, calls = descent._TARGET_METHODS[method], []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 38:
            raise KeyboardInterrupt
        return move(*arguments)

    monkeypatch.setitem(descent._TARGET_METHODS, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        descent.measure(case, SEED, tmp_path / "state")
    calls = [None] * 100
    assert descent.measure(case, SEED, tmp_path / "state") == whole
    assert len(calls) - 100 == 58 - 30


def test_the_figure_of_a_target_alone_is_drawn(tmp_path):
    case = target_case(steps=5)
    rows = [{**case, **row} for row in descent.measure(case, SEED, tmp_path / "state")]
    for shown in (rows[:1], [*rows, {**rows[-1], "gap": math.nan}]):
        descent.figure(shown).savefig(tmp_path / "figure.png", dpi=40)
        assert len(descent.table(shown)[1]) == 1

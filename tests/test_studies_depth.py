"""What the study of deep convolutional networks must show, on toy sizes."""

import dataclasses
import math
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.gate

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from lowrank_unitary import cli  # noqa: E402
from lowrank_unitary.studies.networks import depth, layers, training  # noqa: E402
from lowrank_unitary.studies.networks.images import load_images  # noqa: E402
from lowrank_unitary.studies.runner import Results, run_studies  # noqa: E402

SEED = np.random.SeedSequence([0, 1])
TORUS = (8, 8)


def network(kind="orthogonal", start="delta", count=3, dtype=torch.float64, **options):
    return layers.build(
        kind, start, depth=count, **{"channels": 4, "torus": TORUS, "seed": 0, **options}, dtype=dtype
    )


def images(count, dtype=torch.float64):
    part = load_images("digits").train
    return torch.from_numpy(part.images[:count]).to(dtype), torch.from_numpy(part.labels[:count])


def training_case(**changes):
    case = {"part": "training", "images": "digits", "network": "orthogonal", "start": "delta"}
    return case | {"steps": 24, "depth": 3} | changes


def without_times(rows):
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("start", ["identity", "delta", "haar"])
def test_orthogonal_and_plain_networks_of_one_start_are_the_same_function(start):
    x, _ = images(5)
    assert torch.allclose(network(start=start)(x), network("plain", start)(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("start", ["he", "default"])
def test_a_plain_layer_is_that_of_torch_by_fft(start):
    layer = network("plain", start).layers[0]
    torchs = torch.nn.Conv2d(
        4, 4, 8, padding="same", padding_mode="circular", bias=False, dtype=torch.float64
    )
    x = torch.randn(3, 4, *TORUS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if start == "default":
        # Uniform on an interval that torch takes from the number of inputs.
        bound = torchs.weight.abs().max()
        assert 0.9 * bound < layer.weight.abs().max() < 1.1 * bound
    torchs.weight.data.copy_(layer.weight)
    assert torch.allclose(layer(x), torchs(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("start", ["identity", "delta", "haar"])
def test_norms_of_signals_and_gradients_are_constant_in_orthogonal_networks(start):
    case = {"part": "norms", "images": "digits", "start": start, "depth": 30}
    rows = depth.measure(case, SEED, None)
    assert len(rows) == 31
    for quantity in ("signal", "gradient"):
        found = np.array([row[quantity] for row in rows])
        # MaxMin at equal values, such as those of empty pixels, sends both gradients to either channel.
        assert np.ptp(found) < (1e-12 if quantity == "signal" else 0.05) * found[-1]


def test_signals_die_from_the_default_start():
    rows = depth.measure({"part": "norms", "images": "digits", "start": "default", "depth": 30}, SEED, None)
    assert rows[-1]["signal"] < 1e-9 * rows[0]["signal"]
    assert rows[0]["gradient"] < 1e-9 * rows[-1]["gradient"]


def test_training_is_deterministic_and_certifies_no_more_than_is_correct(tmp_path):
    case = training_case()
    rows = depth.measure(case, SEED, tmp_path / "state")
    assert without_times(depth.measure(case, SEED, tmp_path / "state")) == without_times(rows)
    last = rows[-1]
    assert last["step"] == 24
    # ln 10 = 2.3 is the loss of equal scores.
    assert last["loss"] < 1.2
    assert last["accuracy"] > 0.75
    assert last["defect"] < 1e-5
    assert abs(last["log_lipschitz"]) < 1e-5
    certified = [last["accuracy"], *(last[f"certified_{radius:g}"] for radius in depth.RADII)]
    assert certified == sorted(certified, reverse=True)
    assert certified[1] > 0.5


def test_plain_networks_train_from_the_same_start_but_are_not_certified(tmp_path):
    last = depth.measure(training_case(network="plain"), SEED, tmp_path / "state")[-1]
    assert last["accuracy"] > 0.75
    assert last["log_lipschitz"] > 0.05
    assert math.isnan(last["defect"])


def unit(changes):
    return changes / changes.flatten(1).norm(dim=1)[:, None, None]


@pytest.mark.parametrize(("kind", "start"), [("orthogonal", "haar"), ("plain", "delta"), ("plain", "he")])
def test_no_change_within_the_certified_radius_changes_the_class(kind, start):
    made = network(kind, start, count=2)
    if kind == "plain":
        for layer in made.layers:
            layer.weight.data.mul_(1.3)
    x, labels = images(60)
    labels = made(x).argmax(dim=1)
    radii = layers.certified_radii(made, x, labels)
    assert torch.all(radii > 0)
    # Towards the class that is nearest in the units of the certificate.
    rows, scores = made.readout.weight, made(x)
    distances = torch.linalg.norm(rows[labels][:, None] - rows, dim=-1)
    ratios = (scores.gather(1, labels[:, None]) - scores) / distances
    nearest = ratios.scatter(1, labels[:, None], math.inf).argmin(dim=1, keepdim=True)
    moved = x
    for _ in range(20):
        moved = moved.detach().requires_grad_()
        gap = (made(moved).gather(1, labels[:, None]) - made(moved).gather(1, nearest)).sum()
        (slope,) = torch.autograd.grad(gap, moved)
        change = moved.detach() - x - unit(slope) * radii[:, None, None]
        moved = x + unit(change) * 0.999 * radii[:, None, None]
    assert torch.equal(made(moved).argmax(dim=1), labels)


@pytest.mark.parametrize("made", ["cayley", "exponential"])
def test_parametrised_convolutions_are_isometric(made):
    layer = layers.ParametrisedConvolution(4, TORUS, made)
    x = torch.randn(3, 4, *TORUS, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(layer(x), x, atol=1e-5)
    generator = torch.Generator().manual_seed(2)
    for part in layer.parameters():
        part.data.copy_(torch.randn(part.shape, generator=generator, dtype=part.dtype))
    y = layer(x)
    assert not torch.allclose(y, x, atol=0.1)
    assert torch.allclose(torch.linalg.norm(y), torch.linalg.norm(x), rtol=1e-5)


@pytest.mark.parametrize("method", depth.METHODS)
def test_a_step_of_every_method_is_timed(method, monkeypatch):
    monkeypatch.setattr(depth, "_TIMED_STEPS", 2)
    case = {"part": "seconds", "images": "digits", "method": method, "channels": 4}
    (row,) = depth.measure(case, SEED, None)
    assert row["seconds"] > 0


def test_the_best_rate_on_validation_images_goes_on():
    found = training.train(
        lambda: network(dtype=torch.float32), (1e-3, 3e3), load_images("digits"), steps=8, seed=0, radii=()
    )
    assert {row["rate"] for row in found} == {1e-3}
    # Not with the last of the trials, nor from the start again.
    assert [row["step"] for row in found] == [2, 5, 8]


def test_a_resumed_study_equals_an_uninterrupted_one(tmp_path):
    toys = [training_case(steps=4, start=start, depth=2) for start in ("delta", "haar")]
    study = dataclasses.replace(depth.STUDY, cases=lambda full: toys)
    assert run_studies([study], tmp_path / "whole", jobs=1).complete
    calls = []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return depth.measure(*arguments)

    assert run_studies(
        [dataclasses.replace(study, measure=interrupted)], tmp_path / "parts", jobs=1
    ).interrupted
    assert run_studies([study], tmp_path / "parts", jobs=1).complete
    whole, parts = (without_times(Results(study, tmp_path / name, 0).rows()) for name in ("whole", "parts"))
    # NaN, which equals nothing, is in plain networks alone.
    assert whole == parts
    depth.figure(whole).savefig(tmp_path / "figure.png")


def test_an_incomplete_set_of_rows_is_drawn(tmp_path):
    rows = [
        {**case, **row}
        for case in (
            training_case(steps=4, network="plain", start="he"),
            {"part": "norms", "images": "digits", "start": "he", "depth": 3},
        )
        for row in depth.measure(case, SEED, None)
    ]
    for shown in ([], rows[:1], rows):
        depth.figure(shown).savefig(tmp_path / "figure.png")
    header, lines = depth.table(rows)
    assert len(lines) == 1
    assert len(lines[0]) == len(header)


def test_missing_packages_of_the_study_are_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["study", "depth"]) == 1
    assert capsys.readouterr().err == (
        'lowrank-unitary study depth needs torch: pip install "lowrank-unitary[demo]" torch\n'
    )

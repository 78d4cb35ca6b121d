"""Orthogonal fine-tuning in torch: a network that reads digits learns to read them lying on their side.

Only its first layer is adapted, by a rotation of its input features, by all of its weight, or not at all.
"""

import argparse
import copy
import time

import torch
from figures import BLUE, DPI, ORANGE, blank

import lowrank_unitary.torch as lut
from lowrank_unitary.demo.digits import load_digits

Images = tuple[torch.Tensor, torch.Tensor]


def tasks() -> dict[str, Images]:
    """600 images to learn from for each task, no image in both, and the same 597 tests in two poses."""
    data = load_digits()
    images, labels = torch.tensor(data.train_sequences), torch.tensor(data.train_labels)
    tests, answers = torch.tensor(data.test_sequences), torch.tensor(data.test_labels)
    return {
        "upright": (images[:600], labels[:600]),
        "lying": (lying(images[600:]), labels[600:]),
        "test upright": (tests, answers),
        "test lying": (lying(tests), answers),
    }


def lying(images: torch.Tensor) -> torch.Tensor:
    """Images of 8×8 pixels, turned by a quarter."""
    return torch.rot90(images.unflatten(1, (8, 8)), dims=(1, 2)).flatten(1)


def train(network: torch.nn.Module, data: Images, epochs: int, lr: float, seed: int) -> None:
    """Adam on what requires a gradient, in minibatches of 50."""
    images, labels = data
    rng = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=lr)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=rng).split(50):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimiser.step()


def accuracy(network: torch.nn.Module, data: Images) -> float:
    """The fraction that is read right."""
    with torch.no_grad():
        return (network(data[0]).argmax(1) == data[1]).double().mean().item()


def adapted(network: torch.nn.Sequential, ranks: list[int]) -> dict[str, torch.nn.Sequential]:
    """Copies of the network in which only the first layer, or a rotation of its input, can be trained."""
    network = copy.deepcopy(network).requires_grad_(False)
    copies = {"frozen": network}
    for rank in ranks:
        copies[f"rotation, k = {rank}"] = copy.deepcopy(network)
        lut.low_rank_unitary(copies[f"rotation, k = {rank}"][0], "weight", rank=rank)
    copies["all of the weight"] = copy.deepcopy(network)
    copies["all of the weight"][0].weight.requires_grad_()
    return copies


def main(arguments: list[str] | None = None) -> tuple[torch.nn.Sequential, dict, list[tuple]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 epochs in place of 60")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="example_finetuning_torch.png")
    options = parser.parse_args(arguments)
    epochs = 10 if options.quick else 60
    torch.set_num_threads(1)  # the products are small: with more threads it takes longer
    torch.manual_seed(options.seed)
    data = tasks()
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    train(network, data["upright"], epochs, 3e-3, options.seed)
    copies, rows = adapted(network, [1, 4, 16]), []
    singular = torch.linalg.svdvals(network[0].weight.detach())
    print(f"{'first layer':20} trained  lying  upright  change of singular values")
    for name, one in copies.items():
        trained = sum(p.numel() for p in one.parameters() if p.requires_grad)
        if trained:
            train(one, data["lying"], epochs, 3e-3, options.seed)
        reached = [accuracy(one, data[test]) for test in ("test lying", "test upright")]
        change = (torch.linalg.svdvals(one[0].weight.detach()) - singular).abs().max() / singular[0]
        rows.append((name, trained, *reached, change.item()))
        print(f"{name:20} {trained:7d}  {reached[0]:5.1%}  {reached[1]:7.1%}  {change:.1e}")
    print(f"CPU time {time.process_time():.0f} s")
    draw(options, rows, epochs)
    return network, copies, rows


def draw(options: argparse.Namespace, rows: list[tuple], epochs: int) -> None:
    caption = f"64-128-10 units, 600 images for each task, {epochs} epochs, seed {options.seed}, float32"
    figure, (axes,) = blank(1, "Orthogonal fine-tuning", caption)
    places = torch.arange(len(rows))
    for shift, column, colour, label in ((-0.2, 2, BLUE, "second task"), (0.2, 3, ORANGE, "first task")):
        bars = axes.bar(places + shift, [100 * row[column] for row in rows], 0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(places, [f"{row[0]}\n{row[1]} numbers" for row in rows], fontsize=8)
    axes.set(ylabel="% of the test images", ylim=(0, 115))
    axes.legend(frameon=False, ncols=2, loc="upper left")
    figure.savefig(options.output, dpi=DPI)


if __name__ == "__main__":
    main()

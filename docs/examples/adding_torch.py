"""The adding problem in torch: remember two numbers, far apart, among two hundred.

A sequence has numbers from [0, 1] in one channel and two marks in the other, one in each half. The network is
asked for the sum of the two marked numbers. Always to answer 1 has a mean squared error of 1/6.
"""

import argparse
import time

import torch
from figures import BLUE, DPI, GREY, SKY, blank

import lowrank_unitary as lu
import lowrank_unitary.torch as lut

BASELINE = 1 / 6


class Network(torch.nn.Module):
    """h ← σ(W h + V x + b), with W orthogonal; the answer is linear in the last h."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        hidden = options.hidden
        start = torch.eye(hidden)
        if options.start != "identity":
            make = getattr(lu, f"{options.start}_unitary")
            start = make(hidden, rng=options.seed, xp=torch, dtype=torch.float32)
        self.recurrent = lut.mark_unitary(torch.nn.Parameter(start))
        self.inputs = torch.nn.Linear(2, hidden, bias=options.activation == "relu")
        self.bias = torch.nn.Parameter(torch.zeros(hidden)) if options.activation == "modrelu" else None
        self.readout = torch.nn.Linear(hidden, 1)
        if options.start == "identity":
            # The inputs add up: all of them together shall be of size 1.
            torch.nn.init.normal_(self.inputs.weight, std=1 / options.length)
            if options.activation == "relu":
                torch.nn.init.zeros_(self.inputs.bias)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:  # (time, batch, 2)
        driven = self.inputs(sequences)
        h = torch.zeros_like(driven[0])
        for x in driven:
            z = lut.unitary_linear(h, self.recurrent) + x
            h = torch.relu(z) if self.bias is None else torch.sign(z) * torch.relu(z.abs() + self.bias)
        return self.readout(h)[:, 0]


def problem(length: int, size: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences, (time, size, 2), and the sums of their marked numbers."""
    numbers = torch.rand(length, size, generator=rng)
    first = torch.randint(length // 2, (1, size), generator=rng)
    second = torch.randint(length // 2, length, (1, size), generator=rng)
    marks = torch.zeros(length, size).scatter_(0, torch.cat([first, second]), 1.0)
    return torch.stack([numbers, marks], dim=-1), (numbers * marks).sum(0)


def train(options: argparse.Namespace) -> tuple[Network, list[tuple[int, float]], list[float]]:
    """Train until the test error is below the target; the network, test errors, training losses."""
    torch.manual_seed(options.seed)
    rng = torch.Generator().manual_seed(options.seed)
    network = Network(options)
    unitary = {
        "params": [network.recurrent],
        "lr": options.lr / options.divider,
        "rank": options.rank,
    }
    others = [p for p in network.parameters() if p is not network.recurrent]
    betas = (options.momentum, 0.99)
    optimiser = lut.UnitaryAdam([unitary, {"params": others}], lr=options.lr, betas=betas)
    test, answers = problem(options.length, 1000, torch.Generator().manual_seed(options.seed + 1))
    tests, losses = [], []
    try:
        for step in range(options.steps + 1):
            if step % options.every == 0:
                with torch.no_grad():
                    error = torch.mean((network(test) - answers) ** 2).item()
                tests.append((step, error))
                minutes = time.process_time() / 60
                print(f"step {step:6d}  test MSE {error:.5f}  {minutes:5.1f} min", flush=True)
                if error < options.target:
                    break
            sequences, sums = problem(options.length, options.batch, rng)
            optimiser.zero_grad()
            loss = torch.mean((network(sequences) - sums) ** 2)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    except KeyboardInterrupt:
        print("stopped")
    return network, tests, losses


def main(arguments: list[str] | None = None) -> tuple[Network, list[tuple[int, float]], list[float]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="length 20, hidden 32, 300 steps")
    parser.add_argument("--length", type=int, default=200, help="of a sequence")
    parser.add_argument("--hidden", type=int, default=170, help="size of the recurrent matrix")
    parser.add_argument("--rank", type=int, default=1, help="k, of its steps")
    parser.add_argument("--activation", choices=("relu", "modrelu"), default="modrelu")
    parser.add_argument("--start", choices=("identity", "cayley", "henaff"), default="cayley")
    parser.add_argument("--lr", type=float, default=5e-3, help="learning rate of all other parameters")
    parser.add_argument("--divider", type=float, default=32, help="theirs over that of the recurrent matrix")
    parser.add_argument("--momentum", type=float, default=0.9, help="0 is RMSprop, more is Adam")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20000, help="at most")
    parser.add_argument("--every", type=int, default=100, help="steps between two tests")
    parser.add_argument("--target", type=float, default=0.01, help="test error at which to stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="example_adding_torch.png")
    options = parser.parse_args(arguments)
    if options.quick:
        options.length, options.hidden, options.steps = 20, 32, 300
    torch.set_num_threads(1)  # the products are small: with more threads it takes longer
    network, tests, losses = train(options)
    draw(options, tests, losses)
    print(f"‖WᵀW − I‖ = {lu.unitarity_defect(network.recurrent.detach()):.1e}")
    return network, tests, losses


def draw(options: argparse.Namespace, tests: list[tuple[int, float]], losses: list[float]) -> None:
    network = f"n = {options.hidden}, k = {options.rank}, {options.activation}, {options.start} start"
    rule = "RMSprop" if options.momentum == 0 else f"Adam {options.momentum:g}"
    caption = (
        f"T = {options.length}, {network}, batch {options.batch}, {rule}, "
        f"rate {options.lr:g} (W: /{options.divider:g}), seed {options.seed}, float32"
    )
    figure, (axes,) = blank(1, "Adding problem", caption)
    axes.semilogy(losses, color=SKY, linewidth=0.5, label="minibatch")
    axes.semilogy(*zip(*tests, strict=True), color=BLUE, label="test set")
    axes.axhline(BASELINE, color=GREY, linestyle="--", label="always 1: 1/6")
    axes.set(xlabel="training step", ylabel="mean squared error")
    axes.legend(frameon=False)
    figure.savefig(options.output, dpi=DPI)


if __name__ == "__main__":
    main()

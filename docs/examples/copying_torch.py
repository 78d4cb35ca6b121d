"""The copying problem in torch: say ten symbols again after a long silence.

A sequence is K symbols out of eight, blanks, a mark and K blanks, T + 2K in all. The answer is blank until
the mark, and the symbols after it. Without memory, the best is blanks and then guesses, with a cross-entropy
of K ln 8 / (T + 2K).
"""

import argparse
import math
import time

import torch
from figures import BLUE, DPI, GREY, SKY, blank

import lowrank_unitary as lu
import lowrank_unitary.torch as lut

SYMBOLS = 8
BLANK, MARK = SYMBOLS, SYMBOLS + 1


class Network(torch.nn.Module):
    """z ← W h + V x, h ← sign(z) max(|z| + d, 0) (modReLU), with W orthogonal; an answer at each step."""

    def __init__(self, hidden: int, rng: int) -> None:
        super().__init__()
        start = lu.henaff_unitary(hidden, rng=rng, xp=torch, dtype=torch.float32)
        self.recurrent = lut.mark_unitary(torch.nn.Parameter(start))
        self.inputs = torch.nn.Embedding(SYMBOLS + 2, hidden)
        self.bias = torch.nn.Parameter(torch.zeros(hidden))
        self.readout = torch.nn.Linear(hidden, SYMBOLS + 1)
        torch.nn.init.kaiming_normal_(self.inputs.weight.mT, nonlinearity="relu")
        torch.nn.init.kaiming_normal_(self.readout.weight, nonlinearity="relu")

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:  # (time, batch)
        driven = self.inputs(sequences)
        h, states = torch.zeros_like(driven[0]), []
        for x in driven:
            z = lut.unitary_linear(h, self.recurrent) + x
            h = torch.sign(z) * torch.relu(z.abs() + self.bias)
            states.append(h)
        return self.readout(torch.stack(states))


def problem(silence: int, symbols: int, size: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences and answers, both (silence + 2 symbols, size)."""
    said = torch.randint(SYMBOLS, (symbols, size), generator=rng)
    sequences = torch.full((silence + 2 * symbols, size), BLANK)
    answers = sequences.clone()
    sequences[:symbols], sequences[-symbols - 1] = said, MARK
    answers[-symbols:] = said
    return sequences, answers


def baseline(options: argparse.Namespace) -> float:
    """The cross-entropy without memory."""
    return options.symbols * math.log(SYMBOLS) / (options.silence + 2 * options.symbols)


def train(options: argparse.Namespace) -> tuple[Network, list[float]]:
    """The network, and the loss of every minibatch; no sequence comes twice."""
    torch.manual_seed(options.seed)
    rng = torch.Generator().manual_seed(options.seed)
    network = Network(options.hidden, options.seed)
    unitary = {"params": [network.recurrent], "lr": options.lr / options.divider, "rank": options.rank}
    others = [p for p in network.parameters() if p is not network.recurrent]
    # Without a running mean of the gradient Adam is RMSprop.
    optimiser = lut.UnitaryAdam([unitary, {"params": others}], lr=options.lr, betas=(0.0, 0.99))
    losses = []
    try:
        for step in range(1, options.steps + 1):
            sequences, answers = problem(options.silence, options.symbols, options.batch, rng)
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(sequences).flatten(0, 1), answers.flatten())
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if step % options.every == 0:
                mean, minutes = sum(losses[-options.every :]) / options.every, time.process_time() / 60
                print(f"step {step:6d}  mean loss {mean:.5f}  {minutes:5.1f} min", flush=True)
    except KeyboardInterrupt:
        print("stopped")
    return network, losses


def main(arguments: list[str] | None = None) -> tuple[Network, list[float], float]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="silence 10, 3 symbols, hidden 64, 200 steps")
    parser.add_argument("--full", action="store_true", help="silence 1000, batch 128, 20000 steps")
    parser.add_argument("--silence", type=int, default=100, help="T")
    parser.add_argument("--symbols", type=int, default=10, help="K")
    parser.add_argument("--hidden", type=int, default=190, help="size of the recurrent matrix")
    parser.add_argument("--rank", type=int, default=1, help="k, of its steps")
    parser.add_argument("--lr", type=float, default=7e-4, help="learning rate of all other parameters")
    parser.add_argument("--divider", type=float, default=32, help="theirs over that of the recurrent matrix")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=50, help="steps between two lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="example_copying_torch.png")
    options = parser.parse_args(arguments)
    if options.quick:
        options.silence, options.symbols, options.hidden, options.steps = 10, 3, 64, 200
    if options.full:
        options.silence, options.batch, options.steps = 1000, 128, 20000
    torch.set_num_threads(1)  # the products are small: with more threads it takes longer
    network, losses = train(options)
    print(f"‖WᵀW − I‖ = {lu.unitarity_defect(network.recurrent.detach()):.1e}")
    draw(options, losses)
    return network, losses, baseline(options)


def draw(options: argparse.Namespace, losses: list[float]) -> None:
    caption = (
        f"T = {options.silence}, K = {options.symbols}, n = {options.hidden}, k = {options.rank}, batch "
        f"{options.batch}, RMSprop {options.lr:g} (W: /{options.divider:g}), seed {options.seed}, float32"
    )
    figure, (axes,) = blank(1, "Copying problem", caption)
    means = torch.tensor(losses).unfold(0, min(20, len(losses)), 1).mean(1)
    axes.semilogy(losses, color=SKY, linewidth=0.5, label="minibatch")
    axes.semilogy(range(len(losses) - len(means), len(losses)), means, color=BLUE, label="mean of 20")
    axes.axhline(baseline(options), color=GREY, linestyle="--", label="without memory")
    axes.set(xlabel="training step", ylabel="cross-entropy")
    axes.legend(frameon=False)
    figure.savefig(options.output, dpi=DPI)


if __name__ == "__main__":
    main()

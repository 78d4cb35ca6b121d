"""The digits network of `lowrank-unitary demo` in torch: a module, autograd, and one line that moves W.

Start, minibatches, sketches and rules are those of the demo, so that both take the same steps, to rounding.
"""

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from figures import save_training

import lowrank_unitary as lu
from lowrank_unitary.demo.digits import CLASSES, Digits, Settings, load_digits
from lowrank_unitary.demo.recurrent import Network, initial_network


class PixelReader(torch.nn.Module):
    """The answer C h + e after the last pixel; z ← W h + V x, h ← sign(z) max(|z| + d, 0) (modReLU)."""

    def __init__(self, start: Network) -> None:
        super().__init__()
        for name, value in start._asdict().items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(value)))

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:  # (batch, time)
        h = sequences.new_zeros(len(sequences), len(self.recurrent))
        for x in sequences.unflatten(1, (-1, self.input_weights.shape[1])).unbind(1):
            z = h @ self.recurrent.T + x @ self.input_weights.T
            h = torch.sign(z) * torch.relu(torch.abs(z) + self.bias)
        return h @ self.readout.T + self.offset


def train(
    data: Digits, settings: Settings, rank: int = 4, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[float, PixelReader]]:
    """The loss of each minibatch, before its step, and the network after it."""
    start_rng, batch_rng, sketch_rng = np.random.default_rng(settings.seed).spawn(3)
    start = initial_network(settings.hidden, CLASSES, start_rng, str(dtype).removeprefix("torch."))
    network = PixelReader(start)
    W = network.recurrent
    average = torch.zeros_like(W)
    sequences, labels = torch.tensor(data.train_sequences, dtype=dtype), torch.tensor(data.train_labels)
    others = [p for p in network.parameters() if p is not W]
    optimiser = torch.optim.Adam(others, lr=settings.learning_rate)

    def decay(step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / settings.steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, decay)
    for step in range(settings.steps):
        chosen = batch_rng.choice(len(labels), settings.batch_size, replace=False)
        loss = torch.nn.functional.cross_entropy(network(sequences[chosen]), labels[chosen])
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            average.lerp_(W.grad, 1 - settings.momentum)
            norm = torch.linalg.norm(average)
            direction = average * min(1.0, settings.gradient_norm / norm.item())
            eta = settings.step_size * decay(step)
            lu.unitary_step(W, direction, eta, rank=rank, rng=sketch_rng, overwrite_unitary=True)
        optimiser.step()
        schedule.step()
        yield loss.item(), network


def accuracy(network: PixelReader, data: Digits) -> float:
    """The fraction of the test images that are read right."""
    sequences = torch.tensor(data.test_sequences, dtype=network.recurrent.dtype)
    with torch.no_grad():
        return float(np.mean(network(sequences).argmax(1).numpy() == data.test_labels))


def main(arguments: list[str] | None = None) -> tuple[list[float], list[tuple[int, float]]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="n = 32 and 60 steps")
    parser.add_argument("--rank", type=int, default=4, help="k, of the steps of W")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="example_digits_torch.png")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the products are small: with more threads it takes longer
    settings = Settings(seed=options.seed)
    if options.quick:
        settings = Settings(seed=options.seed, hidden=32, steps=60)
    data, losses, reached = load_digits(), [], []
    started = time.process_time()
    for loss, network in train(data, settings, options.rank):
        losses.append(loss)
        if len(losses) % (settings.steps // 20) == 0:
            reached.append((len(losses), accuracy(network, data)))
            print(f"step {len(losses):5d}  loss {loss:.4f}  test accuracy {reached[-1][1]:.1%}", flush=True)
    defect = lu.unitarity_defect(network.recurrent.detach()) / math.sqrt(settings.hidden)
    print(f"‖WᵀW − I‖/√n = {defect:.1e}, CPU time {(time.process_time() - started) / 60:.1f} min")
    sizes = f"n = {settings.hidden}, k = {options.rank}, batch {settings.batch_size}"
    save_training(
        options.output,
        "Digits, pixel by pixel, in torch",
        f"{sizes}, seed {options.seed}, float32",
        losses,
        reached,
    )
    return losses, reached


if __name__ == "__main__":
    main()

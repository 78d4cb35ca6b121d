"""The digits network of `lowrank-unitary demo` in JAX: one compiled step, optax for all but W.

Start, minibatches, sketches and rules are those of the demo, so that both take the same steps, to rounding.
"""

import argparse
import math
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from figures import save_training

import lowrank_unitary as lu
from lowrank_unitary.demo.digits import CLASSES, Digits, Settings, load_digits
from lowrank_unitary.demo.recurrent import Network, initial_network


def logits(network: Network, sequences: jax.Array) -> jax.Array:
    """The answer C h + e after the last pixel; z ← W h + V x, h ← sign(z) max(|z| + d, 0) (modReLU)."""

    def read(h: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:  # (batch, n), (batch, pixels)
        z = h @ network.recurrent.T + x @ network.input_weights.T
        return jnp.sign(z) * jax.nn.relu(jnp.abs(z) + network.bias), None

    start = jnp.zeros((len(sequences), len(network.recurrent)), sequences.dtype)
    pixels = sequences.reshape(len(sequences), -1, network.input_weights.shape[1]).swapaxes(0, 1)
    return jax.lax.scan(read, start, pixels)[0] @ network.readout.T + network.offset


def mean_loss(network: Network, sequences: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits(network, sequences), labels)
    return jnp.mean(losses)


def train(
    data: Digits, settings: Settings, rank: int = 4, dtype: str = "float32"
) -> Iterator[tuple[float, Network]]:
    """The loss of each minibatch, before its step, and the network after it."""
    start_rng, batch_rng, sketch_rng = np.random.default_rng(settings.seed).spawn(3)
    start = initial_network(settings.hidden, CLASSES, start_rng, dtype)
    W, others = jnp.asarray(start.recurrent), {k: jnp.asarray(x) for k, x in start._asdict().items()}
    del others["recurrent"]

    def decay(step: jax.Array) -> jax.Array:
        return 0.5 * (1 + jnp.cos(math.pi * step / settings.steps))

    optimiser = optax.adam(lambda step: settings.learning_rate * decay(step))

    @jax.jit
    def step_once(W, others, average, state, index, sequences, labels, words):
        loss, gradients = jax.value_and_grad(mean_loss)(Network(W, **others), sequences, labels)
        gradients = gradients._asdict()
        average += (1 - settings.momentum) * (gradients.pop("recurrent") - average)
        norm = jnp.linalg.norm(average)
        direction = average * jnp.where(norm > settings.gradient_norm, settings.gradient_norm / norm, 1)
        W = lu.unitary_step(W, direction, settings.step_size * decay(index), rank=rank, rng=words)
        updates, state = optimiser.update(gradients, state)
        return loss, W, optax.apply_updates(others, updates), average, state

    average, state = jnp.zeros_like(W), optimiser.init(others)
    sequences, labels = data.train_sequences.astype(dtype), data.train_labels
    for index in range(settings.steps):
        chosen = batch_rng.choice(len(labels), settings.batch_size, replace=False)
        # What the library would draw from this generator, as the two words of a JAX key.
        words = jnp.asarray(sketch_rng.integers(0, 1 << 32, 2, dtype=np.uint32))
        loss, W, others, average, state = step_once(
            W, others, average, state, index, sequences[chosen], labels[chosen], words
        )
        yield loss.item(), Network(W, **others)


def main(arguments: list[str] | None = None) -> tuple[list[float], list[tuple[int, float]]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="n = 32 and 60 steps")
    parser.add_argument("--rank", type=int, default=4, help="k, of the steps of W")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="example_digits_jax.png")
    options = parser.parse_args(arguments)
    settings = Settings(seed=options.seed)
    if options.quick:
        settings = Settings(seed=options.seed, hidden=32, steps=60)
    data, losses, reached = load_digits(), [], []
    read, started = jax.jit(logits), time.process_time()
    for loss, network in train(data, settings, options.rank):
        losses.append(loss)
        if len(losses) % (settings.steps // 20) == 0:
            right = read(network, data.test_sequences).argmax(1) == data.test_labels
            reached.append((len(losses), right.mean().item()))
            print(f"step {len(losses):5d}  loss {loss:.4f}  test accuracy {reached[-1][1]:.1%}", flush=True)
    defect = lu.unitarity_defect(network.recurrent) / math.sqrt(settings.hidden)
    print(f"‖WᵀW − I‖/√n = {defect:.1e}, CPU time {(time.process_time() - started) / 60:.1f} min")
    sizes = f"n = {settings.hidden}, k = {options.rank}, batch {settings.batch_size}"
    save_training(
        options.output,
        "Digits, pixel by pixel, in JAX",
        f"{sizes}, seed {options.seed}, float32",
        losses,
        reached,
    )
    return losses, reached


if __name__ == "__main__":
    main()

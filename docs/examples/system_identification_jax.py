"""System identification in JAX: find a complex unitary matrix from noisy observations of its orbits.

States obey x ← U x + noise. From pairs of successive states, in minibatches, U is found by descent along the
unitary matrices: with the library's optimisers for optax, and along dense geodesics for comparison.
"""

import argparse
import math
import time

import jax
import jax.numpy as jnp
import optax
from figures import BLUE, DPI, GREEN, GREY, ORANGE, SKY, blank

import lowrank_unitary as lu
from lowrank_unitary.jax import unitary_adam, unitary_sgd


def orbits(
    U: jax.Array, count: int, length: int, noise: float, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """States and their successors, one a row; entries of mean square 1, the noise of variance `noise`²."""
    first, rest = jax.random.split(key)
    start = jax.random.normal(first, (count, len(U)), U.dtype)
    kicks = noise * jax.random.normal(rest, (length, *start.shape), U.dtype)
    # A little shorter after each product, so that the noise does not make them grow.
    shrink = 1 / math.sqrt(1 + noise**2)

    def move(x: jax.Array, kick: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        y = x @ U.T + kick
        return shrink * y, (x, y)

    _, (x, y) = jax.lax.scan(move, start, kicks)
    return x.reshape(-1, len(U)), y.reshape(-1, len(U))


def dense_geodesic(learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """U exp(−η skew(UᴴG)) in full, O(n³), in the form of optax."""

    def update(gradient: jax.Array, step: jax.Array, U: jax.Array) -> tuple[jax.Array, jax.Array]:
        pulled = U.conj().T @ gradient.conj()  # jax.grad returns the conjugate of the direction of ascent
        tangent = (pulled - pulled.conj().T) / 2
        return U @ jax.scipy.linalg.expm(-learning_rate(step) * tangent) - U, step + 1

    return optax.GradientTransformation(lambda U: jnp.zeros((), jnp.int32), update)


def identify(
    optimiser: optax.GradientTransformation,
    x: jax.Array,
    y: jax.Array,
    truth: jax.Array,
    steps: int,
    batch: int,
) -> tuple[jax.Array, jax.Array]:
    """What is found from x and y, and its error ‖V − U‖_F/√n before every step."""

    def loss(V: jax.Array, chosen: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(jnp.abs(x[chosen] @ V.T - y[chosen]) ** 2) / batch

    def step(carry, key):
        V, state = carry
        gradient = jax.grad(loss)(V, jax.random.randint(key, (batch,), 0, len(x)))
        updates, state = optimiser.update(gradient, state, V)
        return (optax.apply_updates(V, updates), state), jnp.linalg.norm(V - truth) / math.sqrt(len(V))

    @jax.jit
    def run(V, keys):
        return jax.lax.scan(step, (V, optimiser.init(V)), keys)

    (V, _), errors = run(jnp.eye(len(truth), dtype=truth.dtype), jax.random.split(jax.random.key(2), steps))
    return V, errors


def optimisers(steps: int) -> dict[str, optax.GradientTransformation]:
    """What is compared; the step sizes fall to zero along half a cosine."""
    sgd, adam = optax.cosine_decay_schedule(0.5, steps), optax.cosine_decay_schedule(0.05, steps)
    return {
        "SGD, k = 1": unitary_sgd(sgd, rank=1),
        "SGD, k = 4": unitary_sgd(sgd, rank=4),
        "Adam, k = 4": unitary_adam(adam, rank=4),
        "dense geodesic": dense_geodesic(sgd),
    }


def main(arguments: list[str] | None = None) -> tuple[dict[str, tuple[jax.Array, jax.Array]], float]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="n = 16, 300 steps, two ways of four")
    parser.add_argument("--size", type=int, default=64, help="n")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128, help="pairs of states in a step")
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="example_system_identification_jax.png")
    options = parser.parse_args(arguments)
    if options.quick:
        options.size, options.steps = 16, 300
    n, steps = options.size, options.steps
    U = lu.random_unitary(n, rng=options.seed, xp=jnp, dtype=jnp.complex64)
    x, y = orbits(U, 100, 100, options.noise, jax.random.key(options.seed + 1))
    u, _, vh = jnp.linalg.svd(y.T @ x.conj(), full_matrices=False)
    best = (jnp.linalg.norm(u @ vh - U) / math.sqrt(n)).item()  # of all pairs, by the polar factor
    found = {}
    for name, optimiser in optimisers(steps).items():
        if options.quick and name not in ("SGD, k = 4", "dense geodesic"):
            continue
        started = time.process_time()
        found[name] = identify(optimiser, x, y, U, steps, options.batch)
        V, errors = found[name]
        line = f"{name:15} error {errors[-1]:.1e}, defect {lu.unitarity_defect(V):.1e}"
        print(f"{line}, CPU time {time.process_time() - started:.0f} s with compilation", flush=True)
    print(f"{'all pairs':15} error {best:.1e}")
    draw(options, {name: errors for name, (_, errors) in found.items()}, best)
    return found, best


def draw(options: argparse.Namespace, errors: dict[str, jax.Array], best: float) -> None:
    caption = (
        f"n = {options.size}, batch {options.batch} of 10000 pairs, noise {options.noise:g}, "
        f"seed {options.seed}, complex64"
    )
    figure, (axes,) = blank(1, "Identification of a unitary matrix", caption)
    for (name, values), colour in zip(errors.items(), (SKY, BLUE, GREEN, ORANGE), strict=False):
        axes.semilogy(values, color=colour, label=name, linestyle="--" if name.startswith("dense") else "-")
    axes.axhline(best, color=GREY, linestyle=":", label="best from all pairs")
    axes.set(xlabel="training step", ylabel="‖V − U‖ / √n (Frobenius)")
    axes.legend(frameon=False)
    figure.savefig(options.output, dpi=DPI)


if __name__ == "__main__":
    main()

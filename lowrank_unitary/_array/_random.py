"""Random blocks: drawn on the host from an explicit generator, so the same on every namespace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ._namespace import Array, Namespace, is_traced, move
from ._precision import is_complex, thin_dtype

RNG: TypeAlias = "int | Sequence[int] | np.random.SeedSequence | np.random.Generator | None"


def generator(rng: RNG, like: Array) -> np.random.Generator:
    """`numpy.random.default_rng(rng)`; None is refused under tracing, which would freeze the draw unseen."""
    if rng is None and is_traced(like):
        raise ValueError(
            "rng must be a seed or a numpy Generator while a function is traced or differentiated, got None: "
            "a draw made here would be frozen into the compiled function. Pass a seed to accept that, "
            "or a test_matrix drawn outside."
        )
    return np.random.default_rng(rng)


def normal_block(xp: Namespace, shape: tuple[int, ...], like: Array, rng: RNG) -> Array:
    """Standard normal entries on the device of `like`, as thin factors of it (complex: E|ω|² = 1)."""
    draw: np.ndarray[Any, Any]
    gen = generator(rng, like)
    if is_complex(xp, like.dtype):
        draw = (gen.standard_normal(shape) + 1j * gen.standard_normal(shape)) / np.sqrt(2.0)
    else:
        draw = gen.standard_normal(shape)
    return move(xp, draw, like, thin_dtype(xp, like.dtype))


def random_block(xp, shape, like, rng, purpose=0, kind="gaussian", first=(0, 0)):
    if rng is not None and not isinstance(rng, np.random.Generator):
        rng = (
            np.random.default_rng([*np.atleast_1d(np.asarray(rng, dtype=object)), purpose, *first])
            if (purpose or any(first))
            else rng
        )
    block = normal_block(xp, shape, like, rng)
    return xp.sign(block) if kind != "gaussian" else block


RIGHT, LEFT, ERRORS = 0, 4, 6


def uniform_block(xp, shape, like, rng):
    from ._precision import real_dtype

    return move(xp, generator(rng, like).random(shape), like, real_dtype(xp, thin_dtype(xp, like.dtype)))

"""The random test matrices of sketches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._array import Array, Namespace, astype, validate
from .._linalg import ERRORS, KINDS, LEFT, RIGHT, RNG, check_rng, key_of, random_block
from .operator import Operator


def random_test_matrix(
    rows: int,
    columns: int,
    /,
    *,
    kind: str = "gaussian",
    first_row: int = 0,
    first_column: int = 0,
    dtype: Any = None,
    batch: tuple[int, ...] = (),
    rng: RNG = None,
    xp: Namespace = np,
    device: Any = None,
) -> Array:
    """Part of the random test matrix of a sketch; entries of mean 0 and E|ω|² = 1.

    An entry is a function of the seed, its row and its column alone: the same on every namespace and device,
    in a matrix of any size, and in any part of it.

    Parameters
    ----------
    rows, columns : int
        Size of the part.
    kind : {"gaussian", "uniform", "rademacher", "sparse_sign"}
        Normal; uniform in an interval around 0 (complex: in a square); ±1 (complex: (±1 ± i)/√2); or ±√(ℓ/8)
        (complex: also ±i√(ℓ/8)) in 8 of the ℓ places of each row and zeros elsewhere, for ℓ < 8 the same as
        ±1. The places depend on ℓ: sparse signs cannot be cut into columns.
    first_row, first_column : int
        First row and column of the part.
    dtype : dtype of the namespace, optional
        float32, float64, complex64 or complex128; by default that of the namespace.
    batch : tuple of int
        Leading axes: one stream for every matrix, the first that of a single matrix.
    rng : as for :func:`svd_sketch`
    xp, device : as for :func:`random_unitary`

    Returns
    -------
    array, shape (…, rows, columns)

    Notes
    -----
    Threefry-2x32 with twenty rounds, keyed by the seed and counted by row and column; numbers from 23 bits
    each, normal ones by Box and Muller, so none is larger than 5.8. Random bits agree exactly, values to
    rounding. A seed gives the same as ``jax.random.key(seed)``, which without ``jax_enable_x64`` keeps 32 of
    its bits.

    References
    ----------
    John Salmon, Mark Moraes, Ron Dror, David Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    A matrix in two parts, each of which makes its own rows:

    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> whole = lu.random_test_matrix(6, 3, rng=0)
    >>> lower = lu.random_test_matrix(2, 3, first_row=4, rng=0)
    >>> bool(np.all(lower == whole[4:]))
    True
    """
    validate.choice("kind", kind, KINDS)
    counts = {"rows": rows, "columns": columns, "first_row": first_row, "first_column": first_column}
    for name, value in counts.items():
        validate.count(name, value)
    for first, size in (("first_row", rows), ("first_column", columns)):
        if counts[first] + size > 1 << 31:
            raise ValueError(
                f"{first} must be at most 2³¹ − {size}, got {counts[first]}: 2³¹ is the most in an axis."
            )
    if kind == "sparse_sign" and first_column:
        raise ValueError("first_column must be 0 for kind='sparse_sign', whose rows cannot be cut.")
    like = validate.prototype(xp, dtype, device)
    xp = validate.namespace_of(dtype=like)
    shape = (*validate.sizes("batch", batch), rows, columns)
    return random_block(xp, shape, like, rng, RIGHT, kind, (first_row, first_column))


@dataclass(frozen=True)
class Samples:
    """The source of the columns of an operator's test matrices."""

    op: Operator
    kind: str
    given: Array | None
    rng: RNG

    @classmethod
    def of(cls, op: Operator, test_matrix: Array | str, rank: int, rng: RNG, *, rows: int) -> Samples:
        """The checked source; `rows` are those that a given matrix must have."""
        if isinstance(test_matrix, str):
            # One key for all blocks of a call: a Generator advances once.
            return cls(op, validate.choice("test_matrix", test_matrix, KINDS), None, key_of(rng, op.like))
        validate.namespace_of(**{op.name: op.like, "test_matrix": test_matrix})
        if test_matrix.ndim < 2 or test_matrix.shape[-2] != rows or not rank <= test_matrix.shape[-1] <= rows:
            raise ValueError(
                f"test_matrix must have shape (…, {rows}, ℓ) with {rank} ≤ ℓ ≤ {rows}, got "
                f"{tuple(test_matrix.shape)}."
            )
        validate.batches(**{op.name: op.like, "test_matrix": test_matrix})
        validate.same_dtype(op.xp, op.name, op.like, test_matrix=test_matrix)
        check_rng(rng, op.like)
        return cls(op, "gaussian", astype(op.xp, test_matrix, op.dtype), rng)

    def right(self, columns: int, first: int = 0) -> Array:
        """Columns of Ω from `first` on."""
        if self.given is not None and first + columns <= self.given.shape[-1]:
            return self.given[..., first : first + columns]
        shape = (*self.op.batch, self.op.columns, columns)
        return random_block(self.op.xp, shape, self.op.like, self.rng, RIGHT, self.kind, (0, first))

    def width(self, width: int) -> int:
        """The number of columns: that of a given matrix, or `width`."""
        return width if self.given is None else int(self.given.shape[-1])

    def measuring(self, columns: int) -> Array:
        """Gaussian columns that no basis is made of."""
        shape = (*self.op.batch, self.op.columns, columns)
        return random_block(self.op.xp, shape, self.op.like, self.rng, ERRORS)

    def left(self, rows: int, columns: int) -> Array:
        """A test matrix for the other side."""
        shape = (*self.op.batch, rows, columns)
        return random_block(self.op.xp, shape, self.op.like, self.rng, LEFT, self.kind)

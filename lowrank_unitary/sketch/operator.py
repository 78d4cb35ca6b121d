"""Operators: anything that can be multiplied with thin blocks from both sides."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import array_api_compat as compat
import numpy as np

from .._array import (
    Array,
    Namespace,
    astype,
    is_complex,
    is_jax,
    is_spread,
    local_part,
    local_rows,
    thin_dtype,
    validate,
    widest_dtype,
)
from .._linalg import adjoint, adjoint_product, product, promoted
from ..types import BodyFactors, LowRankFactors

Product = Callable[[Array], Array]

_KINDS = (
    "an array, LowRankFactors, BodyFactors, a scipy sparse matrix, a LinearOperator, or a pair of callables "
    "(matmul, adjoint_matmul)"
)


@dataclass(frozen=True)
class Operator:
    """An m×n matrix given by its products; `like` has the dtype and the device of its thin blocks."""

    name: str
    xp: Namespace
    like: Array
    batch: tuple[int, ...]
    # None where only a product can tell.
    rows: int | None
    columns: int
    _forward: Product
    _backward: Product
    array: Array | None = None
    factors: LowRankFactors | BodyFactors | None = None

    @property
    def dtype(self) -> Any:
        """The dtype of thin blocks."""
        return thin_dtype(self.xp, self.like.dtype)

    @property
    def smaller_side(self) -> int:
        """The largest rank that it can have."""
        return self.columns if self.rows is None else min(self.rows, self.columns)

    def forward(self, block: Array) -> Array:
        """A @ block."""
        return self._checked("matmul", self._forward(block), block)

    def backward(self, block: Array) -> Array:
        """Aᴴ @ block."""
        result = self._checked("adjoint_matmul", self._backward(block), block)
        if result.shape[-2] != self.columns:
            raise ValueError(
                f"{self.name} must have an adjoint product with {self.columns} rows, as many as the product "
                f"takes, got {result.shape[-2]}: check that it is Aᴴ @ block."
            )
        return result

    def of_rows(self, like: Array) -> Operator:
        """The operator of the rows that belong to those of `like` on this process.

        Its products with the adjoint are parts of a sum over the processes.
        """
        xp = self.xp
        if self.factors is not None:
            left, right = local_rows(like, self.factors.left), self.factors.right
            return replace(
                self,
                _forward=lambda block: _through(xp, left, right, block),
                _backward=lambda block: _through(xp, right, left, block),
            )
        rows = local_part(self.array) if is_spread(self.array) else local_rows(like, self.array)
        return replace(
            self,
            _forward=lambda block: product(xp, rows, block),
            _backward=lambda block: adjoint_product(xp, rows, block),
        )

    def scaled_down(self) -> tuple[Operator, Any]:
        """The operator divided by powers of two, so that no product overflows, and their logarithms."""
        xp = self.xp
        if self.factors is not None:
            (left, a), (right, b) = (_scaled_to_one(xp, x) for x in self.factors)
            return _of_factors(self.name, type(self.factors)(left, right), {}), a + b
        if self.array is not None:
            array, power = _scaled_to_one(xp, astype(xp, self.array, self.dtype))
            return operator_of(self.name, array), power
        # The entries of a block are below 10, and no matrix has more columns than this power.
        power = math.frexp(10.0 * self.columns * (self.rows or self.columns))[1]
        scale = 2.0**-power
        forward, backward = self._forward, self._backward
        scaled = replace(
            self,
            _forward=lambda block: forward(block * scale),
            _backward=lambda block: backward(block * scale),
        )
        return scaled, power

    def _checked(self, product: str, result: Any, block: Array) -> Array:
        if self.array is not None:
            return result
        if not compat.is_array_api_obj(result) or result.ndim < 2 or result.shape[-1] != block.shape[-1]:
            got = tuple(result.shape) if hasattr(result, "shape") else type(result).__name__
            raise ValueError(
                f"the {product} of {self.name} must return an array with one column for each of the "
                f"{block.shape[-1]} it is given, got {got}."
            )
        validate.same_dtype(self.xp, "test_matrix", self.like, **{f"the {product} of {self.name}": result})
        return astype(self.xp, result, self.dtype)


def operator_of(
    name: str, matrix: Any, like: Array | None = None, like_name: str = "test_matrix"
) -> Operator:
    """The operator of anything a caller may pass as a matrix; `like` is a block that it will be given."""
    arrays = {} if like is None else {like_name: like}
    if like is not None:
        validate.namespace_of(**arrays)
        validate.matrix(like_name, like)
    if compat.is_array_api_obj(matrix):
        xp = validate.namespace_of(**{name: matrix}, **arrays)
        validate.matrix(name, matrix)
        return Operator(
            name, xp, matrix, tuple(matrix.shape[:-2]), int(matrix.shape[-2]), int(matrix.shape[-1]),
            lambda block: product(xp, matrix, block),
            lambda block: adjoint_product(xp, matrix, block),
            array=matrix,
        )  # fmt: skip
    if isinstance(matrix, LowRankFactors | BodyFactors):
        return _of_factors(name, matrix, arrays)
    if _is_sparse(matrix) or all(hasattr(matrix, part) for part in ("matmat", "rmatmat", "shape", "dtype")):
        return _of_scipy(name, matrix, like, like_name)
    if isinstance(matrix, tuple) and len(matrix) == 2 and all(map(callable, matrix)):
        if like is None:
            raise ValueError(
                f"test_matrix must be an array of shape (…, n, ℓ) when {name} is a pair of callables, to say "
                f"its size, dtype and device: see random_test_matrix."
            )
        xp = validate.namespace_of(**arrays)
        return Operator(name, xp, like, tuple(like.shape[:-2]), None, int(like.shape[-2]), *matrix)
    raise TypeError(f"{name} must be {_KINDS}, got {type(matrix).__name__}.")


def _of_factors(name: str, factors: LowRankFactors | BodyFactors, arrays: dict[str, Array]) -> Operator:
    left, right = factors
    xp = validate.namespace_of(left=left, right=right, **arrays)
    validate.outer_factors(left, right)
    batch = validate.batches(left=left, right=right)
    dtype = thin_dtype(xp, widest_dtype(xp, left.dtype, right.dtype))
    left, right = astype(xp, left, dtype), astype(xp, right, dtype)
    return Operator(
        name, xp, left, batch, int(left.shape[-2]), int(right.shape[-2]),
        lambda block: _through(xp, left, right, block),
        lambda block: _through(xp, right, left, block),
        factors=type(factors)(left, right),
    )  # fmt: skip


def _scaled_to_one(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Matrices divided by a power of two near their largest finite entries, and its logarithms, (…, 1, 1)."""
    size = xp.abs(xp.real(x) if is_complex(xp, x.dtype) else x)
    if is_complex(xp, x.dtype):
        size = xp.maximum(size, xp.abs(xp.imag(x)))
    largest = xp.max(xp.where(xp.isfinite(size), size, 0.0), axis=(-2, -1), keepdims=True)
    power = xp.round(xp.log2(xp.where(largest > 0, largest, 1.0)))
    # In two halves: the power itself may leave the range of the dtype.
    half = xp.round(0.5 * power)
    down, rest = (promoted(xp, 2.0**-part, x) for part in (half, power - half))
    return x * down * rest, power


def _through(xp: Namespace, left: Array, right: Array, block: Array) -> Array:
    """The product left @ (rightᴴ @ block), with the few columns as rows.

    Factors of many columns are often transposed views, for which MKL takes up to 25 times as long as for the
    transposed product. Only thin blocks are conjugated.
    """
    if is_jax(xp):
        return product(xp, left, adjoint_product(xp, right, block))
    inner = adjoint(xp, adjoint(xp, block) @ right)
    return (inner.mT @ left.mT).mT


def _of_scipy(name: str, matrix: Any, like: Array | None, like_name: str) -> Operator:
    if len(matrix.shape) != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must have shape (m, n) with m, n ≥ 1, got {tuple(matrix.shape)}.")
    rows, columns = map(int, matrix.shape)
    own = np.empty((1, 1), dtype=matrix.dtype)
    validate.namespace_of(**{name: own} if like is None else {name: own, like_name: like})
    if like is not None:
        validate.same_dtype(np, like_name, like, **{name: own})
    like = own if like is None else like
    if _is_sparse(matrix):
        transposed = matrix.conj().T
        products: tuple[Product, Product] = (lambda block: matrix @ block, lambda block: transposed @ block)
    else:
        products = (matrix.matmat, lambda block: _adjoint_product(name, matrix, block))
    return Operator(name, compat.array_namespace(like), like, (), rows, columns, *products)


def refuse_callables(name: str, matrix: Any, method: str) -> None:
    """For methods that need to know the number of rows before the first product."""
    if isinstance(matrix, tuple) and not isinstance(matrix, LowRankFactors | BodyFactors):
        raise TypeError(
            f"{name} must be more than a pair of callables for method={method!r}, which needs its number of "
            f"rows: wrap them in a scipy.sparse.linalg.LinearOperator."
        )


def _adjoint_product(name: str, operator: Any, block: Array) -> Array:
    try:
        return operator.rmatmat(block)
    except (NotImplementedError, TypeError) as error:
        # scipy raises either for an operator without an adjoint.
        raise TypeError(
            f"{name} must have an adjoint product, which failed with: {error}. Give the LinearOperator an "
            f"rmatvec or rmatmat."
        ) from error


def _is_sparse(matrix: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(matrix))

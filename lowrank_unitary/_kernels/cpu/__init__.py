"""Kernels for numpy arrays and for torch tensors on a CPU, compiled by numba.

Matrices are row-major. Every kernel is serial; threads share the matrices of a stack, or the rows.
"""

from .rows import (
    active,
    adjoint_product_rows,
    apply_to,
    best_columns,
    compressed_factors,
    copied,
    descent_applies_to,
    descent_step,
    empty_like,
    product_rows,
    random_numbers,
    rank_one_rotation,
    rank_one_step,
    rotate_rows_in_cache,
    share_memory,
    tangent_factors,
    transport_step,
)

__all__ = [
    "active",
    "adjoint_product_rows",
    "apply_to",
    "best_columns",
    "compressed_factors",
    "copied",
    "descent_applies_to",
    "descent_step",
    "empty_like",
    "product_rows",
    "random_numbers",
    "rank_one_rotation",
    "rank_one_step",
    "rotate_rows_in_cache",
    "share_memory",
    "tangent_factors",
    "transport_step",
]

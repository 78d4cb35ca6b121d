"""Fast kernels; each has a generic line beside it that gives the same result to rounding."""

from ._rows import (
    adjoint_product_rows,
    apply_to,
    kernels_active,
    normal_numbers,
    product_rows,
    rank_one_rotation,
    rank_one_step,
    rotate_rows_in_cache,
)

__all__ = [
    "adjoint_product_rows",
    "apply_to",
    "kernels_active",
    "normal_numbers",
    "product_rows",
    "rank_one_rotation",
    "rank_one_step",
    "rotate_rows_in_cache",
]

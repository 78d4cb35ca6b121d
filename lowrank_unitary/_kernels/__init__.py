"""Fast kernels; each has a generic line beside it that gives the same result to rounding.

The names here are those of the CPU; `cuda` has the like for arrays on a GPU.
"""

from . import _cuda as cuda
from ._rows import (
    adjoint_product_rows,
    apply_to,
    copied,
    empty_like,
    kernels_active,
    normal_numbers,
    product_rows,
    rank_one_rotation,
    rank_one_step,
    rotate_rows_in_cache,
    share_memory,
)

__all__ = [
    "adjoint_product_rows",
    "apply_to",
    "copied",
    "cuda",
    "empty_like",
    "kernels_active",
    "normal_numbers",
    "product_rows",
    "rank_one_rotation",
    "rank_one_step",
    "rotate_rows_in_cache",
    "share_memory",
]

"""Kernels for arrays on a CUDA device, cupy's or torch's, compiled by NVRTC at first use.

The same operations as on a CPU, and whole steps of any rank up to 16.
"""

from .arrays import active, copied, empty_like, share_memory
from .steps import (
    adjoint_product_rows,
    apply_to,
    decompositions_apply_to,
    hermitian_eigen,
    low_rank_step,
    orthonormal_columns,
    product_rows,
    random_numbers,
    rotate_rows_in_cache,
    rotation,
    steps_apply_to,
    thin_product,
)

__all__ = [
    "active",
    "adjoint_product_rows",
    "apply_to",
    "copied",
    "decompositions_apply_to",
    "empty_like",
    "hermitian_eigen",
    "low_rank_step",
    "orthonormal_columns",
    "product_rows",
    "random_numbers",
    "rotate_rows_in_cache",
    "rotation",
    "share_memory",
    "steps_apply_to",
    "thin_product",
]

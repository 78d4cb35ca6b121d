"""The primitives of the mathematics, dispatched by namespace, the generic line last."""

from .._kernels import COLUMNS, ERRORS, LEFT, PROBES, RIGHT, START
from .decompositions import eigh, inv, qr, svd
from .random import (
    KINDS,
    RNG,
    Key,
    check_rng,
    key_of,
    random_block,
    uniform_block,
)
from .thin import (
    adjoint,
    broadcast,
    conj,
    eye_like,
    frobenius_norm,
    hstack,
    promoted,
    scaled_columns,
    unit_scaled,
)
from .traversals import (
    adjoint_product,
    is_column_major,
    product,
    pull_back,
    rotate_rows,
    thin_product,
)
from .whole import whole_descent, whole_rotation, whole_step, whole_transport

__all__ = [
    "COLUMNS",
    "ERRORS",
    "KINDS",
    "LEFT",
    "PROBES",
    "RIGHT",
    "RNG",
    "START",
    "Key",
    "adjoint",
    "adjoint_product",
    "broadcast",
    "check_rng",
    "conj",
    "eigh",
    "eye_like",
    "frobenius_norm",
    "hstack",
    "inv",
    "is_column_major",
    "key_of",
    "product",
    "promoted",
    "pull_back",
    "qr",
    "random_block",
    "rotate_rows",
    "scaled_columns",
    "svd",
    "thin_product",
    "uniform_block",
    "unit_scaled",
    "whole_descent",
    "whole_rotation",
    "whole_step",
    "whole_transport",
]

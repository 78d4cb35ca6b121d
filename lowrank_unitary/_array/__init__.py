"""What differs between array namespaces, in one place; nothing here imports a framework."""

from ._linalg import eigh, inv, qr, svd
from ._namespace import (
    Array,
    Namespace,
    array_namespace,
    is_numpy,
    is_torch,
    is_traced,
    is_writeable,
    move,
    placement,
    stop_gradient,
    to_numpy,
    values_are_at_hand,
)
from ._precision import (
    complex_dtype,
    core_dtype,
    eps,
    is_complex,
    real_dtype,
    tolerance,
)
from ._random import RNG, generator, normal_block

__all__ = [
    "RNG",
    "Array",
    "Namespace",
    "array_namespace",
    "complex_dtype",
    "core_dtype",
    "eigh",
    "eps",
    "generator",
    "inv",
    "is_complex",
    "is_numpy",
    "is_torch",
    "is_traced",
    "is_writeable",
    "move",
    "normal_block",
    "placement",
    "qr",
    "real_dtype",
    "stop_gradient",
    "svd",
    "to_numpy",
    "tolerance",
    "values_are_at_hand",
]

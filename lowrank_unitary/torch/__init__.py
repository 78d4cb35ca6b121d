"""Unitary parameters in torch: optimisers, gradients captured in factors, steps as operators, fine-tuning.

``import lowrank_unitary`` does not load this package, nor torch; ``import lowrank_unitary.torch`` loads both.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "lowrank_unitary.torch needs torch, which is not installed: pip install torch"
    ) from error

from .averaging import average_factors
from .capture import capture_factors, captured_factors, clip_grad_norm_, unitary_linear
from .convolution.layers import UnitaryConv1d, UnitaryConv2d, UnitaryConv3d
from .marking import is_marked, mark_unitary
from .optimisers.adam import UnitaryAdam
from .optimisers.sgd import UnitarySGD
from .parametrisation import low_rank_unitary
from .steps import polar_projection, unitary_transport

__all__ = [
    "UnitaryAdam",
    "UnitaryConv1d",
    "UnitaryConv2d",
    "UnitaryConv3d",
    "UnitarySGD",
    "average_factors",
    "capture_factors",
    "captured_factors",
    "clip_grad_norm_",
    "is_marked",
    "low_rank_unitary",
    "mark_unitary",
    "polar_projection",
    "unitary_linear",
    "unitary_transport",
]

"""Move an n×n unitary matrix by low-rank steps, on arrays of any kind.

    gradient ─sketch→ factors (a, b) ─pull back by Uᴴ→ body factors (c, b)
             ─2k×2k core→ rotation I + L Rᴴ ─rotate rows→ new U

Axes: the last two are the matrix, all others are a batch. ᴴ is the conjugate transpose, also for real arrays.
"""

from .certificate import RotationCertificate, rotation_certificate
from .compensated import CompensatedUnitary
from .compress import add_factors, compress_factors
from .delayed import DelayedUnitary
from .derivatives import (
    polar_projection_vjp,
    polar_rotation_vjp,
    rotate_vjp,
    transport_rotation_vjp,
    unitary_transport_vjp,
)
from .factors import (
    BodyFactors,
    LowRankFactors,
    LowRankRotation,
    RotateCotangents,
    StepCotangents,
    SVDSketch,
)
from .initialisers import cayley_unitary, henaff_unitary, random_unitary
from .momentum import MomentumState, momentum_step
from .polar import polar_rotation
from .rotation import rotate
from .sampling import random_test_matrix
from .sketch import svd_sketch
from .sketch_error import SketchError, leave_one_out_error, sketch_error, tangent_error
from .step import polar_projection, unitary_step, unitary_transport
from .tangent import compress_tangent, tangent_sketch
from .transport import transport_rotation
from .unitary import heal_unitary, is_unitary, reunitarize, unitarity_defect
from .warm_start import SketchState, warm_tangent_sketch

__version__ = "0.1.0"

__all__ = [
    "BodyFactors",
    "CompensatedUnitary",
    "DelayedUnitary",
    "LowRankFactors",
    "LowRankRotation",
    "MomentumState",
    "RotateCotangents",
    "RotationCertificate",
    "SVDSketch",
    "SketchError",
    "SketchState",
    "StepCotangents",
    "add_factors",
    "cayley_unitary",
    "compress_factors",
    "compress_tangent",
    "heal_unitary",
    "henaff_unitary",
    "is_unitary",
    "leave_one_out_error",
    "momentum_step",
    "polar_projection",
    "polar_projection_vjp",
    "polar_rotation",
    "polar_rotation_vjp",
    "random_test_matrix",
    "random_unitary",
    "reunitarize",
    "rotate",
    "rotate_vjp",
    "rotation_certificate",
    "sketch_error",
    "svd_sketch",
    "tangent_error",
    "tangent_sketch",
    "transport_rotation",
    "transport_rotation_vjp",
    "unitarity_defect",
    "unitary_step",
    "unitary_transport",
    "unitary_transport_vjp",
    "warm_tangent_sketch",
]

"""Move an n×n unitary matrix by low-rank steps, on arrays of any kind.

    gradient ─sketch→ factors (a, b) ─pull back by Uᴴ→ body factors (c, b)
             ─2k×2k core→ rotation I + L Rᴴ ─rotate rows→ new U

Axes: the last two are the matrix, all others are a batch. ᴴ is the conjugate transpose, also for real arrays.
"""

from .convolution.convolve import convolve
from .convolution.frequencies import independent_frequencies
from .convolution.gradient import convolution_body_gradient, convolution_gradient, spectrum_gradient
from .convolution.kernel import kernel_of_spectrum, spectrum_of_kernel
from .convolution.pixels import pixel_shuffle, pixel_unshuffle
from .convolution.spectrum import Spectrum, reunitarize_spectrum, spectrum_defect
from .convolution.starts import delta_spectrum, identity_spectrum, random_spectrum
from .convolution.step import spectrum_step
from .rotation.certificate import RotationCertificate, rotation_certificate
from .rotation.derivatives import (
    polar_projection_vjp,
    polar_rotation_vjp,
    rotate_vjp,
    transport_rotation_vjp,
    unitary_transport_vjp,
)
from .rotation.polar import polar_rotation
from .rotation.rotate import rotate
from .rotation.transport import transport_rotation
from .sketch.compress import add_factors, compress_factors
from .sketch.error import SketchError, leave_one_out_error, sketch_error
from .sketch.samples import random_test_matrix
from .sketch.svd import svd_sketch
from .step import polar_projection, unitary_step, unitary_transport
from .tangent.error import tangent_error
from .tangent.momentum import MomentumState, momentum_step
from .tangent.sketch import compress_tangent, tangent_sketch
from .tangent.warm_start import SketchState, warm_tangent_sketch
from .types import BodyFactors, LowRankFactors, LowRankRotation, RotateCotangents, StepCotangents, SVDSketch
from .unitary.defect import is_unitary, reunitarize, unitarity_defect
from .unitary.delayed import DelayedUnitary
from .unitary.half import CompensatedUnitary
from .unitary.heal import heal_unitary
from .unitary.initialisers import cayley_unitary, henaff_unitary, random_unitary

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
    "Spectrum",
    "StepCotangents",
    "add_factors",
    "cayley_unitary",
    "compress_factors",
    "compress_tangent",
    "convolution_body_gradient",
    "convolution_gradient",
    "convolve",
    "delta_spectrum",
    "heal_unitary",
    "henaff_unitary",
    "identity_spectrum",
    "independent_frequencies",
    "is_unitary",
    "kernel_of_spectrum",
    "leave_one_out_error",
    "momentum_step",
    "pixel_shuffle",
    "pixel_unshuffle",
    "polar_projection",
    "polar_projection_vjp",
    "polar_rotation",
    "polar_rotation_vjp",
    "random_spectrum",
    "random_test_matrix",
    "random_unitary",
    "reunitarize",
    "reunitarize_spectrum",
    "rotate",
    "rotate_vjp",
    "rotation_certificate",
    "sketch_error",
    "spectrum_defect",
    "spectrum_gradient",
    "spectrum_of_kernel",
    "spectrum_step",
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

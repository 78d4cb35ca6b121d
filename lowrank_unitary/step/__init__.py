"""The whole flow in one call: from U and thin factors, or from U and its gradient, to the new U.

Input: U, and `left` and `right` or a gradient of any kind. Output: the new U. By the kernels in one call
where there are some for the arrays, else stage by stage: pull back, rotation, rows moved.
"""

from .from_factors import polar_projection, unitary_transport
from .from_gradient import SKETCHES, unitary_step

__all__ = ["SKETCHES", "polar_projection", "unitary_step", "unitary_transport"]

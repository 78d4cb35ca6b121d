"""The published form of the projUNN updates and of its sampler, for comparison only.

Written from the mathematics of the paper, with the departures of the authors' code. Do not train with these
functions. U is (n, n), left and right (n, k).

- The core is a projected 2k×2k matrix, diagonalised by a *general* eigendecomposition, with the conjugate
  transpose of the eigenvectors in place of their inverse. The two agree only where the eigenvectors happen
  to be orthonormal; where eigenvalues repeat they are not.
- At rank 1 the core is computed in complex64 whatever the dtype of the data is.
- The polar update adds an absolute 1e-8 under the root and is applied to U + left rightᴴ itself, with
  leftᴴ left where (Uᴴ left)ᴴ(Uᴴ left) belongs: the two differ as soon as U has a unitarity defect.
- The sampler divides by singular values to which an absolute 1e-6 was added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..reference import adjoint

Numbers = np.ndarray[Any, Any]

ROOT_EPSILON = 1e-8
SAMPLER_EPSILON = 1e-6


def transport(unitary: Numbers, left: Numbers, right: Numbers) -> Numbers:
    """Transport in the published form, U exp(skew(Uᴴ left rightᴴ)); NaN where U or the step is not finite."""
    Q, b, c = _projected(unitary, left, right)
    omega = (c @ adjoint(b) - b @ adjoint(c)) / 2
    change = _spectral_function(omega, lambda eigenvalues: np.exp(eigenvalues) - 1, left.shape[-1])
    return _of_kind(unitary, unitary + (unitary @ Q @ change) @ adjoint(Q))


def polar(unitary: Numbers, left: Numbers, right: Numbers) -> Numbers:
    """Polar projection in the published form, (U + left rightᴴ) times an inverse root; NaN as above."""
    Q, b, c = _projected(unitary, left, right)
    core = c @ adjoint(b) + b @ adjoint(c) + b @ (adjoint(left) @ left) @ adjoint(b)
    change = _spectral_function(
        core, lambda eigenvalues: 1 / np.sqrt(1 + eigenvalues + ROOT_EPSILON) - 1, left.shape[-1]
    )
    moved = unitary + left @ adjoint(right)
    return _of_kind(unitary, moved + (moved @ Q @ change) @ adjoint(Q))


def lsi(matrix: Numbers, rank: int, rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """The sampler LSI in the published form: matrix ≈ left @ rightᴴ with left = matrix @ right (m, k)."""
    n = matrix.shape[0]
    test = rng.standard_normal((n, rank))
    if np.iscomplexobj(matrix):
        test = test + 1j * rng.standard_normal((n, rank))
    R, _ = np.linalg.qr(test)
    sample = np.sqrt(n / rank) * adjoint(R) @ matrix
    u, s, _ = np.linalg.svd(sample, full_matrices=False)
    # Right singular vectors times s/(s + 1e-6). They enter the result twice.
    right = adjoint(sample) @ u / (s + SAMPLER_EPSILON)
    return _of_kind(matrix, matrix @ right), _of_kind(matrix, right)


def _projected(unitary: Numbers, left: Numbers, right: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Q with orthonormal columns from a QR of [right, Uᴴ left], and Qᴴ right, Qᴴ Uᴴ left."""
    k = left.shape[-1]
    Q, R = np.linalg.qr(np.concatenate([right, adjoint(unitary) @ left], axis=-1))
    return Q, R[..., :k], R[..., k:]


def _spectral_function(core: Numbers, f: Callable[[Numbers], Numbers], k: int) -> Numbers:
    """V f(λ) Vᴴ, in complex64 at rank 1."""
    core = core.astype(np.complex64 if k == 1 else np.result_type(core.dtype, np.complex64))
    if not np.all(np.isfinite(core)):
        return np.full_like(core, np.nan)
    eigenvalues, V = np.linalg.eig(core)
    with np.errstate(all="ignore"):
        return np.asarray((V * f(eigenvalues)[..., None, :]) @ adjoint(V))


def _of_kind(like: Numbers, result: Numbers) -> Numbers:
    """The result in the dtype of the argument, real for real data up to rounding."""
    return (result if np.iscomplexobj(like) else result.real).astype(like.dtype)

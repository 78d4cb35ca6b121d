"""The planes in which a tangent rotates: the leading ones, as factors and as a rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._array import Array, Namespace, astype, complex_dtype, core_dtype, is_complex
from .._linalg import adjoint, broadcast, eigh, hstack, promoted, qr, thin_product, whole_columns
from ..types import BodyFactors, LowRankRotation


def two_sided(xp: Namespace, image: Array, basis: Array) -> tuple[Array, Array]:
    """(C, B) from AB and B, such that skew(C Bᴴ) has every entry of A that touches range(B)."""
    inside = thin_product(xp, adjoint(xp, basis), image)
    return 2.0 * image - thin_product(xp, basis, inside), basis


@dataclass(frozen=True)
class Planes:
    """The best k columns of a tangent T = skew(left rightᴴ), from the eigenvalues w of the Hermitian iT.

    T̂ keeps the k largest positive w and the k largest negative ones: no skew(C Qᴴ) with k columns is nearer
    to T. For real T they come in pairs ±λ with vectors (x ± iy)/√2, and x, y span a plane of rotation.
    """

    xp: Namespace
    dtype: Any
    k: int
    # Orthonormal columns in which T is small; None for the identity.
    basis: Array | None
    # In ascending order, in the precision of the core.
    w: Array
    vectors: Array

    @property
    def positive(self) -> Array:
        """The k largest eigenvalues, descending, 0 in place of negative ones. NaN stays."""
        w = self.xp.flip(self.w, axis=-1)[..., : self.k]
        return self.xp.where(w < 0, 0.0, w)

    @property
    def negative(self) -> Array:
        """Minus the k smallest eigenvalues, descending, 0 in place of negative ones. NaN stays."""
        w = -self.w[..., : self.k]
        return self.xp.where(w < 0, 0.0, w)

    @property
    def sizes(self) -> Array:
        """The Frobenius norm of what every column holds."""
        return self.xp.hypot(self.positive, self.negative)

    def factors(self) -> BodyFactors:
        """(C, Q) with T̂ = skew(C Qᴴ): ½(x yᴴ + y xᴴ) = λ v₊v₊ᴴ − μ v₋v₋ᴴ for x, y = √λ v₊ ± √μ v₋."""
        xp = self.xp
        roots = (xp.sqrt(w)[..., None, :] for w in (self.positive, self.negative))
        above, below = (promoted(xp, root, self.vectors) for root in roots)
        up = xp.flip(self.vectors, axis=-1)[..., : self.k] * above
        if is_complex(xp, self.dtype):
            down = self.vectors[..., : self.k] * below
            return BodyFactors(self._lifted(-1j * (up + down)), self._lifted(up - down))
        return BodyFactors(self._lifted(2.0 * xp.imag(up)), self._lifted(2.0 * xp.real(up)))

    def rotation(self, step_size: Array, update: str) -> LowRankRotation:
        """The rotation by −η T̂, in closed form: exact to rounding at every step size.

        exp(−η T̂), its Cayley form and polar(I − η T̂) rotate by the angles ηw, 2 arctan(ηw/2) and arctan(ηw).
        `step_size` is shaped to multiply a stack of matrices.
        """
        xp, m = self.xp, self.w.shape[-1]
        if not is_complex(xp, self.dtype):
            count = min(self.k, m // 2)
            vectors, w = xp.flip(self.vectors, axis=-1)[..., :count], self.positive[..., :count]
        elif 2 * self.k < m:
            vectors = hstack(xp, self.vectors[..., : self.k], self.vectors[..., m - self.k :])
            w = xp.concat([-self.negative, xp.flip(self.positive, axis=-1)], axis=-1)
        else:
            # The two ends overlap: every eigenvalue counts once.
            vectors = self.vectors
            rest = xp.zeros_like(self.w[..., self.k :])
            w = xp.concat([rest, xp.flip(self.positive, axis=-1)], axis=-1)
            w = w - xp.concat([self.negative, rest], axis=-1)
        if is_complex(xp, self.dtype):
            # Eigenvectors are orthonormal to some dozens of eps.
            vectors = qr(xp, vectors)[0]
        theta = (step_size * w[..., None, :])[..., 0, :]
        left, right = turned(xp, vectors, theta, update, self.dtype)
        return LowRankRotation(self._lifted(left), self._lifted(right))

    def _lifted(self, small: Array) -> Array:
        small = astype(self.xp, small, self.dtype)
        return small if self.basis is None else thin_product(self.xp, self.basis, small)


def leading_planes(xp: Namespace, left: Array, right: Array, k: int) -> Planes:
    """The best k columns of T = skew(left rightᴴ)."""
    left, right = broadcast(xp, left, right)
    dtype = left.dtype
    core = core_dtype(xp, dtype)
    n, m = left.shape[-2:]
    basis = None
    if 2 * m < n:
        basis, R = qr(xp, hstack(xp, left, right))
        left, right = R[..., :m], R[..., m:]
    left, right = astype(xp, left, core), astype(xp, right, core)
    T = thin_product(xp, left, adjoint(xp, right))
    T = 0.5 * (T - adjoint(xp, T))
    w, vectors = eigh(xp, 1j * astype(xp, T, complex_dtype(xp, core)))
    return Planes(xp, dtype, min(k, w.shape[-1]), basis, w, vectors)


def best_columns(xp: Namespace, left: Array, right: Array, k: int) -> BodyFactors:
    """(C, Q) of the best k columns of skew(left rightᴴ), in one compiled call where there is one."""
    left, right = broadcast(xp, left, right)
    made = whole_columns(xp, left, right, k)
    return leading_planes(xp, left, right, k).factors() if made is None else BodyFactors(*made)


def turned(xp: Namespace, vectors: Array, theta: Array, update: str, dtype: Any) -> tuple[Array, Array]:
    """L and R with L Rᴴ = Σ (e^{iφ} − 1) v vᴴ over the columns v of `vectors`, φ the angle that belongs to θ.

    For a real `dtype` a column v = (x + iy)/√2 stands for its complex conjugate too, and θ descends. Next to
    a large θ, rounding leaves planes of small θ not orthogonal; QR in this order repairs them and changes the
    result by no more than rounding of the tangent does.
    """
    cosine, sine = (x[..., None, :] for x in _angles(xp, theta, update))
    if is_complex(xp, dtype):
        return vectors * (astype(xp, cosine, vectors.dtype) + 1j * astype(xp, sine, vectors.dtype)), vectors
    n, count = vectors.shape[-2:]
    if count == 0:
        # One dimension has no plane.
        return xp.real(vectors), xp.real(vectors)
    parts = xp.stack([xp.real(vectors), xp.imag(vectors)], axis=-1)
    Q, R = qr(xp, xp.reshape(parts, (*vectors.shape[:-2], n, 2 * count)))
    diagonal = xp.linalg.diagonal(R)
    Q = Q * xp.where(diagonal < 0, -1.0, xp.ones_like(diagonal))[..., None, :]
    x, y = Q[..., 0::2], Q[..., 1::2]
    return hstack(xp, x * cosine - y * sine, y * cosine + x * sine), hstack(xp, x, y)


def _angles(xp: Namespace, theta: Array, update: str) -> tuple[Array, Array]:
    """Cos φ − 1 and sin φ, in which nothing cancels at small θ."""
    if update == "geodesic":
        return -2.0 * xp.sin(0.5 * theta) ** 2, xp.sin(theta)
    half = 0.5 * theta if update == "cayley" else theta
    hypotenuse = xp.hypot(xp.ones_like(half), half)
    cosine, sine = 1.0 / hypotenuse, half / hypotenuse
    if update == "cayley":
        return -2.0 * sine**2, 2.0 * sine * cosine
    return -sine * (half / (1.0 + hypotenuse)), sine

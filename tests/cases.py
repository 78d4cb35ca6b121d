"""Hypothesis strategies: a seed, sizes and a kind are drawn; the arrays follow from them."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import tolerance

# One of each kind and of each precision: for tests in which a library compiles anew for every dtype.
ONE_OF_EACH = ("float32", "complex128")
KINDS = (
    "generic",
    "collinear",  # b parallel to Uᴴa, the critical point of a real rank-1 step
    "opposite",
    "repeated",
    "zero column",
    "zero left",
    "zero",
    "rank one",
    "unbalanced",
    "decaying",
)


def normal(rng, shape, dtype):
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def ct(x):
    return np.conj(np.swapaxes(x, -1, -2))


@dataclass(frozen=True)
class Step:
    """A unitary matrix and a step of known size."""

    unitary: np.ndarray
    left: np.ndarray
    right: np.ndarray
    norm: float
    kind: str
    seed: int

    @property
    def arrays(self):
        return self.unitary, self.left, self.right

    @property
    def n(self):
        return self.unitary.shape[-1]

    @property
    def k(self):
        return self.left.shape[-1]

    @property
    def dtype(self):
        return self.unitary.dtype

    @property
    def body(self):
        return lu.LowRankFactors(self.left, self.right).to_body(self.unitary)

    def tolerance(self, scale=1.0):
        """c(n, k)·eps for an error in the Frobenius norm; `scale` is the sensitivity of the result."""
        return tolerance(np, self.dtype, self.n, self.k, scale=max(1.0, self.norm) * scale)

    def smallest_singular_value(self):
        """σ_min of U + left rightᴴ, in double precision."""
        u, a, b = (reference.extended(x) for x in self.arrays)
        moved = np.eye(self.n) + (reference.adjoint(u) @ a) @ reference.adjoint(b)
        double = np.complex128 if np.iscomplexobj(moved) else np.float64
        return float(np.linalg.svd(moved.astype(double), compute_uv=False)[..., -1].min(initial=np.inf))


def make_step(seed, n, k, dtype, kind="generic", norm=1.0, batch=()):
    """A step left rightᴴ of spectral norm `norm` for every matrix of the batch."""
    rng = np.random.default_rng(seed)
    unitary = lu.random_unitary(n, dtype=dtype, batch=batch, rng=rng)
    wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    a, b = normal(rng, (*batch, n, k), wide), normal(rng, (*batch, n, k), wide)
    if kind in ("collinear", "opposite"):
        a = unitary @ b * (1 if kind == "collinear" else -1)
    if kind == "repeated":
        a, b = np.repeat(a[..., :1], k, axis=-1), np.repeat(b[..., :1], k, axis=-1)
    if kind == "zero column":
        a[..., 0], b[..., -1] = 0, 0
    if kind == "zero left":
        a[...] = 0
    if kind == "zero":
        a[...], b[...] = 0, 0
    if kind == "rank one":
        # All of one sign: where columns cancel, the sum of products is known to eps of the largest only.
        a = a[..., :1] * np.abs(rng.standard_normal(k))
        b = b[..., :1] * np.abs(rng.standard_normal(k))
    if kind == "decaying":
        a = a * 10.0 ** -np.arange(k)
    size = np.linalg.norm(a @ ct(b), 2, axis=(-2, -1))[..., None, None]
    a = a * np.where(size > 0, norm / np.where(size > 0, size, 1), 1)
    if kind == "unbalanced":
        limit = 100 if np.finfo(dtype).eps < 1e-10 else 12
        factor = 10.0 ** rng.uniform(-limit, limit, k)
        a, b = a * factor, b / factor
    return Step(unitary, a.astype(dtype), b.astype(dtype), norm, kind, seed)


@st.composite
def steps(
    draw, dtypes=("float32", "float64", "complex64", "complex128"), kinds=KINDS, max_n=12, max_norm=1.0
):
    """Steps of norm 1e-12 … 10^max_norm, every rank from 1 past n."""
    n = draw(st.integers(1, max_n), label="n")
    return make_step(
        seed=draw(st.integers(0, 2**32 - 1), label="seed"),
        n=n,
        k=draw(st.integers(1, n + 2), label="k"),
        dtype=draw(st.sampled_from(dtypes), label="dtype"),
        kind=draw(st.sampled_from(kinds), label="kind"),
        norm=10.0 ** draw(st.floats(-12.0, max_norm), label="log10 norm"),
        batch=draw(st.sampled_from([(), (1,), (3,), (2, 2)]), label="batch"),
    )


UPDATES = {
    "geodesic": (
        lambda u, a, b, **options: lu.unitary_transport(u, a, b, **options),
        lambda u, a, b: reference.transport(u, a, b),
    ),
    "cayley": (
        lambda u, a, b, **options: lu.unitary_transport(u, a, b, update="cayley", **options),
        lambda u, a, b: reference.transport(u, a, b, "cayley"),
    ),
    "polar": (
        lambda u, a, b, **options: lu.polar_projection(u, a, b, **options),
        lambda u, a, b: reference.polar(u, a, b),
    ),
}

ROTATIONS = {
    "geodesic": lu.transport_rotation,
    "cayley": lambda body, **options: lu.transport_rotation(body, update="cayley", **options),
    "polar": lu.polar_rotation,
}


def error(result, expected):
    """Largest Frobenius norm of the difference over the batch; NaN counts."""
    difference = reference.extended(result) - expected
    return float(np.max(np.sqrt(np.sum(np.abs(difference) ** 2, axis=(-2, -1))), initial=0.0))

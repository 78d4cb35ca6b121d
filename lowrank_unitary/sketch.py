"""Rank-k SVD sketches of a matrix: exact, randomised, and the two samplers of the projUNN paper."""

from __future__ import annotations

from . import _validate
from ._array import (
    RNG,
    Array,
    Namespace,
    astype,
    generator,
    is_half,
    move,
    normal_block,
    qr,
    real_dtype,
    svd,
    thin_dtype,
)
from ._primitives import adjoint, adjoint_product, product
from .factors import SVDSketch

METHODS = ("randomized", "exact", "lsi", "columns")


def svd_sketch(
    matrix: Array,
    rank: int,
    /,
    *,
    method: str = "randomized",
    oversample: int | None = None,
    power_iterations: int | None = None,
    rng: RNG = None,
    test_matrix: Array | None = None,
) -> SVDSketch:
    """Approximate a matrix by one of rank k, as a truncated singular value decomposition.

    Parameters
    ----------
    matrix : array, shape (…, m, n)
        Real or complex, any batch of leading axes.
    rank : int
        k, from 1 to min(m, n).
    method : {"randomized", "exact", "lsi", "columns"}
        ``"randomized"``: range finder with oversampling and re-orthonormalised power iterations [1]_.
        ``"exact"``: the best approximation, from a full SVD.
        ``"lsi"``: least-squares interpolation, one pass with k Haar-distributed samples [2]_.
        ``"columns"``: columns drawn with probability proportional to their squared norms [3]_.
    oversample : int, optional
        Samples beyond k, for ``"randomized"`` (default 8) and ``"columns"`` (default k).
    power_iterations : int, optional
        Applications of matrix matrixᴴ to the samples, for ``"randomized"`` (default 2).
    rng : int, numpy.random.Generator or None
        Source of the random test matrix; None draws a new one from the operating system. The same seed
        gives the same test matrix on every array namespace and device.
    test_matrix : array, optional
        Used in place of random numbers: shape (…, n, k + oversample) for ``"randomized"`` (its width
        then sets the oversampling), (…, m, k) for ``"lsi"``.

    Returns
    -------
    SVDSketch
        U (…, m, k), S (…, k), Vh (…, k, n); in float32 for a matrix in half precision.

    Raises
    ------
    TypeError, ValueError
        For arguments outside the stated ranges, or options that the method does not have.

    Notes
    -----
    Cost with ℓ = k + oversample and q power iterations: (2q + 2) products of the matrix with ℓ columns for
    ``"randomized"``, 2 with k columns for ``"lsi"``, 1 with k and 1 with ℓ for ``"columns"``, O(mn min(m, n))
    for ``"exact"``. All methods are scale-invariant: no absolute constant occurs, so the sketch of s·A is s
    times the sketch of A. Rank-deficient samples stay orthonormal (Householder QR). A matrix holding NaN
    gives NaN.

    With two power iterations and 8 further samples the captured energy is 0.998 of the optimum on average for
    singular values falling like j^-½ (n = 400, k = 1, 4, 16; 0.993 at worst); with one iteration 0.986.

    References
    ----------
    .. [1] N. Halko, P.-G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53
       (2011), algorithms 4.4 and 5.1.
    .. [2] B. Kiani, R. Balestriero, Y. LeCun, S. Lloyd, "projUNN: efficient method for training deep networks
       with unitary matrices", NeurIPS 2022. There the factor √(n/k) is added to an absolute constant; here
       only the row space of the samples is used, which no scale changes.
    .. [3] P. Drineas, R. Kannan, M. W. Mahoney, "Fast Monte Carlo algorithms for matrices II", SIAM J.
       Comput. 36 (2006), LinearTimeSVD.

    Examples
    --------
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> rng = np.random.default_rng(0)
    >>> matrix = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 40))
    >>> U, S, Vh = lu.svd_sketch(matrix, 3, rng=1)
    >>> np.allclose((U * S) @ Vh, matrix)
    True
    """
    _validate.choice("method", method, METHODS)
    given = {"test_matrix": test_matrix} if test_matrix is not None else {}
    xp = _validate.namespace_of(matrix=matrix, **given)
    m, n = _validate.matrix("matrix", matrix)
    k = _validate.rank(rank, min(m, n))
    takes = {"randomized": ("oversample", "power_iterations", "test_matrix"),
             "exact": (), "lsi": ("test_matrix",), "columns": ("oversample",)}[method]  # fmt: skip
    for name, value in (
        ("oversample", oversample),
        ("power_iterations", power_iterations),
        ("test_matrix", test_matrix),
    ):
        if value is not None and name not in takes:
            raise ValueError(f"{name} has no meaning for method={method!r}: leave it out.")
    if is_half(xp, matrix.dtype) and method in ("exact", "columns"):
        matrix = xp.astype(matrix, thin_dtype(xp, matrix.dtype))
    if method == "exact":
        return _truncate(*svd(xp, matrix), k)
    if method == "lsi":
        samples = _test_matrix(xp, matrix, m, k, k, rng, test_matrix)
        return _lsi(xp, matrix, samples)
    if method == "columns":
        extra = k if oversample is None else _validate.count("oversample", oversample)
        return _columns(xp, matrix, k, k + extra, rng)
    extra = 8 if oversample is None else _validate.count("oversample", oversample)
    passes = 2 if power_iterations is None else _validate.count("power_iterations", power_iterations)
    samples = _test_matrix(xp, matrix, n, k, min(k + extra, m, n), rng, test_matrix)
    return _randomized(xp, matrix, k, samples, passes)


def _randomized(xp: Namespace, matrix: Array, k: int, samples: Array, power_iterations: int) -> SVDSketch:
    basis, _ = qr(xp, product(xp, matrix, samples))
    for _ in range(power_iterations):
        other, _ = qr(xp, adjoint_product(xp, matrix, basis))
        basis, _ = qr(xp, product(xp, matrix, other))
    return _in_basis(xp, matrix, basis, k)


def _lsi(xp: Namespace, matrix: Array, samples: Array) -> SVDSketch:
    """A ≈ (AV)Vᴴ with V an orthonormal basis of the row space of RᴴA, R Haar."""
    # Only the range of R counts, and that of a Gaussian R is Haar-distributed already.
    row_basis, _ = qr(xp, adjoint_product(xp, matrix, samples))
    u, s, wh = svd(xp, product(xp, matrix, row_basis))
    return SVDSketch(u, s, wh @ adjoint(xp, row_basis))


def _columns(xp: Namespace, matrix: Array, k: int, columns: int, rng: RNG) -> SVDSketch:
    """A ≈ HHᴴA, H the k leading left singular vectors of columns A_j/√(c p_j), p_j = |A_j|²/‖A‖²."""
    n = matrix.shape[-1]
    largest = xp.max(xp.abs(matrix), axis=(-2, -1), keepdims=True)
    scaled = matrix / xp.where(largest > 0, largest, 1.0)
    squares = xp.sum(xp.abs(scaled) ** 2, axis=-2)
    total = xp.sum(squares, axis=-1, keepdims=True)
    weights = xp.where(total > 0, squares / xp.where(total > 0, total, 1.0), 1.0 / n)
    upper = xp.cumulative_sum(weights, axis=-1)
    lower = upper - weights
    shape = (*matrix.shape[:-2], 1, columns)
    draw = move(xp, generator(rng, matrix).random(shape), matrix, real_dtype(xp, matrix.dtype))
    draw = draw * upper[..., None, -1:]
    # Column j of the selection is the indicator of the interval of the cumulated weights that draw j hits.
    chosen = (lower[..., :, None] <= draw) & (draw < upper[..., :, None])
    chance = xp.where(weights > 0, weights, 1.0)[..., :, None]
    selection = xp.where(chosen, 1.0 / xp.sqrt(columns * chance), 0.0)
    u, _, _ = svd(xp, scaled @ astype(xp, selection, matrix.dtype))
    return _in_basis(xp, matrix, u[..., :k], k)


def _in_basis(xp: Namespace, matrix: Array, basis: Array, k: int) -> SVDSketch:
    """The k leading singular triplets of Q Qᴴ A."""
    # SVD of the tall (QᴴA)ᴴ through its small triangular factor: the n-sized part is one QR.
    tall_q, small_r = qr(xp, adjoint_product(xp, matrix, basis))
    v_small, s, uh_small = svd(xp, small_r)
    v = tall_q @ v_small[..., :k]
    u = basis @ adjoint(xp, uh_small)[..., :k]
    return SVDSketch(u, s[..., :k], adjoint(xp, v))


def _truncate(u: Array, s: Array, vh: Array, k: int) -> SVDSketch:
    return SVDSketch(u[..., :k], s[..., :k], vh[..., :k, :])


def _test_matrix(
    xp: Namespace, matrix: Array, rows: int, rank: int, columns: int, rng: RNG, given: Array | None
) -> Array:
    if given is None:
        return normal_block(xp, (*matrix.shape[:-2], rows, columns), matrix, rng)
    check_test_matrix(xp, "matrix", matrix, given, rows, rank)
    return astype(xp, given, thin_dtype(xp, matrix.dtype))


def check_test_matrix(xp: Namespace, name: str, matrix: Array, given: Array, rows: int, rank: int) -> None:
    """A test matrix given by the caller: (…, rows, ≥ rank), no wider in dtype than the matrix."""
    if given.ndim < 2 or given.shape[-2] != rows or not rank <= given.shape[-1] <= rows:
        raise ValueError(
            f"test_matrix must have shape (…, {rows}, ℓ) with {rank} ≤ ℓ ≤ {rows}, got {tuple(given.shape)}."
        )
    _validate.batches(**{name: matrix, "test_matrix": given})
    _validate.same_dtype(xp, name, matrix, test_matrix=given)

"""The judge: every dense definition satisfies the properties that define it, in extended precision."""

import numpy as np
import pytest
import scipy.linalg
from cases import make_step, normal

from lowrank_unitary import reference as ref

EPS = float(np.finfo(np.longdouble).eps)


@pytest.fixture(params=["float64", "complex128"])
def square(request):
    return normal(np.random.default_rng(0), (2, 7, 7), request.param)


def largest(x):
    return float(np.max(np.abs(x)))


def test_polar_factor_is_unitary_and_leaves_a_positive_hermitian_factor(square):
    p = ref.polar_factor(square)
    h = ref.adjoint(p) @ square
    assert largest(ref.unitarity_defect(p)) <= 100 * EPS
    assert largest(h - ref.adjoint(h)) <= 100 * EPS * largest(h)
    assert np.linalg.eigvalsh(h.astype(square.dtype)).min() > 0
    assert largest(p[0] - scipy.linalg.polar(square[0])[0]) <= 1e-12


def test_polar_factor_is_accurate_near_singular_matrices():
    rng = np.random.default_rng(1)
    u, v = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    x = ref.extended(u) * np.array([1, 1, 1, 1, 1, 1e-6]) @ ref.extended(v)
    h = ref.adjoint(ref.polar_factor(x)) @ x
    assert largest(h - ref.adjoint(h)) <= 100 * EPS


def test_exponential_matches_scipy_and_inverts_to_that_of_the_negative(square):
    e = ref.exponential(square)
    assert largest(e[0] - scipy.linalg.expm(square[0])) <= 1e-12 * largest(e)
    product = e @ ref.exponential(-square)
    assert largest(product - np.eye(7)) <= 1000 * EPS * largest(e) ** 2


def test_cayley_satisfies_its_equation(square):
    x = ref.skew(ref.extended(square))
    c = ref.cayley(x)
    eye = np.eye(7)
    assert largest(c @ (eye - x / 2) - (eye + x / 2)) <= 1000 * EPS
    assert largest(ref.unitarity_defect(c)) <= 1000 * EPS


def test_inverse_is_an_inverse(square):
    assert largest(square @ ref.inverse(square) - np.eye(7)) <= 1e4 * EPS


def test_polar_of_a_unitary_step_is_the_polar_factor_of_the_sum():
    step = make_step(0, 6, 2, "complex128")
    # The matrix is unitary to double precision only, so the two differ by its defect.
    direct = ref.polar_factor(ref.extended(step.unitary) + step.left @ np.conj(step.right.T))
    assert largest(ref.polar(*step.arrays) - direct) <= 1e-14


def test_spectral_norm_and_defect_of_known_matrices():
    assert ref.spectral_norm(np.diag([3.0, -4.0]) * 1e300) == pytest.approx(4e300)
    assert ref.unitarity_defect(2 * np.eye(4)) == pytest.approx(6)
    assert ref.tangent(np.eye(2), np.array([[1.0, 2.0], [0.0, 1.0]])) == pytest.approx(
        np.array([[0, 1], [-1, 0]])
    )

"""The named tuples mean what they say: multiples, products, inverses, and no arithmetic of tuples."""

import operator

import numpy as np
import pytest
from cases import ONE_OF_EACH, ct, normal

import lowrank_unitary as lu

KINDS = (lu.LowRankFactors, lu.BodyFactors)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ONE_OF_EACH)
def test_scaled_factors_stand_for_the_multiple(kind, dtype):
    rng = np.random.default_rng(0)
    left, right = normal(rng, (3, 5, 2), dtype), normal(rng, (3, 5, 2), dtype)
    factors = kind(left, right)
    exact = left @ ct(right)
    np.testing.assert_array_equal(factors.dense(), exact)
    for factor in (-0.5, np.float64(4.0), np.array([2.0, -1.0, 0.25], np.float32)):
        scaled = factors.scaled(factor)
        assert type(scaled) is kind
        assert scaled.left.dtype == dtype
        # Powers of two: no digit is lost.
        np.testing.assert_array_equal(scaled.dense(), np.reshape(factor, (-1, 1, 1)) * exact)


def test_factors_of_a_rectangular_matrix_are_dense_and_scaled_too():
    left, right = np.ones((4, 1)), np.ones((2, 1))
    assert lu.LowRankFactors(left, right).scaled(3.0).dense().shape == (4, 2)


@pytest.mark.parametrize("factor", [1j, "2", None, np.array(1j)])
def test_a_factor_that_is_no_real_number_is_refused(factor):
    with pytest.raises(TypeError, match="factor must be"):
        lu.BodyFactors(np.ones((2, 1)), np.ones((2, 1))).scaled(factor)


@pytest.mark.parametrize("dtype", ONE_OF_EACH)
def test_inverse_and_composition_of_rotations_are_those_of_their_matrices(dtype):
    rng = np.random.default_rng(1)
    r, s = (
        lu.transport_rotation(lu.BodyFactors(normal(rng, (6, 2), dtype), normal(rng, (6, 2), dtype)))
        for _ in range(2)
    )
    bound = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(r.inverse().dense(), ct(r.dense()), atol=bound)
    np.testing.assert_allclose(r.compose(s).dense(), r.dense() @ s.dense(), atol=bound)
    with pytest.raises(TypeError, match="other must be a LowRankRotation"):
        r.compose(lu.BodyFactors(*s))
    with pytest.raises(ValueError, match=r"other\.left must have shape"):
        r.compose(lu.LowRankRotation(np.ones((5, 1), dtype), np.ones((5, 1), dtype)))


@pytest.mark.parametrize("kind", [*KINDS, lu.LowRankRotation])
@pytest.mark.parametrize("other", [2, 2.0, np.float64(2), np.ones(3)])
def test_products_and_sums_are_no_products_and_sums_of_tuples(kind, other):
    thin = kind(np.ones((3, 1)), np.ones((3, 1)))
    for apply in (operator.mul, operator.add):
        for pair in ((thin, other), (other, thin), (thin, thin)):
            with pytest.raises(TypeError, match="takes part in no arithmetic"):
                apply(*pair)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 1e-36), ("float32", 1e36), ("complex128", 1e-300)])
def test_factors_near_the_ends_of_the_range_keep_their_digits_in_the_body_frame(dtype, size):
    unitary = lu.random_unitary(30, dtype=dtype, rng=0)
    left, right = normal(np.random.default_rng(1), (2, 30, 2), dtype)
    body = lu.LowRankFactors((size * left).astype(dtype), right).to_body(unitary)
    expected = ct(unitary).astype("complex128") @ left
    assert np.abs(body.left / np.dtype(dtype).type(size) - expected).max() <= 100 * np.finfo(dtype).eps

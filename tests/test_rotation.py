"""Applying, inverting, composing and delaying rotations."""

import numpy as np
import pytest
from cases import ct, error, make_step, normal, steps
from hypothesis import given
from hypothesis import strategies as st

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import tolerance


@given(step=steps(), rows=st.integers(1, 5))
def test_rotate_multiplies_from_the_right(step, rows):
    r = lu.transport_rotation(step.body)
    rng = np.random.default_rng(step.seed)
    x = normal(rng, (*step.unitary.shape[:-2], rows, step.n), step.dtype)
    dense = reference.extended(x) @ reference.rotation_matrix(*r)
    size = max(1.0, float(np.linalg.norm(x, axis=(-2, -1)).max(initial=0.0)))
    assert error(lu.rotate(x, r), dense) <= size * step.tolerance()


@given(step=steps())
def test_adjoint_rotation_is_the_inverse(step):
    r = lu.polar_rotation(step.body)
    there = lu.rotate(step.unitary, r)
    assert error(lu.rotate(there, r, adjoint=True), reference.extended(step.unitary)) <= step.tolerance(2.0)


@given(step=steps(max_n=8), other=st.integers(0, 2**32 - 1))
def test_composed_rotations_equal_one_after_the_other(step, other):
    first = lu.transport_rotation(step.body)
    second_step = make_step(other, step.n, 1, step.dtype, batch=step.unitary.shape[:-2])
    second = lu.polar_rotation(second_step.body)
    both = first.compose(second)
    one_by_one = lu.rotate(lu.rotate(step.unitary, first), second)
    assert error(lu.rotate(step.unitary, both), reference.extended(one_by_one)) <= 4 * step.tolerance()


@pytest.mark.parametrize("n", [3, 40])
def test_delayed_unitary_equals_the_matrix_moved_at_once(dtype, n):
    rng = np.random.default_rng(n)
    unitary = lu.random_unitary(n, dtype=dtype, rng=rng)
    delayed = lu.DelayedUnitary(unitary)
    for _ in range(5):
        body = lu.BodyFactors(*(normal(rng, (n, 2), dtype) / n for _ in range(2)))
        r = lu.transport_rotation(body)
        delayed, unitary = delayed.rotate(r), lu.rotate(unitary, r)
    x = normal(rng, (n, 3), dtype)
    bound = 5 * tolerance(np, dtype, n, 2) * np.linalg.norm(x)
    assert error(delayed.matmul(x), reference.extended(unitary @ x)) <= bound
    assert error(delayed.adjoint_matmul(x), reference.extended(ct(unitary) @ x)) <= bound
    flushed = delayed.flush()
    assert flushed.rotation is None
    assert flushed.flush() is flushed
    assert error(flushed.base, reference.extended(unitary)) <= bound
    for value in (lu.DelayedUnitary(unitary), flushed):
        assert error(value.matmul(x), reference.extended(unitary @ x)) <= bound
        assert error(value.adjoint_matmul(x), reference.extended(ct(unitary) @ x)) <= bound


def test_known_product_gives_the_same_step_with_one_read_less(dtype):
    step = make_step(1, 12, 2, dtype)
    direct = lu.unitary_transport(*step.arrays)
    known = lu.rotate(step.unitary, lu.transport_rotation(step.body))
    assert error(known, direct) <= 2 * step.tolerance()


def test_real_rotation_of_a_complex_matrix_is_allowed():
    body = lu.BodyFactors(np.ones((4, 1)), np.eye(4)[:, :1])
    unitary = lu.random_unitary(4, dtype=np.complex128, rng=0)
    r = lu.transport_rotation(body)
    assert lu.rotate(unitary, r).dtype == np.complex128
    assert error(lu.rotate(unitary, r), unitary @ reference.rotation_matrix(*r)) <= tolerance(
        np, "float64", 4
    )


def test_overwriting_survives_a_rotation_made_of_views_of_the_array(dtype):
    # Larger than one panel of rows: the first panel is written before the second one is read.
    unitary = lu.random_unitary(700, dtype=dtype, rng=0)
    expected = lu.rotate(unitary, lu.LowRankRotation(unitary[:, :2].copy(), unitary[:, 2:4].copy()))
    result = lu.rotate(unitary, lu.LowRankRotation(unitary[:, :2], unitary[:, 2:4]), overwrite_array=True)
    assert result is unitary
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance(np, dtype, 700, 2))

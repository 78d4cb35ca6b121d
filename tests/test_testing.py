"""The public assertions accept what is right and refuse what is wrong."""

import numpy as np
import pytest
from cases import make_step

import lowrank_unitary as lu
from lowrank_unitary import testing


def test_assertions_accept_right_results(backend):
    step = make_step(0, 6, 2, "complex128")
    U, a, b = (backend.array(x) for x in step.arrays)
    testing.assert_unitary(U)
    testing.assert_rotation(lu.polar_rotation(lu.LowRankFactors(a, b).to_body(U)))
    testing.assert_matches_dense(lu.unitary_transport(U, a, b), U, a, b)
    testing.assert_matches_dense(lu.unitary_transport(U, a, b, update="cayley"), U, a, b, update="cayley")
    testing.assert_matches_dense(lu.polar_projection(U, a, b), U, a, b, update="polar")


def test_assertions_refuse_wrong_results_and_nan():
    step = make_step(0, 6, 2, "float64")
    U, a, b = step.arrays
    with pytest.raises(AssertionError, match="more than"):
        testing.assert_unitary(U * (1 + 1e-12))
    with pytest.raises(AssertionError, match="nan"):
        testing.assert_unitary(U * np.nan)
    testing.assert_unitary(U * (1 + 1e-12), atol=1e-10)
    with pytest.raises(AssertionError, match="more than"):
        testing.assert_rotation(lu.LowRankRotation(a, b))
    with pytest.raises(AssertionError, match="off by"):
        testing.assert_matches_dense(lu.polar_projection(U, a, b), U, a, b)
    with pytest.raises(AssertionError, match="off by"):
        testing.assert_matches_dense(U + 1e-11, U, 0 * a, b)
    with pytest.raises(ValueError, match="update must be"):
        testing.assert_matches_dense(U, U, a, b, update="both")

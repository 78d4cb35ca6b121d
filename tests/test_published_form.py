"""The published form, kept for comparison, is right where it should be and wrong in its known ways."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from cases import UPDATES, ct, error, make_step

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary.studies import published

FORMS = {"geodesic": published.transport, "polar": published.polar}
both = pytest.mark.parametrize("update", FORMS)
double = pytest.mark.parametrize("dtype", ["float64", "complex128"])


def defect(unitary):
    return float(reference.unitarity_defect(unitary)) / math.sqrt(len(unitary))


@both
@double
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("norm", [1e-3, 0.5, 2.0])
def test_generic_steps_are_those_of_the_dense_definition(update, dtype, k, norm):
    step = make_step(k, 16, k, dtype, norm=norm)
    _, dense = UPDATES[update]
    assert error(FORMS[update](*step.arrays), dense(*step.arrays)) < 2e-6


@both
def test_single_precision_is_kept(update):
    step = make_step(0, 16, 4, "complex64", norm=0.5)
    result = FORMS[update](*step.arrays)
    assert result.dtype == np.complex64
    assert error(result, UPDATES[update][1](*step.arrays)) < 2e-6


def median_error(update, k, norm, dtype="float64"):
    steps = [make_step(seed, 16, k, dtype, norm=norm) for seed in range(9)]
    return np.median(
        [
            reference.spectral_norm(
                reference.extended(FORMS[update](*step.arrays)) - UPDATES[update][1](*step.arrays)
            )
            for step in steps
        ]
    )


@both
@double
def test_rank_one_has_single_precision_whatever_the_data(update, dtype):
    assert 1e-8 < median_error(update, 1, 0.5, dtype) < 2e-7


@double
@pytest.mark.parametrize("norm", [1e-12, 1e-3, 0.5])
def test_the_absolute_term_under_the_root_costs_half_of_the_digits(dtype, norm):
    # 1e-8 under the root shrinks what the core acts on by half of it.
    assert 1e-9 < median_error("polar", 4, norm, dtype) < 1e-8


@double
def test_transport_of_higher_rank_is_exact_where_eigenvalues_are_distinct(dtype):
    assert median_error("geodesic", 4, 0.5, dtype) < 2e-15


@double
@pytest.mark.parametrize("size", [0.5, 3.0])
def test_repeated_eigenvalues_leave_a_result_that_is_not_unitary(dtype, size):
    n, k = 12, 3
    unitary = lu.random_unitary(n, dtype=dtype, rng=0)
    basis = lu.random_unitary(n, dtype=dtype, rng=1)
    b, c = basis[:, :k], size * basis[:, k : 2 * k]
    for form in FORMS.values():
        assert defect(form(unitary, unitary @ c, b)) > 1e-3


@double
def test_collinear_factors_leave_a_result_that_is_not_unitary(dtype):
    unitary = lu.random_unitary(12, dtype=dtype, rng=0)
    b = lu.random_unitary(12, dtype=dtype, rng=1)[:, :3]
    assert defect(published.polar(unitary, unitary @ b, b)) > 1e-2


@double
@pytest.mark.parametrize("k", [1, 3])
def test_polar_takes_the_factors_as_if_the_matrix_were_unitary(dtype, k):
    step = make_step(0, 12, k, dtype, norm=0.9)
    unitary, a, b = 1.01 * step.unitary, step.left, step.right
    c = ct(unitary) @ a
    # (U + abᴴ)ᴴ(U + abᴴ), with I for UᴴU: aᴴa is right in it, and belongs to no unitary factor.
    squared = np.eye(12) + c @ ct(b) + b @ ct(c) + b @ (ct(a) @ a) @ ct(b)
    values, vectors = np.linalg.eigh(squared)
    expected = (unitary + a @ ct(b)) @ (vectors / np.sqrt(values)) @ ct(vectors)
    np.testing.assert_allclose(published.polar(unitary, a, b), expected, atol=1e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_large_polar_steps_multiply_a_defect(k):
    n, rng = 32, np.random.default_rng(k)
    unitary = lu.random_unitary(n, rng=rng) * (1 + 0.5e-3 / math.sqrt(n))
    assert math.sqrt(n) * defect(unitary) == pytest.approx(1e-3, rel=1e-3)
    for _ in range(2000):
        left, right = rng.standard_normal((2, n, k))
        left *= 0.9 / np.linalg.norm(left @ right.T, 2)
        unitary = published.polar(unitary, left, right)
        # NaN compares false
        if not np.linalg.norm(unitary.T @ unitary - np.eye(n)) < 1:
            break
    else:
        pytest.fail("the defect stayed below 1 for 2000 steps")


@pytest.mark.parametrize(("size", "kept"), [(1.0, 1.0), (1e-6, 0.25), (1e-7, 0.008)])
@double
def test_the_sampler_shrinks_small_updates(size, kept, dtype):
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(25):
        x, y = rng.standard_normal((2, 64, 1)).astype(dtype)
        matrix = size * x @ y.T / (np.linalg.norm(x) * np.linalg.norm(y))
        left, right = published.lsi(matrix, 16, rng)
        assert left.shape == right.shape == (64, 16)
        assert left.dtype == right.dtype == dtype
        shares.append(np.linalg.norm(left @ ct(right)) / size)
    assert np.median(shares) == pytest.approx(kept, rel=0.15)


@both
def test_nan_comes_out_as_nan(update):
    step = make_step(0, 6, 2, "float64")
    step.left[0, 0] = np.nan
    assert np.all(np.isnan(FORMS[update](*step.arrays)))


@both
def test_arguments_stay_as_they_were(update):
    step = make_step(0, 8, 2, "float64")
    copies = [x.copy() for x in step.arrays]
    FORMS[update](*step.arrays)
    for x, copy in zip(step.arrays, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_the_library_itself_never_uses_it():
    package = Path(lu.__file__).parent
    for path in package.rglob("*.py"):
        if "studies" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            )
            named.append(getattr(node, "module", None) or "")
            assert not any("published" in name for name in named), path

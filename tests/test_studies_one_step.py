"""The studies of single steps and of an inherited defect show what they are meant to show."""

import math

import numpy as np
import pytest
from cases import UPDATES as DENSE
from cases import ct, make_step
from matplotlib.figure import Figure

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary.studies.accuracy import inherited_defect, near_singular, one_step
from lowrank_unitary.studies.accuracy.exact import defect_of, error_of, exact_step, rounded_unitary

pytestmark = pytest.mark.gate

STUDIES = [one_step, near_singular, inherited_defect]
study = pytest.mark.parametrize("module", STUDIES, ids=lambda module: module.STUDY.name)


def measured(module, tmp_path, **case):
    """The rows of one case, with its columns."""
    rows = module.measure(case, np.random.SeedSequence(0), tmp_path / "scratch")
    return [{**case, **row} for row in rows]


def select(rows, **wanted):
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    assert found
    return found


# What judges


@pytest.mark.parametrize("update", DENSE)
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize("kind", ["generic", "collinear", "repeated", "zero", "zero left"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_exact_step_is_that_of_the_dense_definition(update, dtype, kind, k):
    step = make_step(0, 7, k, dtype, kind, norm=0.8)
    difference = exact_step(*step.arrays, update) - DENSE[update][1](*step.arrays)
    assert reference.spectral_norm(difference) < 50 * np.finfo(np.longdouble).eps


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32", "complex64"])
@pytest.mark.parametrize("size", [0.0, 1e-14, 1e-3, 1.0])
def test_the_exact_defect_is_that_of_extended_precision(dtype, size):
    rng = np.random.default_rng(0)
    unitary = rounded_unitary(40, np.dtype(dtype), rng)
    unitary = (unitary + size * rng.standard_normal((40, 40))).astype(dtype)
    exact = float(reference.unitarity_defect(unitary)) / math.sqrt(40)
    # A plain sum of products in double precision is off by half of it.
    assert defect_of(unitary) == pytest.approx(exact, rel=1e-3)


def test_what_is_not_finite_has_no_error_and_no_defect():
    broken = np.full((3, 3), np.nan)
    assert math.isnan(defect_of(broken))
    assert math.isnan(error_of(broken, reference.extended(np.eye(3))))


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32", "complex64"])
def test_a_rounded_unitary_matrix_has_the_defect_of_rounding(dtype):
    unitary = rounded_unitary(64, np.dtype(dtype), np.random.default_rng(0))
    assert unitary.dtype == dtype
    # 0.30 eps √n, in the mean; see docs/background/numerics/unitarity.md.
    share = 0.42 if np.dtype(dtype).kind == "c" else 0.3
    assert defect_of(unitary) / np.finfo(dtype).eps == pytest.approx(share, rel=0.35)


# One step


@pytest.mark.parametrize(
    ("update", "dtype", "k", "kind"),
    [
        ("geodesic", "float64", 1, "collinear"),
        ("geodesic", "complex128", 4, "generic"),
        ("cayley", "float64", 4, "generic"),
        ("polar", "float64", 1, "generic"),
        ("polar", "complex128", 4, "generic"),
        ("geodesic", "float32", 4, "generic"),
        ("polar", "complex64", 1, "generic"),
        ("polar", "float16", 4, "generic"),
    ],
)
def test_the_default_core_is_exact_to_rounding_at_every_norm(update, dtype, k, kind, tmp_path):
    rows = measured(one_step, tmp_path, update=update, dtype=dtype, n=24, k=k, kind=kind)
    eps = float(np.finfo(dtype).eps)
    chosen = select(rows, core="auto")
    assert {row["norm"] for row in chosen} >= {1e-6, 1.0, 1e3}
    for row in chosen:
        # An angle of size norm, rounded, is wrong by eps·norm; a defect is not.
        assert row["error_max"] < 12 * eps * max(1.0, row["norm"]), row
        assert row["defect_max"] < 20 * eps, row


@pytest.mark.parametrize(
    ("update", "k", "least"), [("geodesic", 1, 3e-9), ("polar", 1, 3e-9), ("polar", 4, 2e-9)]
)
def test_the_published_form_loses_half_of_the_digits_in_double_precision(update, k, least, tmp_path):
    rows = measured(one_step, tmp_path, update=update, dtype="float64", n=24, k=k, kind="generic")
    for norm in (1e-2, 1.0):
        ours, theirs = (
            [row["error"] for row in select(rows, form=form) if row["norm"] == pytest.approx(norm)]
            for form in ("ours", "published")
        )
        assert max(ours) < 1e-13
        assert least < theirs[0] < 1e-6


def test_the_gram_core_of_a_long_polar_step_answers_nan(tmp_path):
    rows = measured(one_step, tmp_path, update="polar", dtype="float64", n=24, k=4, kind="generic")
    last = max(select(rows, core="gram"), key=lambda row: row["norm"])
    assert math.isnan(last["error"])
    assert math.isnan(last["defect"])


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("kind", ["generic", "collinear"])
@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e3])
def test_steps_are_drawn_with_the_norm_asked_for(dtype, kind, norm):
    rng = np.random.default_rng(0)
    unitary, left, right = one_step.draw_step(rng, 12, 2, np.dtype(dtype), kind, norm)
    assert unitary.dtype == left.dtype == right.dtype == dtype
    assert np.linalg.norm(left @ ct(right), 2) == pytest.approx(norm, rel=1e-5)
    body = ct(unitary) @ left
    overlap = np.linalg.norm(ct(right) @ body, 2) / (np.linalg.norm(right, 2) * np.linalg.norm(body, 2))
    assert (overlap > 0.99) == (kind == "collinear")


# Near a singular matrix


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("values", [[1e-3], [0.4], [1e-6, 2e-6, 0.5], [1e-12, 0.5, 0.7]])
def test_steps_near_a_singular_matrix_have_the_singular_values_asked_for(dtype, values):
    rng = np.random.default_rng(0)
    unitary, left, right = near_singular.near_singular_step(rng, 12, np.array(values), np.dtype(dtype))
    found = np.sort(np.linalg.svd(unitary + left @ ct(right), compute_uv=False))
    np.testing.assert_allclose(found[: len(values)], values, rtol=1e-9, atol=2e-15)
    assert found[len(values)] > 1 - 1e-12


def test_the_condition_number_depends_on_the_kind_of_data():
    real, unreal = np.dtype("float64"), np.dtype("complex64")
    assert near_singular.condition(np.array([1e-4]), real) == pytest.approx(2, rel=1e-3)
    assert near_singular.condition(np.array([1e-4]), unreal) == pytest.approx(1e4)
    assert near_singular.condition(np.array([1e-4, 3e-4, 0.5]), real) == pytest.approx(5e3)


@pytest.mark.parametrize(
    ("dtype", "k", "small"), [("float64", 1, 1), ("float64", 3, 2), ("complex128", 3, 1), ("float32", 3, 2)]
)
def test_the_error_near_a_singular_matrix_follows_the_condition_number(dtype, k, small, tmp_path):
    rows = measured(near_singular, tmp_path, dtype=dtype, n=16, k=k, small=small)
    eps = float(np.finfo(dtype).eps)
    for core in ("auto", "orthonormal"):
        for row in select(rows, core=core):
            assert row["error_max"] < 60 * row["model"], row
            # It is a statement about the result and not only a bound.
            assert row["error"] > row["model"] / 60, row
            assert row["defect_max"] < 10 * eps, row


def test_a_real_step_of_rank_one_stays_exact_where_a_complex_one_cannot(tmp_path):
    real, unreal = (
        min(
            select(measured(near_singular, tmp_path, dtype=dtype, n=16, k=1, small=1), core="auto"),
            key=lambda row: row["sigma"],
        )
        for dtype in ("float64", "complex128")
    )
    assert real["sigma"] == unreal["sigma"] < 3e-12
    assert real["error"] < 1e-14
    assert unreal["error"] > 1e-6


def test_the_published_form_is_not_unitary_near_a_singular_matrix(tmp_path):
    rows = measured(near_singular, tmp_path, dtype="float64", n=16, k=3, small=1)
    assert all(row["defect"] > 1e-2 for row in select(rows, core="published") if row["sigma"] < 1e-5)
    # A correct result, to half of the digits, where nothing is small.
    assert max(select(rows, core="published"), key=lambda row: row["sigma"])["error"] < 1e-6


# An inherited defect


@pytest.mark.parametrize("update", ["geodesic", "polar"])
@pytest.mark.parametrize("k", [1, 4])
def test_a_defect_keeps_three_digits_here_and_grows_under_published_polar_steps(update, k, tmp_path):
    rows = measured(inherited_defect, tmp_path, update=update, n=16, k=k, step_norm=0.9, steps=600)
    ours, theirs = (
        [row["defect"] for row in sorted(select(rows, form=form), key=lambda row: row["step"])]
        for form in ("ours", "published")
    )
    assert ours[0] == theirs[0] == pytest.approx(1e-3, rel=1e-3)
    np.testing.assert_allclose(ours, ours[0], rtol=1e-4)
    if update == "polar":
        assert not theirs[-1] < 100 * theirs[0]
    else:
        np.testing.assert_allclose(theirs, theirs[0], rtol=5e-3)


def test_the_shortcut_lets_a_defect_creep_up(tmp_path):
    rows = measured(inherited_defect, tmp_path, update="geodesic", n=16, k=4, step_norm=2.0, steps=600)
    last = max(select(rows, form="shortcut"), key=lambda row: row["step"])
    assert not last["defect"] < 5e-3


@pytest.mark.parametrize("norm", [0.1, 3.0])
def test_the_shortcut_is_transport_as_long_as_the_matrix_is_unitary(norm):
    step = make_step(0, 12, 2, "float64", norm=norm)
    np.testing.assert_allclose(
        inherited_defect.shortcut(*step.arrays), lu.unitary_transport(*step.arrays), atol=1e-13
    )


def test_a_curve_ends_where_the_matrix_is_lost(tmp_path):
    rows = measured(inherited_defect, tmp_path, update="polar", n=8, k=1, step_norm=0.9, steps=2000)
    theirs = sorted(select(rows, form="published"), key=lambda row: row["step"])
    assert all(row["defect"] <= inherited_defect.LOST for row in theirs[:-1])
    assert max(row["step"] for row in select(rows, form="ours")) == 2000


# All three


@study
def test_the_default_cases_are_a_subset_of_the_full_ones(module):
    default, full = module.cases(False), module.cases(True)
    assert all(case in full for case in default)
    for cases in (default, full):
        assert len({tuple(case.items()) for case in cases}) == len(cases)
    # Two processes share the work evenly only if it comes in small units.
    assert max(map(module.STUDY.cost, default)) < 8


@study
def test_the_same_seed_gives_the_same_rows(module, tmp_path):
    case = min(module.cases(False), key=module.STUDY.cost)
    first, second = (
        module.measure(case, np.random.SeedSequence(seed), tmp_path / "scratch") for seed in (1, 1)
    )
    assert str(first) == str(second)
    assert str(first) != str(module.measure(case, np.random.SeedSequence(2), tmp_path / "scratch"))


@study
def test_rows_are_flat_and_keep_clear_of_the_columns_of_their_case(module, tmp_path):
    case = min(module.cases(False), key=module.STUDY.cost)
    rows = module.measure(case, np.random.SeedSequence(0), tmp_path / "scratch")
    for row in rows:
        assert set(row) == set(rows[0])
        assert not set(row) & set(case)
        assert {type(value) for value in row.values()} <= {str, int, float, bool}


@study
def test_figure_and_table_accept_gaps_and_a_part_of_the_cases(module, tmp_path):
    case = min(module.cases(False), key=module.STUDY.cost)
    rows = measured(module, tmp_path, **case)
    values = ["error", "error_max", "defect", "defect_max"]
    broken = [{**row, **{name: math.nan for name in values if name in row}} for row in rows[len(rows) // 2 :]]
    for part in (rows, rows[: len(rows) // 2] + broken):
        figure = module.STUDY.figure(part)
        assert isinstance(figure, Figure)
        header, lines = module.STUDY.table(part)
        assert lines
        assert all(len(line) == len(header) and all(isinstance(cell, str) for cell in line) for line in lines)
    # The one with gaps, of which a half is there: most of the time is that of drawing.
    figure.savefig(tmp_path / "figure.png", dpi=40)

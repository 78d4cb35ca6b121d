"""One step against its dense definition, and what must hold for every step."""

import numpy as np
import pytest
from cases import KINDS, ROTATIONS, UPDATES, ct, error, make_step, normal, steps
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles import covering

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import tolerance
from lowrank_unitary._linalg import qr
from lowrank_unitary.testing import assert_rotation

update = pytest.mark.parametrize("update", UPDATES)


def sensitivity(step, update):
    """The polar factor changes by 1/σ_min times a change of its argument."""
    if update != "polar":
        return 1.0
    smallest = step.smallest_singular_value()
    assume(smallest >= 0.1)
    return max(1.0, 1.0 / smallest)


@update
@given(step=steps())
def test_step_equals_its_dense_definition(update, step):
    apply, dense = UPDATES[update]
    scale = sensitivity(step, update)
    assert error(apply(*step.arrays), dense(*step.arrays)) <= step.tolerance(scale)


@pytest.mark.parametrize(
    ("field", "update"),
    covering(
        [("float32", 4), ("complex64", 1), *(("float64", k) for k in (1, 2, 4, 50, 100)), ("complex128", 4)],
        UPDATES,
    ),
)
def test_step_at_size_100_has_the_promised_accuracy(update, field):
    # The promise: 3e-13 in double and 4e-6 in single precision, spectral norm.
    (dtype, k), (apply, dense) = field, UPDATES[update]
    for kind, norm in (("generic", 1e-12), ("unbalanced", 0.8), ("unbalanced", 10.0)):
        step = make_step(7, 100, k, dtype, kind, norm)
        if update == "polar" and step.smallest_singular_value() < 0.1:
            continue
        difference = reference.extended(apply(*step.arrays)) - dense(*step.arrays)
        bound = 3e-13 if np.finfo(dtype).eps < 1e-10 else 4e-6
        assert reference.spectral_norm(difference) <= bound


@update
@given(step=steps())
def test_rotation_is_unitary_at_every_singular_value(update, step):
    assert_rotation(ROTATIONS[update](step.body))


@pytest.mark.parametrize("n", [4, 9])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-7, 3e-8, 1e-8, 1e-14, 0.0])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_polar_is_unitary_however_close_to_singular(n, k, distance, dtype):
    # c = −(1 − distance) b with orthonormal b puts k singular values of I + cbᴴ at `distance`, and a turn of
    # c by an angle keeps them there.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        b, _ = np.linalg.qr(normal(rng, (n, k), dtype))
        turned = reference.exponential(reference.skew(normal(rng, (n, n), dtype))).astype(dtype)
        near = turned @ (np.eye(n) - (1 - distance) * b @ ct(b)) - np.eye(n)
        for body in (lu.BodyFactors(-(1 - distance) * b, b), lu.BodyFactors(near, np.eye(n, dtype=dtype))):
            assert_rotation(lu.polar_rotation(body), atol=4e-15 * np.sqrt(n))


def test_subnormal_factors_keep_their_digits_in_the_product_with_the_unitary():
    n = 64
    rng = np.random.default_rng(0)
    unitary = lu.random_unitary(n, dtype="float32", rng=rng)
    left = (rng.standard_normal((n, 1)) * 2.0**-140).astype("float32")
    right = np.full((n, 1), 2.0**126, dtype="float32")
    for apply, dense in UPDATES.values():
        moved = apply(unitary, left, right)
        # Rounding of the result, and not of a product with 9 bits, which would cost 2e-6.
        assert error(moved, dense(unitary, left, right)) <= 2 * 0.3 * 2.0**-23 * np.sqrt(n)


@update
@given(step=steps(kinds=("zero", "zero left")))
def test_zero_step_changes_nothing(update, step):
    apply, _ = UPDATES[update]
    np.testing.assert_array_equal(apply(*step.arrays), step.unitary)


@update
@given(step=steps(max_n=8), seed=st.integers(0, 2**32 - 1))
def test_step_is_equivariant(update, step, seed):
    # f(V U W; V a, Wᴴ b) = V f(U; a, b) W
    apply, _ = UPDATES[update]
    scale = sensitivity(step, update)
    V, W = (lu.random_unitary(step.n, dtype=step.dtype, rng=seed + i) for i in range(2))
    moved = apply(V @ step.unitary @ W, V @ step.left, ct(W) @ step.right)
    expected = V @ apply(*step.arrays) @ W
    assert error(moved, expected) <= 4 * step.tolerance(scale)


@update
@given(step=steps(kinds=("generic", "repeated", "zero column"), max_n=8))
def test_step_depends_on_the_product_of_its_factors_only(update, step):
    # (a R, b R⁻ᴴ) for a well-conditioned R
    apply, _ = UPDATES[update]
    scale = sensitivity(step, update)
    rng = np.random.default_rng(step.seed)
    u, v = (lu.random_unitary(step.k, dtype=step.dtype, rng=rng) for _ in range(2))
    d = np.exp(rng.uniform(-1, 1, step.k))
    R, inverse_adjoint = ((u * s) @ v for s in (d, 1 / d))
    other = apply(
        step.unitary, (step.left @ R).astype(step.dtype), (step.right @ inverse_adjoint).astype(step.dtype)
    )
    # Columns of very different size are mixed: the product carries errors of the size of ‖a‖‖b‖.
    size = np.max(
        np.linalg.norm(step.left, axis=(-2, -1)) * np.linalg.norm(step.right, axis=(-2, -1)), initial=0.0
    )
    assert error(other, apply(*step.arrays)) <= 10 * step.tolerance(scale * max(1.0, float(size)))


@update
@given(step=steps(), core=st.sampled_from(["gram", "orthonormal"]))
def test_cores_agree(update, step, core):
    assume(step.norm <= 0.5)
    apply, _ = UPDATES[update]
    assert error(apply(*step.arrays, core=core), apply(*step.arrays)) <= 4 * step.tolerance()


@update
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_loop(update, dtype, kind):
    apply, _ = UPDATES[update]
    for n, k in ((1, 1), (3, 2), (7, 2), (7, 9)):
        step = make_step(11, n, k, dtype, kind, 0.6, (2, 3))
        together = apply(*step.arrays)
        for index in np.ndindex(2, 3):
            alone = apply(*(x[index] for x in step.arrays))
            assert error(together[index], alone) <= step.tolerance(10.0)


@update
def test_batches_broadcast(update):
    apply, _ = UPDATES[update]
    step = make_step(3, 6, 2, "complex128", batch=(4,))
    spread = apply(step.unitary[0], step.left, step.right)
    assert spread.shape == (4, 6, 6)
    for i in range(4):
        assert error(spread[i], apply(step.unitary[0], step.left[i], step.right[i])) <= step.tolerance()


@update
def test_empty_batch_and_rank_zero(update, dtype):
    apply, _ = UPDATES[update]
    empty = make_step(0, 5, 2, dtype, batch=(0,))
    assert apply(*empty.arrays).shape == (0, 5, 5)
    step = make_step(0, 5, 2, dtype)
    none = apply(step.unitary, step.left[:, :0], step.right[:, :0])
    np.testing.assert_array_equal(none, step.unitary)


@update
def test_memory_layout_does_not_matter(update, dtype):
    apply, _ = UPDATES[update]
    step = make_step(5, 9, 2, dtype, norm=0.3)
    expected = apply(*step.arrays)
    padded = np.zeros((18, 27), dtype)
    padded[::2, ::3] = step.unitary
    reversed_columns = np.ascontiguousarray(step.unitary[:, ::-1])[:, ::-1]
    read_only = step.unitary.copy()
    read_only.flags.writeable = False
    for view in (np.asfortranarray(step.unitary), padded[::2, ::3], reversed_columns, read_only):
        assert error(apply(view, step.left, step.right), expected) <= step.tolerance()
        assert error(apply(step.unitary, step.left[::-1][::-1], np.asfortranarray(step.right)), expected) <= (
            step.tolerance()
        )


@update
@given(step=steps(max_n=6))
def test_inputs_are_untouched(update, step):
    apply, _ = UPDATES[update]
    copies = [x.copy() for x in step.arrays]
    apply(*step.arrays)
    for x, copy in zip(step.arrays, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@update
@pytest.mark.parametrize("n", [5, 700])
def test_overwriting_gives_the_same_matrix_in_place(update, dtype, n):
    apply, _ = UPDATES[update]
    step = make_step(2, n, 2, dtype, norm=0.3)
    expected = apply(*step.arrays)
    for order in "CF":
        target = np.array(step.unitary, order=order)
        result = apply(target, step.left, step.right, overwrite_unitary=True)
        assert result is target
        assert error(result, expected) <= step.tolerance()


@update
def test_overwriting_survives_factors_that_are_views_of_the_matrix(update):
    apply, _ = UPDATES[update]
    step = make_step(2, 6, 2, "float64")
    target = step.unitary.copy()
    expected = apply(step.unitary, step.unitary[:, :2], step.unitary[:, 2:4])
    apply(target, target[:, :2], target[:, 2:4], overwrite_unitary=True)
    assert error(target, expected) <= step.tolerance()


@update
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n", [2, 8])
@pytest.mark.parametrize("norm", [0.1, 5.0])
def test_nan_and_infinity_come_out_as_nan_and_only_where_they_went_in(update, dtype, bad, n, norm):
    apply, _ = UPDATES[update]
    step = make_step(1, n, 1, dtype, norm=norm, batch=(2,))
    expected = apply(*step.arrays)
    for position in range(3):
        arrays = [x.copy() for x in step.arrays]
        arrays[position][0, 0, 0] = bad
        with np.errstate(invalid="ignore"):
            result = apply(*arrays)
        assert np.isnan(result[0]).any()
        assert error(result[1], expected[1]) <= step.tolerance(10.0)


@update
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_first_order_change_is_the_tangent_step(update, dtype):
    # f(U; ta, b) = U + t U skew(Uᴴabᴴ) + O(t²) for tangent steps, which all updates share: slope 2.
    apply, _ = UPDATES[update]
    rng = np.random.default_rng(4)
    unitary = lu.random_unitary(8, dtype=dtype, rng=rng)
    X, Y = normal(rng, (8, 2), dtype), normal(rng, (8, 2), dtype)
    left, right = unitary @ np.concatenate([X, -Y], -1) / 4, np.concatenate([Y, X], -1) / 4
    sizes = 2.0 ** -np.arange(4, 9)
    remainders = [error(apply(unitary, t * left, right), unitary + t * left @ ct(right)) for t in sizes]
    slope = np.polyfit(np.log(sizes), np.log(remainders), 1)[0]
    assert 1.9 <= slope <= 2.1


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_cayley_agrees_with_the_geodesic_to_third_order(dtype):
    sizes = 2.0 ** -np.arange(2, 7)
    gaps = []
    for t in sizes:
        step = make_step(9, 8, 2, dtype, norm=t)
        gaps.append(
            error(lu.unitary_transport(*step.arrays), lu.unitary_transport(*step.arrays, update="cayley"))
        )
    slope = np.polyfit(np.log(sizes), np.log(gaps), 1)[0]
    assert 2.9 <= slope <= 3.1


@pytest.mark.parametrize(
    ("update", "k", "dtype"), covering(["geodesic", "polar"], [1, 4], ["float64", "complex128"])
)
def test_inherited_defect_stays_as_it_is(update, k, dtype):
    # 1e-3 unchanged to three digits after 2000 steps of size 0.9
    apply, _ = UPDATES[update]
    n = 16
    rng = np.random.default_rng(k)
    unitary = lu.random_unitary(n, dtype=dtype, rng=rng)
    disturbance = normal(rng, (n, n), dtype)
    unitary = unitary @ (
        np.eye(n) + 5e-4 * (disturbance + ct(disturbance)) / np.linalg.norm(disturbance + ct(disturbance))
    )
    before = float(lu.unitarity_defect(unitary))
    assert 0.9e-3 < before < 1.1e-3
    for _ in range(2000):
        a, b = normal(rng, (n, k), dtype), normal(rng, (n, k), dtype)
        a *= 0.9 / np.linalg.norm(a @ ct(b), 2)
        apply(unitary, a, b, overwrite_unitary=True)
    assert abs(float(lu.unitarity_defect(unitary)) / before - 1) < 1e-3


@pytest.mark.parametrize("update", UPDATES)
def test_real_transport_keeps_the_sign_of_the_determinant(update):
    apply, _ = UPDATES[update]
    for seed in range(10):
        step = make_step(seed, 5, 2, "float64", norm=0.9)
        before, after = np.linalg.det(step.unitary), np.linalg.det(apply(*step.arrays))
        assert round(before) == round(after)


EXTREMES = [(1, -1), (-1, 1), (-1, -1), (1, 1), (0, 1)]


@update
@pytest.mark.parametrize("k", [1, 2, 6, 9])
@pytest.mark.parametrize(("first", "second"), EXTREMES)
def test_entries_at_both_ends_of_the_range_give_the_exact_step(update, dtype, k, first, second):
    # 1e±300 in double and 1e±38 in single precision, which is below the normal range there.
    apply, dense = UPDATES[update]
    largest = 300 if np.finfo(dtype).eps < 1e-10 else 38
    step = make_step(5, 9, k, dtype, norm=0.5)
    # The power of ten itself would be rounded in the dtype: the dense definition gets what the step gets.
    left = (reference.extended(step.left) * np.longdouble(10) ** (first * largest)).astype(dtype)
    right = (reference.extended(step.right) * np.longdouble(10) ** (second * largest)).astype(dtype)
    if first + second == 2 and largest == 300:
        # The step's norm is beyond the range of double precision.
        with np.errstate(all="ignore"):
            result = apply(step.unitary, left, right)
        if update == "polar":
            lu.testing.assert_unitary(result)
        else:
            assert np.isnan(result).all()
        return
    result = apply(step.unitary, left, right)
    lu.testing.assert_unitary(result, atol=step.tolerance())
    if first + second <= 0:
        assert error(result, dense(step.unitary, left, right)) <= step.tolerance()


@pytest.mark.parametrize("update", ROTATIONS)
@pytest.mark.parametrize("norm", [1e3, 1e6, 1e10, 1e16, 1e40, 1e200])
@pytest.mark.parametrize("kind", ["generic", "decaying", "collinear", "rank one"])
def test_rotation_is_unitary_at_every_step_size(update, norm, kind, dtype):
    if norm > 1e38 and np.finfo(dtype).eps > 1e-10:
        return
    for n, k in ((12, 1), (12, 3), (5, 5), (1, 1)):
        step = make_step(n + k, n, k, dtype, kind)
        body = lu.BodyFactors(step.body.left * np.dtype(dtype).type(norm), step.body.right)
        assert_rotation(ROTATIONS[update](body))


@update
@pytest.mark.parametrize("probes", [1, 3])
def test_step_with_healing_is_the_step_of_the_healed_matrix(update, dtype, probes):
    apply, _ = UPDATES[update]
    n = 9
    step = make_step(4, n, 2, dtype, norm=0.4, batch=(2,))
    disturbed = step.unitary + np.float32(1e-3) * normal(np.random.default_rng(0), (2, n, n), dtype)
    disturbed = disturbed.astype(dtype)
    healed = apply(disturbed, step.left, step.right, heal=probes, rng=5)
    # The rotation is that of the matrix before: both factors are taken from one read of it.
    body = lu.LowRankFactors(step.left, step.right).to_body(disturbed)
    expected = lu.rotate(lu.heal_unitary(disturbed, probes, rng=5), ROTATIONS[update](body))
    assert error(healed, expected) <= 4 * step.tolerance()
    assert (lu.unitarity_defect(healed) < lu.unitarity_defect(disturbed)).all()
    np.testing.assert_array_equal(healed, apply(disturbed, step.left, step.right, heal=probes, rng=5))


SHAPES = [(), (1,), (2,), (3, 1), (3, 2)]


@pytest.mark.parametrize("of_unitary", SHAPES)
@pytest.mark.parametrize("of_left", SHAPES)
@pytest.mark.parametrize("of_right", SHAPES)
def test_batches_of_every_argument_broadcast(of_unitary, of_left, of_right):
    rng = np.random.default_rng(0)
    U = lu.random_unitary(5, batch=of_unitary, rng=rng)
    a, b = (normal(rng, (*shape, 5, 2), "float64") / 4 for shape in (of_left, of_right))
    batch = np.broadcast_shapes(of_unitary, of_left, of_right)
    full = [np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (U, a, b)]
    for apply, _ in UPDATES.values():
        moved = apply(U, a, b)
        assert moved.shape == (*batch, 5, 5)
        np.testing.assert_allclose(moved, apply(*full), atol=1e-14)
        assert apply(U, a, b, heal=1, rng=0).shape == (*batch, 5, 5)
    body = lu.BodyFactors(a, b)
    rotation = lu.transport_rotation(lu.BodyFactors(a, a))
    certificate = lu.rotation_certificate(body, rotation)
    assert (
        certificate.step_error.shape
        == certificate.gram_is_exact.shape
        == np.broadcast_shapes(of_left, of_right)
    )
    assert certificate.defect_along_left.shape == certificate.step_error.shape
    delayed = lu.DelayedUnitary(U).rotate(rotation).rotate(lu.polar_rotation(body))
    assert delayed.flush(heal=1, rng=0).base.shape == (*batch, 5, 5)
    stepped = lu.unitary_step(U, a @ ct(a), 0.1, rank=1, rng=0)
    assert stepped.shape == (*np.broadcast_shapes(of_unitary, of_left), 5, 5)


@pytest.mark.parametrize("n", [33, 100])
@pytest.mark.parametrize("kind", ["float64", "complex128"])
@pytest.mark.parametrize("update", UPDATES)
def test_a_step_of_full_rank_and_any_length_is_unitary_to_rounding(update, kind, n):
    rng = np.random.default_rng(n)
    left, right = normal(rng, (n, n), kind), normal(rng, (n, n), kind)
    moved = UPDATES[update][0](np.eye(n, dtype=kind), left, right)
    # Half of what rounding of a fresh matrix may explain.
    assert 2.0 * lu.unitarity_defect(moved) <= tolerance(np, kind, n)


@pytest.mark.parametrize("sketch", ["tangent", "randomized"])
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("kind", [None, lu.LowRankFactors, lu.BodyFactors], ids=["array", "ambient", "body"])
def test_a_step_size_may_overflow_where_the_step_does_not(kind, update, sketch):
    U = lu.random_unitary(8, dtype="float32", rng=0)
    left, right = np.random.default_rng(1).standard_normal((2, 8, 2)).astype("float32")

    def moved(scale, step_size):
        gradient = (left * scale) @ right.T if kind is None else kind(left * scale, right)
        return lu.unitary_step(U, gradient, step_size, 2, update=update, sketch=sketch, rng=2)

    # Float32 ends below 2¹²⁸; some entries times 2⁻¹²⁵ are subnormal there.
    np.testing.assert_allclose(moved(np.float32(2.0**-125), 2.0**128), moved(np.float32(1.0), 8.0), atol=1e-4)


@pytest.mark.parametrize("core", ["auto", "gram", "orthonormal"])
@pytest.mark.parametrize(("left", "right"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
def test_a_zero_step_raises_no_floating_point_error(left, right, core):
    a, b = np.random.default_rng(0).standard_normal((2, 9, 3))
    U = lu.random_unitary(9, rng=0)
    with np.errstate(all="raise"):
        for update in UPDATES.values():
            np.testing.assert_allclose(update[0](U, left * a, right * b, core=core), U, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_polar_step_from_body_factors_keeps_nothing_of_their_hermitian_part(dtype):
    U = lu.random_unitary(6, dtype=dtype, rng=0)
    C, Q = (normal(np.random.default_rng(seed), (6, 2), dtype) for seed in (1, 2))
    moved = lu.unitary_step(U, lu.BodyFactors(C, Q), 0.3, 2, update="polar", heal=0, rng=3)
    u, _, vh = np.linalg.svd(np.eye(6) - 0.15 * (C @ ct(Q) - Q @ ct(C)))
    np.testing.assert_allclose(moved, U @ u @ vh, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_gram_core_of_transport_takes_long_steps(dtype):
    C, Q = (normal(np.random.default_rng(seed), (40, 2), dtype) for seed in (1, 2))
    body = lu.BodyFactors(C * (100 / np.linalg.norm(C @ ct(Q))), Q)
    found, expected = (lu.transport_rotation(body, core=core).dense() for core in ("gram", "orthonormal"))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_basis_of_a_matrix_with_nan_is_nan():
    x = np.random.default_rng(0).standard_normal((2, 5, 2))
    x[1, 3, 0] = np.nan
    for part in qr(np, x):
        assert np.all(np.isnan(part[1]))
        assert np.all(np.isfinite(part[0]))

"""Bad input: an error that names the argument, what it must be, what it was and what to do."""

import functools

import jax
import numpy as np
import pytest
import torch

import lowrank_unitary as lu
import lowrank_unitary.torch as lut

U = lu.random_unitary(4, rng=0)
a, b = np.ones((4, 2)), np.ones((4, 2))
body = lu.BodyFactors(a, b)
rotation = lu.transport_rotation(body)
c64 = np.complex64

UPDATES = (lu.unitary_transport, lu.polar_projection)

SHAPES = [
    (np.ones((4, 3)), a, b, r"left and right must have shapes \(…, 4, k\) and \(…, 3, k\)"),
    (np.ones(4), a, b, "unitary must have shape"),
    (np.ones((0, 0)), a, b, "unitary must have shape"),
    (U, a[:3], b, r"left must have shape \(…, 4, k\), got \(3, 2\)"),
    (U, a, b[:3], r"right must have shape \(…, 4, k\), got \(3, 2\)"),
    (U, a[:, 0], b, r"left must have shape .* A single column v is v\[:, None\]"),
    (U, a[:, :1], b, "left and right must agree in their last two axes"),
    (np.stack([U, U, U]), np.stack([a, a]), b, r"leading \(batch\) axes of unitary, left and right"),
]

DTYPES = [
    (
        U.astype(np.float16),
        a,
        b,
        r"left must .* unitary \(float16, with thin factors of at most .*float32.*\)",
    ),
    (np.eye(4, dtype=int), a, b, "unitary must have one of the dtypes .*, got int64"),
    (U, a.astype(np.longdouble), b, "left must have one of the dtypes"),
    (U, a + 0j, b, r"left must have a dtype that fits into that of unitary \(float64\), got complex128"),
    (U.astype(np.float32), a, b, "left must have a dtype that fits into that of unitary"),
    (U.tolist(), a, b, "unitary must be an array .* got list"),
    (U, torch.ones(4, 2), b, "unitary, left and right must come from one array library"),
    (U, jax.numpy.ones((4, 2)), b, "unitary, left and right must come from one array library"),
]


@pytest.mark.parametrize("apply", UPDATES)
@pytest.mark.parametrize(("unitary", "left", "right", "message"), SHAPES)
def test_wrong_shapes_are_named(apply, unitary, left, right, message):
    with pytest.raises(ValueError, match=message):
        apply(unitary, left, right)


@pytest.mark.parametrize("apply", UPDATES)
@pytest.mark.parametrize(("unitary", "left", "right", "message"), DTYPES)
def test_wrong_dtypes_and_libraries_are_named(apply, unitary, left, right, message):
    with pytest.raises(TypeError, match=message):
        apply(unitary, left, right)


def test_arrays_on_different_devices_are_named():
    import array_api_strict as xp

    other = xp.Device("device1")
    with pytest.raises(
        ValueError, match=r"unitary, left and right must be on one device, got unitary: .*device1"
    ):
        lu.unitary_transport(xp.asarray(U, device=other), xp.asarray(a), xp.asarray(b))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: lu.unitary_transport(U, a, b, update="line"),
            ValueError,
            "update must be one of",
        ),
        (lambda: lu.unitary_transport(U, a, b, core="eig"), ValueError, "core must be one of 'auto'"),
        (lambda: lu.polar_rotation(body, core="eig"), ValueError, "core must be one of"),
        (lambda: lu.transport_rotation((a, b)), TypeError, "must be BodyFactors.* got tuple"),
        (
            lambda: lu.polar_rotation(lu.LowRankFactors(a, b)),
            TypeError,
            r"got LowRankFactors: .*to_body\(U\)",
        ),
        (lambda: lu.rotate(U, body), TypeError, "rotation must be a LowRankRotation, got BodyFactors"),
        (lambda: lu.rotate(np.ones(4), rotation), ValueError, "array must have shape"),
        (
            lambda: lu.rotate(np.ones((2, 3)), rotation),
            ValueError,
            r"rotation.left must have shape \(…, 3, k\)",
        ),
        (lambda: lu.rotate(U.astype(np.float32), rotation), TypeError, "fits into that of array"),
        (lambda: lu.svd_sketch(U, 0), ValueError, "rank must be between 1 and 4"),
        (lambda: lu.svd_sketch(U, 5), ValueError, "rank must be between 1 and 4 .* got 5"),
        (lambda: lu.svd_sketch(U, 2.0), TypeError, "rank must be a whole number, got 2.0"),
        (lambda: lu.svd_sketch(U, True), TypeError, "rank must be a whole number, got True"),
        (lambda: lu.svd_sketch(U, 2, method="best"), ValueError, "method must be one of 'randomized'"),
        (lambda: lu.svd_sketch(U, 2, oversample=-1), ValueError, "oversample must be 0 or more, got -1"),
        (lambda: lu.svd_sketch(U, 2, method="exact", oversample=1), ValueError, "oversample has no meaning"),
        (
            lambda: lu.svd_sketch(U, 2, method="columns", test_matrix=a),
            ValueError,
            "test_matrix has no meaning",
        ),
        (lambda: lu.svd_sketch(U, 3, test_matrix=a), ValueError, r"test_matrix must have shape \(…, 4, ℓ\)"),
        (lambda: lu.svd_sketch(U[0], 1), ValueError, "matrix must have shape"),
        (
            lambda: lu.tangent_sketch(U, a, 1),
            ValueError,
            r"gradient must have shape \(…, 4, 4\) like unitary",
        ),
        (lambda: lu.tangent_sketch(U, U + 0j, 1), TypeError, "gradient must have a dtype that fits"),
        (
            lambda: lu.tangent_sketch(U, U, 1, power_iterations=0.5),
            TypeError,
            "power_iterations must be a whole",
        ),
        (lambda: lu.unitary_step(U, U, 0.1, rank=9), ValueError, "rank must be between 1 and 4"),
        (lambda: lu.unitary_step(U, U, 0.1, rank=1, update="up"), ValueError, "update must be one of"),
        (
            lambda: lu.unitary_step(U, U, 0.1, rank=1, sketch="best"),
            ValueError,
            "sketch must be one of 'tangent'",
        ),
        (lambda: lu.unitary_step(U, U, 0.1, rank=1, heal=5), ValueError, "heal must be between 0 and n = 4"),
        (
            lambda: lu.unitary_step(U, U, "0.1", rank=1),
            TypeError,
            "step_size must be a real number, got '0.1'",
        ),
        (lambda: lu.unitary_step(U, U, 1j, rank=1), TypeError, "step_size must be a real number"),
        (lambda: lu.unitary_step(U, U, np.array(1j), rank=1), TypeError, "step_size must be real"),
        (lambda: lu.unitarity_defect(U, probes=0), ValueError, "probes must be 1 or more"),
        (lambda: lu.heal_unitary(U, 0), ValueError, "probes must be between 1 and n = 4"),
        (lambda: lu.random_unitary(0), ValueError, "n must be 1 or more"),
        (lambda: lu.random_unitary(3.5), TypeError, "n must be a whole number"),
        (lambda: lu.random_unitary(3, dtype=int), TypeError, "dtype must have one of the dtypes"),
        (lambda: lu.henaff_unitary(3, batch=(-1,)), ValueError, "batch must be 0 or more"),
        (lambda: lu.is_unitary(a[0]), ValueError, "unitary must have shape"),
        (lambda: lu.reunitarize(a[0]), ValueError, "unitary must have shape"),
        (
            lambda: lu.DelayedUnitary(U, rotation).rotate(body),
            TypeError,
            "rotation must be a LowRankRotation",
        ),
        (lambda: lu.DelayedUnitary(U, rotation).matmul([1.0]), TypeError, "x must be an array"),
    ],
)
def test_wrong_options_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_overwriting_needs_a_writeable_matrix_of_the_result_shape():
    frozen = U.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="array must be writeable when overwrite_array=True"):
        lu.rotate(frozen, rotation, overwrite_array=True)
    with pytest.raises(ValueError, match="unitary must be writeable when overwrite_unitary=True"):
        lu.unitary_step(frozen, U, 0.1, rank=1, overwrite_unitary=True)
    with pytest.raises(ValueError, match="unitary must have the batch shape of the result"):
        lu.polar_projection(U.copy(), np.stack([a, a]), b, overwrite_unitary=True)


def test_options_cannot_be_given_by_position():
    with pytest.raises(TypeError):
        lu.unitary_transport(U, a, b, "cayley")
    with pytest.raises(TypeError):
        lu.unitary_transport(unitary=U, left=a, right=b)


def test_narrower_and_real_factors_are_taken_into_the_dtype_of_the_matrix():
    complex_unitary = U.astype(np.complex128)
    for left in (a, a.astype(np.float32), a.astype(c64)):
        moved = lu.unitary_transport(complex_unitary, left, b)
        assert moved.dtype == np.complex128
        np.testing.assert_allclose(moved, lu.unitary_transport(U, a, b), atol=1e-14)


def test_step_size_may_be_any_real_scalar_or_one_for_each_matrix():
    unitaries = np.stack([U, U]).astype(np.float32)
    gradient = np.arange(16, dtype=np.float32).reshape(4, 4)
    options = {"rank": 2, "rng": 0, "heal": 0}
    for size in (0.1, np.float64(0.1), np.array(0.1), np.float32(0.1)):
        moved = lu.unitary_step(unitaries[0], gradient, size, **options)
        assert moved.dtype == np.float32
        np.testing.assert_allclose(moved, lu.unitary_step(unitaries[0], gradient, 0.1, **options), atol=1e-6)
    both = lu.unitary_step(unitaries, np.stack([gradient, gradient]), np.array([0.1, 0.0]), **options)
    assert not np.allclose(both[0], unitaries[0], atol=1e-3)
    np.testing.assert_array_equal(both[1], unitaries[1])
    assert np.isnan(lu.unitary_step(U, gradient, np.nan, **options)).all()


@pytest.mark.parametrize("sketch", ["tangent", "randomized"])
@pytest.mark.parametrize("shape", [(4, 3), (5, 5), (4,), (1, 1)])
def test_a_gradient_of_another_shape_is_named(sketch, shape):
    with pytest.raises(ValueError, match=r"gradient must have shape \(…, 4, 4\) like unitary"):
        lu.unitary_step(U, np.ones(shape), 0.1, rank=1, sketch=sketch, rng=0)


@pytest.mark.parametrize("size", [np.array([0.1, 0.2]), np.eye(6)])
def test_a_step_size_does_not_widen_the_batch(size):
    with pytest.raises(ValueError, match=r"step_size must be one number, or one for each matrix .* \(\)"):
        lu.unitary_step(U, U, size, rank=1, rng=0)
    options = {"rank": 1, "rng": 0, "heal": 0}
    for given in ((U[None], U), (U, U[None])):
        moved = lu.unitary_step(*given, np.array([0.1]), **options)
        np.testing.assert_allclose(moved[0], lu.unitary_step(U, U, 0.1, **options), atol=1e-15)


class Units(np.ndarray):
    """Arithmetic of its own."""

    def __mul__(self, other):
        raise AssertionError("not to be reached")


class Labelled(np.ndarray):
    """Only a name of its own."""


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    "kind", [lambda x: np.ma.masked_array(x, mask=x > 0), np.asmatrix, lambda x: x.view(Units)]
)
@pytest.mark.parametrize("n", [4, 64])
def test_arrays_with_arithmetic_of_their_own_are_refused_at_every_size(kind, n):
    x, thin = np.eye(n), np.ones((n, 1))
    calls = (
        lambda: lu.unitarity_defect(kind(2 * x)),
        lambda: lu.unitary_transport(x, kind(thin), thin),
        lambda: lu.unitary_transport(x, thin, kind(thin)),
        lambda: lu.unitary_step(x, kind(x), 0.1, rank=1),
        lambda: lu.svd_sketch(x, 1, test_matrix=kind(thin), rng=0),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"must be a plain array, got .*\.(MaskedArray|matrix|Units)"):
            call()


def test_subclasses_that_compute_as_arrays_do_are_taken(tmp_path):
    stored = np.memmap(tmp_path / "unitary", dtype=U.dtype, mode="w+", shape=U.shape)
    stored[...] = U
    expected = lu.unitary_transport(U, a, b)
    for kind in (stored, U.view(Labelled)):
        np.testing.assert_array_equal(lu.unitary_transport(kind, a, b), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: lu.unitary_transport(x(U), x(a), x(b)),
        lambda x: lu.unitary_transport(U, a, x(b)),
        lambda x: lu.unitary_step(x(U), x(U), 0.1, rank=1),
        lambda x: lu.svd_sketch(x(U), 1),
        lambda x: lu.transport_rotation(lu.BodyFactors(x(a), b)),
        lambda x: lu.is_unitary(x(U)),
    ],
)
def test_bytes_in_another_order_are_refused_with_the_cure(call):
    other = np.dtype("f8").newbyteorder("S")
    with pytest.raises(TypeError, match=r"bytes into this machine's order, with x\.astype\(.*'='"):
        call(lambda x: x.astype(other))
    assert lu.is_unitary(U.astype(other).astype(U.astype(other).dtype.newbyteorder("=")))


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_tensors_are_refused_with_the_cure(layout):
    dense = torch.asarray(U)
    sparse = getattr(dense, layout)()
    calls = (
        *(functools.partial(lu.svd_sketch, sparse, 1, method=method) for method in ("exact", "columns")),
        functools.partial(lu.unitary_step, sparse, dense, 0.1, rank=1),
        functools.partial(lu.unitary_transport, dense, dense, sparse),
        functools.partial(lut.unitary_transport, sparse, dense, dense),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"must be a dense tensor, .*\.to_dense\(\)"):
            call()


def test_no_part_of_an_argument_is_dropped():
    eye = np.eye(3)
    wide, start = lu.BodyFactors(eye[:, :1], 1j * eye[:, 1:2]), lu.MomentumState.start(eye, 1)
    with pytest.raises(TypeError, match=r"body_factors.right must have a dtype that fits"):
        lu.momentum_step(wide, start, decay=0.0)
    ones = np.ones((3, 1))
    with pytest.raises(TypeError, match=r"rotation.left must have a dtype that fits into that of base"):
        lu.DelayedUnitary(eye, lu.LowRankRotation(1j * ones, ones)).matmul(ones)
    with pytest.raises(ValueError, match="base must have shape"):
        lu.DelayedUnitary(eye[:2], None).matmul(ones)
    with pytest.raises(TypeError, match="rotation must be a LowRankRotation, got BodyFactors"):
        lu.DelayedUnitary(eye, lu.BodyFactors(ones, ones)).flush()
    state = lu.SketchState.start(eye + 0j, 1, rng=0)
    with pytest.raises(TypeError, match=r"state.basis must have a dtype that fits into that of unitary"):
        lu.warm_tangent_sketch(eye, eye, state, 1, rng=0)
    for defect in (np.array(1j), -2.0, np.array(-2.0), np.array([0.1, 0.2])):
        with pytest.raises((TypeError, ValueError), match="unitary_defect must be"):
            lu.rotation_certificate(body, rotation, unitary_defect=defect)


def test_a_factor_of_no_columns_leaves_the_mean_square_to_decay():
    state = lu.MomentumState.start(U, 1, scaling="rows")
    direction, after = lu.momentum_step(lu.BodyFactors(a[:, :0], b[:, :0]), state)
    assert not np.any(direction.left)
    assert not np.any(after.second)
    assert after.steps == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rng", "y"),
        ("power_iterations", -3),
        ("power_iterations", 3),
        ("oversample", 2),
        ("test_matrix", np.eye(4)),
    ],
)
def test_options_that_a_method_does_not_take_are_refused(name, value):
    for call in (lu.svd_sketch, lambda x, *k, **o: lu.compress_tangent(lu.BodyFactors(x, x), *k, **o)):
        with pytest.raises((TypeError, ValueError), match=name):
            call(U, 2, method="exact", **{name: value})


def test_delayed_products_name_what_does_not_fit():
    small = lu.transport_rotation(lu.BodyFactors(a[:3], b[:3]))
    with pytest.raises(ValueError, match=r"rotation\.left must have shape \(…, 4, k\)"):
        lu.DelayedUnitary(U).rotate(small)
    with pytest.raises(ValueError, match=r"x must have shape \(…, 4, k\)"):
        lu.DelayedUnitary(U).matmul(a[:3])

"""cupy, by a stand-in without a GPU: every routine stays on the device of its arrays and never waits for it.

All arrays lie on device 1, which is entered; while device 0 is current they are refused.
"""

import functools
import inspect
import sys
from types import SimpleNamespace

import array_api_compat
import cupy_on_cpu
import numpy as np
import pytest
from cases import ONE_OF_EACH, ct, normal
from profiles import thorough

import lowrank_unitary as lu
from lowrank_unitary._array import tolerance
from lowrank_unitary._kernels import cuda as _cuda
from lowrank_unitary._linalg import eigh, inv

pytestmark = pytest.mark.gate

N, K = 7, 2
TORUS = (6,)
DTYPES = ("float16", "float32", "float64", "complex64", "complex128")

# Of factors that are not unique these functions stand for what is: the product, or its skew part.
PRODUCTS = (lu.LowRankFactors, lu.LowRankRotation, lu.BodyFactors)


def skew(x):
    return 0.5 * (x - ct(x))


CASES = {
    "CompensatedUnitary.single": lambda d: d.compensated.single(),
    "CompensatedUnitary.split": lambda d: lu.CompensatedUnitary.split(d.single, d.half),
    "DelayedUnitary.adjoint_matmul": lambda d: d.delayed.adjoint_matmul(d.a),
    "DelayedUnitary.flush": lambda d: (d.delayed.flush().base, d.delayed.flush(heal=2, rng=1).base),
    "DelayedUnitary.matmul": lambda d: d.delayed.matmul(d.a),
    "DelayedUnitary.rotate": lambda d: d.delayed.rotate(d.rotation).flush().base,
    "BodyFactors.dense": lambda d: d.body.dense(),
    "BodyFactors.scaled": lambda d: (d.body.scaled(-0.5), d.body.scaled(d.eta)),
    "LowRankFactors.dense": lambda d: lu.LowRankFactors(d.a, d.b).dense(),
    "LowRankFactors.scaled": lambda d: lu.LowRankFactors(d.a, d.b).scaled(-0.5),
    "LowRankRotation.compose": lambda d: d.rotation.compose(d.rotation),
    "LowRankRotation.dense": lambda d: d.rotation.dense(),
    "LowRankRotation.inverse": lambda d: d.rotation.inverse().dense(),
    "LowRankFactors.to_body": lambda d: lu.LowRankFactors(d.a, d.b).to_body(d.U),
    "MomentumState.start": lambda d: lu.MomentumState.start(d.U, K, scaling="rows"),
    "SVDSketch.factors": lambda d: d.svd.factors(),
    "SketchState.start": lambda d: lu.SketchState.start(d.U, K, rng=1, feedback=True).missed,
    "convolution_body_gradient": lambda d: [
        Tangent(*part) for part in lu.convolution_body_gradient(d.signal, d.cotangent, **d.grouped)
    ],
    "convolution_gradient": lambda d: lu.convolution_gradient(d.signal, d.cotangent, **d.grouped),
    "convolve": lambda d: [
        lu.convolve(d.signal, d.spectrum, torus=TORUS, adjoint=adjoint) for adjoint in (False, True)
    ],
    "delta_spectrum": lambda d: lu.delta_spectrum(3, torus=TORUS, rng=1, **made_thin(d)),
    "identity_spectrum": lambda d: lu.identity_spectrum(3, torus=TORUS, **made_thin(d)),
    "independent_frequencies": lambda d: lu.independent_frequencies(
        TORUS, **{name: d.made[name] for name in ("xp", "device") if name in d.made}
    ),
    "kernel_of_spectrum": lambda d: lu.kernel_of_spectrum(d.spectrum, torus=TORUS),
    "pixel_shuffle": lambda d: lu.pixel_shuffle(d.signal, (3,)),
    "pixel_unshuffle": lambda d: lu.pixel_unshuffle(d.signal, (3,)),
    "random_spectrum": lambda d: lu.random_spectrum(3, torus=TORUS, rng=1, **made_thin(d)),
    "reunitarize_spectrum": lambda d: lu.reunitarize_spectrum(d.spectrum),
    "spectrum_defect": lambda d: lu.spectrum_defect(d.spectrum),
    "spectrum_gradient": lambda d: lu.spectrum_gradient(d.spectrum, torus=TORUS),
    "spectrum_of_kernel": lambda d: lu.spectrum_of_kernel(d.kernel, torus=TORUS),
    "spectrum_step": lambda d: [
        lu.spectrum_step(d.spectrum, gradient, 0.01, rank=1, rng=1, frequencies=frequencies)
        for gradient in (lu.convolution_gradient(d.signal, d.cotangent, **d.grouped), d.spectrum)
        for frequencies in (None, 2)
    ],
    "add_factors": lambda d: lu.add_factors(lu.LowRankFactors(d.a, d.b), lu.LowRankFactors(d.b, d.a), rank=3),
    "cayley_unitary": lambda d: lu.cayley_unitary(N, rng=1, **d.made),
    "compress_factors": lambda d: [
        lu.compress_factors(lu.LowRankFactors(d.G, d.U), K, rng=1, **options)
        for options in ({}, {"method": "single_pass"}, {"method": "krylov"}, {"method": "exact"})
    ],
    "compress_tangent": lambda d: [
        Tangent(*lu.compress_tangent(lu.BodyFactors(d.G, d.U), 3, rng=1, method=method))
        for method in ("exact", "randomized")
    ],
    "heal_unitary": lambda d: (lu.heal_unitary(d.U, 1, rng=1), lu.heal_unitary(d.U, 2, rng=1)),
    "henaff_unitary": lambda d: lu.henaff_unitary(N, rng=1, **d.made),
    "is_unitary": lambda d: (lu.is_unitary(d.U), lu.is_unitary(d.not_unitary)),
    "leave_one_out_error": lambda d: lu.leave_one_out_error(d.a),
    "momentum_step": lambda d: [
        (Tangent(*direction), Tangent(*after.momentum), after.second, after.steps)
        for state in d.states
        for direction, after in [lu.momentum_step(d.body, state, nesterov=True)]
    ],
    "polar_projection": lambda d: [lu.polar_projection(d.U, d.a, d.b, **options) for options in STEPS],
    "polar_projection_vjp": lambda d: lu.polar_projection_vjp(d.U, d.a, d.b, d.G),
    "polar_rotation": lambda d: [lu.polar_rotation(d.body, core=core) for core in CORES],
    "polar_rotation_vjp": lambda d: lu.polar_rotation_vjp(d.body, lu.BodyFactors(d.b, d.a)),
    "random_test_matrix": lambda d: [
        lu.random_test_matrix(N, K, rng=1, kind=kind, **d.made)
        for kind in ("gaussian", "rademacher", "sparse_sign")
    ],
    "random_unitary": lambda d: lu.random_unitary(N, rng=1, **d.made),
    "reunitarize": lambda d: lu.reunitarize(d.U),
    "rotate": lambda d: (lu.rotate(d.G, d.rotation), lu.rotate(d.G, d.rotation, adjoint=True)),
    "rotate_vjp": lambda d: lu.rotate_vjp(d.U, d.rotation, d.G),
    "rotation_certificate": lambda d: [
        lu.rotation_certificate(d.body, d.rotation, left=d.a, unitary_defect=1e-3),
        lu.rotation_certificate(d.body, d.rotation, update="polar", unitary_defect=d.defect),
    ],
    "sketch_error": lambda d: (lu.sketch_error(d.G, d.svd, rng=1), lu.sketch_error(d.G, d.body, rng=1)),
    "svd_sketch": lambda d: (
        [lu.svd_sketch(d.G, K, method=method, rng=1) for method in METHODS]
        + [
            lu.svd_sketch(d.G, method=method, rtol=0.3, masked=True, max_rank=3, rng=1)
            for method in ("exact", "randomized")
        ]
    ),
    "tangent_error": lambda d: lu.tangent_error(d.U, d.G, d.body, rng=1),
    "tangent_sketch": lambda d: [
        Tangent(*lu.tangent_sketch(d.U, gradient, *rank, rng=1, **options))
        for gradient in (d.G, lu.LowRankFactors(d.G, d.U))
        for rank, options in (((K,), {}), ((), {"rtol": 0.3, "masked": True, "max_rank": 3}))
    ],
    "transport_rotation": lambda d: [
        lu.transport_rotation(d.body, core=core, update=update) for core in CORES for update in TRANSPORTS
    ],
    "transport_rotation_vjp": lambda d: [
        lu.transport_rotation_vjp(d.body, lu.BodyFactors(d.b, d.a), update=update) for update in TRANSPORTS
    ],
    "unitarity_defect": lambda d: (lu.unitarity_defect(d.U), lu.unitarity_defect(d.U, probes=2, rng=1)),
    "unitary_step": lambda d: [
        lu.unitary_step(d.U, gradient, eta, rank=K, update=update, sketch=sketch, heal=1, rng=1)
        for gradient in (d.G, lu.LowRankFactors(d.G, d.U), d.body)
        for eta in (0.1, d.eta)
        for update in ("geodesic", "polar")
        for sketch in ("tangent", "randomized")
    ],
    "unitary_transport": lambda d: [
        lu.unitary_transport(d.U, d.a, d.b, update=update, **options)
        for update in TRANSPORTS
        for options in STEPS
    ],
    "unitary_transport_vjp": lambda d: [
        lu.unitary_transport_vjp(d.U, d.a, d.b, d.G, update=update) for update in TRANSPORTS
    ],
    "warm_tangent_sketch": lambda d: [
        (Tangent(*sketch), projector(after.basis), Tangent(*after.missed))
        for sketch, after in [lu.warm_tangent_sketch(d.U, d.G, d.warm, K, rng=1)]
    ],
}
CORES, TRANSPORTS = ("auto", "gram", "orthonormal"), ("geodesic", "cayley")
METHODS = ("randomized", "krylov", "single_pass", "exact", "lsi", "columns")
STEPS = ({}, {"core": "orthonormal"}, {"heal": 2, "rng": 1})


def made_thin(d):
    """What a spectrum is made with, in single precision at least."""
    return {**d.made, "dtype": d.signal.dtype}


class Tangent(lu.BodyFactors):
    """Factors of which the skew part alone is unique."""


def projector(basis):
    return lu.LowRankFactors(basis, basis)


def routines():
    """Every public function, and every public method of the named tuples."""
    for name in lu.__all__:
        value = getattr(lu, name)
        if not inspect.isclass(value):
            yield name
            continue
        own = set(vars(value)) - set(dir(tuple)) - {*value._fields, "_fields"}
        yield from (f"{name}.{x}" for x in own if not x.startswith("_"))


def test_every_public_routine_has_a_case():
    assert set(CASES) == set(routines())


@functools.cache
def problem(dtype, batch):
    """Arguments of every kind, in numpy."""
    rng = np.random.default_rng(3)
    U = lu.random_unitary(N, dtype=dtype, batch=batch, rng=rng)
    thin = "float32" if dtype == "float16" else dtype
    a, b = (0.3 * normal(rng, (*batch, N, K), thin) for _ in range(2))
    G = normal(rng, (*batch, N, N), dtype)
    body = lu.LowRankFactors(a, b).to_body(U)
    states = [
        lu.momentum_step(body, lu.MomentumState.start(U, K, scaling=scaling))[1]
        for scaling in ("none", "scalar", "rows")
    ]
    single = lu.random_unitary(N, dtype="float32", batch=batch, rng=rng)
    return SimpleNamespace(
        U=U, a=a, b=b, G=G, body=body, states=states, single=single, not_unitary=2 * single,
        rotation=lu.transport_rotation(body, core="gram"),
        delayed=lu.DelayedUnitary(U, lu.transport_rotation(body, core="gram")),
        svd=lu.svd_sketch(G, K, method="exact"),
        warm=lu.warm_tangent_sketch(U, G, lu.SketchState.start(U, K, rng=1, feedback=True), K, rng=2)[1],
        wide=normal(rng, (*batch, N, K + 3), thin),
        eta=np.full(batch, 0.1, np.float32), defect=np.full(batch, 1e-3, np.float32),
        compensated=lu.CompensatedUnitary.split(single, np.float16),
        signal=normal(rng, (*batch, 3, *TORUS), thin), cotangent=normal(rng, (*batch, 3, *TORUS), thin),
        kernel=normal(rng, (*batch, 3, 3, 2), thin), grouped={"torus": TORUS, "groups": len(batch)},
        spectrum=lu.random_spectrum(3, torus=TORUS, dtype=np.dtype(thin), batch=batch, rng=rng),
        half=np.float16, made={"dtype": U.dtype, "batch": batch},
    )  # fmt: skip


def each(change, value):
    """All arrays within tuples, lists and dictionaries changed."""
    if isinstance(value, tuple | list):
        parts = [each(change, x) for x in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return change(np.asarray(value) if isinstance(value, np.generic) else value)


def arrays_in(value):
    found = []
    each(lambda x: found.append(x) if hasattr(x, "dtype") and hasattr(x, "shape") else None, value)
    return found


@pytest.fixture(scope="module")
def installed():
    with cupy_on_cpu.installed() as cupy, pytest.MonkeyPatch.context() as patch:
        # The generic lines are meant here: kernels cannot run on this memory.
        patch.setattr(_cuda, "active", lambda: False, raising=False)
        yield cupy


@pytest.fixture
def cupy(installed):
    installed.ledger = cupy_on_cpu.Ledger()
    with cupy_on_cpu.Device(1):
        yield installed
    assert cupy_on_cpu.Device() == cupy_on_cpu.Device(0)


def on_device(number, value):
    def move(x):
        return cupy_on_cpu.ndarray(x.copy(), cupy_on_cpu.Device(number)) if isinstance(x, np.ndarray) else x

    return each(move, value)


def given_on_device(number, cupy, given):
    moved = {name: on_device(number, value) for name, value in vars(given).items()}
    moved["made"] = {**given.made, "xp": cupy, "device": cupy_on_cpu.Device(number)}
    return SimpleNamespace(**moved)


def host(x):
    """What a result stands for, in numpy; nothing is counted."""
    if isinstance(x, PRODUCTS):
        left, right = (part.astype(np.result_type(part, np.float32)) for part in map(host, x))
        return skew(left @ ct(right)) if isinstance(x, Tangent) else left @ ct(right)
    if isinstance(x, lu.SVDSketch):
        return host(x.U) * host(x.S)[..., None, :] @ host(x.Vh), host(x.S)
    if isinstance(x, tuple | list):
        return [host(part) for part in x if part is not None]
    return x.host if isinstance(x, cupy_on_cpu.ndarray) else np.asarray(x)


@pytest.mark.parametrize(
    ("dtype", "batch"),
    [
        ("float16", (2,)),
        ("complex64", (2,)),
        ("float32", ()),
        *(thorough(dtype, (2,)) for dtype in ("float32", "float64", "complex128")),
        thorough("complex128", ()),
    ],
)
@pytest.mark.parametrize("name", CASES)
def test_routine_gives_what_numpy_gives_on_the_device_of_its_arrays_without_waiting(cupy, name, dtype, batch):
    check(cupy, name, dtype, batch)


def check(cupy, name, dtype, batch):
    """Compare a case with that of numpy, and what it did on the way with nothing."""
    given = problem(dtype, batch)
    expected = CASES[name](given)
    there = given_on_device(1, cupy, given)
    result = CASES[name](there)
    assert cupy.ledger == cupy_on_cpu.Ledger()
    for x, like in zip(arrays_in(result), arrays_in(expected), strict=True):
        assert isinstance(x, cupy.ndarray)
        assert x.device == cupy_on_cpu.Device(1)
        assert x.dtype == like.dtype
    for x, original in zip(arrays_in(vars(there).values()), arrays_in(vars(given).values()), strict=True):
        np.testing.assert_array_equal(host(x), original)
    for x, like in zip(arrays_in(host(result)), arrays_in(host(expected)), strict=True):
        scale = float(np.max(np.abs(like.astype(complex)), initial=1.0))
        # Thin factors beside half precision are single; what is stored in it may be rounded to a neighbour.
        single = np.dtype("float32" if dtype == "float16" else dtype)
        bound = 10 * tolerance(np, single, N, K, scale=scale)
        bound += scale * float(np.finfo(np.float16).eps) * (like.dtype == np.float16)
        np.testing.assert_allclose(x.astype(complex), like.astype(complex), rtol=0, atol=bound)


class Used(SimpleNamespace):
    """Arguments that remember which of them were asked for."""

    def __getattribute__(self, name):
        if not name.startswith("_"):
            vars(self).setdefault("_used", set()).add(name)
        return super().__getattribute__(name)


REFUSALS = {
    "numpy": (TypeError, "must come from one array library"),
    "another device": (ValueError, "must be on (one|the current) device"),
}
# Fields that are arrays, or tuples of them.
FIELDS = (
    "U",
    "a",
    "b",
    "G",
    "body",
    "states",
    "rotation",
    "delayed",
    "svd",
    "warm",
    "wide",
    "eta",
    "defect",
    "signal",
    "cotangent",
    "kernel",
    "spectrum",
)


@pytest.mark.parametrize("name", CASES)
def test_arrays_on_a_device_that_is_not_current_are_refused_by_name(cupy, name):
    there = given_on_device(1, cupy, problem("float32", ()))
    with cupy_on_cpu.Device(0), pytest.raises(ValueError, match=r"must be on the current device of cupy"):
        CASES[name](there)
    assert cupy.ledger == cupy_on_cpu.Ledger()


@pytest.mark.parametrize("other", ["numpy", "another device"])
@pytest.mark.parametrize("name", CASES)
def test_arrays_of_two_libraries_or_devices_are_refused_by_name(cupy, name, other):
    given = problem("complex128", (2,))
    used = Used(**vars(given_on_device(1, cupy, given)))
    CASES[name](used)
    arrays = used._used & set(FIELDS)
    for field in arrays if len(arrays) > 1 else ():
        there = given_on_device(1, cupy, given)
        theirs = getattr(given, field)
        setattr(there, field, theirs if other == "numpy" else on_device(0, theirs))
        error, words = REFUSALS[other]
        with pytest.raises(error, match=words):
            CASES[name](there)


def test_a_step_size_elsewhere_is_refused_by_name(cupy):
    there = given_on_device(1, cupy, problem("float64", (2,)))
    for eta, refusal in ((np.full(2, 0.1), "numpy"), (on_device(0, np.full(2, 0.1)), "another device")):
        error, _ = REFUSALS[refusal]
        with pytest.raises(error, match=r"^step_size and unitary must"):
            lu.unitary_step(there.U, there.G, eta, rank=K)


def spoiled(x):
    """A copy in which the first matrix of a stack has a NaN, if it is one of floating-point matrices."""
    x = np.array(x)
    if x.ndim >= 3 and x.size:
        x[0, 0, 0] = np.nan
    return x


# What is made of no values, or says of NaN that it is not unitary.
SILENT = (
    "MomentumState.start",
    "SketchState.start",
    "cayley_unitary",
    "delta_spectrum",
    "henaff_unitary",
    "identity_spectrum",
    "independent_frequencies",
    "is_unitary",
    "random_spectrum",
    "random_test_matrix",
    "random_unitary",
)


@pytest.mark.parametrize("dtype", ONE_OF_EACH)
@pytest.mark.parametrize("name", sorted(set(CASES) - set(SILENT)))
def test_nan_in_one_matrix_of_a_stack_comes_out_and_stays_in_it(cupy, name, dtype):
    given = problem(dtype, (2,))
    arguments = {field: each(spoiled, getattr(given, field)) for field in (*FIELDS, "single", "compensated")}
    bad = SimpleNamespace(**{**vars(given), **arguments})
    results = CASES[name](given_on_device(1, cupy, bad)), CASES[name](bad)
    found, expected = (
        [tuple(bool(np.isnan(part).any()) for part in x) for x in arrays_in(host(result)) if len(x.shape)]
        for result in results
    )
    assert found == expected
    assert (True, False) in found


@pytest.mark.parametrize("dtype", DTYPES)
def test_overwriting_is_done_in_the_memory_of_the_array(cupy, dtype):
    given = problem(dtype, (2,))
    calls = {
        "rotate": lambda d, **options: lu.rotate(d.U, d.rotation, **options),
        "unitary_transport": lambda d, **options: lu.unitary_transport(d.U, d.a, d.b, **options),
        "polar_projection": lambda d, **options: lu.polar_projection(d.U, d.a, d.b, **options),
        "unitary_step": lambda d, **options: lu.unitary_step(d.U, d.G, 0.1, rank=K, rng=1, **options),
    }
    for name, call in calls.items():
        there = given_on_device(1, cupy, given)
        option = "overwrite_array" if name == "rotate" else "overwrite_unitary"
        expected, address = call(there), there.U.data.ptr
        result = call(there, **{option: True})
        assert result is there.U
        assert result.data.ptr == address
        np.testing.assert_array_equal(host(result), host(expected))
    assert cupy.ledger == cupy_on_cpu.Ledger()


def test_functions_in_place_of_a_matrix_run_on_the_device_of_their_blocks(cupy):
    there = given_on_device(1, cupy, problem("complex128", (2,)))
    pair = (lambda x: there.G @ x, lambda x: cupy.conj(there.G.mT) @ x)
    sketch = lu.svd_sketch(pair, K, test_matrix=there.wide)
    assert sketch.U.device == cupy_on_cpu.Device(1)
    assert cupy.ledger == cupy_on_cpu.Ledger()


@pytest.mark.parametrize("made", ["cupy", "array_api_compat.cupy"])
def test_arrays_are_made_on_the_device_that_is_asked_for_or_current(cupy, made):
    xp = cupy if made == "cupy" else array_api_compat.array_namespace(cupy.empty(0))
    for make in (lu.random_unitary, lu.henaff_unitary, lu.cayley_unitary):
        for number in (0, 1):
            with cupy_on_cpu.Device(number) as device:
                assert make(N, xp=xp).device == device
                assert make(N, xp=xp, device=device).device == device
        with pytest.raises(ValueError, match="device must be on the current device"):
            make(N, xp=xp, device=cupy_on_cpu.Device(0))
        with pytest.raises(TypeError, match=r"device must be a cupy\.cuda\.Device"):
            make(N, xp=xp, device=1)


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_eigenvectors_of_zero_and_of_stacks_in_single_precision_are_orthonormal(cupy, dtype, batch):
    x = normal(np.random.default_rng(0), (*batch, 5, 5), dtype)
    x = x + ct(x)
    x[..., :1, :] *= 1.0 if batch else 0.0
    x = 0 * x if not batch else x * np.array([0, 1, 1], dtype)[:, None, None]
    w, v = eigh(array_api_compat.array_namespace(cupy.empty(0)), on_device(1, x))
    w, v = host(w), host(v)
    assert v.dtype == dtype
    bound = tolerance(np, x.dtype, 5, 5, scale=float(np.max(np.abs(x))))
    np.testing.assert_allclose(ct(v) @ v, np.broadcast_to(np.eye(5), v.shape), atol=bound)
    np.testing.assert_allclose((v * w[..., None, :]) @ ct(v), x, atol=bound)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_the_inverse_of_a_singular_matrix_is_not_finite(cupy, batch):
    x = np.broadcast_to(np.array([[1.0, 2.0], [2.0, 4.0]]), (*batch, 2, 2)).copy()
    x[1:] += np.eye(2) if batch else 0.0
    inverse = host(inv(array_api_compat.array_namespace(cupy.empty(0)), on_device(1, x)))
    first = inverse[0] if batch else inverse
    assert not np.isfinite(first).any()
    if batch:
        np.testing.assert_allclose(inverse[1:] @ x[1:], np.broadcast_to(np.eye(2), (2, 2, 2)), atol=1e-14)


def test_a_rank_that_depends_on_values_is_refused(cupy):
    there = given_on_device(1, cupy, problem("float64", ()))
    factors = lu.LowRankFactors(there.G, there.U)
    for call in (
        lambda: lu.svd_sketch(there.G, rtol=0.1),
        lambda: lu.svd_sketch(there.G, rtol=0.1, method="exact"),
        lambda: lu.compress_factors(factors, rtol=0.1),
        lambda: lu.compress_tangent(lu.BodyFactors(there.a, there.b), rtol=0.1),
        lambda: lu.tangent_sketch(there.U, there.G, rtol=0.1),
    ):
        with pytest.raises(ValueError, match="masked must be True"):
            call()
    assert cupy.ledger == cupy_on_cpu.Ledger()


def test_the_stand_in_tells_of_what_cupy_would_wait_for_move_or_refuse(cupy):
    with cupy_on_cpu.Device(0):
        x = cupy.asarray(np.eye(3))
        check_what_is_told(cupy, x)


def check_what_is_told(cupy, x):
    for read in (bool, int, float, complex):
        read(x[0, 0])
    x.tolist(), x[0, 0].item(), x.get(), x[x > 0]
    assert cupy.ledger.synchronisations == 8
    assert cupy.ledger.uploads == [9]
    assert sorted(cupy.ledger.downloads) == [1, 1, 1, 1, 1, 9, 9]
    for mixed in (lambda: x + np.eye(3), lambda: np.eye(3) @ x, lambda: cupy.where(x > 0, x, np.eye(3))):
        with pytest.raises(TypeError, match="Unsupported type"):
            mixed()
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)
    assert (np.float64(2) * x).dtype == np.float64
    with cupy_on_cpu.Device(1):
        with pytest.raises(ValueError, match="an array lies on"):
            x + 1
        moved = x.copy()
        assert cupy.asarray(x).device == moved.device == cupy_on_cpu.Device(1)
    assert cupy.ledger.moves == [9, 9]
    assert str(moved.device) == "<CUDA Device 1>"


def test_nothing_is_left_of_the_stand_in():
    def loaded():
        names = (name for name in sys.modules if f"{name}.".startswith(("cupy.", "array_api_compat.cupy.")))
        return {name: sys.modules[name] for name in names}, vars(array_api_compat).get("cupy")

    before = loaded()
    with cupy_on_cpu.installed() as cupy:
        assert lu.random_unitary(2, xp=cupy).device == cupy_on_cpu.Device(0)
        assert sys.modules["cupy"] is cupy
        assert loaded() != before
    assert loaded() == before
    own = type("ndarray", (cupy_on_cpu.ndarray,), {})
    assert not array_api_compat.is_cupy_array(own(np.eye(2), cupy_on_cpu.Device(0))) or before[0]

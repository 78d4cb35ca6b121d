"""Arrays of frameworks outside the array API go through every routine and come back as their own."""

import sys
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cases import make_step, normal

import lowrank_unitary as lu
from lowrank_unitary.dlpack import via_dlpack


class Tensor:
    """No more than DLPack asks for; immutable, and counting how often it is read."""

    __module__ = "standin.core"

    def __init__(self, host):
        self.host, self.reads = host, 0

    def __dlpack__(self, **options):
        self.reads += 1
        return self.host.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.host.__dlpack_device__()


class Variable:
    """No more than __array__, like a variable of TensorFlow."""

    __module__ = "standin.core"

    def __init__(self, host):
        self.host = host

    def __array__(self, dtype=None, copy=None):
        return np.array(self.host, dtype=dtype, copy=copy)


@pytest.fixture(autouse=True)
def standin(monkeypatch):
    module = ModuleType("standin")
    # Like most, it asks for the first version of DLPack, which has no word for read-only.
    module.from_dlpack = lambda x: x.__dlpack__() and Tensor(np.from_dlpack(x))
    monkeypatch.setitem(sys.modules, "standin", module)
    return module


STEP = make_step(0, 8, 2, "complex64")
GRADIENT = normal(np.random.default_rng(1), (8, 8), "complex64")
TEST_MATRIX = normal(np.random.default_rng(0), (8, 4), "complex64")
ROUTINES = {
    "unitary_step": (lu.unitary_step, (STEP.unitary, GRADIENT, 0.1), {"rank": 2, "rng": 1}),
    "unitary_transport": (lu.unitary_transport, STEP.arrays, {"heal": 1, "rng": 1}),
    "transport_rotation": (lu.transport_rotation, (STEP.body,), {"update": "cayley"}),
    "tangent_sketch": (lu.tangent_sketch, (STEP.unitary, lu.LowRankFactors(*STEP.arrays[1:]), 2), {}),
    "svd_sketch": (lu.svd_sketch, (STEP.unitary, 3), {"rng": 1}),
    "momentum_step": (lu.momentum_step, (STEP.body, lu.MomentumState.start(STEP.unitary, 2)), {}),
    "unitarity_defect": (lu.unitarity_defect, (STEP.unitary,), {}),
    "a method": (lu.LowRankFactors.to_body, (lu.LowRankFactors(*STEP.arrays[1:]), STEP.unitary), {}),
    "returned as it came": (lu.compress_tangent, (STEP.body, 4), {}),
    "test matrix by keyword": (lu.svd_sketch, (STEP.unitary, 2), {"test_matrix": TEST_MATRIX}),
    "a dtype": (lu.cayley_unitary, (4,), {"dtype": np.float32, "rng": 0}),
}  # fmt: skip


def each(change, kind, value):
    if isinstance(value, tuple):
        parts = [each(change, kind, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return change(value) if isinstance(value, kind) else value


def assert_same(expected, result, kind, to_numpy):
    if isinstance(expected, tuple):
        assert type(result) is type(expected)
        for part, of_result in zip(expected, result, strict=True):
            assert_same(part, of_result, kind, to_numpy)
    else:
        assert type(result) is kind
        host = to_numpy(result)
        assert host.dtype == np.asarray(expected).dtype
        np.testing.assert_array_equal(host, expected)


@pytest.mark.parametrize("name", ROUTINES)
def test_results_are_those_of_numpy_in_arrays_of_the_framework(name):
    function, args, kwargs = ROUTINES[name]
    foreign = {key: each(Tensor, np.ndarray, value) for key, value in kwargs.items()}
    result = via_dlpack(function)(*each(Tensor, np.ndarray, args), **foreign)
    kind = Tensor if name != "a dtype" else np.ndarray
    assert_same(function(*args, **kwargs), result, kind, lambda x: getattr(x, "host", x))


def test_arguments_are_seen_without_a_copy_and_results_taken_without_one():
    taken = []
    x, y = Tensor(np.eye(3)), Tensor(np.ones(3))
    via_dlpack(lambda x, y: taken.extend((x, y)))(x, y=y)
    assert np.shares_memory(taken[0], x.host)
    assert np.shares_memory(taken[1], y.host)
    assert x.reads == y.reads == 1
    kept = np.eye(3)
    assert np.shares_memory(via_dlpack(lambda x: kept)(x).host, kept)


def test_an_array_with_nothing_but_array_is_converted():
    result = via_dlpack(lu.unitary_step)(Variable(np.eye(4)), np.ones((4, 4)), 0.1, rank=1, rng=0)
    assert type(result) is Tensor
    np.testing.assert_array_equal(
        result.host, lu.unitary_step(np.eye(4), np.ones((4, 4)), 0.1, rank=1, rng=0)
    )


@pytest.mark.parametrize("kind", [Tensor, Variable])
def test_nothing_is_overwritten(kind):
    host = np.eye(4)
    with pytest.raises(ValueError, match="read-only: pass a copy, or leave overwrite_array=False"):
        via_dlpack(lu.rotate)(kind(host), lu.LowRankRotation(host, host), overwrite_array=True)
    np.testing.assert_array_equal(host, np.eye(4))


@pytest.mark.parametrize("xp", [np, torch, jnp], ids=["numpy", "torch", "jax"])
def test_arrays_that_the_library_knows_pass_straight_through(xp):
    seen = []
    via_dlpack(lambda *args, **kwargs: seen.extend((*args, *kwargs.values())))(
        x := xp.ones((2, 2)), [x], 1.5, "word", None, y=x
    )
    assert seen[0] is x
    assert seen[1][0] is x
    assert seen[2:5] == [1.5, "word", None]
    assert seen[5] is x


def test_overwriting_stays_possible_for_arrays_that_pass_through():
    U = np.eye(4)
    assert via_dlpack(lu.unitary_transport)(U, U[:, :1], U[:, 1:2], overwrite_unitary=True) is U


def test_a_list_is_refused_by_the_library():
    with pytest.raises(TypeError, match="must be an array"):
        via_dlpack(lu.unitarity_defect)([[1.0, 0.0], [0.0, 1.0]])


def test_a_mix_with_an_array_library_is_refused_by_the_library():
    with pytest.raises(TypeError, match="must come from one array library"):
        via_dlpack(lu.unitary_step)(Tensor(np.eye(3)), torch.eye(3), 0.1, rank=1)


def test_a_mix_of_frameworks_is_refused():
    class Other(Tensor):
        __module__ = "other"

    with pytest.raises(TypeError, match="one framework, got other and standin"):
        via_dlpack(lu.unitary_step)(Tensor(np.eye(3)), Other(np.eye(3)), 0.1, rank=1)


def test_a_framework_without_a_way_back_needs_one(standin):
    del standin.from_dlpack
    with pytest.raises(TypeError, match="back must be given for arrays of standin"):
        via_dlpack(lu.unitarity_defect)(Tensor(np.eye(3)))
    assert type(via_dlpack(lu.unitarity_defect, back=Tensor)(Tensor(np.eye(3)))) is Tensor


def test_an_array_that_numpy_cannot_see_is_named():
    class OnDevice(Tensor):
        def __dlpack__(self, **options):
            raise BufferError("on a device")

    with pytest.raises(TypeError, match=r"must be on the CPU.*OnDevice.*\(on a device\)"):
        via_dlpack(lu.unitarity_defect)(OnDevice(np.eye(3)))


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow", reason="needs the extra tensorflow")


@pytest.mark.parametrize("name", [name for name in ROUTINES if name != "a dtype"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_results_are_those_of_numpy_in_tensors_of_tensorflow(tf, name, dtype):
    function, args, kwargs = ROUTINES[name]
    real = np.dtype(dtype).type(0).real.dtype
    args, kwargs = (
        each(lambda x: x.astype(dtype if x.dtype.kind == "c" else real), np.ndarray, given)
        for given in (args, tuple(kwargs.items()))
    )
    kwargs = dict(kwargs)
    foreign = {key: each(tf.constant, np.ndarray, value) for key, value in kwargs.items()}
    result = via_dlpack(function)(*each(tf.constant, np.ndarray, args), **foreign)
    assert_same(function(*args, **kwargs), result, type(tf.constant(1.0)), lambda x: x.numpy())


def test_tensors_of_tensorflow_are_seen_without_a_copy_and_results_serve_its_kernels(tf):
    x, places = tf.eye(64), []
    result = via_dlpack(lambda x: places.append(x.ctypes.data) or x + 1)(x)
    assert places == [np.from_dlpack(x).ctypes.data]
    # Its kernels end the process for memory that is not aligned as they want it.
    np.testing.assert_array_equal((result @ result).numpy(), (np.eye(64) + 1) @ (np.eye(64) + 1))


def test_training_in_tensorflow_moves_a_variable_to_the_target(tf):
    target = tf.constant(lu.random_unitary(8, dtype=np.complex128, rng=1))
    U = tf.Variable(tf.eye(8, dtype=tf.complex128))
    step = via_dlpack(lu.unitary_step)
    for count in range(150):
        with tf.GradientTape() as tape:
            loss = 0.5 * tf.reduce_sum(tf.abs(U - target) ** 2)
        # TensorFlow's gradient of a complex variable is the direction of steepest ascent.
        U.assign(step(U, tape.gradient(loss, U), 0.5, rank=4, rng=count))
    assert np.linalg.norm((U - target).numpy()) < 1e-6


def test_a_symbolic_tensor_of_tensorflow_is_refused(tf):
    with pytest.raises(TypeError, match="hold values"):
        tf.function(via_dlpack(lu.unitarity_defect))(tf.eye(3))

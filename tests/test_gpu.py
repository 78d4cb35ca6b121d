"""On a CUDA device (`pytest -m gpu`): the answers of a CPU, on every stream, in graphs, without waiting."""

import contextlib
import importlib
from dataclasses import dataclass

import numpy as np
import pytest
from cases import KINDS, UPDATES, ct, error, make_step, normal, steps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import to_numpy, tolerance
from lowrank_unitary._kernels import cuda

pytestmark = pytest.mark.gpu
DTYPES = ("float32", "float64", "complex64", "complex128")
update = pytest.mark.parametrize("update", UPDATES)
# Compiling a kernel takes a second, the first time.
device_settings = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Space:
    """A library and one of the devices."""

    library: str
    index: int

    @property
    def xp(self):
        return importlib.import_module(self.library)

    def array(self, host):
        if self.library == "torch":
            return self.xp.from_numpy(np.array(host)).to(f"cuda:{self.index}")
        with self.xp.cuda.Device(self.index):
            return self.xp.asarray(np.array(host))

    def arrays(self, *hosts):
        return [self.array(host) for host in hosts]

    def check(self, x, like):
        """The kind of array that it is to be, as numpy's."""
        assert type(x) is type(like)
        assert x.dtype == like.dtype
        assert x.device == like.device
        return to_numpy(x)

    @contextlib.contextmanager
    def stream(self):
        """Another stream than the default one, which does not wait for it."""
        if self.library == "torch":
            other = self.xp.cuda.Stream(self.index)
            other.wait_stream(self.xp.cuda.current_stream(self.index))
            with self.xp.cuda.stream(other):
                yield
        else:
            with self.xp.cuda.Device(self.index) as device:
                device.synchronize()
                with self.xp.cuda.Stream(non_blocking=True):
                    yield

    def devices(self):
        cuda_of = self.xp.cuda
        return cuda_of.device_count() if self.library == "torch" else cuda_of.runtime.getDeviceCount()


@pytest.fixture(params=["cupy", "torch", "cupy, second device", "torch, second device"])
def space(request):
    library, _, second = request.param.partition(", ")
    made = Space(library, int(bool(second)))
    if second and made.devices() < 2:
        pytest.skip("one device only")
    assert cuda.active(), "no CUDA device, or no cupy to compile the kernels with"
    return made


@update
@device_settings
@given(step=steps())
def test_steps_equal_their_dense_definition(space, update, step):
    """Those whose core keeps its digits: what a GPU takes is chosen beforehand, and not by value."""
    apply, dense = UPDATES[update]
    U, a, b = space.arrays(*step.arrays)
    got = space.check(apply(U, a, b), U)
    if step.norm <= 1.0 and (update != "polar" or step.smallest_singular_value() >= 0.1):
        assert error(got, dense(*step.arrays)) <= step.tolerance(10.0)
    for x, host in zip((U, a, b), step.arrays, strict=True):
        np.testing.assert_array_equal(to_numpy(x), host)


@update
@device_settings
@given(step=steps(max_norm=4.0).filter(lambda step: step.k == 1))
def test_steps_of_rank_one_are_exact_at_every_size(space, update, step):
    apply, dense = UPDATES[update]
    U, a, b = space.arrays(*step.arrays)
    if update == "polar" and step.smallest_singular_value() < 1e-3:
        return
    assert error(space.check(apply(U, a, b), U), dense(*step.arrays)) <= step.tolerance(1e3)


@update
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "k", "heal"),
    [(1, 1, 1), (31, 1, 0), (129, 1, 1), (257, 4, 1), (512, 16, 0), (1000, 2, 2), (1536, 1, 1)],
)
def test_sizes_that_no_tile_divides_give_what_double_precision_gives(space, dtype, n, k, heal, update):
    step = make_step(0, n, k, dtype, norm=0.5)
    apply, _ = UPDATES[update]
    got = space.check(apply(*space.arrays(*step.arrays), heal=heal, rng=1), space.array(step.unitary))
    wide = "complex128" if np.dtype(dtype).kind == "c" else "float64"
    expected = apply(*(x.astype(wide) for x in step.arrays), heal=heal, rng=1)
    assert error(got, expected) <= step.tolerance(2.0)


@update
@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_steps_in_place_equal_those_of_a_cpu(space, update, kind):
    apply, _ = UPDATES[update]
    for n, k, dtype in ((40, 1, "float32"), (200, 3, "complex64")):
        step = make_step(1, n, k, dtype, kind=kind, norm=0.5)
        U, a, b = space.arrays(*step.arrays)
        assert apply(U, a, b, overwrite_unitary=True) is U
        assert error(to_numpy(U), apply(*step.arrays)) <= step.tolerance()


@pytest.mark.parametrize(("count", "n"), [(544, 64), (544, 128), (3, 300)])
def test_stacks_are_moved_like_single_matrices(space, count, n):
    step = make_step(2, n, 1, "complex64", batch=(count,))
    U, a, b = space.arrays(*step.arrays)
    got = to_numpy(lu.unitary_transport(U, a, b, heal=1, rng=3))
    for i in (0, count // 2, count - 1):
        alone = lu.unitary_transport(*(x[i] for x in step.arrays))
        assert error(got[i], alone) <= 10 * tolerance(np, "complex64", n)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_nan_gives_nan_and_only_in_its_matrix(space, where):
    for n, k in ((40, 1), (200, 1), (200, 3)):
        step = make_step(3, n, k, "float32", batch=(2,))
        step.arrays[where][1, 2, 0] = np.nan
        got = to_numpy(lu.unitary_transport(*space.arrays(*step.arrays)))
        assert np.isfinite(got[0]).all()
        assert np.isnan(got[1]).any(axis=-1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_descent_steps_equal_those_of_a_cpu(space, dtype):
    for n, rank, update in ((60, 1, "geodesic"), (130, 4, "polar"), (130, 8, "geodesic")):
        step = make_step(4, n, 1, dtype)
        gradient = normal(np.random.default_rng(5), (n, n), dtype)
        options = {"rank": rank, "update": update, "rng": 7, "heal": 2}
        expected = lu.unitary_step(step.unitary, gradient, 0.01, **options)
        U, G = space.arrays(step.unitary, gradient)
        got = space.check(lu.unitary_step(U, G, 0.01, **options), U)
        # The best k columns of the samples are as far from the next ones as these numbers happen to be.
        assert error(got, expected) <= 1e3 * tolerance(np, dtype, n, rank)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["randomized", "krylov", "single_pass", "exact"])
def test_sketches_equal_those_of_a_cpu(space, method, dtype):
    matrix = normal(np.random.default_rng(6), (2, 90, 50), dtype) * 0.5 ** np.arange(50)
    matrix = matrix.astype(dtype)
    products = []
    for x in (matrix, space.array(matrix)):
        left, right = (to_numpy(part) for part in lu.svd_sketch(x, 4, method=method, rng=4).factors())
        products.append(left @ ct(right))
    assert np.abs(products[0] - products[1]).max() <= 1e3 * tolerance(np, dtype, 90, 4)


@pytest.mark.parametrize("dtype", [*DTYPES, "float16"])
def test_random_unitaries_and_repairs_equal_those_of_a_cpu(space, dtype):
    host = lu.random_unitary(33, dtype=dtype, rng=5)
    U = space.array(host)
    bound = 100 * tolerance(np, dtype, 33)
    for function in (
        lambda x: lu.heal_unitary(x, 3, rng=2),
        lu.reunitarize,
        lu.unitarity_defect,
        lambda x: lu.rotate(x, lu.transport_rotation(lu.BodyFactors(x[:, :2], x[:, 3:5]), core="gram")),
    ):
        assert error(*map(np.atleast_2d, (to_numpy(function(U)), function(host)))) <= bound


def test_a_seed_gives_the_same_numbers_as_on_a_cpu(space):
    for dtype in DTYPES:
        like = space.array(np.zeros((50, 50), dtype))
        xp = importlib.import_module("array_api_compat").array_namespace(like)
        for kind in ("gaussian", "rademacher"):
            got = lu.random_test_matrix(50, 3, rng=9, kind=kind, xp=xp, dtype=like.dtype, device=like.device)
            expected = lu.random_test_matrix(50, 3, rng=9, kind=kind, dtype=np.dtype(dtype))
            assert np.abs(to_numpy(got) - expected).max() <= 10 * np.finfo(dtype).eps


def test_a_seed_on_the_device_is_that_seed(space):
    U = space.array(lu.random_unitary(20, rng=0) * (1 + 1e-5))
    seed = space.array(np.array([1, 7], np.int32))
    one, other = (to_numpy(lu.heal_unitary(U, 2, rng=rng)) for rng in (seed, (1 << 32) + 7))
    np.testing.assert_array_equal(one, other)


def test_a_step_runs_on_the_current_stream(space):
    step = make_step(8, 700, 2, "float32")
    U, a, b = space.arrays(*step.arrays)
    expected = to_numpy(lu.unitary_transport(U, a, b))
    with space.stream():
        # What the stream is busy with comes first; a step on another stream would not wait for it.
        busy = U
        for _ in range(50):
            busy = busy @ U.T @ U
        U[...] = busy
        got = to_numpy(lu.unitary_transport(U, a, b))
    assert error(got, expected) <= 1e3 * step.tolerance()


def test_steps_are_captured_in_a_graph_and_replayed_with_new_contents(space):
    """What waits for the device, or allocates behind the back of the library, cannot be captured."""
    for n, rank in ((100, 1), (300, 1), (300, 4)):
        rng = np.random.default_rng(9)
        host = lu.random_unitary(n, dtype="float32", rng=rng)
        U, G = space.arrays(host, np.zeros((n, n), np.float32))
        seed, eta = space.arrays(np.array([0, 0], np.int32), np.array(0.1, np.float32))

        def step(U=U, G=G, seed=seed, eta=eta, rank=rank):
            seed[1] += 1
            lu.unitary_step(U, G, eta, rank=rank, rng=seed, overwrite_unitary=True)

        replay = captured(space, step, U, seed)
        np.testing.assert_array_equal(to_numpy(U), host)
        for i in range(1, 4):
            gradient = normal(rng, (n, n), "float32") / n
            G[...] = space.array(gradient)
            eta[...] = 0.1 * i
            host = lu.unitary_step(host, gradient, 0.1 * i, rank=rank, rng=i)
            replay()
        assert error(to_numpy(U), host) <= 1e3 * tolerance(np, "float32", n, rank)


def captured(space, step, *written):
    if space.library == "cupy":
        from lowrank_unitary.cuda_graph import StepGraph

        return StepGraph(step, *written).launch
    torch = space.xp
    with torch.cuda.device(space.index):
        before = [x.clone() for x in written]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
            for x, value in zip(written, before, strict=True):
                x.copy_(value)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    return graph.replay


def test_steps_of_torch_never_wait_for_the_device(space):
    if space.library != "torch":
        pytest.skip("cupy has no such mode: its graphs show it")
    torch = space.xp
    step = make_step(10, 300, 3, "complex64")
    arrays = space.arrays(*step.arrays)
    lu.unitary_transport(*arrays, heal=1, rng=1)
    lu.unitary_step(arrays[0], arrays[0], 0.1, rank=2, rng=1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        lu.unitary_transport(*arrays, heal=1, rng=1)
        lu.polar_projection(*arrays)
        lu.unitary_step(arrays[0], arrays[0], 0.1, rank=2, rng=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_products_are_not_rounded_to_tf32(space):
    if space.library != "torch":
        pytest.skip("only torch has the switch")
    torch = space.xp
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        step = make_step(11, 500, 16, "float32", norm=0.5)
        got = to_numpy(lu.unitary_transport(*space.arrays(*step.arrays)))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    expected = lu.unitary_transport(*(x.astype("float64") for x in step.arrays))
    assert error(got, expected) <= step.tolerance()


def test_operators_of_torch_reach_the_kernels_under_autograd(space):
    if space.library != "torch":
        pytest.skip("operators are torch's")
    import lowrank_unitary.torch as lut

    torch = space.xp
    step = make_step(12, 200, 2, "float64")
    results = []
    for arrays in (space.arrays(*step.arrays), [torch.from_numpy(x) for x in step.arrays]):
        U, a, b = arrays
        a.requires_grad_()
        lut.unitary_transport(U, a, b).square().cumsum(0).sum().backward()
        results.append(to_numpy(a.grad))
    assert error(*results) <= 1e3 * step.tolerance()


@device_settings
@given(seed=st.integers(0, 2**16), n=st.integers(2, 160), heal=st.integers(0, 2))
def test_matrices_stay_unitary_over_many_steps(space, seed, n, heal):
    step = make_step(seed, n, 1, "float32", norm=0.1)
    U, a, b = space.arrays(*step.arrays)
    for i in range(100):
        lu.unitary_transport(U, a, b, heal=heal, rng=i, overwrite_unitary=True)
    assert float(lu.unitarity_defect(U)) <= 10 * tolerance(np, "float32", n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_certificates_and_references_agree_on_a_device(space, dtype):
    step = make_step(13, 40, 2, dtype, norm=0.5)
    U, a, b = space.arrays(*step.arrays)
    body = lu.LowRankFactors(a, b).to_body(U)
    rotation = lu.polar_rotation(body)
    dense = reference.polar(np.eye(40), *(to_numpy(x) for x in body))
    got = np.eye(40) + to_numpy(rotation.left) @ ct(to_numpy(rotation.right))
    assert error(got, dense) <= step.tolerance()
    certificate = lu.rotation_certificate(body, rotation, update="polar")
    smallest = np.linalg.svd(np.eye(40) + to_numpy(body.left) @ ct(to_numpy(body.right)), compute_uv=False)[
        -1
    ]
    assert abs(float(certificate.smallest_singular_value) - smallest) <= 1e-4

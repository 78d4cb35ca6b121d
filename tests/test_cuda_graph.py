"""Steps that are recorded and replayed, on the stand-in for cupy: what is not recorded is missing then."""

import contextlib
from types import SimpleNamespace

import cuda_on_cpu
import cupy_on_cpu
import numpy as np
import pytest
from cases import normal

import lowrank_unitary as lu
from lowrank_unitary._array import tolerance
from lowrank_unitary._kernels.cuda import arrays as _cuda_arrays
from lowrank_unitary.cuda_graph import StepGraph

pytestmark = pytest.mark.gate

# What cupy refuses to record: products by cuBLAS, decompositions by cuSOLVER.
REFUSED = (
    np.matmul,
    *(getattr(np.linalg, name) for name in ("qr", "svd", "matmul", "cholesky", "solve", "inv", "eigh")),
    *(getattr(cupy_on_cpu, name) for name in ("_inv", "_eigh", "_solved")),
)


class Recorder:
    """Between the stand-in and numpy: while it records, nothing is written to arrays that are there."""

    def __init__(self, run):
        self.calls, self.recording = [], False
        self.originals = SimpleNamespace(call=cupy_on_cpu._call, copy=cupy_on_cpu.ndarray.copy, run=run)

    def later(self, function):
        return lambda *args, **options: (
            self.calls.append(lambda: function(*args, **options))
            if self.recording
            else function(*args, **options)
        )

    def call(self, function, *args, **options):
        if self.recording and function in REFUSED:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        if function is np.ndarray.__setitem__ or "out" in options:
            return self.later(self.originals.call)(function, *args, **options)
        return self.made(lambda: self.originals.call(function, *args, **options), args)

    def made(self, function, args):
        result = function()
        given = [x.host for x in args if isinstance(x, cupy_on_cpu.ndarray)]

        def again():
            for x, new in zip(_arrays(result), _arrays(function()), strict=True):
                if not any(np.shares_memory(x.host, other) for other in given):
                    x.host[...] = new.host

        if self.recording:
            self.calls.append(again)
        return result

    def copy(self, x, order="C"):
        return self.made(lambda: self.originals.copy(x, order), (x,))


def _arrays(value):
    values = value if isinstance(value, tuple) else (value,)
    return [x for x in values if isinstance(x, cupy_on_cpu.ndarray)]


class Stream:
    recorder = None

    def __init__(self, **options):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def record(self):
        return "event"

    def wait_event(self, event):
        assert event == "event"

    def is_capturing(self):
        return self.recorder.recording

    def begin_capture(self):
        self.recorder.recording, self.recorder.calls = True, []

    def end_capture(self):
        self.recorder.recording = False
        calls = self.recorder.calls
        return SimpleNamespace(launch=lambda: [call() for call in calls])


DESCENTS = [(9, 1, "float32"), (30, 2, "complex64")]
FACTORS = [(9, 1, 0), (40, 1, 1), (40, 3, 1), (20, 9, 1)]


@pytest.fixture(scope="module")
def machine(request):
    def calls():
        for n, rank, dtype in DESCENTS:
            lu.unitary_step(*on_device(*np.zeros((2, n, n), dtype)), 0.1, rank=rank, rng=1)
        for n, k, heal in FACTORS:
            lu.polar_projection(*on_device(np.eye(n), *np.zeros((2, n, k))), heal=heal, rng=1)

    with cupy_on_cpu.installed(), cupy_on_cpu.Device(1):
        return cuda_on_cpu.machine_for(request, calls, cupy=True)


@pytest.fixture
def cupy(machine, monkeypatch):
    with cuda_on_cpu.installed(monkeypatch, machine, cupy=True):
        recorder = Recorder(_cuda_arrays.run)
        monkeypatch.setattr(cupy_on_cpu, "_call", recorder.call)
        monkeypatch.setattr(cupy_on_cpu.ndarray, "copy", lambda x, order="C": recorder.copy(x, order))
        monkeypatch.setattr(_cuda_arrays, "run", recorder.later(recorder.originals.run))
        monkeypatch.setattr(Stream, "recorder", recorder)
        with cupy_on_cpu.installed() as made:
            made.cuda.Stream = made.cuda.ExternalStream = Stream
            made.cuda.get_current_stream = Stream
            made.cuda.MemoryPool = lambda: SimpleNamespace(malloc=None)
            made.cuda.using_allocator = lambda allocator: contextlib.nullcontext()
            with cupy_on_cpu.Device(1):
                yield made
    monkeypatch.undo()


def on_device(*hosts):
    return [cupy_on_cpu.ndarray(np.array(x), cupy_on_cpu.Device(1)) for x in hosts]


@pytest.mark.parametrize(("n", "rank", "dtype"), DESCENTS)
def test_a_replay_is_the_step_with_what_the_arrays_hold_now(cupy, n, rank, dtype):
    rng = np.random.default_rng(0)
    host = lu.random_unitary(n, dtype=dtype, rng=rng)
    U, G = on_device(host, np.zeros((n, n), dtype))
    seed, eta = on_device(np.array([0, 0], np.int32), np.array(0.1, np.float32))

    def step():
        seed[1] += 1
        lu.unitary_step(U, G, eta, rank=rank, rng=seed, overwrite_unitary=True)
        return seed + 1

    graph = StepGraph(step, U, seed)
    np.testing.assert_array_equal(U.host, host)
    np.testing.assert_array_equal(seed.host, [0, 0])
    for i in range(1, 4):
        gradient = normal(rng, (n, n), dtype) / np.float32(n)
        G.host[...], eta.host[...] = gradient, 0.1 * i
        expected = lu.unitary_step(host, gradient, np.float32(0.1 * i), rank=rank, rng=i)
        graph.launch()
        assert np.linalg.norm(U.host - expected) <= 100 * tolerance(np, dtype, n, rank)
        host = expected
        np.testing.assert_array_equal(graph.result.host, [1, i + 1])
    assert cupy.ledger == cupy_on_cpu.Ledger()


@pytest.mark.parametrize(("n", "k", "heal"), FACTORS)
def test_steps_from_factors_are_replayed_with_new_factors(cupy, n, k, heal):
    rng = np.random.default_rng(1)
    host = lu.random_unitary(n, dtype="float64", rng=rng)
    U, a, b = on_device(host, *np.zeros((2, n, k)))
    (seed,) = on_device(np.array([0, 5], np.int32))
    graph = StepGraph(
        lambda: lu.polar_projection(U, a, b, heal=heal, rng=seed if heal else None, overwrite_unitary=True), U
    )
    for _ in range(2):
        left, right = rng.standard_normal((2, n, k)) / n**0.5
        a.host[...], b.host[...] = left, right
        graph.launch()
        host = lu.polar_projection(host, left, right, heal=heal, rng=5)
        assert np.linalg.norm(U.host - host) <= 10 * tolerance(np, "float64", n, k, scale=3.0)


def test_what_is_no_cupy_array_is_refused(cupy):
    for written in ((), (np.eye(2),)):
        with pytest.raises(TypeError, match="written must be the cupy arrays"):
            StepGraph(lambda: None, *written)


def test_arrays_are_as_they_were_when_the_recording_fails(cupy):
    (U,) = on_device(np.eye(3))
    calls = []

    def step():
        calls.append(1)
        U[...] = 2.0
        if len(calls) == 2:
            raise RuntimeError("no recording")

    with pytest.raises(RuntimeError, match="no recording"):
        StepGraph(step, U)
    np.testing.assert_array_equal(U.host, np.eye(3))

"""Steps on a CUDA device beside the memory of the device, replays of graphs, and dense ways.

The limit is measured: the copy of the matrix from one place of the device to another, by the runtime. It
reads n² words and writes n², so that the 3n² words of a step take 1.5 times its time, and the 2n² words of a
known product the time itself. A matrix that fits the cache of the device is copied and moved within it.
`on_device.py` runs all of this without asv.
"""

import gc
import sys

import numpy as np

import lowrank_unitary as lu
from lowrank_unitary.cuda_graph import StepGraph

from . import judge, problems
from .problems import FULL, SkipNotImplemented
from .ratios import call

NAMESPACES = ["cupy:cuda", "torch:cuda"]
DTYPES = ["float32", "complex64"] if FULL else ["float32"]
SIZES = [4096, 8192, 16384] if FULL else [1024]
RANKS = [1, 4, 16] if FULL else [1]
REPLAYED_SIZES = [512, 1024] if FULL else [512]
REPLAYED_RANKS = [1, 4] if FULL else [1]
DENSE_SIZES = [128, 256, 512, 1024, 2048, 4096, 8192] if FULL else [256]
STACKED_SIZES = [64, 128] if FULL else [64]
STACKED = 544
JUDGED_SIZES = [64, 256, 1024] if FULL else [64]
DRIFT_STEPS = [1_000, 100_000] if FULL else [100]
# Beyond, the SVD takes minutes.
LARGEST_SVD = 2048

# Copies of this many bytes keep the device busy while the calls to be timed are queued; a queue has room for
# about a thousand of both.
LEAD_BYTES = 1 << 27
MOST_LEAD = 256


class Clock:
    """Times between two events on the current stream of cupy or torch."""

    def __init__(self, space):
        self.space = space
        self.lead = 1
        self.idle = [space.array(np.zeros(LEAD_BYTES, np.uint8)) for _ in range(2)]

    def medians(self, functions, repeats=9, *, ahead=True):
        """Median seconds of a call, from batches in turns; functions are given with their calls in a batch.

        Where the host is ahead, the device finds all calls of a batch in its queue, and the time is its own.
        Else it includes what the host takes to queue them.
        """
        for function, _ in functions.values():
            self.space.wait(function())
        times = {name: [] for name in functions}
        for _ in range(repeats):
            for name, (function, calls) in functions.items():
                times[name].append(self._batch(function, calls, ahead) / calls)
        return {name: float(np.median(seconds)) for name, seconds in times.items()}

    def _batch(self, function, calls, ahead):
        while True:
            start, end = self._event(), self._event()
            for _ in range(self.lead if ahead else 0):
                copy(self.space, *self.idle)
            start.record()
            for _ in range(calls):
                function()
            end.record()
            # What waits for the device has no queue: its time includes the host's, whatever the lead.
            accepted = not ahead or self.lead == MOST_LEAD or not self._reached(start)
            end.synchronize()
            if accepted:
                return 1e-3 * self._milliseconds(start, end)
            self.lead *= 2

    def _event(self):
        cuda = self.space.xp.cuda
        return cuda.Event() if self.space.library == "cupy" else cuda.Event(enable_timing=True)

    def _reached(self, event):
        return event.done if self.space.library == "cupy" else event.query()

    def _milliseconds(self, start, end):
        if self.space.library == "cupy":
            return self.space.xp.cuda.get_elapsed_time(start, end)
        return start.elapsed_time(end)


def copy(space, target, source):
    """One copy by the runtime; an assignment would be a kernel of the library."""
    if space.library == "cupy":
        space.xp.copyto(target, source)
    else:
        target.copy_(source)


def copied(space, matrix):
    """The copy of a matrix, as a function of nothing."""
    target = space.xp.empty_like(matrix)
    return lambda: copy(space, target, matrix)


def replay_of(space, step, *written):
    """A step as a graph: the function that replays it."""
    if space.library == "cupy":
        return StepGraph(step, *written).launch
    cuda = space.xp.cuda
    # As torch's documentation asks: what is set up on first use is set up on another stream, before.
    here, side = cuda.current_stream(), cuda.Stream()
    side.wait_stream(here)
    with cuda.stream(side):
        for _ in range(3):
            step()
    here.wait_stream(side)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        step()
    return graph.replay


def answers():
    """Whether the device still works: after a fault in a kernel nothing does in the same process."""
    for name in NAMESPACES:
        try:
            space = problems.namespace(name)
            space.host(space.array(np.ones(1, np.float32)))
        except SkipNotImplemented:
            continue
        except Exception:
            return False
    return True


def judged(step, dtype, k, kind, move):
    """Move U once by a call without arguments, and compare with the definition in double precision."""
    host = step.space.host
    before, left, right = (host(x) for x in (step.unitary, step.left, step.right))
    update = "polar" if kind == "polar" else "transport"
    move()
    after = host(step.unitary)
    for U, V, a, b in zip(*(x.reshape(-1, *x.shape[-2:]) for x in (before, after, left, right)), strict=True):
        thin = judge.rotation(update, judge.pulled_back(U, a), b)
        judge.close_by_rows(V, U, thin, dtype, k)


class _OnDevice:
    timeout = 600

    def teardown(self, *params):
        """Give memory back: the pools of cupy and torch do not know of each other."""
        vars(self).clear()
        gc.collect()
        if cupy := sys.modules.get("cupy"):
            cupy.get_default_memory_pool().free_all_blocks()
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()


class ToCopy(_OnDevice):
    """Device time of a step in place over that of 3n² words (a known product: 2n²)."""

    params = [NAMESPACES, DTYPES, SIZES, RANKS, ["transport", "polar", "transport, healed", "known product"]]
    param_names = [*problems.NAMES, "kind"]

    def setup(self, namespace, dtype, n, k, kind):
        if k > 1 and kind == "transport, healed":
            raise SkipNotImplemented("measured at k = 1")
        self.step = problems.step_v1(namespace, dtype, n, k)
        self.move = call(self.step, kind)
        judged(self.step, dtype, k, kind, self.move)

    def track_ratio_to_copy(self, namespace, dtype, n, k, kind):
        return ratio_to_copy(self.step, self.move, words=2 if kind == "known product" else 3)

    track_ratio_to_copy.unit = "× the time of 3n² words; known product: 2n²"


def ratio_to_copy(step, move, words):
    functions = {"step": (move, 10), "copy": (copied(step.space, step.unitary), 10)}
    times = Clock(step.space).medians(functions)
    return times["step"] / (words / 2 * times["copy"])


class Replayed(_OnDevice):
    """Time of a step of a small matrix, replayed as a CUDA graph and called; the host included."""

    params = [NAMESPACES, REPLAYED_SIZES, REPLAYED_RANKS, ["transport, healed", "gradient step"]]
    param_names = ["namespace", "n", "k", "kind"]

    def setup(self, namespace, n, k, kind):
        self.step = step = problems.step_v1(namespace, "float32", n, k, gradient=True)
        self.seed = seed = step.space.array(np.zeros(2, np.int64))
        size = step.space.array(np.asarray(0.1, np.float32))
        options = {"heal": 1, "rng": seed, "overwrite_unitary": True}

        def move():
            seed[1] += 1
            if kind == "gradient step":
                lu.unitary_step(step.unitary, step.gradient, size, rank=k, **options)
            else:
                lu.unitary_transport(step.unitary, step.left, step.right, **options)

        self.move = move
        self.check(k, kind, move)

    def check(self, k, kind, move):
        """One move, compared with its definition; healing moves by rounding only."""
        step, host = self.step, self.step.space.host
        if kind != "gradient step":
            judged(step, "float32", k, kind, move)
            return
        seed = int(host(self.seed)[1]) + 1
        # The geodesic of the sketch that the same seed gives.
        C, Q = (host(x) for x in lu.tangent_sketch(step.unitary, step.gradient, k, rng=seed))
        before = host(step.unitary)
        move()
        thin = judge.rotation("transport", -0.1 * judge.double(C), Q)
        judge.close_by_rows(host(step.unitary), before, thin, "float32", k)

    def track_replayed(self, namespace, n, k, kind):
        step = self.step
        replay = replay_of(step.space, self.move, step.unitary, self.seed)
        self.check(k, kind, replay)
        return 1e6 * Clock(step.space).medians({"replay": (replay, 200)}, ahead=False)["replay"]

    def track_called(self, namespace, n, k, kind):
        return 1e6 * Clock(self.step.space).medians({"call": (self.move, 50)}, ahead=False)["call"]

    track_replayed.unit = track_called.unit = "µs"


class Stacks(_OnDevice):
    """Device time of a step of rank one of 544 complex matrices in one call over that of their 3n² words."""

    params = [NAMESPACES, STACKED_SIZES, ["transport", "polar", "transport, healed"]]
    param_names = ["namespace", "n", "kind"]

    def setup(self, namespace, n, kind):
        self.step = problems.stack_v1(namespace, "complex64", n, STACKED)
        self.move = call(self.step, kind)
        judged(self.step, "complex64", 1, kind, self.move)

    def track_ratio_to_copy(self, namespace, n, kind):
        return ratio_to_copy(self.step, self.move, words=3)

    track_ratio_to_copy.unit = "× the time of 3n² words"


def _moved(step):
    return step.unitary + step.left @ step.right.mT


def _polar_by_svd(step):
    u, _, vh = step.space.xp.linalg.svd(_moved(step))
    return u @ vh


def _exponential(step):
    A = (step.unitary.mT @ step.left) @ step.right.mT
    return step.unitary @ step.space.xp.matrix_exp(0.5 * (A - A.mT))


def _newton_schulz(step):
    """As many products as bring a step of norm 0.3 to single precision."""
    moved = _moved(step)
    for _ in range(5):
        moved = 1.5 * moved - 0.5 * moved @ (moved.mT @ moved)
    return moved


# What each takes the place of, and how.
DENSE = {
    "SVD polar": ("polar", _polar_by_svd),
    "matrix exponential": ("transport", _exponential),
    "Newton–Schulz": ("polar", _newton_schulz),
}


class ToDense(_OnDevice):
    """Time of a dense way to the same matrix, by torch in float32 without TF32, over that of a step, k = 1.

    Whole calls, the host included: an SVD and a matrix exponential wait for the device.
    """

    params = [["torch:cuda"], DENSE_SIZES, list(DENSE)]
    param_names = ["namespace", "n", "method"]

    def setup(self, namespace, n, method):
        if method == "SVD polar" and n > LARGEST_SVD:
            raise SkipNotImplemented("takes minutes")
        kind, self.dense = DENSE[method]
        self.step = problems.step_v1(namespace, "float32", n, 1)
        self.move = call(self.step, kind)
        judged(self.step, "float32", 1, kind, self.move)

    def track_gain_over_dense(self, namespace, n, method):
        torch = self.step.space.xp
        before = torch.get_float32_matmul_precision()
        # TF32 would round the factors of every product to eleven bits.
        torch.set_float32_matmul_precision("highest")
        try:
            functions = {"step": (self.move, 20), "dense": (lambda: self.dense(self.step), 1)}
            times = Clock(self.step.space).medians(functions, repeats=5, ahead=False)
        finally:
            torch.set_float32_matmul_precision(before)
        return times["dense"] / times["step"]

    track_gain_over_dense.unit = "time of the dense way / time"


class StepError(_OnDevice):
    """Distance of one step from its definition in double precision."""

    params = [NAMESPACES, DTYPES, JUDGED_SIZES, [1, 16], ["transport", "polar"]]
    param_names = [*problems.NAMES, "kind"]

    def setup(self, namespace, dtype, n, k, kind):
        self.step = problems.step_v1(namespace, dtype, n, k)

    def track_step_error(self, namespace, dtype, n, k, kind):
        host = self.step.space.host
        before, left, right = (host(x) for x in (self.step.unitary, self.step.left, self.step.right))
        expected = judge.rotated(before, judge.rotation(kind, judge.pulled_back(before, left), right))
        call(self.step, kind)()
        return float(np.linalg.norm(judge.double(host(self.step.unitary)) - expected))

    track_step_error.unit = "Frobenius norm"


class Drift(_OnDevice):
    """Unitarity defect after many healed steps of norm 0.3 in random directions, replayed; n = 256."""

    params = [NAMESPACES, DRIFT_STEPS]
    param_names = ["namespace", "steps"]

    def setup(self, namespace, steps):
        self.step = step = problems.step_v1(namespace, "float32", 256, 1)
        space, n = step.space, len(step.unitary)
        self.seed = seed = space.array(np.zeros(2, np.int64))
        made = {"dtype": space.xp.float32, "xp": space.xp, "rng": seed}
        if space.library == "torch":
            made["device"] = space.device

        def move():
            # A step along one direction for ever comes to rest where the matrix has turned there.
            seed[1] += 1
            both = lu.random_test_matrix(n, 2, **made)
            left, right = (0.3 / n) * both[:, :1], both[:, 1:]
            lu.unitary_transport(step.unitary, left, right, heal=1, rng=seed, overwrite_unitary=True)

        self.move = move

    def track_defect(self, namespace, steps):
        step = self.step
        replay = replay_of(step.space, self.move, step.unitary, self.seed)
        early = self.defect_after(min(steps, 1_000), replay)
        if steps <= 1_000:
            return early
        late = self.defect_after(steps - 1_000, replay)
        # Without healing it grows like the root of the number of steps, tenfold from 10³ to 10⁵.
        judge.demand(late < 2 * early, f"the defect has grown from {early:.2e} to {late:.2e}")
        return late

    def defect_after(self, steps, replay):
        for _ in range(steps):
            replay()
        return judge.defect(self.step.space.host(self.step.unitary))

    track_defect.unit = "‖UᴴU − I‖_F"


# The order in which `on_device.py` runs them.
BY_IMPORTANCE = [ToCopy, Replayed, Stacks, ToDense, StepError, Drift]

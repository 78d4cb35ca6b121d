"""Training in torch: a recurrent network that reads the digits, its recurrent matrix moved in many ways.

All networks start from the same numbers and see the same minibatches; ratios come from one process, in turns.
"""

import importlib
import math

import numpy as np
from asv_runner.benchmarks.mark import SkipNotImplemented

import lowrank_unitary as lu

from . import judge, limits, problems
from .judge import demand

SIZES = [512, 1024, 2048] if problems.FULL else [128]
OURS = ["captured", "dense gradient"]
OTHERS = ["torch SGD", "orthogonal, matrix_exp", "orthogonal, cayley", "geoopt"]
# Every pair starts a process and two networks, too many for the quick profile.
PAIRS = [OURS, OTHERS] if problems.FULL else [OURS[:1], OTHERS[:1]]
STEPS = 60 if problems.FULL else 20
BATCH, SEED = 64, 20260106
# Plain SGD, which leaves the orthogonal matrices, diverges within 60 steps at the larger one.
SMALL_RATE, RATE = 1e-3, 0.02


def library(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SkipNotImplemented(f"{name} is not installed") from error


class Training:
    """Network, optimiser and minibatches; modReLU units as in `lowrank_unitary.demo.recurrent`."""

    def __init__(self, hidden, method, rank=1, rate=SMALL_RATE):
        self.torch = torch = library("torch")
        library("sklearn")
        data = importlib.import_module("lowrank_unitary.demo.digits").load_digits()
        self.pixels, self.labels = torch.from_numpy(data.train_sequences), torch.from_numpy(data.train_labels)
        self.rng = np.random.default_rng(SEED)
        self.network = self.build(hidden)
        self.optimiser = self.prepare(method, rank, rate)

    def build(self, hidden):
        torch, scale = self.torch, 1 / math.sqrt(hidden)
        recurrent = torch.nn.Linear(hidden, hidden, bias=False)
        recurrent.weight.data = lu.cayley_unitary(hidden, rng=self.rng, xp=torch, dtype=torch.float32)
        enter, leave = torch.nn.Linear(1, hidden), torch.nn.Linear(hidden, 10)
        for x in (*enter.parameters(), *leave.parameters()):
            x.data = torch.from_numpy((scale * self.rng.standard_normal(x.shape)).astype(np.float32))
        enter.bias.data.zero_()
        return torch.nn.ModuleDict({"recurrent": recurrent, "enter": enter, "leave": leave})

    def prepare(self, method, rank, rate):
        torch, recurrent = self.torch, self.network["recurrent"]
        if method in OURS:
            lut = importlib.import_module("lowrank_unitary.torch")
            lut.mark_unitary(recurrent.weight)
            if method == "captured":
                lut.capture_factors(recurrent)
            return lut.UnitarySGD(self.network.parameters(), lr=rate, rank=rank)
        if method == "geoopt":
            geoopt = library("geoopt")
            recurrent.weight = geoopt.ManifoldParameter(recurrent.weight.data, geoopt.CanonicalStiefel())
            return geoopt.optim.RiemannianSGD(self.network.parameters(), lr=rate)
        if method.startswith("orthogonal"):
            start = recurrent.weight.detach().clone()
            mapping = method.split(", ")[1]
            torch.nn.utils.parametrizations.orthogonal(recurrent, orthogonal_map=mapping)
            recurrent.weight = start
        return torch.optim.SGD(self.network.parameters(), lr=rate)

    def loss(self, chosen):
        torch, network = self.torch, self.network
        h = torch.zeros(len(chosen), network["recurrent"].in_features)
        # A parametrised weight is computed once, not for every pixel.
        with torch.nn.utils.parametrize.cached():
            for pixel in self.pixels[chosen].T:
                z = network["recurrent"](h) + pixel[:, None] * network["enter"].weight[:, 0]
                h = torch.sign(z) * torch.relu(torch.abs(z) + network["enter"].bias)
        return torch.nn.functional.cross_entropy(network["leave"](h), self.labels[chosen])

    def step(self):
        chosen = self.torch.from_numpy(self.rng.choice(len(self.labels), BATCH, replace=False))
        self.optimiser.zero_grad()
        loss = self.loss(chosen)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def defect(self):
        """‖WᵀW − I‖_F/√n."""
        W = self.network["recurrent"].weight.detach().double().numpy()
        return float(np.linalg.norm(W.T @ W - np.eye(len(W))) / math.sqrt(len(W)))


def judged(hidden, method):
    """A training whose network has started as that of torch SGD, and stays orthogonal."""
    training, plain = Training(hidden, method), Training(hidden, "torch SGD")
    losses, expected = ([x.step() for _ in range(2)] for x in (training, plain))
    demand(abs(losses[0] - expected[0]) <= 1e-3 * expected[0], "the networks do not start alike")
    if method != "torch SGD":
        # Orthogonal to what single precision gives to all methods: 1e-6 for ours, 1e-5 for others.
        bound = 4e-6 if method in OURS else 1e-4
        demand(training.defect() <= bound, f"the defect is {training.defect():.1e}, more than {bound:.0e}")
    return training


class TrainingStep:
    """Another way over UnitarySGD at k = 1, for whole training steps."""

    params = [SIZES, *PAIRS]
    param_names = ["n", "ours", "other"]
    timeout = 1200

    def setup(self, n, ours, other):
        self.ours, self.other = judged(n, ours), judged(n, other)

    def track_gain_per_training_step(self, n, ours, other):
        times = limits.medians({"ours": self.ours.step, "other": self.other.step}, 7 if n >= 1024 else 15)
        return times["other"] / times["ours"]

    track_gain_per_training_step.unit = "time of the other / time"


class TrainingLoss:
    """Mean training loss of the last 10 steps at one learning rate."""

    params = [SIZES[:1], [*PAIRS[0], *PAIRS[1]], [1, 4] if problems.FULL else [1]]
    param_names = ["n", "method", "k"]
    timeout = 1200

    def setup(self, n, method, k):
        if k > 1 and method not in OURS:
            raise SkipNotImplemented("has no rank")
        self.training = Training(n, method, k, RATE)

    def track_loss(self, n, method, k):
        return float(np.mean([self.training.step() for _ in range(STEPS)][-10:]))

    track_loss.unit = "cross-entropy"


class OptimiserStep:
    """A step of an optimiser from a dense gradient at k = 1, over that of torch on the same parameter."""

    params = [SIZES, ["SGD", "momentum", "Adam"]]
    param_names = ["n", "rule"]

    def setup(self, n, rule):
        torch, lut = library("torch"), library("lowrank_unitary.torch")
        start = lu.random_unitary(n, rng=SEED, xp=torch, dtype=torch.float32)
        gradient = torch.from_numpy(np.random.default_rng(SEED).standard_normal((n, n), np.float32))
        self.steps = {}
        for ours in (True, False):
            weight = torch.nn.Parameter(start.clone())
            weight.grad = gradient.clone()
            options = {"unitary": True} if ours else {}
            if rule == "Adam":
                made = (lut.UnitaryAdam if ours else torch.optim.Adam)([weight], 1e-3, **options)
            else:
                options["momentum"] = 0.9 if rule == "momentum" else 0.0
                made = (lut.UnitarySGD if ours else torch.optim.SGD)([weight], 1e-3, **options)
            self.steps["ours" if ours else "other"] = made.step
            if ours:
                made.step()
                defect = judge.defect(weight.detach().double().numpy())
                demand(
                    defect <= 4e-6 * math.sqrt(n), f"the step left the orthogonal matrices by {defect:.1e}"
                )

    def track_ratio_to_torch(self, n, rule):
        times = limits.medians(self.steps, 15)
        return times["ours"] / times["other"]

    track_ratio_to_torch.unit = "time / time of torch's step"

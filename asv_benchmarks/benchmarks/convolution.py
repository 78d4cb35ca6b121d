"""Isometric convolutions: a layer beside its transforms and products, a step beside dense ones.

One thread; ratios of medians from one process, after the result has been judged.
"""

import importlib
import importlib.util
import math

import lowrank_unitary as lu

from . import limits, problems
from .judge import demand
from .problems import SkipNotImplemented

# Channels and the size of a square torus.
LAYERS = [(64, 32), (256, 8)] if problems.FULL else [(16, 8)]
RANKS = [1, 4] if problems.FULL else [1]
BATCH, ETA = 32, 1e-3


class _Layer:
    params = [LAYERS]
    param_names = ["channels, torus"]
    timeout = 600

    def setup(self, layer, *_):
        if importlib.util.find_spec("torch") is None:
            raise SkipNotImplemented("torch is not installed")
        self.torch = torch = importlib.import_module("torch")
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)
        channels, size = layer
        self.torus = (size, size)
        generator = torch.Generator().manual_seed(0)
        self.signal = torch.randn(BATCH, channels, *self.torus, generator=generator)
        self.cotangent = torch.randn(BATCH, channels, *self.torus, generator=generator) / 100
        self.spectrum = lu.random_spectrum(channels, torus=self.torus, rng=0, xp=torch)
        pulled = lu.convolve(self.cotangent, self.spectrum, torus=self.torus, adjoint=True)
        self.gradient = lu.convolution_body_gradient(self.signal, pulled, torus=self.torus)

    def teardown(self, *_):
        if hasattr(self, "threads"):
            self.torch.set_num_threads(self.threads)

    def step(self, k):
        return lu.spectrum_step(self.spectrum, self.gradient, ETA, k, rng=1, overwrite_spectrum=True)


class LayerToParts(_Layer):
    """Forward and backward of a layer over its four real FFTs and its two batched products."""

    def setup(self, layer):
        super().setup(layer)
        lut = importlib.import_module("lowrank_unitary.torch")
        self.layer = lut.UnitaryConv2d(layer[0], layer[0], self.torus, init="haar", bias=False, rng=0)
        self.optimiser = lut.UnitarySGD(self.layer.parameters(), lr=0.0)
        self.signal.requires_grad_()
        norms = [float(self.torch.linalg.norm(x.detach())) for x in (self.layer(self.signal), self.signal)]
        demand(math.isclose(*norms, rel_tol=1e-4), "the layer is no isometry")

    def both_passes(self):
        self.layer(self.signal).backward(self.cotangent)
        self.optimiser.zero_grad()

    def parts(self):
        fft = self.torch.fft
        with self.torch.no_grad():
            for _ in range(2):
                there = fft.rfftn(self.signal, dim=(-2, -1))
                fft.irfftn(there, s=self.torus, dim=(-2, -1))
                self.spectrum.complex @ self.gradient.complex.left

    def track_layer_to_parts(self, layer):
        times = limits.medians({"layer": self.both_passes, "parts": self.parts}, 7)
        return times["layer"] / times["parts"]

    track_layer_to_parts.unit = "time / time of its transforms and products"


class StepToForward(_Layer):
    """From the factors of the gradient to the new spectrum, sketch included, over a forward pass."""

    params = [LAYERS, RANKS]
    param_names = ["channels, torus", "k"]

    def setup(self, layer, k):
        super().setup(layer)
        self.step(k)
        demand(float(lu.spectrum_defect(self.spectrum)) < 1e-5, "the step leaves the unitary matrices")

    def track_step_to_forward(self, layer, k):
        forward = lambda: lu.convolve(self.signal, self.spectrum, torus=self.torus)  # noqa: E731
        times = limits.medians({"step": lambda: self.step(k), "forward": forward}, 7)
        return times["step"] / times["forward"]

    track_step_to_forward.unit = "time / time of a forward pass"


class StepToDense(_Layer):
    """Dense ways to a unitary matrix at every frequency over the step."""

    params = [LAYERS, RANKS, ["Cayley", "exponential", "SVD polar"]]
    param_names = ["channels, torus", "k", "method"]

    def setup(self, layer, k, method):
        super().setup(layer)
        self.step(k)
        generator = self.torch.Generator().manual_seed(1)
        H = self.spectrum.complex
        A = ETA * self.torch.randn(H.shape, dtype=H.dtype, generator=generator)
        self.skew, self.eye = A - A.mH, self.torch.eye(layer[0], dtype=H.dtype)

    def dense(self, method):
        H, A, eye, linalg = self.spectrum.complex, self.skew, self.eye, self.torch.linalg
        if method == "Cayley":
            return H @ linalg.solve(eye + A / 2, eye - A / 2)
        if method == "exponential":
            return H @ linalg.matrix_exp(-A)
        u, _, vh = linalg.svd(H - A)
        return u @ vh

    def track_gain_over_dense(self, layer, k, method):
        times = limits.medians({"step": lambda: self.step(k), "dense": lambda: self.dense(method)}, 3)
        return times["dense"] / times["step"]

    track_gain_over_dense.unit = "time of the dense way / time"

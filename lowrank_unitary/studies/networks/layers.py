"""Networks of circular convolutions of full width, orthogonal or not, without shortcuts or normalisation."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...convolution.convolve import convolve
from ...convolution.kernel import spectrum_of_kernel
from ...convolution.spectrum import Spectrum, each, spectrum_defect
from ...convolution.starts import identity_spectrum
from ...torch import UnitaryConv2d

CLASSES = 10


class PlainConvolution(torch.nn.Module):
    """The circular convolution of ``torch.nn.Conv2d``, with its weight, by FFT: faster for many channels."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """As of a layer with padding="same", padding_mode="circular" and bias=False."""
        convolved: torch.Tensor = convolve(signal, self.spectrum(), torus=self._torus)
        return convolved

    def spectrum(self) -> Spectrum:
        """The matrices, a function of the weight."""
        return spectrum_of_kernel(self.weight, torus=self._torus)

    @property
    def _torus(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[-2:])


class ParametrisedConvolution(torch.nn.Module):
    """An orthogonal convolution whose matrices are made anew in each pass from skew-Hermitian ones.

    `made` is "cayley", (I − A)⁻¹(I + A) as of Trockman and Kolter, or "exponential", exp A, at every
    frequency.
    """

    def __init__(self, channels: int, torus: tuple[int, int], made: str) -> None:
        super().__init__()
        self.torus, self.made = torus, made
        identity = identity_spectrum(channels, torus=torus, dtype=torch.float32, xp=torch)
        self.real, self.complex = (torch.nn.Parameter(torch.zeros_like(part)) for part in identity)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """The convolution by the matrices."""
        stacks = Spectrum(self.real, self.complex)
        convolved: torch.Tensor = convolve(signal, each(self._unitary, stacks), torus=self.torus)
        return convolved

    def _unitary(self, stack: torch.Tensor) -> torch.Tensor:
        skew = stack - stack.mH
        if self.made == "exponential":
            exponential: torch.Tensor = torch.linalg.matrix_exp(skew)
            return exponential
        eye = torch.eye(skew.shape[-1], dtype=skew.dtype)
        quotient: torch.Tensor = torch.linalg.solve(eye - skew, eye + skew)
        return quotient


class Network(torch.nn.Module):
    """A fixed isometry from one channel to several, `layers` each with `activation`, and a linear read-out.

    Pixels are multiplied by a vector of norm 1, one entry for each channel. The read-out takes all entries.
    """

    lift: torch.Tensor

    def __init__(self, layers: list[Any], activation: Any, lift: torch.Tensor, pixels: int) -> None:
        super().__init__()
        self.layers, self.activation = torch.nn.ModuleList(layers), activation
        self.register_buffer("lift", lift)
        self.readout = torch.nn.Linear(len(lift) * pixels, CLASSES, dtype=lift.dtype)
        torch.nn.init.zeros_(self.readout.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the classes, (m, 10), for images (m, N₁, N₂)."""
        return self.scores(self.signals(images)[-1])

    def signals(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The lifted images, and the result of every layer."""
        signals = [images[:, None] * self.lift[:, None, None]]
        for layer in self.layers:
            signals.append(self.activation(layer(signals[-1])))
        return signals

    def scores(self, signal: torch.Tensor) -> torch.Tensor:
        """The read-out of the last signal."""
        scores: torch.Tensor = self.readout(signal.flatten(1))
        return scores

    def convolutions(self) -> list[torch.nn.Parameter]:
        """The parameters of all layers."""
        return list(self.layers.parameters())


def maxmin(signal: torch.Tensor) -> torch.Tensor:
    """Larger and smaller value of pairs of channels: norms stay, and distances do not grow."""
    one, other = signal.chunk(2, dim=1)
    return torch.cat([torch.maximum(one, other), torch.minimum(one, other)], dim=1)


def build(
    network: str,
    start: str,
    *,
    depth: int,
    channels: int,
    torus: tuple[int, int],
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """A network of a kind, "orthogonal" or "plain", and a start, the same for both kinds with one seed.

    The starts "identity", "delta" and "haar" are orthogonal, with MaxMin; "default", torch's own of
    ``torch.nn.Conv2d``, and "he" have ReLU.
    """
    generator = torch.Generator().manual_seed(seed)
    lift = torch.randn(channels, generator=generator, dtype=torch.float64)
    layers: list[Any] = []
    for position in range(depth):
        if start in ("default", "he"):
            weight = torch.randn if start == "he" else torch.rand
            fan_in = channels * math.prod(torus)
            drawn = weight((channels, channels, *torus), generator=generator, dtype=torch.float64)
            drawn = drawn * math.sqrt(2 / fan_in) if start == "he" else (2 * drawn - 1) / math.sqrt(fan_in)
            layers.append(PlainConvolution(drawn.to(dtype)))
            continue
        orthogonal = UnitaryConv2d(
            channels, channels, torus, bias=False, init=start, dtype=dtype, rng=[seed, position]
        )
        plain = network == "plain"
        layers.append(PlainConvolution(orthogonal.to_conv().weight.detach()) if plain else orthogonal)
    activation = torch.relu if start in ("default", "he") else maxmin
    made = Network(layers, activation, (lift / torch.linalg.norm(lift)).to(dtype), math.prod(torus))
    bound = 1 / math.sqrt(made.readout.in_features)
    with torch.no_grad():
        drawn = torch.rand(made.readout.weight.shape, generator=generator, dtype=torch.float64)
        made.readout.weight.copy_((2 * drawn - 1) * bound)
    return made


@torch.no_grad()
def largest_defect(network: Network) -> float:
    """The largest defect of a layer; NaN without orthogonal layers."""
    orthogonal = [layer for layer in network.layers if isinstance(layer, UnitaryConv2d)]
    return max((float(spectrum_defect(layer.spectrum())) for layer in orthogonal), default=math.nan)


@torch.no_grad()
def log_lipschitz(network: Network) -> float:
    """The natural logarithm of a Lipschitz constant of all layers together, read-out excluded.

    The product over layers of √(1 + δ), with δ the defect of an orthogonal layer, or of the largest singular
    value at any frequency, which is the norm of a plain one.
    """
    total = 0.0
    for layer in network.layers:
        if isinstance(layer, UnitaryConv2d):
            total += 0.5 * math.log1p(float(spectrum_defect(layer.spectrum())))
        else:
            stacks = layer.spectrum()  # type: ignore[operator]
            total += math.log(max(float(torch.linalg.matrix_norm(part, ord=2).max()) for part in stacks))
    return total


@torch.no_grad()
def certified_radii(network: Network, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Distances within which no image changes its class, (m,); negative where the class is wrong.

    With scores s, rows w of the read-out and a Lipschitz constant L of the layers, the minimum over the
    other classes j of (s_y − s_j) / (L ‖w_y − w_j‖).
    """
    scores, rows = network(images).double(), network.readout.weight.double()
    margins = scores.gather(1, labels[:, None]) - scores
    distances = torch.linalg.norm(rows[labels][:, None] - rows, dim=-1)
    ratios = (margins / distances).scatter(1, labels[:, None], math.inf)
    return ratios.amin(dim=1) * math.exp(-log_lipschitz(network))

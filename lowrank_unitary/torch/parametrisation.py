"""A weight times a trainable low-rank rotation: orthogonal fine-tuning."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch.nn.utils import parametrize

from .._array import array_namespace, validate
from .._kernels import UPDATES
from .._linalg import RIGHT, qr, random_block
from ..rotation.polar import polar_rotation
from ..rotation.rotate import rotate
from ..rotation.transport import transport_rotation
from ..types import BodyFactors, LowRankRotation

Module = TypeVar("Module", bound=torch.nn.Module)


class RotatedWeight(torch.nn.Module):
    """W ↦ W R, with R the low-rank rotation of trainable body factors (n, k), by :func:`low_rank_unitary`."""

    def __init__(self, left: torch.Tensor, right: torch.Tensor, update: str) -> None:
        super().__init__()
        self.left = torch.nn.Parameter(left)
        self.right = torch.nn.Parameter(right)
        self.update = update

    def rotation(self) -> LowRankRotation:
        """R in thin form, I + left rightᴴ."""
        body = BodyFactors(self.left, self.right)
        if self.update == "polar":
            return polar_rotation(body)
        return transport_rotation(body, update=self.update)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """W R, at O(kmn)."""
        rotated: torch.Tensor = rotate(weight, self.rotation())
        return rotated

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """W Rᴴ: what is kept when a new weight is assigned."""
        rotated: torch.Tensor = rotate(weight.detach(), self.rotation(), adjoint=True)
        return rotated.detach()


def low_rank_unitary(
    module: Module, name: str = "weight", rank: int = 4, *, update: str = "geodesic", seed: int = 0
) -> Module:
    """Freeze a weight W and train a low-rank rotation R of it in its place: the weight becomes W R.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place, by ``torch.nn.utils.parametrize``, and returned.
    name : str
        Of the parameter W, shape (m, n). A unitary W stays unitary; any W keeps its singular values.
    rank : int
        k, from 1 to n: R is a function of body factors (n, k), the only trained parameters.
    update : {"geodesic", "cayley", "polar"}
        R = exp(skew(left rightᴴ)), its Cayley form, or polar(I + left rightᴴ).
    seed : int
        Of the initial right factor, which is orthonormal; the left one is zero, so that R is I.

    Raises
    ------
    AttributeError
        If the module has no parameter of that name.

    Notes
    -----
    O(kmn) for each evaluation of the weight, by matrix products only, so derivatives of any order exist
    everywhere. ``parametrize.remove_parametrizations(module, name)`` leaves W R as a plain frozen parameter;
    ``parametrize.cached()`` evaluates the weight once for several uses.

    References
    ----------
    Zeju Qiu et al., "Controlling text-to-image diffusion by orthogonal finetuning", NeurIPS 2023 (there with
    block-diagonal rotations).

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> layer = torch.nn.Linear(10, 6)
    >>> before = layer.weight.detach().clone()
    >>> lut.low_rank_unitary(layer, rank=2)
    ParametrizedLinear(
      in_features=10, out_features=6, bias=True
      (parametrizations): ModuleDict(
        (weight): ParametrizationList(
          (0): RotatedWeight()
        )
      )
    )
    >>> bool(torch.equal(layer.weight, before))
    True
    >>> [name for name, p in layer.named_parameters() if p.requires_grad]
    ['bias', 'parametrizations.weight.0.left', 'parametrizations.weight.0.right']
    """
    validate.choice("update", update, UPDATES)
    weight = getattr(module, name)
    _, n = validate.matrix(name, weight)
    if weight.ndim != 2:
        raise ValueError(
            f"{name} must have shape (m, n), got {tuple(weight.shape)}: a rotation acts on the columns "
            f"of one matrix."
        )
    k = validate.rank(rank, n)
    xp = array_namespace(weight)
    with torch.no_grad():
        right = qr(xp, random_block(xp, (n, k), weight, seed, RIGHT))[0]
    rotated = RotatedWeight(torch.zeros_like(right), right, update)
    parametrize.register_parametrization(module, name, rotated)
    module.get_parameter(f"parametrizations.{name}.original").requires_grad_(False)
    return module

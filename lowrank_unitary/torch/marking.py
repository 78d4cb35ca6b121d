"""Which parameters are moved as unitary matrices."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch

from .._array import is_spread, validate, whole
from ..unitary.defect import unitarity_defect

_MARK = "_lowrank_unitary_mark"
AnyTensor = TypeVar("AnyTensor", bound=torch.Tensor)


class UnitaryParameter(torch.nn.Parameter):
    """A marked parameter: its type is the mark, which copies and pickles carry along."""

    holds_values = True

    @property
    def __class__(self) -> type[UnitaryParameter]:
        """Itself."""
        return UnitaryParameter

    @__class__.setter
    def __class__(self, other: type) -> None:
        """Nothing: torch.utils.swap_tensors exchanges types along with values."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """An ordinary parameter, to be marked again."""
        plain = torch.nn.Parameter(self.data, self.requires_grad)
        plain.__dict__.update(self.__dict__)
        return mark_unitary, (plain,)


def mark_unitary(parameter: AnyTensor, /) -> AnyTensor:
    """Mark a parameter for the optimisers of this package as a unitary matrix, and return it.

    Parameters
    ----------
    parameter : torch.nn.Parameter, shape (…, m, n)
        Unitary or orthogonal, or with orthonormal columns (m > n) or rows, or a stack of such matrices. An
        optimiser checks it at its first step.

    Notes
    -----
    The mark is the type of the parameter, a subclass of ``torch.nn.Parameter``. It survives
    ``module.to(…)``, ``load_state_dict``, steps, ``copy.deepcopy``, pickles and other processes, but not
    ``to_empty`` of a module on the meta device and ``load_state_dict(…, assign=True)``, which make unrelated
    objects. A parameter group with ``unitary=True`` needs no mark. ``torch.nn.Parameter`` takes
    ``parameter.detach()`` of a marked one, as of all subclasses.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> layer = torch.nn.Linear(4, 4, bias=False)
    >>> lut.mark_unitary(torch.nn.init.orthogonal_(layer.weight)) is layer.weight
    True
    """
    check_matrix("parameter", parameter)
    if type(parameter) is torch.nn.Parameter:
        parameter.__class__ = UnitaryParameter  # type: ignore[assignment]
    elif not is_marked(parameter):
        setattr(parameter, _MARK, True)
    return parameter


def is_marked(parameter: torch.Tensor, /) -> bool:
    """Whether :func:`mark_unitary` has marked a parameter.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> lut.is_marked(torch.nn.Parameter(torch.eye(3)))
    False
    """
    return type(parameter) is UnitaryParameter or getattr(parameter, _MARK, False)


def check_matrix(name: str, parameter: torch.Tensor) -> None:
    """Raise unless a tensor has the shape and the dtype of (stacked) matrices."""
    if not isinstance(parameter, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(parameter).__name__}.")
    values = parameter.detach()
    validate.namespace_of(**{name: values})
    validate.matrix(name, values)


def check_unitary(parameter: torch.Tensor, rng: list[int]) -> None:
    """Raise unless a parameter is unitary as far as training leaves it so, by a few random probes."""
    values = parameter.detach()
    if not (type(values) is torch.Tensor or is_spread(values)) or values.device.type == "meta":
        return
    if values.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return
    # Rounding adds up to 0.3 eps √(n s) in s steps. That of 10⁸ steps passes, with the eps of float32
    # at least: a matrix in double may come from one in single. Random matrices with entries of variance 1/n,
    # whose defect is √n, do not pass in half precision either.
    rounding = max(torch.finfo(values.dtype).eps, torch.finfo(torch.float32).eps)
    limit = min(0.3 * rounding * 1e4, 0.3) * math.sqrt(min(values.shape[-2:]))
    # Of a stack divided among processes, on all of them, or only some would raise an error.
    defect = whole(unitarity_defect(values, probes=4, rng=rng))
    # NaN does not pass.
    if not bool((defect <= limit).all()):
        raise ValueError(
            f"a unitary parameter must be unitary, and one of shape {tuple(values.shape)} has a defect "
            f"‖UᴴU − I‖ of about {float(defect.max()):.2g}, where rounding explains {limit:.2g}: begin with "
            f"lowrank_unitary.reunitarize(U), or pass check=False to move it all the same."
        )


# What rebuilds a pickled parameter, for files that are read with weights_only=True.
torch.serialization.add_safe_globals([mark_unitary])

"""Which parameters are moved as unitary matrices."""

from __future__ import annotations

from typing import TypeVar

import torch

from .._array import validate

_MARK = "_lowrank_unitary_mark"
AnyTensor = TypeVar("AnyTensor", bound=torch.Tensor)


def mark_unitary(parameter: AnyTensor, /) -> AnyTensor:
    """Mark a parameter for the optimisers of this package as a unitary matrix, and return it.

    Parameters
    ----------
    parameter : torch.nn.Parameter, shape (…, n, n)
        Unitary or orthogonal, or a stack of such matrices. Its values are not checked.

    Notes
    -----
    The mark is an attribute of the tensor object. It survives ``module.to(…)``, ``load_state_dict``, steps,
    and pickling of a whole module, but not ``copy.deepcopy`` and ``load_state_dict(…, assign=True)``, which
    make new objects. A parameter group with ``unitary=True`` needs no mark.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> layer = torch.nn.Linear(4, 4, bias=False)
    >>> lut.mark_unitary(torch.nn.init.orthogonal_(layer.weight)) is layer.weight
    True
    """
    check_square("parameter", parameter)
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
    return getattr(parameter, _MARK, False)


def check_square(name: str, parameter: torch.Tensor) -> None:
    """Raise unless a tensor has the shape and the dtype of a (stacked) unitary matrix."""
    if not isinstance(parameter, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(parameter).__name__}.")
    validate.namespace_of(**{name: parameter})
    validate.square(name, parameter)

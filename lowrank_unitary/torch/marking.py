"""Which parameters are moved as unitary matrices."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from .._array import validate

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
    """Mark a parameter, so that the optimisers of this package move it as a unitary matrix.

    Parameters
    ----------
    parameter : torch.nn.Parameter, shape (…, n, n)
        Unitary (complex) or orthogonal (real), or a stack of such matrices. Its values are not looked at.

    Returns
    -------
    torch.nn.Parameter
        The argument itself.

    Raises
    ------
    TypeError, ValueError
        If it is no tensor, not square, or of a dtype that cannot be moved.

    Notes
    -----
    The mark is the type of the parameter, a subclass of ``torch.nn.Parameter`` that differs in nothing else.
    It stays through ``module.to(…)``, ``load_state_dict``, moves by the optimisers, ``copy.deepcopy``,
    pickles and other processes. It is lost where torch puts an unrelated parameter in its place:
    ``to_empty`` of a module on the meta device and ``load_state_dict(…, assign=True)``. A parameter group
    with ``unitary=True`` depends on no mark.

    ``torch.nn.Parameter`` refuses a marked parameter as its argument, as it refuses all subclasses: give it
    ``parameter.detach()``.

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> layer = torch.nn.Linear(4, 4, bias=False)
    >>> lut.mark_unitary(torch.nn.init.orthogonal_(layer.weight)) is layer.weight
    True
    """
    check_square("parameter", parameter)
    if type(parameter) is torch.nn.Parameter:
        parameter.__class__ = UnitaryParameter  # type: ignore[assignment]
    elif not is_marked(parameter):
        setattr(parameter, _MARK, True)
    return parameter


def is_marked(parameter: torch.Tensor, /) -> bool:
    """Whether :func:`mark_unitary` has marked a parameter.

    Parameters
    ----------
    parameter : torch.Tensor

    Returns
    -------
    bool

    Examples
    --------
    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> lut.is_marked(torch.nn.Parameter(torch.eye(3)))
    False
    """
    return type(parameter) is UnitaryParameter or getattr(parameter, _MARK, False)


def check_square(name: str, parameter: torch.Tensor) -> None:
    """Raise unless a tensor has the shape and the dtype of a (stacked) unitary matrix."""
    if not isinstance(parameter, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(parameter).__name__}.")
    validate.namespace_of(**{name: parameter})
    validate.square(name, parameter)


# What rebuilds a pickled parameter, for files that are read with weights_only=True.
torch.serialization.add_safe_globals([mark_unitary])

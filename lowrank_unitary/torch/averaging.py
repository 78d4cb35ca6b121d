"""Captured factors averaged over the processes of data-parallel training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .capture import Captured, captured_factors, of_parameter
from .marking import is_marked


def average_factors(parameters: Iterable[torch.Tensor] | torch.Tensor, /, *, group: Any = None) -> None:
    """Give every process the mean over processes of the gradients captured in factors.

    ``DistributedDataParallel`` and ``fully_shard`` exchange ``.grad`` and see no factors. Call this on all
    processes between the backward pass and the step.

    Parameters
    ----------
    parameters : iterable of torch.Tensor, or torch.Tensor
        Those of the model; only marked ones are looked at, whole on every process and equal there. The same
        ones in the same order on all processes.
    group : torch.distributed.ProcessGroup, optional
        By default all processes.

    Notes
    -----
    For n×n U, whose processes have captured m columns together, factors of 2mn numbers are gathered where
    m ≤ n; beyond that the n×n sum is made, which is smaller. Processes may have captured different numbers of
    columns, also none. All get the same factors to the last bit, those of the process of rank 0 first.

    Examples
    --------
    A group of one process; see the page on many devices for more.

    >>> import torch
    >>> import lowrank_unitary.torch as lut
    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> layer = lut.capture_factors(torch.nn.Linear(4, 4, bias=False))
    >>> layer(torch.ones(3, 4)).sum().backward()
    >>> lut.average_factors(layer.parameters())
    >>> lut.captured_factors(layer.weight).left.shape
    torch.Size([4, 3])
    >>> torch.distributed.destroy_process_group()
    """
    given = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    marked = [parameter for parameter in given if is_marked(parameter)]
    if not marked:
        raise ValueError(
            "parameters must hold a marked one, got none: call capture_factors on a layer first."
        )
    size = torch.distributed.get_world_size(group)
    with torch.no_grad():
        mine = torch.tensor([_columns(parameter) for parameter in marked], device=marked[0].device)
        counts = [torch.empty_like(mine) for _ in range(size)]
        torch.distributed.all_gather(counts, mine, group=group)
        # For each parameter, the columns of every process.
        for parameter, columns in zip(marked, torch.stack(counts, dim=1).tolist(), strict=True):
            if any(columns):
                _average(parameter, columns, group)


def _columns(parameter: torch.Tensor) -> int:
    factors = captured_factors(parameter)
    return 0 if factors is None else int(factors.left.shape[-1])


def _average(parameter: torch.Tensor, columns: list[int], group: Any) -> None:
    """Replace the captured factors by the mean over processes that have so many columns."""
    factors, store = captured_factors(parameter), of_parameter(parameter)
    m, n = parameter.shape[-2:]
    mean = Captured(square=store.square)
    if sum(columns) > n:
        total = parameter.new_zeros(parameter.shape)
        if factors is not None:
            total += factors.left @ factors.right.mH
        torch.distributed.all_reduce(total, group=group)
        mean.total = total / len(columns)
    else:
        # Left and right side by side; all processes send as many rows, which some fill with zeros.
        rows = parameter.new_zeros((*parameter.shape[:-2], max(columns), m + n))
        if factors is not None:
            rows[..., : factors.left.shape[-1], :m] = factors.left.mT / len(columns)
            rows[..., : factors.left.shape[-1], m:] = factors.right.mT
        parts = [torch.empty_like(rows) for _ in columns]
        torch.distributed.all_gather(parts, rows, group=group)
        joined = torch.cat([part[..., :k, :] for part, k in zip(parts, columns, strict=True)], dim=-2)
        mean.add(joined[..., :m].contiguous(), joined[..., m:].contiguous())
    store.__dict__.update(mean.__dict__)

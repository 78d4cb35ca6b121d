"""Backends: every namespace the library is tested on, behind one small interface."""

import os
from dataclasses import dataclass
from typing import Any

import array_api_strict
import jax
import numpy as np
import pytest
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

jax.config.update("jax_enable_x64", True)

# Small matrices on several threads, beside other processes, take many times as long.
threadpool_limits(1)
torch.set_num_threads(1)

settings.register_profile("default", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

DTYPES = ("float32", "float64", "complex64", "complex128")


@dataclass(frozen=True)
class Backend:
    """One namespace and device."""

    name: str
    xp: Any
    device: Any = None
    read_only: bool = False

    def array(self, host, dtype=None):
        host = np.array(host, dtype=dtype)
        if self.read_only:
            host.flags.writeable = False
            return host
        if self.xp is np:
            return host
        return self.xp.asarray(host, device=self.device)

    def __str__(self):
        return self.name


BACKENDS = (
    Backend("numpy", np),
    Backend("numpy-read-only", np, read_only=True),
    Backend("strict", array_api_strict, array_api_strict.Device("CPU_DEVICE")),
    Backend("strict-device1", array_api_strict, array_api_strict.Device("device1")),
    Backend("torch", torch, "cpu"),
    Backend("jax", jax.numpy),
)


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request):
    return request.param


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param

"""Backends: every namespace the library is tested on, behind one small interface."""

import itertools
from dataclasses import dataclass
from typing import Any

import array_api_strict
import jax
import numpy as np
import profiles
import pytest
import torch
from profiles import covering

jax.config.update("jax_enable_x64", True)


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


def at_once(xp, function):
    """The function; on JAX compiled as a whole.

    One operation after another takes JAX several times as long: this way the thorough profile runs the
    cases of the quick one.
    """
    return jax.jit(function) if xp is jax.numpy and not profiles.one_by_one else function


def _name(value):
    # An address would be another one in every process of the tests.
    return getattr(value, "__name__", None) or str(value)


def on_every_backend(names, *lists, jax=None):
    """Run a test with all combinations on every backend; on JAX the quick profile runs those of `covering`.

    JAX compiles every operation anew for every shape and dtype. ``jax`` bounds the number of its quick cases.
    """
    cases = []
    for backend in BACKENDS:
        if backend.name == "jax":
            made = covering(*lists, most=jax)
        else:
            made = [pytest.param(*values) for values in itertools.product(*lists)]
        cases += [pytest.param(backend, *case.values, marks=case.marks) for case in made]
    return pytest.mark.parametrize(("backend", *names.split(",")), cases, ids=_name)

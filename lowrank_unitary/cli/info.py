"""The command ``info``: versions and what was found."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy

from .. import __version__
from .._kernels import cpu, cuda

_NAMESPACES = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "jax": ("jax",),
    "cupy": ("cupy", "cupy-cuda12x", "cupy-cuda13x"),
    "array_api_strict": ("array-api-strict",),
    "dask": ("dask",),
}


def add(commands: Any) -> None:
    """Add the command."""
    info = commands.add_parser("info", help="print versions and what was found, for a bug report")
    info.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    lines = [
        ("lowrank-unitary", __version__),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("platform", platform.platform()),
        ("CPU", f"{os.cpu_count()} cores, {platform.machine()}"),
        ("numpy", f"{np.__version__}, {_blas(np)}"),
        ("scipy", f"{scipy.__version__}, {_blas(scipy)}"),
        ("array-api-compat", _installed("array-api-compat")),
        ("BLAS threads", _threads()),
        ("array namespaces", ", ".join(_namespaces())),
        ("GPU", _gpu()),
        ("fast kernels", _kernels_in_use()),
        ("CUDA kernels", _cuda_kernels()),
    ]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name + ':':<{width + 2}}{value}")
    return 0


def _cuda_kernels() -> str:
    return "for cupy, and torch on CUDA" if cuda.active() else "not in use: they need cupy and a CUDA device"


def _kernels_in_use() -> str:
    if cpu.active():
        return f"numba {_installed('numba')}, for numpy arrays and torch tensors on the CPU"
    return "none; numpy in panels of rows, all else by generic array code"


def _installed(*distributions: str) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "version unknown"


def _namespaces() -> list[str]:
    # Found, not imported: a framework may take seconds to load, or be broken.
    return [f"{name} {_installed(*where)}" for name, where in _NAMESPACES.items() if find_spec(name)]


def _blas(package: Any) -> str:
    try:
        found = package.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"BLAS {found['name']} {found['version']}"
    except (KeyError, TypeError):
        return "BLAS unknown"


def _threads() -> str:
    if find_spec("threadpoolctl") is None:
        return "unknown (threadpoolctl is not installed)"
    import threadpoolctl

    pools = threadpoolctl.threadpool_info()
    shown = [f"{pool['internal_api']} {pool['version'] or '?'}: {pool['num_threads']}" for pool in pools]
    return ", ".join(shown) or "no pool found"


def _gpu() -> str:
    found = [description for description in (_cupy_gpu(), _torch_gpu()) if description]
    return "; ".join(found) or "none"


def _cupy_gpu() -> str:
    if find_spec("cupy") is None:
        return ""
    try:
        import cupy

        if not cupy.cuda.is_available():
            return ""
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return f"{name} (cupy)"
    except Exception as error:  # a broken driver or build is what a report should show
        return f"cupy fails: {type(error).__name__}: {error}"


def _torch_gpu() -> str:
    # A build without CUDA says so in its version, without an import.
    if find_spec("torch") is None or "+cpu" in _installed("torch"):
        return ""
    try:
        import torch

        return f"{torch.cuda.get_device_name(0)} (torch)" if torch.cuda.is_available() else ""
    except Exception as error:  # as above
        return f"torch fails: {type(error).__name__}: {error}"

"""A machine that runs the text of the CUDA kernels on the CPU, on arrays that live there."""

import contextlib
import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lowrank_unitary._kernels import cuda as _cuda
from lowrank_unitary._kernels.cuda import arrays as _cuda_arrays
from lowrank_unitary._kernels.cuda import launches as _launches
from lowrank_unitary._kernels.cuda import steps as _cuda_steps

HERE = Path(__file__).parent


class Machine:
    """Kernels are compiled when they are first launched, or many at once, and kept in a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.text = (HERE / "cuda_on_cpu.hpp").read_text(encoding="utf-8") + _cuda_arrays.source()
        self.known, self.launched = {}, []

    def prepare(self, launches):
        """Compile what has not been compiled yet, in one go."""
        names = sorted({launch.kernel for launch in launches} - set(self.known))
        if not names:
            return
        text = [self.text]
        for i, name in enumerate(names):
            text.append(
                f'extern "C" void k{i}(const unsigned *grid, const std::uint64_t *words) '
                f"{{ turns::launch({name}, grid, words); }}"
            )
        place = self.folder / hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]
        library = place.with_suffix(".so")
        if not library.exists():
            mine = f"{place}-{os.getpid()}"
            Path(f"{mine}.cpp").write_text("\n".join(text), encoding="utf-8")
            command = ["g++", "-O1", "-std=c++20", "-shared", "-fPIC", f"{mine}.cpp", "-o", f"{mine}.so"]
            subprocess.run(command, check=True)
            Path(f"{mine}.cpp").unlink()
            os.replace(f"{mine}.so", library)
        loaded = ctypes.CDLL(str(library))
        self.known |= {name: getattr(loaded, f"k{i}") for i, name in enumerate(names)}

    def run(self, launch, *arguments):
        """What takes the place of the launch of a kernel."""
        self.prepare([launch])
        self.launched.append(launch)
        for x in arguments:
            assert x is None or isinstance(x, int) or _cuda_arrays.is_contiguous(x)
        words = [
            x & (2**64 - 1) if isinstance(x, int) else 0 if x is None else _cuda_arrays.address(x)
            for x in arguments
        ]
        grid = (ctypes.c_uint * 4)(*launch.grid, launch.threads)
        self.known[launch.kernel](grid, (ctypes.c_uint64 * len(words))(*words))


def machine_for(request, calls, **options):
    """A machine with all kernels that the calls launch, compiled in one go."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler on this machine")
    made, launches = Machine(request.config.cache.mkdir("cuda_on_cpu")), []
    with pytest.MonkeyPatch.context() as patch, installed(patch, made, **options):
        # Results are not written.
        patch.setattr(_cuda_arrays, "run", lambda launch, *_: launches.append(launch))
        calls()
    made.prepare(launches)
    return made


def _address(x):
    return x.data_ptr() if _cuda_arrays.is_torch(x) else x.ctypes.data


@contextlib.contextmanager
def installed(monkeypatch, machine, threads=64, processors=3, *, cupy=False):
    """Kernels are run by the machine, in small blocks, so that larger matrices take several packs each.

    On arrays of numpy and torch, or of a stand-in for cupy, to whose devices they keep.
    """
    with monkeypatch.context() as patch:
        patch.setattr(_cuda_arrays, "run", machine.run)
        patch.setattr(_cuda_arrays, "processors", lambda index: processors)
        patch.setattr(_cuda, "active", lambda: True)
        if not cupy:
            patch.setattr(_cuda_arrays, "_cupy", lambda: np)
            patch.setattr(_cuda_arrays, "address", _address)
            patch.setattr(_cuda_arrays, "entered", lambda x: contextlib.nullcontext())
            patch.setattr(_cuda_arrays, "index", lambda x: 0)
            patch.setattr(_cuda_arrays, "is_recorded", lambda x: False)
        patch.setattr(_cuda_steps, "_SMALL", 16)
        for name in ("_THREADS", "_BY_ENTRIES", "_BY_COLUMNS", "_BY_MATRICES"):
            patch.setattr(_launches, name, threads)
        yield machine

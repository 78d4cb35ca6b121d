"""A stand-in for cupy on a CPU, in which what a GPU does unseen is counted, or raises.

Arrays hold numpy memory and one of two devices. As in cupy, what is computed lies on the current device, no
array of numpy is taken for one of cupy or the reverse, reading a value waits for the device, and errors
of linear algebra go unreported. Stricter than cupy: operands must lie on the current device.
"""

import contextlib
import functools
import math
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import array_api_compat
import numpy as np

import lowrank_unitary._array.precision as precision
import lowrank_unitary._kernels.cuda.arrays as kernels


@dataclass
class Ledger:
    """What no routine may do in secret."""

    synchronisations: int = 0
    # Numbers of every copy to a device, from one, and between two.
    uploads: list[int] = field(default_factory=list)
    downloads: list[int] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)


class Device:
    stack = (0,)
    attributes = {"MultiProcessorCount": 3}  # noqa: RUF012

    def __init__(self, device=None):
        self.id = Device.stack[-1] if device is None else int(device)

    def __int__(self):
        return self.id

    def __enter__(self):
        Device.stack += (self.id,)
        return self

    def __exit__(self, *args):
        Device.stack = Device.stack[:-1]

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"


# Of these the result may share memory with the array, and lies where the array lies.
VIEWS = ("reshape", "view", "transpose", "swapaxes", "squeeze", "diagonal")


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    __module__ = "cupy"

    def __init__(self, host, device):
        self.host, self.device = np.asarray(host), device

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method != "__call__":
            return NotImplemented
        if out is None:
            return _call(ufunc, *inputs, **options)
        _call(ufunc, *inputs, out=out, **options)
        return out[0]

    def __getattr__(self, name):
        if name.startswith("_") or name in ("base", "ctypes", "tobytes"):
            raise AttributeError(f"cupy.ndarray has no attribute {name!r}")
        value = getattr(self.host, name)
        if isinstance(value, np.ndarray):
            return ndarray(value, self.device)
        if not callable(value):
            return value
        if name in VIEWS:
            return lambda *args, **options: ndarray(value(*args, **options), self.device)
        return functools.partial(_call, getattr(np.ndarray, name), self)

    def __getitem__(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        ledger().synchronisations += any(isinstance(x, ndarray) and x.dtype == bool for x in keys)
        part = self.host[_hosts(key)]
        # A single number is a view, too.
        return ndarray(self.host[(*_hosts(keys), ...)] if isinstance(part, np.generic) else part, self.device)

    def __setitem__(self, key, value):
        _call(np.ndarray.__setitem__, self, key, value)

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return f"<cupy array of {self.dtype} and shape {self.shape} on {self.device}>"

    def copy(self, order="C"):
        if self.device != Device():
            ledger().moves.append(self.size)
        return ndarray(self.host.copy(order), Device())

    def get(self):
        ledger().synchronisations += 1
        ledger().downloads.append(self.size)
        return self.host.copy()

    @property
    def real(self):
        return ndarray(self.host.real, self.device)

    @real.setter
    def real(self, value):
        self.real[...] = value

    @property
    def imag(self):
        return ndarray(self.host.imag, self.device)

    @imag.setter
    def imag(self, value):
        self.imag[...] = value

    @property
    def data(self):
        return SimpleNamespace(ptr=self.host.ctypes.data, device=self.device, device_id=self.device.id)

    @property
    def flags(self):
        flags = self.host.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, forc=flags.forc
        )


def _read(name):
    return lambda self, *args: getattr(self.get(), name)(*args)


for name in ("__bool__", "__int__", "__index__", "__float__", "__complex__", "item", "tolist"):
    setattr(ndarray, name, _read(name))


def _hosts(value):
    """The numpy arrays of what is handed to a function."""
    if isinstance(value, ndarray):
        if value.device != Device():
            raise ValueError(f"an array lies on {value.device}, and the current device is {Device()}.")
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return type(value)(map(_hosts, value)) if type(value) in (tuple, list) else value


def _arrays(value):
    """Arrays on the current device of what a function of numpy returns: cupy has no scalars."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(value, Device())
    return tuple(map(_arrays, value)) if isinstance(value, tuple | list) else value


def _call(function, *args, **options):
    if "device" in options:
        raise TypeError("got an unexpected keyword argument 'device'")
    with np.errstate(all="ignore"):
        result = function(*map(_hosts, args), **{name: _hosts(x) for name, x in options.items()})
    return _arrays(result)


def asarray(value, dtype=None, copy=None, order=None):
    if isinstance(value, ndarray):
        value = value if value.device == Device() else value.copy()
        host = np.array(value.host, dtype=dtype, copy=copy)
        return value if host is value.host else ndarray(host, Device())
    host = np.array(value, dtype=dtype, order=order)
    # A number becomes the argument of a kernel.
    ledger().uploads.extend([host.size] if host.ndim else [])
    return ndarray(host, Device())


def _solved(a, b, failed):
    assert a.shape[:-1] == b.shape[:-1]
    try:
        return np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        if a.ndim == 2:
            return np.full_like(b, failed)
        return np.stack([_solved(*pair, failed) for pair in zip(a, b, strict=True)])


def _inv(x):
    # In a stack cuBLAS leaves of a singular matrix whatever the memory held before.
    eye = np.broadcast_to(np.eye(x.shape[-1], dtype=x.dtype), x.shape)
    return _solved(x, eye, 7.0 if x.ndim > 2 else math.inf)


def _eigh(x):
    w, v = np.linalg.eigh(x)
    # Both were reported of cuSOLVER: NaN for zero, and eigenvectors of stacks that are not orthonormal.
    zero = ~np.any(x, axis=(-2, -1))
    w[zero], v[zero] = math.nan, math.nan
    return w, v * (1.4 if x.ndim > 2 and x.dtype == np.complex64 else 1.0)


# Functions that numpy has and cupy 14 has not, as far as array_api_compat or linear algebra is concerned.
ABSENT = {
    "cupy": ("matvec", "unstack", "vecdot", "vecmat"),
    "cupy.linalg": (
        "diagonal", "matrix_norm", "multi_dot", "outer", "svdvals", "tensordot", "trace", "vecdot",
        "vector_norm",
    ),
}  # fmt: skip


class Module(ModuleType):
    """The functions of a module of numpy, for arrays of this one, and some in their place."""

    def __init__(self, name, source, **own):
        super().__init__(name)
        self.__dict__.update(own, __source=source)
        self.__all__ = [x for x in source.__all__ if x not in ABSENT.get(name, ())]

    def __getattr__(self, name):
        if name in ABSENT.get(self.__name__, ()):
            raise AttributeError(f"module {self.__name__} has no attribute {name!r}")
        value = getattr(self.__dict__["__source"], name)
        if isinstance(value, type) or not callable(value):
            return value
        return self.__dict__.setdefault(name, functools.partial(_call, value))


def ledger():
    return sys.modules["cupy"].ledger


def _forget():
    """Empty the caches in which array_api_compat and the library remember namespaces."""
    for module in (array_api_compat.common._helpers, precision, kernels):
        for value in vars(module).values():
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()


@contextlib.contextmanager
def installed():
    """The stand-in as `cupy`, also for array_api_compat, whose own namespace for cupy is built on it."""

    def stale(name):
        return f"{name}.".startswith(("cupy.", "array_api_compat.cupy."))

    cuda = ModuleType("cupy.cuda")
    cuda.Device, cuda.is_available = Device, lambda: True
    cuda.Stream = cuda.ExternalStream = type("Stream", (), {"ptr": 0, "is_capturing": lambda self: False})
    cuda.get_current_stream = cuda.Stream
    cuda.runtime = SimpleNamespace(is_hip=False, getDeviceCount=lambda: 2)
    cuda.device = ModuleType("cupy.cuda.device")
    cuda.device.Device = Device
    linear = {name: functools.partial(_call, f) for name, f in (("inv", _inv), ("eigh", _eigh))}
    linear["solve"] = lambda a, b: _call(_solved, a, b, math.inf)
    linalg, fft = Module("cupy.linalg", np.linalg, **linear), Module("cupy.fft", np.fft)
    own = {"ndarray": ndarray, "asarray": asarray, "array": asarray, "ledger": Ledger()}
    cupy = Module("cupy", np, cuda=cuda, linalg=linalg, fft=fft, **own)
    saved = {name: sys.modules.pop(name) for name in list(sys.modules) if stale(name)}
    attribute = array_api_compat.__dict__.pop("cupy", None)
    for module in (cupy, cuda, cuda.device, linalg, fft):
        module.__spec__ = ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module
    _forget()
    try:
        yield cupy
    finally:
        for name in filter(stale, list(sys.modules)):
            del sys.modules[name]
        sys.modules.update(saved)
        array_api_compat.__dict__.pop("cupy", None)
        if attribute is not None:
            array_api_compat.cupy = attribute
        Device.stack = (0,)
        _forget()

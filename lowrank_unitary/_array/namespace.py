"""Namespaces, and what the array API standard leaves open."""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import array_api_compat as compat
import numpy as np

Array: TypeAlias = Any
Namespace: TypeAlias = Any


def array_namespace(*arrays: Array) -> Namespace:
    """The namespace shared by all arrays; TypeError when there is none or more than one."""
    return compat.array_namespace(*arrays)


def astype(xp: Namespace, x: Array, dtype: Any) -> Array:
    """`x` itself where it has the dtype, else a copy; cheaper than `xp.astype(…, copy=False)`."""
    return x if x.dtype == dtype else xp.astype(x, dtype)


def _name(xp: Namespace) -> str:
    return getattr(xp, "__name__", "")


# By name: the functions of array_api_compat have caches, of which torch.compile warns at each call.
def is_numpy(xp: Namespace) -> bool:
    return _name(xp) in ("numpy", "array_api_compat.numpy")


def is_cupy(xp: Namespace) -> bool:
    return _name(xp) in ("cupy", "array_api_compat.cupy")


def is_torch(xp: Namespace) -> bool:
    return _name(xp) in ("torch", "array_api_compat.torch")


def is_jax(xp: Namespace) -> bool:
    return _name(xp) == "jax.numpy"


def is_writeable(x: Array) -> bool:
    """Whether `x[...] = value` is allowed: False for JAX and for read-only numpy arrays."""
    return bool(compat.is_writeable_array(x))


def is_traced(*arrays: Array) -> bool:
    """Whether any array is traced, differentiated or mapped, so that nothing may be decided by value."""
    if (jax := sys.modules.get("jax")) and any(isinstance(x, jax.core.Tracer) for x in arrays):
        return True
    torch = sys.modules.get("torch")
    tensors = [x for x in arrays if isinstance(x, torch.Tensor)] if torch else []
    if not torch or not tensors:
        return False
    if torch.compiler.is_compiling() or _in_transform(torch, tensors):
        return True
    # The dual tensors of forward mode do not require gradients.
    dual = torch.autograd.forward_ad.unpack_dual
    return any((x.requires_grad and torch.is_grad_enabled()) or dual(x).tangent is not None for x in tensors)


def is_recorded_by_torch(*arrays: Array) -> bool:
    """Whether torch records what is done to plain tensors, for gradients and for nothing else."""
    torch = sys.modules.get("torch")
    if torch is None or not all(isinstance(x, torch.Tensor) and is_plain(x) for x in arrays):
        return False
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in arrays):
        return False
    if torch.compiler.is_compiling() or _in_transform(torch, list(arrays)):
        return False
    dual = torch.autograd.forward_ad.unpack_dual
    return all(dual(x).tangent is None for x in arrays)


def _in_transform(torch: Any, tensors: list[Any]) -> bool:
    """Whether a torch.func transform is active, for which torch has no public test.

    By its stack of transforms where this torch has it; else by a tensor without memory, as all are within
    `grad` and `jvp`, and mapped ones within `vmap`.
    """
    stack = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
    if stack is not None:
        return stack() is not None
    try:
        for x in tensors:
            x.detach().data_ptr()
    except RuntimeError:
        return True
    return False


def is_plain(x: Array) -> bool:
    """Whether a torch tensor is no subclass that may hold no values or be spread over devices."""
    torch, kind = sys.modules["torch"], type(x)
    return kind in (torch.Tensor, torch.nn.Parameter) or getattr(kind, "holds_values", False) is True


def is_compiling(x: Array) -> bool:
    """Whether torch.compile or torch.export traces `x`."""
    return bool(compat.is_torch_array(x)) and bool(sys.modules["torch"].compiler.is_compiling())


def values_are_at_hand(x: Array) -> bool:
    """Whether values of `x` can be read without synchronisation with a device."""
    if is_traced(x):
        return False
    if compat.is_torch_array(x):
        return x.device.type == "cpu" and is_plain(x)
    if compat.is_jax_array(x):
        return all(device.platform == "cpu" for device in x.devices())
    return not (compat.is_cupy_array(x) or compat.is_lazy_array(x))


def stop_gradient(x: Array) -> Array:
    if compat.is_torch_array(x):
        return x.detach()
    if compat.is_jax_array(x):
        return sys.modules["jax"].lax.stop_gradient(x)
    return x


def placement(like: Array) -> Any:
    """Where to create arrays next to `like`: its device, or all of them where it is spread over several.

    None inside a JAX trace, which places them itself.
    """
    if not compat.is_jax_array(like):
        return compat.device(like)
    if is_traced(like):
        return None
    spread: set[Any] = like.sharding.device_set
    if len(spread) == 1:
        return compat.device(like)
    # A small array, whole on every device: the partition of `like` need not fit its shape.
    sharding = sys.modules["jax"].sharding
    mesh = getattr(like.sharding, "mesh", None)
    if mesh is None:
        devices = sorted(spread, key=lambda device: device.id)
        mesh = sharding.Mesh(np.asarray(devices), ("devices",))
    return sharding.NamedSharding(mesh, sharding.PartitionSpec())


def move(xp: Namespace, host: np.ndarray[Any, Any], like: Array, dtype: Any) -> Array:
    """Copy a small numpy array to the namespace and device of `like`."""
    return xp.asarray(host, dtype=dtype, device=placement(like))


def numpy_view(x: Array) -> np.ndarray[Any, Any] | None:
    """A numpy array, or the memory of a plain torch tensor on the CPU that nothing records; else None."""
    if isinstance(x, np.ndarray):
        return x
    torch = sys.modules.get("torch")
    if torch is None or not is_plain(x) or is_traced(x):
        return None
    if x.device.type != "cpu" or x.layout != torch.strided or x.is_conj() or x.is_neg():
        return None
    return np.asarray(x.detach().numpy()) if x.dtype != torch.bfloat16 else None


def cuda_view(x: Array) -> Array | None:
    """A cupy array, or a plain torch tensor on a CUDA device that nothing records; else None."""
    if compat.is_cupy_array(x):
        return x
    torch = sys.modules.get("torch")
    if torch is None or not is_plain(x) or x.device.type != "cuda" or is_traced(x):
        return None
    return None if x.layout != torch.strided or x.is_conj() or x.is_neg() else x.detach()


def of_numpy(xp: Namespace, host: np.ndarray[Any, Any]) -> Array:
    """A numpy array as one of numpy or torch, without a copy."""
    return xp.from_numpy(host) if is_torch(xp) else host


def note_change(x: Array) -> None:
    """Tell torch's autograd that a tensor was written to from outside."""
    if compat.is_torch_array(x):
        sys.modules["torch"].autograd.graph.increment_version(x)


def to_numpy(x: Array) -> np.ndarray[Any, Any]:
    """A numpy copy or view of an array of any kind, detached from automatic differentiation."""
    if compat.is_torch_array(x):
        host = x.detach().cpu().resolve_conj()
        # numpy has no such dtype; float32 holds it exactly.
        return np.asarray((host.float() if str(x.dtype) == "torch.bfloat16" else host).numpy())
    if compat.is_cupy_array(x):
        return np.asarray(x.get())
    if compat.is_array_api_strict_namespace(array_namespace(x)):
        return np.from_dlpack(x.to_device(array_namespace(x).Device("CPU_DEVICE")))
    return np.asarray(x)

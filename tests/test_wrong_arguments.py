"""Every function, every argument, every kind of wrong value: a right result, or an error that names it.

The error is raised by the library itself: one from numba, aten, XLA or the inside of numpy says nothing of
the argument.
"""

import functools
import inspect
import math
import pathlib
import re
import traceback
from dataclasses import dataclass, field
from typing import Any

import array_api_compat as compat
import array_api_strict
import jax
import numpy as np
import pytest
import scipy.sparse
import torch

import lowrank_unitary as lu
import lowrank_unitary.torch as lut
from lowrank_unitary import testing
from lowrank_unitary.cuda_graph import StepGraph
from lowrank_unitary.dlpack import via_dlpack
from lowrank_unitary.jax import unitary_adam, unitary_sgd

PACKAGE = str(pathlib.Path(lu.__file__).parent)
NAMESPACES = {"numpy": np, "torch": torch, "jax": jax.numpy}
rng = np.random.default_rng(0)
U = np.linalg.qr(rng.standard_normal((4, 4)))[0]
G = rng.standard_normal((4, 4))
a, b = 0.1 * rng.standard_normal((2, 4, 2))

body, ambient = lu.BodyFactors(a, b), lu.LowRankFactors(a, b)
rotation = lu.transport_rotation(body)
momentum = lu.MomentumState(body, np.ones((4, 1)), np.ones(()))
remembered = lu.SketchState(np.eye(4)[:, :3], lu.BodyFactors(a[:, :1], b[:, :1]))
small = U.astype("f4")


class Named(np.ndarray):
    """Arithmetic of its own, as arrays with units have."""

    def __array_ufunc__(self, *args, **kwargs):
        raise AssertionError("not to be reached")


@dataclass(frozen=True)
class Case:
    """A call that succeeds: its arguments by position and by name, each with the kind of value it takes."""

    name: str
    call: Any
    positional: dict = field(default_factory=dict)
    named: dict = field(default_factory=dict)
    libraries: tuple = tuple(NAMESPACES)
    # Whether each of its arrays may come from a library of its own.
    alone: bool = False
    # Arguments that may be None, beside those whose default it is.
    optional: tuple = ()


def array(x):
    return x, "array"


def rank(value=2):
    return value, "rank"


word, flag, source, share = ("word", "flag", "rng", "share")
SKETCH = {
    "method": ("randomized", word), "oversample": (1, "count"), "power_iterations": (1, "count"),
    "rng": (0, source), "test_matrix": ("gaussian", "word or array"),
}  # fmt: skip
TOLERANCE = {"rtol": (0.1, share), "max_rank": (2, "rank"), "masked": (True, flag), "rng": (0, source)}
TANGENT = {name: value for name, value in SKETCH.items() if name != "method"}
ERROR = {
    "probes": (2, "positive"), "probability": (0.9, share), "power_iterations": (1, "count"),
    "rng": (0, source),
}  # fmt: skip
STEP = {"unitary": array(U), "left": array(a), "right": array(b)}
MADE = {
    "dtype": (np.float64, "dtype"), "batch": ((2,), "batch"), "rng": (0, source), "xp": (np, "xp"),
    "device": (None, "device"),
}  # fmt: skip
CORE = {"core": ("gram", word)}
HEAL = {"heal": (1, "count"), "rng": (0, source), "overwrite_unitary": (False, flag)}
UPDATE = {"update": ("cayley", word)}


def method(kind, name):
    """A method of a named tuple of arrays, as a function of its fields and arguments."""
    width = len(kind._fields)
    return lambda *args, **kwargs: getattr(kind(*args[:width]), name)(*args[width:], **kwargs)


CHANNELS = np.linalg.qr(rng.standard_normal((3, 3)))[0]
real_filter = lu.Spectrum(np.stack([CHANNELS, CHANNELS.T]), np.stack([CHANNELS, CHANNELS]) + 0j)
waves = rng.standard_normal((3, 6))
slope = lu.Spectrum(rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 3, 3)) + 0.5j)
pushes = lu.convolution_body_gradient(waves, waves[::-1], torus=(6,))
TORUS = {"torus": ((6,), "torus")}

CASES = [
    Case("unitary_transport", lu.unitary_transport, STEP, UPDATE | CORE | HEAL),
    Case("unitary_transport without healing", lu.unitary_transport, STEP, {"rng": (0, source)}),
    Case("polar_projection", lu.polar_projection, STEP, CORE | HEAL),
    Case(
        "unitary_step",
        lu.unitary_step,
        {"unitary": array(U), "gradient": array(G), "step_size": (0.1, "scalar"), "rank": rank()},
        UPDATE | HEAL | {"sketch": ("tangent", word)},
    ),
    Case(
        "unitary_step of factors",
        lu.unitary_step,
        {"unitary": array(U), "gradient": (ambient, "factors"), "step_size": (0.1, "scalar"), "rank": rank()},
        HEAL | {"sketch": ("exact", word)},
    ),
    Case(
        "unitary_step of body factors",
        lu.unitary_step,
        {"unitary": array(U), "gradient": (body, "factors"), "step_size": (0.1, "scalar"), "rank": rank()},
        {"heal": (0, "count"), "rng": (0, source)},
    ),
    Case("transport_rotation", lu.transport_rotation, {"body_factors": (body, "factors")}, UPDATE | CORE),
    Case("polar_rotation", lu.polar_rotation, {"body_factors": (body, "factors")}, CORE),
    Case(
        "rotate",
        lu.rotate,
        {"array": array(G), "rotation": (rotation, "factors")},
        {"adjoint": (False, flag), "overwrite_array": (False, flag)},
    ),
    Case(
        "rotation_certificate",
        lu.rotation_certificate,
        {"body_factors": (body, "factors"), "rotation": (rotation, "factors")},
        UPDATE | {"left": array(a), "unitary_defect": (0.0, "size"), "dtype": (np.float64, "dtype")},
    ),
    Case("svd_sketch", lu.svd_sketch, {"matrix": (G, "matrix"), "rank": rank()}, SKETCH),
    Case("svd_sketch of factors", lu.svd_sketch, {"matrix": (ambient, "factors"), "rank": rank()}, SKETCH),
    Case("svd_sketch by tolerance", lu.svd_sketch, {"matrix": (G, "matrix")}, TOLERANCE),
    *(
        Case(
            f"svd_sketch {name}",
            lu.svd_sketch,
            {"matrix": (G, "matrix"), "rank": rank()},
            {"method": (name, word), "rng": (0, source)},
        )
        for name in ("exact", "columns", "lsi", "krylov", "single_pass")
    ),
    Case(
        "svd_sketch of any matrix",
        lu.svd_sketch,
        {"matrix": (G, "matrix"), "rank": rank()},
        TANGENT,
        libraries=("numpy",),
        alone=True,
    ),
    Case(
        "svd_sketch of given samples",
        lu.svd_sketch,
        {"matrix": (G, "matrix"), "rank": rank()},
        {"test_matrix": array(G[:, :3])},
    ),
    Case(
        "random_test_matrix",
        lu.random_test_matrix,
        {"rows": (4, "count"), "columns": (2, "count")},
        MADE | {"kind": ("gaussian", word), "first_row": (1, "count"), "first_column": (1, "count")},
    ),
    *(
        Case(f.__name__, f, {"n": (4, "positive")}, MADE)
        for f in (lu.random_unitary, lu.henaff_unitary, lu.cayley_unitary)
    ),
    Case("compress_factors", lu.compress_factors, {"factors": (ambient, "factors"), "rank": rank(1)}, SKETCH),
    Case("compress_factors by tolerance", lu.compress_factors, {"factors": (ambient, "factors")}, TOLERANCE),
    Case(
        "add_factors",
        lu.add_factors,
        {"factors": (ambient, "factors"), "more": (ambient, "factors"), "rank": rank()},
        {"rng": (0, source)},
    ),
    Case("sketch_error", lu.sketch_error, {"matrix": (G, "matrix"), "sketch": (ambient, "factors")}, ERROR),
    Case(
        "sketch_error of an SVD",
        lu.sketch_error,
        {"matrix": (G, "matrix"), "sketch": (lu.SVDSketch(a, np.ones(2), b.T.copy()), "sketch")},
        {"probes": (2, "positive"), "rng": (0, source)},
    ),
    Case("leave_one_out_error", lu.leave_one_out_error, {"samples": array(a)}),
    Case(
        "tangent_sketch",
        lu.tangent_sketch,
        {"unitary": array(U), "gradient": array(G), "rank": rank()},
        TANGENT,
    ),
    Case(
        "tangent_sketch of factors",
        lu.tangent_sketch,
        {"unitary": array(U), "gradient": (ambient, "factors"), "rank": rank()},
        TANGENT,
    ),
    Case(
        "tangent_sketch by tolerance",
        lu.tangent_sketch,
        {"unitary": array(U), "gradient": array(G)},
        TOLERANCE,
    ),
    Case(
        "compress_tangent", lu.compress_tangent, {"body_factors": (body, "factors"), "rank": rank(1)}, SKETCH
    ),
    Case(
        "compress_tangent exact",
        lu.compress_tangent,
        {"body_factors": (body, "factors"), "rank": rank()},
        {"method": ("exact", word), "rng": (0, source)},
    ),
    Case(
        "compress_tangent by tolerance", lu.compress_tangent, {"body_factors": (body, "factors")}, TOLERANCE
    ),
    Case(
        "tangent_error",
        lu.tangent_error,
        {"unitary": array(U), "gradient": array(G), "body_factors": (body, "factors")},
        ERROR,
    ),
    Case(
        "SketchState.start",
        lu.SketchState.start,
        {"unitary": array(U), "rank": rank()},
        {"oversample": (1, "count"), "feedback": (False, flag), "rng": (0, source)},
    ),
    Case(
        "warm_tangent_sketch",
        lu.warm_tangent_sketch,
        {"unitary": array(U), "gradient": array(G), "state": (remembered, "state"), "rank": rank()},
        {"refresh": (0.5, share), "rng": (0, source)},
    ),
    Case(
        "MomentumState.start",
        lu.MomentumState.start,
        {"unitary": array(U), "rank": rank()},
        {"scaling": ("rows", word)},
    ),
    Case(
        "momentum_step",
        lu.momentum_step,
        {"body_factors": (body, "factors"), "state": (momentum, "state")},
        {
            "decay": (0.5, share),
            "second_decay": (0.5, share),
            "average": (True, flag),
            "nesterov": (False, flag),
        },
    ),
    Case(
        "unitarity_defect",
        lu.unitarity_defect,
        {"unitary": array(U)},
        {"probes": (2, "positive"), "rng": (0, source)},
    ),
    Case("unitarity_defect exact", lu.unitarity_defect, {"unitary": array(U)}, {"rng": (0, source)}),
    Case("is_unitary", lu.is_unitary, {"unitary": array(U)}, {"atol": (1e-3, "size")}),
    Case("reunitarize", lu.reunitarize, {"unitary": array(U)}),
    Case(
        "heal_unitary",
        lu.heal_unitary,
        {"unitary": array(U), "probes": (2, "positive")},
        {"rng": (0, source)},
    ),
    Case(
        "DelayedUnitary.rotate",
        lambda base, r, more: lu.DelayedUnitary(base, r).rotate(more),
        {"base": array(U), "self.rotation": (rotation, "factors"), "rotation": (rotation, "factors")},
        optional=("self.rotation",),
    ),
    *(
        Case(
            f"DelayedUnitary.{name}",
            lambda base, r, x, name=name: getattr(lu.DelayedUnitary(base, r), name)(x),
            {"base": array(U), "rotation": (rotation, "factors"), "x": array(a)},
            optional=("rotation",),
        )
        for name in ("matmul", "adjoint_matmul")
    ),
    Case(
        "DelayedUnitary.flush",
        lambda base, r, **named: lu.DelayedUnitary(base, r).flush(**named),
        {"base": array(U), "rotation": (rotation, "factors")},
        {"heal": (1, "count"), "rng": (0, source)},
        optional=("rotation",),
    ),
    Case(
        "CompensatedUnitary.split",
        lu.CompensatedUnitary.split,
        {"unitary": (small, "array"), "dtype": (np.float16, "dtype")},
        libraries=("numpy",),
    ),
    Case(
        "CompensatedUnitary.single",
        lambda *parts: lu.CompensatedUnitary(*parts).single(),
        {"high": (small.astype("f2"), "array"), "low": (0 * small.astype("f2"), "array")},
    ),
    *(
        Case(f"{kind.__name__}.{name}", method(kind, name), {"left": array(a), "right": array(b)} | more)
        for kind, name, more in (
            (lu.BodyFactors, "scaled", {"factor": (0.5, "scalar")}),
            (lu.BodyFactors, "dense", {}),
            (lu.LowRankFactors, "scaled", {"factor": (0.5, "scalar")}),
            (lu.LowRankFactors, "dense", {}),
            (lu.LowRankFactors, "to_body", {"unitary": array(U)}),
            (lu.LowRankRotation, "dense", {}),
            (lu.LowRankRotation, "compose", {"other": (rotation, "factors")}),
        )
    ),
    Case(
        "SVDSketch.factors",
        method(lu.SVDSketch, "factors"),
        {"U": array(a), "S": (np.ones(2), "array"), "Vh": (b.T.copy(), "array")},
    ),
    Case(
        "transport_rotation_vjp",
        lu.transport_rotation_vjp,
        {"body_factors": (body, "factors"), "cotangent": (body, "cotangent")},
        UPDATE,
    ),
    Case(
        "polar_rotation_vjp",
        lu.polar_rotation_vjp,
        {"body_factors": (body, "factors"), "cotangent": (body, "cotangent")},
    ),
    Case(
        "rotate_vjp",
        lu.rotate_vjp,
        {"array": array(G), "rotation": (rotation, "factors"), "cotangent": array(G)},
        {"adjoint": (False, flag)},
    ),
    Case("unitary_transport_vjp", lu.unitary_transport_vjp, STEP | {"cotangent": array(G)}, UPDATE),
    Case("polar_projection_vjp", lu.polar_projection_vjp, STEP | {"cotangent": array(G)}),
    Case(
        "assert_unitary", testing.assert_unitary, {"unitary": array(U)}, {"atol": (1e-3, "size")}, alone=True
    ),
    Case(
        "assert_rotation",
        testing.assert_rotation,
        {"rotation": (rotation, "factors")},
        {"atol": (1e-3, "size")},
        alone=True,
    ),
    Case(
        "assert_matches_dense",
        testing.assert_matches_dense,
        {"result": array(lu.unitary_transport(U, a, b, update="cayley"))} | STEP,
        UPDATE | {"atol": (1e-3, "size")},
        alone=True,
    ),
    Case(
        "assert_body_factors",
        testing.assert_body_factors,
        {
            "unitary": array(U),
            "factors": (ambient, "factors"),
            "body_factors": (ambient.to_body(U), "factors"),
        },
        {"probes": (2, "positive"), "rtol": (1e-3, "size"), "rng": (0, source)},
        alone=True,
    ),
    Case(
        "convolve",
        lu.convolve,
        {"signal": array(waves), "spectrum": (real_filter, "spectrum")},
        TORUS | {"adjoint": (True, flag)},
    ),
    Case(
        "spectrum_of_kernel", lu.spectrum_of_kernel, {"kernel": array(np.stack([waves, waves[::-1]]))}, TORUS
    ),
    Case("kernel_of_spectrum", lu.kernel_of_spectrum, {"spectrum": (real_filter, "spectrum")}, TORUS),
    Case("spectrum_defect", lu.spectrum_defect, {"spectrum": (real_filter, "spectrum")}),
    Case("reunitarize_spectrum", lu.reunitarize_spectrum, {"spectrum": (real_filter, "spectrum")}),
    Case("spectrum_gradient", lu.spectrum_gradient, {"gradient": (slope, "spectrum")}, TORUS),
    *(
        Case(
            f.__name__,
            f,
            {"signal": array(waves), name: array(waves)},
            TORUS | {"groups": (0, "count")},
        )
        for f, name in ((lu.convolution_gradient, "cotangent"), (lu.convolution_body_gradient, "pulled"))
    ),
    *(
        Case(
            f"spectrum_step of {name}",
            lu.spectrum_step,
            {
                "spectrum": (real_filter, "spectrum"),
                "gradient": (gradient, "spectrum"),
                "step_size": (0.1, "scalar"),
                "rank": rank(),
            },
            UPDATE
            | {"sketch": ("tangent", word), "heal": (1, "count"), "rng": (0, source)}
            | {"frequencies": (3, "count"), "overwrite_spectrum": (False, flag)},
            optional=("frequencies",),
        )
        for name, gradient in (("arrays", slope), ("body factors", pushes))
    ),
    *(
        Case(f.__name__, f, {"channels": (3, "positive")}, MADE | TORUS)
        for f in (lu.random_spectrum, lu.delta_spectrum)
    ),
    Case("pixel_unshuffle", lu.pixel_unshuffle, {"signal": array(waves), "stride": ((2,), "torus")}),
    Case("pixel_shuffle", lu.pixel_shuffle, {"signal": array(waves), "stride": ((3,), "torus")}),
    Case(
        "torch.unitary_transport",
        lut.unitary_transport,
        STEP,
        UPDATE | CORE | {"overwrite_unitary": (False, flag)},
        libraries=("torch",),
    ),
    Case(
        "torch.polar_projection",
        lut.polar_projection,
        STEP,
        CORE | {"overwrite_unitary": (False, flag)},
        libraries=("torch",),
    ),
    Case(
        "jax.unitary_sgd",
        unitary_sgd,
        {"learning_rate": (0.1, "rate")},
        UPDATE
        | {
            "rank": rank(),
            "momentum": (0.5, share),
            "nesterov": (False, flag),
            "heal": (1, "count"),
            "seed": (0, "seed"),
        },
        libraries=("jax",),
    ),
    Case(
        "jax.unitary_adam",
        unitary_adam,
        {"learning_rate": (0.1, "rate")},
        UPDATE
        | {
            "rank": rank(),
            "b1": (0.5, share),
            "b2": (0.5, share),
            "scaling": ("rows", word),
            "nesterov": (False, flag),
            "heal": (1, "count"),
            "seed": (0, "seed"),
        },
        libraries=("jax",),
    ),
    Case(
        "dlpack.via_dlpack",
        via_dlpack,
        {"function": (lu.rotate, "callable")},
        {"back": (np.asarray, "callable")},
        libraries=("numpy",),
    ),
    Case(
        "cuda_graph.StepGraph",
        StepGraph,
        {"step": (print, "callable"), "written": array(U)},
        libraries=("torch",),
    ),
]

# What a call with the value must do: be refused; give the same result as the call that succeeds; give another
# one, as the value says something else; or give any at all. The last three may be refused, too.
REFUSED, SAME, OTHER, ANY = "refused", "same", "other", "any"
NOT_A_NUMBER = {"None": None, "str": "2", "complex": 1j, "list": [1], "object": object(), "module": math}


def wrong_numbers(xp, *, whole):
    yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items())
    yield "bool", True, REFUSED
    yield "numpy bool", np.True_, REFUSED
    yield "array", xp.ones(2), REFUSED
    yield "complex array", np.asarray(1j), REFUSED
    yield "masked", np.ma.masked_array(1.0, mask=True), REFUSED
    yield "nan", math.nan, REFUSED
    yield "-1", -1, REFUSED
    if whole:
        yield "2.5", 2.5, REFUSED
        yield "array of a fraction", xp.asarray(2.5), REFUSED
        yield "2**70", 2**70, REFUSED


def wrong_arrays(name, xp, good, *, alone=False):
    """In place of one array; `alone` where no other one says which library it must come from."""
    host = np.asarray(good)
    yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items())
    yield "float", 1.5, REFUSED
    yield "bool", True, REFUSED
    yield "rows", host.tolist(), REFUSED
    yield (
        "sparse",
        scipy.sparse.csr_matrix(np.atleast_2d(host.reshape(-1, *host.shape[-1:])).astype("f8")),
        REFUSED,
    )
    yield "whole numbers", xp.asarray(np.ones(host.shape, "i8")), REFUSED
    yield "truths", xp.asarray(np.ones(host.shape, bool)), REFUSED
    if host.ndim:
        yield "a number", xp.asarray(host.flat[0]), REFUSED
        yield "no axis", xp.asarray(host[0]), REFUSED
        yield "empty", xp.asarray(host[..., :0, :0] if host.ndim > 1 else host[:0]), REFUSED
    yield "other shape", xp.asarray(np.ones((3, 5), host.dtype)), ANY
    yield "other batch", xp.asarray(np.ones((3, *host.shape), host.dtype)), ANY
    for other, library in {"numpy": np, "torch": torch, "jax": jax.numpy, "strict": array_api_strict}.items():
        # JAX compiles what it accepts.
        if other != name and not (alone and other == "jax"):
            yield other, library.asarray(host.astype("f4")), ANY if alone else REFUSED
    if name == "numpy":
        for dtype in (">f8", ">c16", "g", "O", "U8", "M8[s]"):
            kind = "f8" if dtype in "gOU8" or dtype[0] == ">" else "i8"
            yield dtype, host.astype(kind).astype(dtype), REFUSED
        yield "masked", np.ma.masked_array(host, mask=host > 0), REFUSED
        if host.ndim < 3:
            yield "matrix", np.asmatrix(host), REFUSED
        yield "units", host.view(Named), REFUSED
        yield "memmap", host.view(np.memmap), SAME
    if name == "torch":
        yield "torch sparse", xp.asarray(host).to_sparse(), REFUSED
        if host.ndim > 1:
            yield "torch csr", xp.asarray(host).to_sparse_csr(), REFUSED
    if name != "jax":
        narrow = {"float64": "f4", "complex128": "c8"}.get(host.dtype.name, host.dtype)
        yield "narrow", xp.asarray(host.astype(narrow)), SAME
        if host.dtype.kind == "f" and host.dtype.itemsize > 2:
            yield "complex", xp.asarray(host + 1j * np.flip(host)), OTHER


def with_wrong_field(name, xp, good, *, alone=False):
    """A named tuple with each of its arrays in turn replaced."""
    for part, value in good._asdict().items():
        replaced = with_wrong_field if hasattr(value, "_fields") else wrong_arrays
        inner = replaced(name, xp, value, alone=alone)
        for label, wrong, meaning in inner:
            yield f"{part}: {label}", good._replace(**{part: wrong}), meaning


def wrong_values(name, xp, kind, good, *, alone=False):
    """Label, value and meaning."""
    if kind in ("array", "matrix"):
        for label, value, meaning in wrong_arrays(name, xp, good, alone=alone):
            yield label, value, ANY if kind == "matrix" and label == "sparse" else meaning
    elif kind in ("factors", "cotangent", "state", "sketch", "spectrum"):
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items())
        yield "bool", True, REFUSED
        yield "tuple", tuple(good), REFUSED
        yield "array", xp.eye(4), ANY
        other = lu.LowRankFactors if isinstance(good, lu.BodyFactors) else lu.BodyFactors
        yield other.__name__, other(*tuple(good)[:2]), ANY
        for label, value, meaning in with_wrong_field(name, xp, good, alone=alone):
            # A real rotation does not change along the imaginary part of a cotangent.
            yield label, value, ANY if kind == "cotangent" and meaning is OTHER else meaning
    elif kind in ("rank", "count", "positive", "seed"):
        for label, value, meaning in wrong_numbers(xp, whole=True):
            if kind != "seed" or label != "-1":
                yield label, value, meaning
        if kind in ("rank", "positive"):
            yield "0", 0, REFUSED
        if kind == "rank":
            yield "99", 99, ANY
        if name != "jax":
            yield "numpy", np.int64(good), SAME
    elif kind in ("share", "size"):
        yield from wrong_numbers(xp, whole=False)
        if kind == "share":
            yield "2", 2.0, REFUSED
    elif kind in ("scalar", "rate"):
        free = "nan", "-1", "array"
        yield from (found for found in wrong_numbers(xp, whole=False) if found[0] not in free)
        yield "matrix", xp.ones((4, 4)), REFUSED
        yield "whole numbers", xp.asarray(np.arange(4)), ANY
    elif kind == "word":
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items())
        yield "bool", True, REFUSED
        yield "array", xp.ones((4, 2)), REFUSED
        yield "words", np.asarray(["gram", "exact"]), REFUSED
    elif kind == "word or array":
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items())
        yield from (
            (label, value, REFUSED)
            for label, value, meaning in wrong_arrays(name, xp, G[:, :3])
            if meaning is REFUSED
        )
    elif kind == "flag":
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items())
        yield "array", xp.ones((4, 2)), REFUSED
        yield "2", 2, REFUSED
    elif kind == "rng":
        yield from (
            (label, value, REFUSED) for label, value in NOT_A_NUMBER.items() if label not in ("None", "list")
        )
        yield "bool", True, REFUSED
        yield "-1", -1, REFUSED
        yield "1.5", 1.5, REFUSED
        yield "words", ["a", "b"], REFUSED
        yield "array", xp.ones((4, 2)), REFUSED
        yield "masked", np.ma.masked_array([1, 2], mask=[True, False]), REFUSED
    elif kind == "dtype":
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items() if label != "None")
        yield "array", xp.ones((4, 2)), REFUSED
        yield "whole numbers", xp.int32, REFUSED
        yield ">f8", ">f8", REFUSED
        yield "foreign", torch.float64 if name != "torch" else np.dtype("f8"), REFUSED
    elif kind in ("batch", "torus"):
        if kind == "torus":
            yield "none", (), REFUSED
            yield "zero", (0,), REFUSED
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items() if label != "list")
        yield "number", 3, REFUSED
        yield "negative", (-1,), REFUSED
        yield "words", ("a",), REFUSED
        yield "fraction", (1.5,), REFUSED
        yield "nested", ((1,),), REFUSED
        yield "array", xp.ones((4, 2)), REFUSED
    elif kind == "xp":
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items())
        yield "array", xp.ones((4, 2)), REFUSED
    elif kind == "device":
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items() if label != "None")
        yield "nowhere", "nowhere", REFUSED
        yield "1.5", 1.5, REFUSED
    elif kind == "callable":
        yield from ((label, value, REFUSED) for label, value in NOT_A_NUMBER.items() if label != "None")


ALIASES = {
    "factors": ("left", "right", "factors"),
    "cotangent": ("left", "right"),
    "state": ("basis", "missed", "momentum", "second", "steps", "left", "right"),
    "sketch": ("U", "S", "Vh", "left", "right"),
    "spectrum": ("real", "complex", "left", "right"),
}


def converted(xp, value):
    """The value with its numpy arrays as those of the namespace."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(converted(xp, part) for part in value))
    if value is np:
        return xp
    if isinstance(value, type) and issubclass(value, np.generic):
        return getattr(xp, value.__name__)
    return xp.asarray(value) if type(value) is np.ndarray else value


def on_host(result):
    """All numbers of a result; of thin factors what they stand for, as they are not unique."""
    if isinstance(result, lu.BodyFactors | lu.LowRankFactors):
        left, right = (np.asarray(x) for x in result)
        product = left @ np.conj(right.swapaxes(-1, -2))
        return [
            product - np.conj(product.swapaxes(-1, -2)) if isinstance(result, lu.BodyFactors) else product
        ]
    if isinstance(result, tuple):
        return [x for part in result for x in on_host(part)]
    return [np.asarray(result)] if compat.is_array_api_obj(result) else []


def agree(one, other):
    return len(one) == len(other) and all(
        x.shape == y.shape and np.iscomplexobj(x) == np.iscomplexobj(y) and np.allclose(x, y, atol=1e-4)
        for x, y in zip(one, other, strict=True)
    )


def judged(case, names, meaning, expected, positional, named):
    """What is wrong with how a call answered, or None."""
    try:
        result = case.call(*positional.values(), **named)
    except AssertionError as error:
        return str(error) if meaning is REFUSED or "reached" in str(error) else None
    except Exception as error:
        *_, (place, _) = traceback.walk_tb(error.__traceback__)
        place = place.f_code.co_filename
        if type(error) not in (TypeError, ValueError):
            return f"{type(error).__name__}: {error}"[:150]
        if not place.startswith(PACKAGE):
            return f"raised in {pathlib.Path(place).name}: {error}"[:150]
        if not any(re.search(rf"\b{re.escape(name)}\b", str(error)) for name in names):
            return f"names no argument: {error}"[:150]
        return None
    if meaning is REFUSED:
        return "accepted"
    found = on_host(result)
    if meaning is SAME and not agree(found, expected()):
        return "another result"
    if meaning is OTHER and agree(found, expected()) and found:
        return "half of it ignored"
    return None


def answers(name, case):
    """For every argument and every value: what it was, and what is wrong with the answer, or None."""
    xp = NAMESPACES[name]
    good = {
        part: {key: (converted(xp, value), kind) for key, (value, kind) in arguments.items()}
        for part, arguments in (("positional", case.positional), ("named", case.named))
    }
    plain = {part: {key: value for key, (value, _) in arguments.items()} for part, arguments in good.items()}
    expected = functools.cache(lambda: on_host(case.call(*plain["positional"].values(), **plain["named"])))
    holding = ("array", "matrix", "factors", "cotangent", "state", "sketch", "spectrum")
    kinds = [kind for arguments in good.values() for _, kind in arguments.values()]
    arrays = sum(kind in holding for kind in kinds) + sum(kind in holding[2:] for kind in kinds)
    parameters = inspect.signature(case.call).parameters.values()
    optional = {parameter.name for parameter in parameters if parameter.default is None}
    optional |= {*case.optional}
    for part, arguments in good.items():
        for key, (value, kind) in arguments.items():
            for label, wrong, meaning in wrong_values(name, xp, kind, value, alone=case.alone or arrays == 1):
                if (name == "jax" and meaning is not REFUSED) or (wrong is None and key in optional):
                    continue
                changed = {**plain, part: plain[part] | {key: wrong}}
                names = (key.removeprefix("self."), *ALIASES.get(kind, ()))
                if meaning is not REFUSED:
                    # Of two that do not fit together either may be named.
                    names = (*names, *case.positional, *case.named, *ALIASES["factors"])
                yield f"{key} = {label}", judged(case, names, meaning, expected, **changed)


PAIRS = [(name, case) for case in CASES for name in case.libraries]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "case"), PAIRS, ids=[f"{case.name}-{name}" for name, case in PAIRS])
def test_wrong_arguments_are_refused_by_name_or_answered_rightly(name, case):
    faults = [f"{what}: {fault}" for what, fault in answers(name, case) if fault]
    assert not faults, "\n" + "\n".join(faults)

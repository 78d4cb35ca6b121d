"""What test_jax_sharding.py runs in a process of its own, as JAX counts its devices when it starts.

Arguments: names of checks below with their arguments, as JSON.
"""

import contextlib
import json
import math
import re
import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import lowrank_unitary as lu
from lowrank_unitary._array import tolerance
from lowrank_unitary.jax import unitary_adam, unitary_sgd

K = 2
LAYOUTS = {
    "rows": ("x", None),
    "columns": (None, "x"),
    "both": ("x", "y"),
    "stack": ("x", None, None),
}
# Of U and its gradient, of the left and of the right factor.
THIN = {
    "rows": (("x", None), (None, None)),
    "columns": ((None, None), (None, None)),
    "both": (("x", None), ("x", None)),
    "stack": (("x", None, None), ("x", None, None)),
}
COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)


def mesh_of(kind, devices, layout):
    shape, names = ((devices // 2, 2), ("x", "y")) if layout == "both" else ((devices,), ("x",))
    some = np.array(jax.devices()[:devices]).reshape(shape)
    return Mesh(some, names, axis_types=(getattr(AxisType, kind),) * len(names))


@cache
def problem(n, dtype, batch=()):
    """U, the gradient of ½‖U − T‖², and factors of a step of norm about 0.1."""
    U, T = (lu.random_unitary(n, dtype=np.dtype(dtype), batch=batch, rng=seed) for seed in (0, 1))
    rng = np.random.default_rng(0)
    # The tangent of U − T has many nearly equal singular values: weights set them apart.
    weights = (1.0 / np.arange(1, n + 1)).astype(U.real.dtype)
    a, b = (lu.random_unitary(n, K, dtype=np.dtype(dtype), batch=batch, rng=rng) for _ in range(2))
    return U, (U - T) * weights, (0.1 * a).astype(dtype), b


def placed(kind, devices, layout, arrays):
    mesh, (left, right) = mesh_of(kind, devices, layout), THIN[layout]
    splits = (LAYOUTS[layout], LAYOUTS[layout], left, right)
    return [
        jax.device_put(x, NamedSharding(mesh, PartitionSpec(*split)))
        for x, split in zip(arrays, splits, strict=True)
    ]


def warm(U, G, a, b):
    state = lu.SketchState.start(U, K, rng=0)
    for step in range(2):
        body, state = lu.warm_tangent_sketch(U, G, state, K, rng=step)
    return lu.rotate(U, lu.transport_rotation(lu.BodyFactors(-0.1 * body.left, body.right)))


def trained(optimiser, steps=3):
    def run(U, G, a, b):
        def step(carry, _):
            U, state = carry
            updates, state = optimiser.update(jnp.conj(G), state, U)
            return (optax.apply_updates(U, updates), state), None

        return jax.lax.scan(step, (U, optimiser.init(U)), length=steps)[0][0]

    return run


def delayed(U, G, a, b):
    rotation = lu.transport_rotation(lu.LowRankFactors(a, b).to_body(U))
    made = lu.DelayedUnitary(U).rotate(rotation).rotate(rotation)
    return made.flush(heal=1, rng=0).base, made.matmul(a), made.adjoint_matmul(a)


def rotated_vjp(U, G, a, b):
    made = lu.rotate_vjp(U, lu.transport_rotation(lu.BodyFactors(a, b)), G)
    return made.array, lu.transport_rotation_vjp(lu.BodyFactors(a, b), made.rotation)


def certified(U, G, a, b):
    body = lu.LowRankFactors(a, b).to_body(U)
    made = lu.rotation_certificate(body, lu.polar_rotation(body), update="polar", left=a)
    return made.smallest_singular_value


def product_of(sketch):
    return (sketch.U * sketch.S[..., None, :]) @ sketch.Vh


def whole(factors):
    return lu.BodyFactors(*factors).dense()


def gradients(U, G, a, b):
    return jax.grad(lambda *x: jnp.sum(jnp.abs(lu.unitary_transport(*x) - G) ** 2), (0, 1, 2))(U, a, b)


ROUTINES = {
    "step": lambda U, G, a, b: lu.unitary_step(U, G, 0.1, K, rng=0),
    "momentum": trained(unitary_sgd(0.1, rank=K, momentum=0.9)),
    "transport": lambda U, G, a, b: lu.unitary_transport(U, a, b, heal=1, rng=0),
    "polar step": lambda U, G, a, b: lu.unitary_step(U, G, 0.1, K, update="polar", heal=2, rng=0),
    "factors": lambda U, G, a, b: lu.unitary_step(U, lu.LowRankFactors(a, b), 0.1, 1, rng=0),
    "body factors": lambda U, G, a, b: lu.unitary_step(U, lu.BodyFactors(a, b), 0.1, 1, rng=0),
    "polar": lambda U, G, a, b: lu.polar_projection(U, a, b, heal=1, rng=0),
    "orthonormal": lambda U, G, a, b: lu.polar_projection(U, a, b, core="orthonormal"),
    "cayley": lambda U, G, a, b: lu.unitary_transport(U, a, b, update="cayley"),
    "adam": trained(unitary_adam(0.01, rank=K, scaling="rows", nesterov=True)),
    "sgd": trained(unitary_sgd(0.1, rank=K)),
    "warm": warm,
    "delayed": delayed,
    "heal": lambda U, G, a, b: lu.heal_unitary(U, 2, rng=0),
    "repair": lambda U, G, a, b: lu.reunitarize(U + 0.01 * G),
    "defect": lambda U, G, a, b: lu.unitarity_defect(U + 0.01 * G),
    "estimate": lambda U, G, a, b: lu.unitarity_defect(U + 0.01 * G, probes=2, rng=0),
    "certificate": certified,
    "tangent": lambda U, G, a, b: whole(lu.tangent_sketch(U, G, K, power_iterations=1, rng=0)),
    "tangent error": lambda U, G, a, b: lu.tangent_error(U, G, lu.BodyFactors(a, b), rng=0).frobenius,
    "compress": lambda U, G, a, b: whole(lu.compress_tangent(lu.BodyFactors(a, b), 1, rng=0)),
    "sketch error": lambda U, G, a, b: lu.sketch_error(G, lu.LowRankFactors(a, b), rng=0).frobenius,
    "vjp": lambda U, G, a, b: lu.unitary_transport_vjp(U, a, b, G),
    "rotate vjp": rotated_vjp,
    "grad": gradients,
    **{
        f"svd {method}": lambda U, G, a, b, method=method: product_of(
            lu.svd_sketch(G, K, method=method, rng=0)
        )
        for method in lu.step.SKETCHES[1:]
    },
}


MOVING = ("step", "momentum", "transport", "polar", "adam", "sgd", "warm", "heal")
# Without a choice of columns by value, which rounding may change in one of many matrices.
COMPARED = [name for name in ROUTINES if name != "svd columns"]


def close(got, expected, n, note):
    """Sums over rows in another order change a thin block by its rounding, which a step passes on.

    Three steps, and the few digits that a sketch loses where singular values are near one another: ten times
    the rounding of one step.
    """
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        scale = max(1.0, float(np.linalg.norm(y.ravel())) / np.sqrt(n))
        error = np.linalg.norm((x - y).ravel())
        assert error <= tolerance(np, x.real.dtype, n, K, scale=10 * scale), (note, error)


def alone(name, arrays):
    """The result on one device: that of numpy, which nothing has to be compiled for, or of JAX."""
    routine = ROUTINES[name]
    if name in ("momentum", "adam", "sgd", "grad"):
        return jax.jit(routine)(*map(jnp.asarray, arrays))
    return routine(*arrays)


def agree(kind, layout, names, devices=8, n=64, dtype="float32", eager=False, context=False):
    """The result is that on one device, and a moved U is laid out as it was."""
    # One matrix a device: decompositions of several share threads, of which a CPU may have too few.
    batch = (devices,) if layout == "stack" else ()
    for name in names or (COMPARED if layout == "stack" else ROUTINES):
        host = problem(n, dtype, batch)
        arrays = placed(kind, devices, layout, host)
        mesh = jax.set_mesh(mesh_of(kind, devices, layout)) if context else contextlib.nullcontext()
        with mesh:
            made = (ROUTINES[name] if eager else jax.jit(ROUTINES[name]))(*arrays)
        close(made, alone(name, host), n, (kind, layout, name, devices, n, dtype))
        first = jax.tree.leaves(made)[0]
        # An SVD is on every device, and on an Auto mesh XLA leaves what is made of it there.
        if devices > 1 and (name in MOVING or (name == "repair" and kind == "Explicit")):
            assert first.sharding.is_equivalent_to(arrays[0].sharding, first.ndim), (name, first.sharding)


def collectives(kind, layout, name, devices=8, n=128):
    """The collectives of a compiled routine with their numbers of words, and what it says of memory."""
    host = problem(n, "float32", (2 * devices,) if layout == "stack" else ())
    arrays = placed(kind, devices, layout, host)
    own = arrays[0].nbytes // devices
    made = jax.jit(ROUTINES[name], donate_argnums=0).lower(*arrays).compile()
    found = []
    for result, how in COLLECTIVE.findall(made.as_text()):
        sizes = ([int(x) for x in shape.split(",") if x] for shape in re.findall(r"\[([\d,]*)\]", result))
        found.append((how, sum(map(math.prod, sizes))))
    memory = made.memory_analysis()
    close(made(*arrays), alone(name, host), n, (kind, layout, name))
    return found, memory.alias_size_in_bytes / own


def thin_sums(kind, layout, names, n=128):
    """A step takes at most three sums of n×(4k + 16) words, gathers nothing, and reuses a donated U."""
    for name in names:
        found, reused = collectives(kind, layout, name, n=n)
        assert found, name
        assert {how for how, _ in found} == {"all-reduce"}, (kind, name, found)
        assert len(found) <= 3, (kind, name, found)
        assert max(words for _, words in found) <= n * (4 * K + 16), (kind, name, found)
        assert reused >= 1, (kind, name, reused)


def nothing_sent(kind, names):
    """Of a stack that is split along its leading axis every device moves its own matrices."""
    for name in names or COMPARED:
        found, reused = collectives(kind, "stack", name, n=16)
        assert not found, (kind, name, found)
        assert reused >= 1 or name not in ("step", "transport"), (kind, name, reused)


def mapped(kind, names, devices=8, n=16):
    """Inside shard_map every device does to its part of a stack what it would do to that alone."""
    batch = (2 * devices,)
    mesh, split = mesh_of(kind, devices, "stack"), PartitionSpec("x")
    for name in names or COMPARED:
        arrays = problem(n, "float32", batch)
        routine = jax.shard_map(ROUTINES[name], mesh=mesh, in_specs=split, out_specs=split)
        made = jax.jit(routine)(*placed(kind, devices, "stack", arrays))
        parts = [alone(name, [x[i : i + 2] for x in arrays]) for i in range(0, 2 * devices, 2)]
        expected = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        close(made, expected, n, (kind, name, "mapped"))


def training(kind, layout, steps=60, n=32):
    """Over many steps with healing U stays unitary, and U and the state stay where they are."""
    batch = (8,) if layout == "stack" else ()
    U = np.broadcast_to(np.eye(n, dtype=np.float32), (*batch, n, n))
    T = lu.cayley_unitary(n, dtype=np.float32, batch=batch, rng=1)
    optimiser = unitary_sgd(0.3, rank=8, momentum=0.5)

    def step(U, T, state):
        updates, state = optimiser.update(U - T, state, U)
        return optax.apply_updates(U, updates), state

    sharding = NamedSharding(mesh_of(kind, 8, layout), PartitionSpec(*LAYOUTS[layout]))
    moved, target = (jax.device_put(x, sharding) for x in (U, T))
    state, move = optimiser.init(moved), jax.jit(step, donate_argnums=(0, 2))
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compilations.append(event) if "backend_compile" in event else None
    )
    places = [x.sharding for x in jax.tree.leaves((moved, state))]
    for _ in range(steps):
        # Two programs at a time may wait for one another on the few threads of a CPU.
        moved, state = jax.block_until_ready(move(moved, target, state))
        now = jax.tree.leaves((moved, state))
        same = (x.sharding.is_equivalent_to(place, x.ndim) for x, place in zip(now, places, strict=True))
        assert all(same), ([x.sharding for x in now], places)
    assert len(compilations) == 1
    assert moved.sharding.is_equivalent_to(sharding, moved.ndim)
    assert np.linalg.norm(moved - T) < 1e-2 * np.linalg.norm(U - T)
    # The level of healing in float32: 1.3 to 2.4 times 0.3 eps n/√2 a probe.
    assert np.max(lu.unitarity_defect(np.asarray(moved))) < 3 * 0.3 * np.finfo("f4").eps * n / np.sqrt(2)


def mixed_devices_are_refused():
    (U, *_), (_, G, *_) = placed("Auto", 8, "rows", problem(64, "float32")), problem(64, "float32")
    with pytest.raises(ValueError, match="unitary and gradient must be on one device"):
        lu.unitary_step(U, jax.device_put(G, jax.devices()[1]), 0.1, rank=K, rng=0)


def uneven(devices=3, n=100):
    """Rows that do not fill the devices evenly are refused by JAX, but not inside jit on an Auto mesh."""
    arrays = problem(n, "float32")
    mesh = mesh_of("Auto", devices, "rows")
    rows = NamedSharding(mesh, PartitionSpec("x", None))
    with pytest.raises(ValueError, match="divide"):
        jax.device_put(arrays[0], rows)

    def constrained(U, G, a, b):
        U, G = (jax.lax.with_sharding_constraint(x, rows) for x in (U, G))
        return ROUTINES["step"](U, G, a, b)

    spread = [jax.device_put(x, NamedSharding(mesh, PartitionSpec())) for x in arrays]
    close(jax.jit(constrained)(*spread), alone("step", arrays), n, "uneven")


if __name__ == "__main__":
    for check, *arguments in json.loads(sys.argv[1]):
        options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
        partial(globals()[check], *arguments)(**options)

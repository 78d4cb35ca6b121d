"""Every routine can be traced: compiled, exported, mapped and scanned, without a look at values."""

import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cases import ROTATIONS, UPDATES, make_step, normal
from profiles import covering, thorough
from torch.fx.experimental.proxy_tensor import make_fx

import lowrank_unitary as lu
from lowrank_unitary import _linalg
from lowrank_unitary._array import to_numpy

pytestmark = [
    # array-api-compat remembers namespaces in caches, which torch reads through.
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
    pytest.mark.filterwarnings("ignore:`torch._prims_common.check` is deprecated"),
]
CALLBACKS = {"pure_callback", "io_callback", "debug_callback"}


def square(rotation):
    """The n×n rotation, which does not depend on the choice of its factors."""
    left, right = rotation
    return left @ (right.mT if "complex" not in str(right.dtype) else right.conj().mT)


def tangent(body):
    """skew(left rightᴴ), the same for all best factors of a sketch."""
    product = square(body)
    return product - square(type(body)(body.right, body.left))


def momentum(U, G, a, b):
    start = lu.MomentumState.start(U, 2, scaling="rows")
    direction, state = lu.momentum_step(lu.BodyFactors(a, b), start)
    return tangent(direction), state.second


# Public routines as functions of a matrix, a gradient and two factors.
ROUTINES = {
    "unitary_transport": lambda U, G, a, b: lu.unitary_transport(U, a, b, heal=1, rng=3),
    "polar_projection": lambda U, G, a, b: lu.polar_projection(U, a, b),
    "transport_rotation": lambda U, G, a, b: square(lu.transport_rotation(lu.BodyFactors(a, b))),
    "polar_rotation": lambda U, G, a, b: square(lu.polar_rotation(lu.BodyFactors(a, b))),
    "rotate": lambda U, G, a, b: lu.rotate(U, lu.LowRankRotation(a, b), adjoint=True),
    "to_body": lambda U, G, a, b: tuple(lu.LowRankFactors(a, b).to_body(U)),
    "unitary_step": lambda U, G, a, b: lu.unitary_step(U, G, 0.1, rank=2, rng=1),
    "tangent_sketch": lambda U, G, a, b: tangent(lu.tangent_sketch(U, G, 2, rng=1)),
    "compress_tangent": lambda U, G, a, b: tangent(lu.compress_tangent(lu.BodyFactors(a, b), 1, rng=1)),
    "momentum_step": momentum,
    "heal_unitary": lambda U, G, a, b: lu.heal_unitary(U, 2, rng=1),
    "unitary_transport_vjp": lambda U, G, a, b: tuple(lu.unitary_transport_vjp(U, a, b, G)),
    "polar_projection_vjp": lambda U, G, a, b: tuple(lu.polar_projection_vjp(U, a, b, G)),
}
routine = pytest.mark.parametrize("routine", ROUTINES)


def arguments(dtype="float64", batch=()):
    step = make_step(0, 6, 2, dtype, norm=0.5, batch=batch)
    # Too large, so that healing depends on its random directions.
    unitary = (1.1 * step.unitary).astype(dtype)
    return unitary, normal(np.random.default_rng(1), (*batch, 6, 6), dtype), step.left, step.right


def assert_same(result, expected, tol=1e-12):
    for x, y in zip(*(v if isinstance(v, tuple) else (v,) for v in (result, expected)), strict=True):
        np.testing.assert_allclose(to_numpy(x), to_numpy(y), atol=tol)


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner := getattr(part, "jaxpr", part), "eqns"):
                yield from primitives(inner)


@routine
def test_jax_traces_it_for_a_batch_and_calls_nothing_on_the_host(routine):
    arrays = arguments("complex64", batch=(2,))
    traced = jax.make_jaxpr(jax.vmap(ROUTINES[routine]))(*arrays)
    used = set(primitives(traced.jaxpr))
    assert "dot_general" in used
    assert not used & CALLBACKS


def test_a_callback_would_be_found():
    def f(x):
        return jax.jit(lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), "float64"), x))(x)

    assert set(primitives(jax.make_jaxpr(f)(1.0).jaxpr)) & CALLBACKS


# The others are compiled in the tests of their own files.
@pytest.mark.parametrize(
    "routine", ["unitary_transport", thorough("heal_unitary"), thorough("unitary_transport_vjp")]
)
def test_compiled_by_jax_it_gives_what_numpy_gives(routine):
    arrays = arguments()
    compiled = jax.jit(ROUTINES[routine])(*(jnp.asarray(x) for x in arrays))
    assert_same(compiled, ROUTINES[routine](*arrays))


@pytest.mark.parametrize(("routine", "dtype"), covering(ROUTINES, ["float64", "complex128"]))
def test_torch_traces_it_with_tensors_that_hold_no_values(routine, dtype):
    arrays = [torch.asarray(x) for x in arguments(dtype)]
    traced = make_fx(lambda *x: ROUTINES[routine](*x), tracing_mode="fake")(*arrays)
    assert_same(traced(*arrays), ROUTINES[routine](*arrays))


@routine
def test_mapped_by_torch_it_gives_what_a_loop_gives(routine):
    arrays = [torch.asarray(x) for x in arguments(batch=(2,))]
    mapped = torch.func.vmap(ROUTINES[routine])(*arrays)
    for i in range(2):
        expected = ROUTINES[routine](*(x[i] for x in arrays))
        got = tuple(x[i] for x in mapped) if isinstance(mapped, tuple) else mapped[i]
        assert_same(got, expected)


@pytest.mark.gate
@pytest.mark.parametrize("update", ["cayley"])
def test_gradient_through_a_scan_is_that_through_a_loop(update):
    U, G, a, b = (jnp.asarray(x) for x in arguments())

    def move(U, a):
        return UPDATES[update][0](U, a, b), None

    def scanned(stack):
        return jnp.sum(G * jax.lax.scan(move, U, stack)[0])

    def looped(stack):
        moved = U
        for x in stack:
            moved, _ = move(moved, x)
        return jnp.sum(G * moved)

    stack = jnp.stack([a, 0 * a, -a])
    np.testing.assert_allclose(
        jax.jit(jax.grad(scanned))(stack), jax.jit(jax.grad(looped))(stack), atol=1e-13
    )


@pytest.mark.gate
@pytest.mark.parametrize(
    ("dtype", "batch"), covering(["float32", "complex128", "float64", "complex64"], [(), (3,)])
)
def test_products_of_jax_are_the_same_inside_and_outside_of_traces(dtype, batch):
    rng = np.random.default_rng(0)
    A, a, b = (normal(rng, (*batch, 20, m), dtype) for m in (20, 3, 3))
    expected = A @ a, np.conj(np.swapaxes(A, -1, -2)) @ a, A + (A @ a) @ np.conj(np.swapaxes(b, -1, -2))

    def products(A, a, b):
        return (
            _linalg.product(jnp, A, a),
            _linalg.adjoint_product(jnp, A, a),
            _linalg.rotate_rows(jnp, A, a, b),
        )

    wide = jax.jit(jax.vmap(products)) if batch else jax.jit(products)
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in (A, a, b)]
        assert str(jax.make_jaxpr(products)(*arrays)).count("optimization_barrier") >= 4
        for way in (products, jax.jit(products), wide):
            for got, exact in zip(way(*arrays), expected, strict=True):
                assert np.abs(got - exact).max() <= 400 * np.finfo(dtype).eps
        # Along a direction, and back: what a barrier keeps apart has derivatives all the same.
        total = lambda A: sum(jnp.sum(jnp.real(x) ** 2) for x in products(A, *arrays[1:]))  # noqa: E731
        value, slope = jax.jvp(jax.jit(total), arrays[:1], arrays[:1])
        along = jnp.real(jnp.sum(jax.jit(jax.grad(total))(arrays[0]) * arrays[0]))
        # All of it is of degree two in A.
        np.testing.assert_allclose([slope, along], 2 * value, rtol=1e3 * np.finfo(dtype).eps)


@pytest.mark.gate
def test_a_jax_key_is_mapped_over():
    U = jnp.asarray(arguments()[0])

    def move(key):
        return lu.heal_unitary(U, 2, rng=key)

    moved = jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(0), 2))
    for i, key in enumerate(jax.random.split(jax.random.key(0), 2)):
        np.testing.assert_allclose(moved[i], move(key), atol=1e-13)
    assert np.abs(moved[0] - moved[1]).max() > 1e-3


def compiled(f, **options):
    torch._dynamo.reset()
    return torch.compile(f, fullgraph=True, **{"backend": "aot_eager"} | options)


@pytest.mark.gate
@pytest.mark.parametrize(
    ("dtype", "updates"),
    [
        ("complex128", ["polar"]),
        thorough("float32", ["polar"]),
        thorough("complex128", ["geodesic", "polar"]),
    ],
)
def test_torch_compiles_a_trainable_layer_and_its_gradient(dtype, updates):
    step = make_step(0, 6, 2, dtype, norm=0.5)
    x = torch.asarray(normal(np.random.default_rng(1), (3, 6), dtype))

    def loss(c, b):
        body = lu.BodyFactors(c, b)
        y = x
        for update in updates:
            y = lu.rotate(y, ROTATIONS[update](body))
        return torch.sum(torch.real(y[:1] * y[1:].conj()))

    leaves = [torch.tensor(part, requires_grad=True) for part in step.body]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    found = torch.autograd.grad(compiled(loss)(*leaves), leaves)
    assert_same(found, expected, 100 * step.tolerance())


@pytest.mark.gate
@pytest.mark.parametrize("name", ["heal_unitary", thorough("unitary_step")])
def test_torch_compiles_a_routine_once_for_one_seed_and_once_for_all_others(name):
    U, G, _, _ = (torch.asarray(x) for x in arguments())
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    def move(U, seed):
        if name == "heal_unitary":
            return lu.heal_unitary(U, 2, rng=seed)
        return lu.unitary_step(U, G, 0.1, rank=1, rng=seed)

    fast = compiled(move, backend=count)
    for seed in (0, 1, 2, 1 << 40, (1 << 63) - 1):
        moved = fast(U, seed)
        assert_same(moved, move(U, seed))
        assert (moved - move(U, seed + 1)).abs().max() > 1e-3
    assert len(graphs) == 2


def test_torch_compile_refuses_a_draw_that_would_be_frozen():
    U = torch.eye(4)
    with pytest.raises(Exception, match="rng must be a seed"):
        compiled(lambda U: lu.heal_unitary(U, 1), backend="eager")(U)


@pytest.mark.parametrize("backend", ["aot_eager", thorough("inductor")])
def test_torch_compiles_a_rotation(backend):
    U, _, a, b = (torch.asarray(x) for x in arguments("float32"))

    def move(U, a, b):
        return lu.unitary_transport(U, a, b, update="cayley")

    assert_same(compiled(move, backend=backend)(U, a, b), move(U, a, b), 1e-6)


class Step(torch.nn.Module):
    def forward(self, U, G):
        return lu.unitary_step(U, G, 0.1, rank=1, rng=1)


@pytest.mark.gate
def test_torch_exports_a_step():
    U, G, _, _ = (torch.asarray(x) for x in arguments())
    exported = torch.export.export(Step(), (U, G)).module()
    assert_same(exported(U, G), Step()(U, G))


SINGLE = """
import jax, jax.numpy as jnp, numpy as np, lowrank_unitary as lu
rng = np.random.default_rng(0)
U = lu.random_unitary(16, rng=rng)
a, b, w = rng.standard_normal((3, 16, 2)), rng.standard_normal((16, 2)), rng.standard_normal((16, 16))
a = a[0] / np.linalg.norm(a[0] @ b.T, 2)
single = [jnp.asarray(x, dtype="float32") for x in (U, a, b)]
for name in NAMES:
    move, pull = getattr(lu, name), getattr(lu, name + "_vjp")
    expected = pull(U, a, b, w)
    loss = lambda U, a, b: jnp.sum(jnp.asarray(w, dtype="float32") * move(U, a, b))
    by_core = jax.jit(jax.grad(loss, (0, 1, 2)))(*single)
    by_hand = jax.jit(pull)(*single, jnp.asarray(w, dtype="float32"))
    for found in (by_core, by_hand):
        assert all(x.dtype == "float32" for x in found)
        error = max(np.max(np.abs(x - y)) / np.max(np.abs(y)) for x, y in zip(found, expected))
        assert error < BOUND, (name, error)
"""


@pytest.mark.gate
@pytest.mark.parametrize("name", [thorough("unitary_transport"), "polar_projection"])
def test_jax_without_float64_differentiates_steps_of_norm_one_in_single_precision(name):
    # 2e-7 to 5e-7 were seen, where the smallest singular value of I + left rightᴴ is 0.7.
    code = SINGLE.replace("BOUND", str(32 * 2.0**-23)).replace("NAMES", repr([name]))
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.gate
def test_torch_compile_warns_of_no_cache_in_this_package():
    torch._dynamo.reset()
    step = make_step(0, 5, 2, "complex64", "generic", norm=0.5)
    move = torch.compile(lu.polar_projection, fullgraph=True, backend="eager")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        move(*map(torch.tensor, step.arrays), heal=1, rng=0)
    cached = [str(warning.message) for warning in found if "lru_cache" in str(warning.message)]
    assert not [message for message in cached if "array_api_compat" not in message]

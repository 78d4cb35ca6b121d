"""Optimisers for optax: right for complex parameters, unitary for ever, and at home in optax and JAX."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import ct, normal
from profiles import thorough
from scipy.linalg import expm

import lowrank_unitary as lu
from lowrank_unitary._array import tolerance
from lowrank_unitary.jax import UnitaryState, unitary_adam, unitary_sgd

# Most of the time of these tests is that of the compiler.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
compiled = partial(jax.jit, compiler_options=QUICK)


def problem(n, dtype, seed=0, batch=()):
    """A start, and the target of the loss ½‖U − T‖², whose gradient is U − T."""
    make = partial(lu.random_unitary, n, dtype=np.dtype(dtype), batch=batch)
    return make(rng=seed), make(rng=seed + 1)


def loss(U, target):
    return 0.5 * jnp.sum(jnp.abs(U - target) ** 2)


def trainer(optimiser, loss=loss):
    @compiled
    def step(params, state, *data):
        updates, state = optimiser.update(jax.grad(loss)(params, *data), state, params)
        return optax.apply_updates(params, updates), state

    return step


def seed_of(state, index=0):
    """The seed that numpy's step takes to draw what a leaf draws in the next step."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl="threefry2x32"), state.count)
    high, low = jax.random.key_data(jax.random.fold_in(key, index)).tolist()
    return high << 32 | low


@pytest.mark.parametrize(("dtype", "update"), [thorough("float64", "polar"), ("complex128", "geodesic")])
def test_every_step_of_training_is_that_of_numpy(dtype, update):
    U, target = problem(16, dtype)
    optimiser = unitary_sgd(0.3, rank=2, update=update, seed=5)
    params, state, step = jnp.asarray(U), optimiser.init(U), trainer(optimiser)
    for count in range(20):
        U = lu.unitary_step(U, U - target, 0.3, rank=2, update=update, rng=seed_of(state))
        params, state = step(params, state, target)
        # What differs by rounding once may differ by more later, though not while the loss falls.
        assert np.linalg.norm(params - U) <= (count + 1) * tolerance(np, dtype, 16, 2)
    assert state.count == 20


@pytest.mark.parametrize(("dtype", "nesterov"), [("float64", False), thorough("complex128", True)])
def test_momentum_is_that_of_optax_in_the_body_frame(dtype, nesterov):
    n, decay = 5, 0.8
    start, target = problem(n, dtype)
    optimiser = unitary_sgd(0.1, rank=n, momentum=decay, nesterov=nesterov, heal=0)
    params, state, step = jnp.asarray(start), optimiser.init(start), trainer(optimiser)
    dense, U = optax.trace(decay, nesterov=nesterov), start
    dense_state = dense.init(U)
    for _ in range(6):
        A = ct(U) @ (U - target)
        direction, dense_state = dense.update((A - ct(A)) / 2, dense_state)
        U = U @ expm(-0.1 * np.asarray(direction))
        params, state = step(params, state, target)
        assert np.linalg.norm(params - U) <= 20 * tolerance(np, dtype, n, n)


def test_adam_is_momentum_step_in_the_body_frame():
    U, target = problem(12, "complex128")
    optimiser = unitary_adam(0.05, b1=0.7, b2=0.9, eps=0.01, rank=3, scaling="rows", nesterov=True)
    params, state, step = jnp.asarray(U), optimiser.init(U), trainer(optimiser)
    carried = lu.MomentumState.start(U, 3, scaling="rows")
    for _ in range(5):
        seed = seed_of(state)
        body = lu.tangent_sketch(U, U - target, 3, rng=seed)
        options = {"decay": 0.7, "second_decay": 0.9, "nesterov": True, "eps": 0.01}
        direction, carried = lu.momentum_step(body, carried, **options)
        U = lu.unitary_step(U, direction, 0.05, rank=3, rng=seed)
        params, state = step(params, state, target)
        assert np.linalg.norm(params - U) <= 100 * tolerance(np, "complex128", 12, 3)


def test_a_complex_loss_falls_at_every_step_and_rises_with_the_conjugate():
    # Linear in U: only the right one of G and its conjugate is a direction of ascent.
    B = normal(np.random.default_rng(0), (8, 8), "complex128")

    def linear(U):
        return jnp.real(jnp.sum(jnp.conj(B) * U))

    U = jnp.asarray(lu.random_unitary(8, dtype=np.complex128, rng=1))
    optimiser = unitary_sgd(1e-3, rank=8)
    update, state = compiled(optimiser.update), optimiser.init(U)
    A = ct(U) @ B
    predicted = -1e-3 * np.linalg.norm((A - ct(A)) / 2) ** 2
    for gradient, right in ((jax.grad(linear)(U), True), (jnp.conj(jax.grad(linear)(U)), False)):
        change = linear(optax.apply_updates(U, update(gradient, state, U)[0])) - linear(U)
        # Second order in the step size; the wrong one misses the first order.
        assert (abs(change / predicted - 1) < 0.02) == right


def test_factors_in_the_place_of_a_gradient_are_taken_as_they_are():
    rng = np.random.default_rng(0)
    U = lu.random_unitary(9, dtype=np.complex128, rng=1)
    thin = lu.LowRankFactors(*(normal(rng, (9, 2), "complex128") for _ in range(2)))
    params, gradients = {"ambient": U, "body": U}, {"ambient": thin, "body": thin.to_body(U)}
    optimiser = unitary_sgd(0.1, rank=2, heal=0)
    updates, _ = compiled(optimiser.update)(gradients, optimiser.init(params), params)
    expected = lu.unitary_step(U, thin.left @ ct(thin.right), 0.1, rank=2, heal=0, rng=0)
    for update in updates.values():
        assert np.linalg.norm(U + update - expected) <= 10 * tolerance(np, "complex128", 9, 2)


@pytest.mark.gate
def test_updates_add_up_to_unitary_matrices_for_ever_in_single_precision():
    n, steps = 32, 10_000
    targets = jnp.asarray(lu.random_unitary(n, batch=(4,), rng=1), dtype=jnp.float32)
    optimiser = unitary_sgd(0.3)

    @compiled
    def train(U, state):
        def step(carry, count):
            U, state = carry
            updates, state = optimiser.update(U - targets[count % 4], state, U)
            return (optax.apply_updates(U, updates), state), None

        return jax.lax.scan(step, (U, state), jnp.arange(steps // 4))[0]

    U = jnp.asarray(lu.random_unitary(n, rng=0), dtype=jnp.float32)
    state, defects = optimiser.init(U), []
    for _ in range(4):
        U, state = train(U, state)
        defects.append(lu.unitarity_defect(np.asarray(U, np.float64)))
    # The floor with one probe a step is 0.3 eps n/√2; without any, 0.3 eps √(n steps) is 25 times as much.
    assert max(defects) < 2 * 0.3 * np.finfo(np.float32).eps * n / np.sqrt(2)
    assert defects[-1] < 1.25 * defects[0]


def test_every_leaf_and_every_step_draws_from_a_stream_of_its_own():
    # Of a smaller matrix a sketch of rank 1 has samples enough to find the same in all streams.
    U, target = problem(16, "float64")
    optimiser = unitary_sgd(0.1, heal=0)
    params = {"a": U, "b": U}
    gradients, update = {"a": U - target, "b": U - target}, compiled(optimiser.update)
    first, state = update(gradients, optimiser.init(params), params)
    second, _ = update(gradients, state, params)
    moves = [first["a"], first["b"], second["a"], second["b"]]
    for i, one in enumerate(moves):
        assert all(np.linalg.norm(one - other) > 1e-3 for other in moves[:i])


def test_a_stack_is_moved_like_a_stack_of_numpy():
    U, target = problem(6, "float64", batch=(3,))
    optimiser = unitary_sgd(0.1)
    moved, _ = trainer(optimiser)(jnp.asarray(U), optimiser.init(U), target)
    expected = lu.unitary_step(U, U - target, 0.1, rank=1, rng=seed_of(optimiser.init(U)))
    np.testing.assert_allclose(moved, expected, atol=4 * tolerance(np, "float64", 6, 1), rtol=0)


def test_vmap_over_runs_gives_each_of_them():
    U, target = problem(6, "float32", batch=(2,))
    optimiser = unitary_sgd(0.1, rank=2, seed=3)

    def train(U, target):
        def step(carry, _):
            U, state = carry
            updates, state = optimiser.update(jax.grad(loss)(U, target), state, U)
            return (optax.apply_updates(U, updates), state), None

        return jax.lax.scan(step, (U, optimiser.init(U)), length=4)[0][0]

    both = compiled(jax.vmap(train))(U, target)
    for run in range(2):
        alone, state = U[run], optimiser.init(U[run])
        for count in range(4):
            seed = seed_of(state._replace(count=count))
            alone = lu.unitary_step(alone, alone - target[run], 0.1, rank=2, rng=seed)
        np.testing.assert_allclose(both[run], alone, atol=50 * tolerance(np, "float32", 6, 2), rtol=0)


def network(params, x):
    return jnp.sum((jnp.tanh(x @ params["W"].T) @ params["v"] + params["bias"]) ** 2)


def test_multi_transform_moves_matrices_and_leaves_the_rest_to_another_optimiser():
    params = {"W": jnp.eye(6), "v": jnp.ones(6), "bias": jnp.ones(())}
    labels = {"W": "unitary", "v": "rest", "bias": "rest"}
    rest = optax.adam(0.01)
    optimiser = optax.multi_transform({"unitary": unitary_sgd(0.1), "rest": rest}, labels)
    x = jnp.asarray(normal(np.random.default_rng(0), (4, 6), "float64"))
    moved, _ = trainer(optimiser, network)(params, optimiser.init(params), x)
    gradients = compiled(jax.grad(network))(params, x)
    seed = seed_of(unitary_sgd(0.1).init(params["W"]))
    expected = lu.unitary_step(np.eye(6), np.asarray(gradients["W"]), 0.1, rank=1, rng=seed)
    np.testing.assert_allclose(moved["W"], expected, atol=4 * tolerance(np, "float64", 6, 1), rtol=0)
    others = {name: params[name] for name in ("v", "bias")}
    plain, _ = rest.update({name: gradients[name] for name in others}, rest.init(others))
    for name in others:
        np.testing.assert_allclose(moved[name], params[name] + plain[name], rtol=1e3 * np.finfo(float).eps)


def test_multi_transform_takes_factors_beside_arrays():
    U, target = problem(6, "float64")
    params = {"W": U, "v": np.ones(6)}
    optimiser = optax.multi_transform({"u": unitary_sgd(0.1), "r": optax.sgd(0.5)}, {"W": "u", "v": "r"})
    thin = lu.LowRankFactors(U[:, :1], target[:, :1])
    gradients = {"W": thin, "v": np.ones(6)}
    updates, _ = compiled(optimiser.update)(gradients, optimiser.init(params), params)
    assert lu.unitarity_defect(U + updates["W"]) < tolerance(np, "float64", 6, 1)
    assert np.linalg.norm(updates["W"]) > 1e-3
    np.testing.assert_array_equal(updates["v"], -0.5)


def test_clipping_before_it_and_masks_around_it_leave_matrices_unitary():
    params = {"W": jnp.asarray(lu.random_unitary(5, rng=0)), "v": jnp.ones(5)}
    optimiser = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.masked(unitary_sgd(0.5), {"W": True, "v": False}),
        optax.masked(optax.sgd(0.5), {"W": False, "v": True}),
    )
    gradients = {"W": jnp.ones((5, 5)), "v": jnp.ones(5)}
    updates, _ = compiled(optimiser.update)(gradients, optimiser.init(params), params)
    moved = optax.apply_updates(params, updates)
    assert lu.unitarity_defect(moved["W"]) < tolerance(np, "float64", 5, 1)
    assert 0 < np.linalg.norm(updates["W"]) < 0.05
    assert np.all(moved["v"] < 1)


def test_a_schedule_is_a_function_of_the_number_of_steps_taken():
    U, target = problem(6, "float64")
    scheduled = unitary_sgd(optax.piecewise_constant_schedule(0.2, {1: 0.5}), heal=0)
    state, update = scheduled.init(U), compiled(scheduled.update)
    for eta in (0.2, 0.1):
        expected = lu.unitary_step(U, U - target, eta, rank=1, heal=0, rng=seed_of(state))
        updates, state = update(U - target, state, U)
        np.testing.assert_allclose(U + updates, expected, atol=4 * tolerance(np, "float64", 6, 1), rtol=0)


def test_an_injected_learning_rate_can_be_changed_between_compiled_steps():
    U, target = problem(6, "complex128")
    optimiser = optax.inject_hyperparams(lambda learning_rate: unitary_sgd(learning_rate, rank=2))(0.2)
    state, update = optimiser.init(U), compiled(optimiser.update)
    update(U - target, state, U)
    state.hyperparams["learning_rate"] = jnp.zeros_like(state.hyperparams["learning_rate"])
    resting, _ = update(U - target, state, U)
    assert np.linalg.norm(resting) < tolerance(np, "complex128", 6, 2)
    assert update._cache_size() == 1


@pytest.mark.gate
def test_the_state_is_arrays_that_resume_training_and_can_be_donated():
    U, target = problem(6, "float64")
    optimiser = unitary_sgd(0.1, momentum=0.9, seed=2**40 + 1)

    @partial(compiled, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = optimiser.update(params - target, state, params)
        return optax.apply_updates(params, updates), state

    start = jnp.array(U), optimiser.init(U)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(start)]
    assert len(set(pointers)) == len(pointers)
    params, state = step(*start)
    assert start[0].is_deleted()
    leaves, tree = jax.tree.flatten((params, state))
    saved = [np.array(leaf) for leaf in leaves]
    assert all(leaf.dtype.kind in "iufc" for leaf in saved)
    expected = step(*step(params, state))
    resumed = jax.tree.unflatten(tree, [jnp.array(leaf) for leaf in saved])
    assert isinstance(resumed[1], UnitaryState)
    jax.tree.map(np.testing.assert_array_equal, step(*step(*resumed)), expected)


def test_another_default_kind_of_key_changes_nothing():
    U, target = problem(6, "float32")
    optimiser = unitary_sgd(0.1)
    expected = lu.unitary_step(U, U - target, 0.1, rank=1, rng=seed_of(optimiser.init(U)))
    with jax.default_prng_impl("rbg"):
        updates, _ = compiled(optimiser.update)(U - target, optimiser.init(U), U)
    assert np.linalg.norm(U + updates - expected) < 4 * tolerance(np, "float32", 6, 1)


def test_a_gradient_with_nan_gives_nan_and_only_in_its_leaf():
    params = {"a": jnp.eye(4), "b": jnp.eye(4)}
    optimiser = unitary_sgd(0.1)
    gradients = {"a": jnp.full((4, 4), jnp.nan), "b": jnp.ones((4, 4))}
    updates, _ = compiled(optimiser.update)(gradients, optimiser.init(params), params)
    assert np.all(np.isnan(updates["a"]))
    assert np.all(np.isfinite(updates["b"]))


def test_half_precision_stays_half_precision():
    U = jnp.eye(8, dtype=jnp.bfloat16)
    optimiser = unitary_sgd(0.1, rank=2)
    gradient = jnp.asarray(normal(np.random.default_rng(0), (8, 8), "float32"), jnp.bfloat16)
    updates, _ = compiled(optimiser.update)(gradient, optimiser.init(U), U)
    assert updates.dtype == jnp.bfloat16
    # Every entry is rounded to 8 bits: U and the update, and their sum.
    assert lu.unitarity_defect(np.asarray(U + updates, np.float32)) < 3 * 2.0**-8 * np.sqrt(8)
    assert unitary_adam(0.1).init(U).momentum.momentum.left.dtype == jnp.float32


class TestErrors:
    def test_parameters_must_be_given(self):
        optimiser = unitary_sgd(0.1)
        with pytest.raises(ValueError, match=r"params must be given.*update\(gradients, state, params\)"):
            optimiser.update(jnp.eye(2), optimiser.init(jnp.eye(2)))

    @pytest.mark.parametrize("shape", [(3,), ()])
    def test_a_leaf_that_is_no_matrix_is_named(self, shape):
        params = {"layers": [{"weight": jnp.eye(2)}, {"bias": jnp.zeros(shape)}]}
        with pytest.raises(ValueError, match=r"params\['layers'\]\[1\]\['bias'\].*multi_transform"):
            unitary_sgd(0.1).init(params)

    def test_the_leaf_of_any_other_error_is_named_in_a_note(self):
        params = {"first": jnp.eye(2), "second": jnp.eye(2)}
        optimiser = unitary_sgd(0.1)
        with pytest.raises(ValueError, match="gradient must have shape") as caught:
            optimiser.update({"first": jnp.eye(3), "second": jnp.eye(2)}, optimiser.init(params), params)
        assert caught.value.__notes__ == ["This happened at params['first']."]

    @pytest.mark.parametrize(
        ("make", "options", "message"),
        [
            (unitary_sgd, {"momentum": 1.0}, "momentum must be at least 0"),
            (unitary_sgd, {"nesterov": True}, "momentum must be more than 0 for nesterov"),
            (unitary_sgd, {"update": "retract"}, "update must be one of"),
            (unitary_sgd, {"heal": -1}, "heal must be 0 or more"),
            (unitary_adam, {"b1": -0.1}, "b1 must be"),
            (unitary_adam, {"b2": 1.5}, "b2 must be"),
            (unitary_adam, {"eps": -1e-8}, "eps must be"),
            (unitary_adam, {"eps": np.nan}, "eps must be"),
            (unitary_adam, {"scaling": "none"}, "scaling must be one of"),
        ],
    )
    def test_an_option_outside_its_range_is_named_at_once(self, make, options, message):
        with pytest.raises(ValueError, match=message):
            make(0.1, **options)

    def test_an_injected_rank_is_refused_with_a_way_out(self):
        optimiser = optax.inject_hyperparams(unitary_sgd)(0.1)
        state = optimiser.init(jnp.eye(3))
        with pytest.raises(TypeError, match=r"only learning_rate may be one.*lambda learning_rate"):
            jax.jit(optimiser.update)(jnp.eye(3), state, jnp.eye(3))


@pytest.mark.parametrize("missing", ["jax", "optax"])
def test_without_its_packages_the_import_says_how_to_install_them(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import lowrank_unitary; import lowrank_unitary.jax"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: lowrank_unitary.jax needs jax and optax")
    assert f"{missing} is missing: pip install jax optax." in last


@pytest.mark.gate
def test_without_double_precision_training_is_as_exact_as_single_precision_allows():
    code = f"""
import jax, jax.numpy as jnp, numpy as np, optax, lowrank_unitary as lu
from lowrank_unitary.jax import unitary_adam
target = lu.random_unitary(8, rng=1, dtype=np.complex64)
optimiser = unitary_adam(optax.exponential_decay(0.2, 1, 0.95), rank=4)
def step(carry, _):
    U, state = carry
    gradient = jax.grad(lambda U: jnp.sum(jnp.abs(U - target) ** 2))(U)
    updates, state = optimiser.update(gradient, state, U)
    return (optax.apply_updates(U, updates), state), None
U = jnp.eye(8, dtype=jnp.complex64)
run = jax.jit(lambda *carry: jax.lax.scan(step, carry, length=200), compiler_options={QUICK!r})
(U, state), _ = run(U, optimiser.init(U))
assert jnp.zeros(1).dtype == jnp.float32
U = np.asarray(U)
print(np.linalg.norm(U - target), lu.unitarity_defect(U))
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    distance, defect = map(float, result.stdout.split())
    assert distance < 0.05
    assert defect < 4 * tolerance(np, "float32", 8, 4)


@pytest.mark.gate
@pytest.mark.parametrize("dtype", ["float32", "complex64", "bfloat16"])
def test_no_routine_needs_the_implicit_promotion_of_jax(dtype):
    U, G = (jnp.asarray(x, dtype) for x in (np.eye(6), normal(np.random.default_rng(0), (6, 6), "float64")))
    a, b = (jnp.asarray(normal(np.random.default_rng(seed), (6, 2), "float64"), dtype) for seed in (1, 2))

    def everything(U, G, a, b):
        body = lu.BodyFactors(a, b)
        made = [lu.polar_projection(U, a, b), lu.polar_rotation(body)]
        made.append(lu.LowRankFactors(a, b).to_body(U))
        made.append(lu.LowRankFactors(a, b[:3]).to_body(U[:, :3]))
        for update in ("geodesic", "cayley"):
            made.append(lu.unitary_transport(U, a, b, update=update, heal=1, rng=0))
            made.append(lu.transport_rotation(body, update=update))
            made.append(lu.transport_rotation(body, update=update, core="orthonormal"))
        for sketch in lu.step.SKETCHES:
            made.append(lu.unitary_step(U, G, 0.1, 2, sketch=sketch, update="polar", rng=0))
        made.append(lu.unitary_step(U, lu.LowRankFactors(a, b), 0.1, 1, rng=0))
        made.append(lu.unitary_step(U, body, 0.1, 2, rng=0))
        for optimiser in (unitary_sgd(0.1, rank=2, momentum=0.9), unitary_adam(0.1, rank=2)):
            state = optimiser.init(U)
            for _ in range(2):
                updates, state = optimiser.update(G, state, U)
            made.append(updates)
        return made

    # Traced and not run: dtypes are promoted in the trace.
    with jax.numpy_dtype_promotion("strict"):
        shapes = jax.eval_shape(everything, U, G, a, b)
    assert shapes[-1].dtype == dtype

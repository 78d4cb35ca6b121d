"""Momentum in the body frame: the averages of dense tangents, as well as a few columns can hold them."""

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import at_once, on_every_backend
from cases import ct, normal
from hypothesis import given
from hypothesis import strategies as st
from profiles import thorough

import lowrank_unitary as lu
from lowrank_unitary._array import to_numpy, tolerance
from lowrank_unitary.tangent.momentum import SCALINGS, root_mean_square

SCALING = pytest.mark.parametrize("scaling", SCALINGS)


def tangent(body):
    product = body.left @ ct(body.right)
    return (product - ct(product)) / 2


def gradients(seed, n, m, dtype, batch=(), steps=5):
    rng = np.random.default_rng(seed)
    return [
        lu.BodyFactors(normal(rng, (*batch, n, m), dtype), normal(rng, (*batch, n, m), dtype))
        for _ in range(steps)
    ]


def dense_adam(tangents, decay, second_decay, nesterov, scaling):
    """The directions that Adam gives for dense skew-Hermitian gradients, in double precision."""
    n = tangents[0].shape[-1]
    mean, second = 0, 0
    for step, A in enumerate(tangents, start=1):
        mean = decay * mean + (1 - decay) * A
        squares = np.abs(A) ** 2
        axes = {"rows": (-1,), "scalar": (-2, -1), "none": (-1,)}[scaling]
        second = second_decay * second + (1 - second_decay) * squares.mean(axis=axes, keepdims=True)
        unbiased = mean / (1 - decay**step)
        direction = decay * unbiased + (1 - decay) * A if nesterov else unbiased
        rms = np.sqrt(second / (1 - second_decay**step))
        if scaling == "scalar":
            direction = direction / rms
        elif scaling == "rows":
            direction = direction / np.sqrt(rms * ct(rms))
        yield direction
    assert n == mean.shape[-1]


@SCALING
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 10),
    decay=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    dtype=st.sampled_from(["float32", "float64", "complex64", "complex128"]),
    batch=st.sampled_from([(), (2,)]),
)
def test_with_room_for_all_columns_it_is_adam_of_dense_tangents(
    scaling, seed, n, decay, nesterov, dtype, batch
):
    given_gradients = gradients(seed, n, 2, dtype, batch)
    unitary = lu.random_unitary(n, dtype=dtype, batch=batch, rng=0)
    state = lu.MomentumState.start(unitary, n, scaling=scaling)
    wide = np.result_type(dtype, np.float64)
    tangents = [tangent(body).astype(wide) for body in given_gradients]
    expected = dense_adam(tangents, decay, 0.99, nesterov, scaling)
    for body, dense in zip(given_gradients, expected, strict=True):
        direction, state = lu.momentum_step(body, state, decay=decay, second_decay=0.99, nesterov=nesterov)
        assert direction.left.dtype == direction.right.dtype == np.dtype(dtype)
        size = max(1.0, np.abs(dense).max())
        assert np.abs(tangent(direction) - dense).max() <= 50 * size * n * tolerance(np, dtype, n, n)


def test_the_average_of_one_direction_is_that_direction():
    body = gradients(0, 12, 1, "float64", steps=1)[0]
    state = lu.MomentumState.start(np.eye(12), 1)
    for _ in range(30):
        direction, state = lu.momentum_step(body, state)
        np.testing.assert_allclose(tangent(direction), tangent(body), atol=1e-13)


@SCALING
@pytest.mark.parametrize("nesterov", [False, True])
def test_direction_is_truncated_to_the_rank_of_the_state(scaling, nesterov, dtype):
    state = lu.MomentumState.start(lu.random_unitary(20, dtype=dtype, rng=0), 3, scaling=scaling)
    for body in gradients(1, 20, 5, dtype):
        direction, state = lu.momentum_step(body, state, nesterov=nesterov)
    assert direction.left.shape == direction.right.shape == (20, 3)
    assert state.momentum.left.shape == (20, 3)
    assert float(state.steps) == 5


@SCALING
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e25])
def test_scaled_directions_do_not_depend_on_the_size_of_the_loss(scaling, scale, dtype):
    def last(factor):
        state = lu.MomentumState.start(lu.random_unitary(9, dtype=dtype, rng=0), 4, scaling=scaling)
        for body in gradients(2, 9, 2, dtype):
            body = lu.BodyFactors((body.left * np.float32(factor)).astype(dtype), body.right)
            direction, state = lu.momentum_step(body, state)
        return tangent(direction)

    expected = last(1.0) * (np.float32(scale) if scaling == "none" else 1.0)
    size = np.abs(expected).max()
    assert np.abs(last(scale) - expected).max() <= 100 * size * tolerance(np, dtype, 9, 4)


@pytest.mark.parametrize("scaling", ["scalar", "rows"])
def test_eps_is_added_to_what_a_direction_is_divided_by(scaling, dtype):
    # Every row of this tangent has one root mean square.
    skew = np.roll(np.eye(6, dtype=dtype), 1, 0)
    skew = skew - skew.T
    rms = np.linalg.norm(skew) / 6
    state = lu.MomentumState.start(np.eye(6, dtype=dtype), 6, scaling=scaling)
    for size, eps in ((1.0, 0.5), (1e-17, 1e-8), (0.0, 1e-8)):
        body = lu.BodyFactors(size * skew, np.eye(6, dtype=dtype))
        direction = tangent(lu.momentum_step(body, state, second_decay=0.5, eps=eps)[0])
        assert np.linalg.norm(direction - size * skew / (size * rms + eps)) < tolerance(np, dtype, 6, 6)


@SCALING
def test_no_gradient_gives_no_direction(scaling, dtype):
    unitary = lu.random_unitary(6, dtype=dtype, rng=0)
    state = lu.MomentumState.start(unitary, 2, scaling=scaling)
    zero = np.zeros((6, 2), dtype=dtype)
    for _ in range(3):
        direction, state = lu.momentum_step(lu.BodyFactors(zero, zero), state)
        assert not np.any(tangent(direction))


@SCALING
def test_nan_stays_in_its_own_matrix(scaling):
    bodies = gradients(3, 6, 2, "float64", (2,), steps=2)
    bodies[0].left[0, 1, 1] = np.nan
    state = lu.MomentumState.start(np.broadcast_to(np.eye(6), (2, 6, 6)), 2, scaling=scaling)
    for body in bodies:
        direction, state = lu.momentum_step(body, state)
    assert np.isnan(tangent(direction)[0]).all()
    assert np.isfinite(tangent(direction)[1]).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 9),
    m=st.integers(1, 12),
    dtype=st.sampled_from(["float32", "float64", "complex64", "complex128"]),
    parallel=st.booleans(),
)
def test_lengths_of_rows_need_no_dense_tangent(seed, n, m, dtype, parallel):
    body = gradients(seed, n, m, dtype, steps=1)[0]
    if parallel:
        # Hermitian products have no tangent part at all.
        body = lu.BodyFactors(body.left, body.left)
    dense = tangent(body).astype(np.result_type(dtype, np.float64))
    expected = np.sqrt(np.mean(np.abs(dense) ** 2, axis=-1, keepdims=True))
    size = np.linalg.norm(body.left) * np.linalg.norm(body.right)
    rms = root_mean_square(np, *body, rows=True)
    assert np.abs(rms - expected).max() <= size * tolerance(np, dtype, n, m)


@on_every_backend("scaling", ["rows", "scalar", "none"], jax=1)
def test_all_namespaces_agree(scaling, backend):
    state = lu.MomentumState.start(np.eye(8, dtype=complex), 3, scaling=scaling)
    move = at_once(backend.xp, lambda body, state: lu.momentum_step(body, state, nesterov=True))
    other = lu.MomentumState.start(backend.array(np.eye(8, dtype=complex)), 3, scaling=scaling)
    for body in gradients(4, 8, 2, "complex128"):
        direction, state = lu.momentum_step(body, state, nesterov=True)
        moved, other = move(lu.BodyFactors(*map(backend.array, body)), other)
        np.testing.assert_allclose(
            tangent(lu.BodyFactors(*map(to_numpy, moved))), tangent(direction), atol=1e-12
        )


@pytest.mark.gate
@pytest.mark.parametrize("scaling", ["rows", thorough("scalar"), thorough("none")])
def test_a_descent_is_scanned_by_jax(scaling):
    target = lu.cayley_unitary(10, rng=1, xp=jnp, dtype=jnp.float64)
    start = jnp.eye(10)

    def step(carried, key):
        U, momentum, sketch = carried
        body, sketch = lu.warm_tangent_sketch(U, U - target, sketch, 2, rng=key)
        direction, momentum = lu.momentum_step(body, momentum)
        size = 0.2 if scaling == "none" else 0.02
        turned = lu.transport_rotation(lu.BodyFactors(-size * direction.left, direction.right))
        return (lu.rotate(U, turned), momentum, sketch), jnp.linalg.norm(U - target)

    momentum = lu.MomentumState.start(start, 2, scaling=scaling)
    states = momentum, lu.SketchState.start(start, 2, feedback=True, rng=0)
    keys = jax.random.split(jax.random.key(0), 150)
    _, losses = jax.jit(lambda: jax.lax.scan(step, (start, *states), keys))()
    assert losses[-1] < 0.3 * losses[0]


def test_a_state_that_was_saved_goes_on_to_the_last_bit(tmp_path):
    bodies = gradients(5, 8, 2, "float32")
    state = lu.MomentumState.start(np.eye(8, dtype=np.float32), 3, scaling="rows")
    for body in bodies[:3]:
        _, state = lu.momentum_step(body, state)
    np.savez(tmp_path / "state.npz", *state.momentum, state.second, state.steps)
    left, right, second, steps = np.load(tmp_path / "state.npz").values()
    again = lu.MomentumState(lu.BodyFactors(left, right), second, steps)
    for body in bodies[3:]:
        direction, state = lu.momentum_step(body, state)
        other, again = lu.momentum_step(body, again)
        np.testing.assert_array_equal(direction.left, other.left)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b, s: lu.momentum_step(b, s, decay=1.0), ValueError, "decay must be at least 0 and less"),
        (lambda b, s: lu.momentum_step(b, s, second_decay=-1), ValueError, "second_decay must be"),
        (lambda b, s: lu.momentum_step(b, s, eps=-1e-8), ValueError, "eps must be 0 or more"),
        (lambda b, s: lu.momentum_step(lu.LowRankFactors(*b), s), TypeError, "body_factors must be"),
        (lambda b, s: lu.momentum_step(lu.BodyFactors(b[0][:3], b[1][:3]), s), ValueError, "momentum"),
        (lambda b, s: lu.MomentumState.start(np.eye(3), 1, scaling="x"), ValueError, "scaling must be one"),
        (lambda b, s: lu.MomentumState.start(np.eye(3), 4), ValueError, "rank must be between 1 and 3"),
        (
            lambda b, s: lu.momentum_step(lu.BodyFactors(*map(torch.tensor, b)), s),
            TypeError,
            "must come from one array library",
        ),
        (
            lambda b, s: lu.momentum_step(b, s._replace(steps=array_api_strict.asarray(1.0))),
            TypeError,
            "must come from one",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    body = gradients(0, 6, 2, "float64", steps=1)[0]
    with pytest.raises(error, match=message):
        call(body, lu.MomentumState.start(np.eye(6), 2))

"""Sketches that begin where the last one ended: what they catch, what they forget, where they get stuck."""

import numpy as np
import pytest
from cases import ct, normal

import lowrank_unitary as lu
from lowrank_unitary._array import to_numpy, tolerance


def skew(x):
    return (x - ct(x)) / 2


def captured(A, body):
    return np.sum(np.abs(A) ** 2) - np.sum(np.abs(A - skew(body.left @ ct(body.right))) ** 2)


def planes(n, sizes, rng):
    """A real skew matrix that turns in planes by given sizes."""
    basis, A = lu.random_unitary(n, rng=rng), np.zeros((n, n))
    even = 2 * np.arange(len(sizes))
    A[even, even + 1] = sizes
    return basis @ (A - A.T) @ basis.T


def test_on_a_gradient_that_stays_it_is_a_power_iteration(dtype):
    n, k = 48, 2
    rng = np.random.default_rng(0)
    unitary = lu.random_unitary(n, dtype=dtype, rng=rng)
    A = planes(n, 1 / np.sqrt(1 + np.arange(n // 2)), rng).astype(dtype)
    state = lu.SketchState.start(unitary, k, oversample=4, rng=1)
    found = []
    for step in range(40):
        body, state = lu.warm_tangent_sketch(unitary, unitary @ A, state, k, rng=step)
        found.append(captured(A, body))
    sketches = (lu.tangent_sketch(unitary, unitary @ A, k, oversample=4, rng=seed) for seed in range(20))
    cold = np.mean([captured(A, sketch) for sketch in sketches])
    best = 2 * (1 + 1 / 2)
    assert cold < 0.85 * best
    assert found[-1] > 0.98 * best
    assert np.mean(found[5:]) > 1.15 * cold


def test_refreshing_everything_is_a_cold_start(dtype):
    rng = np.random.default_rng(1)
    unitary, G = lu.random_unitary(12, dtype=dtype, rng=rng), normal(rng, (12, 12), dtype)
    state = lu.SketchState.start(unitary, 2, rng=0)
    body, _ = lu.warm_tangent_sketch(unitary, G, state, 2, refresh=1.0, rng=5)
    cold = lu.tangent_sketch(unitary, G, 2, rng=5)
    difference = skew(body.left @ ct(body.right)) - skew(cold.left @ ct(cold.right))
    assert np.abs(difference).max() <= 200 * tolerance(np, dtype, 12, 2)


@pytest.mark.parametrize(("refresh", "stuck"), [(0.0, True), (0.1, False)])
def test_without_new_directions_an_invariant_space_is_never_left(refresh, stuck):
    # The tangent turns within the first six coordinates and, ten times as much, within the others.
    n = 30
    rng = np.random.default_rng(2)
    A = np.zeros((n, n))
    A[:6, :6] = planes(6, [1.0, 0.9, 0.8], rng)
    A[6:, 6:] = planes(24, 10.0 / np.arange(1.0, 13.0), rng)
    state = lu.SketchState.start(np.eye(n), 2, rng=0)
    state = state._replace(basis=np.eye(n)[:, :6])
    for step in range(30):
        body, state = lu.warm_tangent_sketch(np.eye(n), A, state, 2, refresh=refresh, rng=step)
    share = captured(A, body) / (2 * (10**2 + 5**2))
    assert share < 0.02 if stuck else share > 0.95


def test_feedback_brings_every_direction_in_sooner_or_later():
    # Ten equal planes, room for one: what the sketches add up to is the tangent itself, again and again.
    n, steps = 24, 200
    A = planes(n, np.ones(10), np.random.default_rng(3))

    def mean(feedback):
        state = lu.SketchState.start(np.eye(n), 1, feedback=feedback, oversample=6, rng=0)
        total = np.zeros((n, n))
        for step in range(steps):
            body, state = lu.warm_tangent_sketch(np.eye(n), A, state, 1, rng=step)
            total += skew(body.left @ body.right.T)
        direction = total / np.linalg.norm(total)
        return np.sum(direction * A) / np.linalg.norm(A)

    assert mean(True) > mean(False)
    assert mean(True) > 0.8


def test_feedback_passes_on_what_there_was_no_room_for():
    n, k = 20, 1
    A = planes(n, [4.0, 3.0, 2.0], np.random.default_rng(4))
    state = lu.SketchState.start(np.eye(n), k, feedback=True, rng=0)
    body, state = lu.warm_tangent_sketch(np.eye(n), A, state, k, rng=0)
    left_out = A - skew(body.left @ body.right.T)
    # Six-dimensional range, five samples: they touch all of it but for a little.
    carried = skew(state.missed.left @ state.missed.right.T)
    assert np.linalg.norm(left_out - carried) < 0.5 * np.linalg.norm(left_out)
    following, _ = lu.warm_tangent_sketch(np.eye(n), np.zeros((n, n)), state, k, rng=1)
    step = skew(following.left @ following.right.T)
    assert 2.0 < np.linalg.svd(step, compute_uv=False)[0] < 4.0
    assert np.sum(step * carried) > 0


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 1), (3, 2), (4, 4), (9, 8)])
def test_shapes_do_not_change_from_step_to_step(n, k, feedback):
    state = lu.SketchState.start(np.eye(n), k, feedback=feedback, rng=0)
    shapes = [x.shape for x in (state.basis, *state.missed)]
    for step in range(3):
        G = np.random.default_rng(step).standard_normal((n, n))
        body, state = lu.warm_tangent_sketch(np.eye(n), G, state, k, rng=step)
        assert body.left.shape == body.right.shape == (n, k)
        assert [x.shape for x in (state.basis, *state.missed)] == shapes


def test_gradients_in_factors_and_in_batches_are_taken(backend):
    rng = np.random.default_rng(5)
    U = lu.random_unitary(10, dtype=np.complex128, batch=(2,), rng=rng)
    left, right = normal(rng, (2, 2, 10, 3), complex)
    args = backend.array(U), lu.LowRankFactors(backend.array(left), backend.array(right))
    body_factors = lu.BodyFactors(backend.array(ct(U) @ left), backend.array(right))
    state = lu.SketchState.start(args[0], 2, feedback=True, rng=1)
    results = []
    for unitary, gradient in (args, (args[0], backend.array(left @ ct(right))), (args[0], body_factors)):
        body, _ = lu.warm_tangent_sketch(unitary, gradient, state, 2, rng=3)
        results.append(skew(to_numpy(body.left) @ ct(to_numpy(body.right))))
    np.testing.assert_allclose(results[1], results[0], atol=1e-12)
    np.testing.assert_allclose(results[2], results[0], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s: lu.warm_tangent_sketch(np.eye(6), np.eye(6), s, 1, refresh=1.5),
            "refresh must be at least 0 and at most 1, a share",
        ),
        (lambda s: lu.warm_tangent_sketch(np.eye(6), np.eye(6), s, 6), "state must have been made for"),
        (lambda s: lu.warm_tangent_sketch(np.eye(5), np.eye(5), s, 2), "state must have been made for"),
        (lambda s: lu.SketchState.start(np.eye(6), 7), "rank must be between 1 and 6"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(lu.SketchState.start(np.eye(6), 1, oversample=1, feedback=True, rng=0))

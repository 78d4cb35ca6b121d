"""Half precision is for storage: thin factors are single, the core double, and the matrix is rounded once."""

import jax
import numpy as np
import pytest
import torch
from backends import at_once
from cases import ROTATIONS, UPDATES, make_step, normal
from profiles import covering, thorough

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import to_numpy
from lowrank_unitary.testing import assert_rotation, assert_unitary

STORES = {
    "numpy-float16": (np, np.float16, 2.0**-10),
    "torch-float16": (torch, torch.float16, 2.0**-10),
    "torch-bfloat16": (torch, torch.bfloat16, 2.0**-7),
    "jax-float16": (jax.numpy, jax.numpy.float16, 2.0**-10),
    "jax-bfloat16": (jax.numpy, jax.numpy.bfloat16, 2.0**-7),
}


# JAX compiles anew for each.
@pytest.fixture(params=[name if name != "jax-float16" else thorough(name) for name in STORES])
def store(request):
    return STORES[request.param]


def single(x):
    """Its values on the host: numpy knows no bfloat16."""
    if isinstance(x, torch.Tensor):
        return x.to(torch.float32).numpy()
    return to_numpy(x).astype(np.float32)


@pytest.mark.parametrize(("update", "size"), covering(UPDATES, [(1, 1e-3), (2, 0.9), (4, 10.0)]))
def test_every_entry_of_a_step_is_the_exact_one_rounded_once(store, update, size):
    (k, norm), (xp, dtype, eps) = size, store
    apply, dense = UPDATES[update]
    step = make_step(3, 24, k, "float32", norm=norm, batch=(2,))
    U = lu.random_unitary(24, dtype=dtype, batch=(2,), rng=1, xp=xp)
    left, right = xp.asarray(step.left), xp.asarray(step.right)
    result = at_once(xp, apply)(U, left, right)
    assert result.dtype == U.dtype
    exact = dense(single(U), step.left, step.right)
    # Half a unit in the last place, which is absolute below the normal range of float16; and what the
    # single-precision factors add.
    bound = 0.5 * eps * np.abs(exact) + 2.0**-25 + step.tolerance()
    assert (np.abs(single(result) - exact) <= bound).all()


@pytest.mark.gate
def test_thin_results_are_single_and_exact(store):
    xp, dtype, _ = store
    U = lu.random_unitary(16, dtype=dtype, rng=0, xp=xp)
    G = xp.asarray(normal(np.random.default_rng(1), (16, 16), "float32"))

    def made(U, G):
        half = lu.heal_unitary(U, 1, rng=0)
        thin = [*lu.tangent_sketch(U, G, 2, rng=0), *lu.svd_sketch(half, 2, rng=0)]
        body = lu.LowRankFactors(half[:, :2], half[:, 2:4]).to_body(U)
        given = body, lu.BodyFactors(half[:, :1], half[:, 1:2])
        rotations = [rotate(factors) for rotate in ROTATIONS.values() for factors in given]
        moved = [half, *(lu.rotate(U, rotation) for rotation in rotations)]
        delayed = lu.DelayedUnitary(U).rotate(lu.polar_rotation(body))
        moved += [delayed.flush(heal=1, rng=0).base, delayed.matmul(half)]
        return [*thin, *body], rotations, moved, delayed.adjoint_matmul(G)

    thin, rotations, moved, product = at_once(xp, made)(U, G)
    for rotation in rotations:
        thin.extend(rotation)
        assert_rotation(rotation)
    assert {str(x.dtype).removeprefix("torch.") for x in thin} == {"float32"}
    assert {x.dtype for x in moved} == {U.dtype}
    assert product.dtype == G.dtype


@pytest.mark.gate
@pytest.mark.parametrize("sketch", ["tangent", "randomized", "exact", "lsi", "columns"])
def test_a_whole_step_from_a_gradient_in_half_or_single_precision(store, sketch):
    xp, dtype, eps = store
    U = lu.random_unitary(16, dtype=dtype, rng=0, xp=xp)
    G = normal(np.random.default_rng(1), (16, 16), "float32")
    options = {"rank": 2, "sketch": sketch, "rng": 3}
    expected = lu.unitary_step(single(U), G, 0.1, **options)
    move = at_once(xp, lambda U, G: lu.unitary_step(U, G, 0.1, **options))
    moved = move(U, xp.asarray(G))
    assert moved.dtype == U.dtype
    assert np.abs(single(moved) - expected).max() <= 0.6 * eps * np.abs(expected).max()
    halved = move(U, xp.asarray(G, dtype=dtype))
    assert halved.dtype == U.dtype


@pytest.mark.parametrize("n", [32, 128])
def test_attainable_defect_is_that_of_rounding(store, n):
    xp, dtype, eps = store
    rounded = lu.random_unitary(n, dtype=dtype, rng=0, xp=xp)
    measure = at_once(xp, lambda U: (lu.unitarity_defect(U), lu.is_unitary(U)))
    defect, is_unitary = measure(rounded)
    assert float(defect) == pytest.approx(0.3 * eps * np.sqrt(n), rel=0.15)
    assert bool(is_unitary)
    far = xp.asarray(single(rounded) * np.float32(1.01), dtype=dtype)
    repaired = at_once(xp, lu.reunitarize)(far)
    assert repaired.dtype == rounded.dtype
    assert float(measure(repaired)[0]) <= 1.15 * 0.3 * eps * np.sqrt(n)


@pytest.mark.gate
@pytest.mark.parametrize("probes", [0, 2, 8])
def test_drift_without_and_with_healing_follows_the_model(probes):
    n, steps, eps = 64, 1500, 2.0**-10
    rng = np.random.default_rng(0)
    U = lu.random_unitary(n, dtype=np.float16, rng=rng)
    levels = []
    for step in range(steps):
        a, b = (normal(rng, (n, 1), "float32") for _ in range(2))
        a *= np.float32(0.1 / (np.linalg.norm(a) * np.linalg.norm(b)))
        lu.unitary_transport(U, a, b, heal=probes, rng=rng, overwrite_unitary=True)
        if step >= steps - 300:
            levels.append(float(lu.unitarity_defect(U)))
    model = 0.3 * eps * (n / np.sqrt(2 * probes) if probes else np.sqrt(n * steps))
    assert np.mean(levels) == pytest.approx(model, rel=0.25)


@pytest.mark.gate
def test_half_precision_without_double_precision_in_jax_keeps_its_accuracy():
    with jax.enable_x64(False):
        U = lu.random_unitary(16, dtype=jax.numpy.bfloat16, rng=0, xp=jax.numpy)
        a, b = (jax.numpy.asarray(normal(np.random.default_rng(i), (16, 1), "float32")) / 16 for i in (1, 2))
        for apply, dense in UPDATES.values():
            moved = at_once(jax.numpy, lambda *x, f=apply: f(*x, heal=1, rng=0))(U, a, b)
            exact = dense(single(lu.heal_unitary(U, 1, rng=0)), np.asarray(a), np.asarray(b))
            assert moved.dtype == U.dtype
            assert np.abs(single(moved) - exact).max() <= 2.0**-7 * np.abs(exact).max()
    assert reference.unitarity_defect(single(U)) < 2.0**-7 * 4


def test_a_compensated_pair_holds_twice_the_digits(store):
    xp, dtype, eps = store
    U = lu.random_unitary(32, dtype=xp.float32, rng=0, xp=xp)
    pair = lu.CompensatedUnitary.split(U, dtype)
    assert pair.high.dtype == pair.low.dtype == xp.zeros(1, dtype=dtype).dtype
    assert pair.single().dtype == U.dtype
    exact = single(U)
    # Half a unit in the last place of what is left of half a unit; a subnormal remainder has fewer digits.
    assert (np.abs(single(pair.single()) - exact) <= 0.3 * eps**2 * np.abs(exact) + 2.0**-25 * eps).all()
    assert float(lu.unitarity_defect(pair.single())) < 2 * eps * eps * np.sqrt(32) + 4e-7
    again = lu.CompensatedUnitary.split(pair.single(), dtype)
    np.testing.assert_array_equal(single(again.single()), single(pair.single()))


def test_a_compensated_pair_drifts_nearly_as_single_precision_does():
    n, steps = 64, 1000
    defects = {}
    for name in ("float32", "float16"):
        rng = np.random.default_rng(0)
        U = lu.random_unitary(n, dtype=np.float32, rng=rng)
        for _ in range(steps):
            a, b = (normal(rng, (n, 1), "float32") for _ in range(2))
            a *= np.float32(0.1 / (np.linalg.norm(a) * np.linalg.norm(b)))
            lu.unitary_transport(U, a, b, heal=1, rng=rng, overwrite_unitary=True)
            if name == "float16":
                U = lu.CompensatedUnitary.split(U, np.float16).single()
        defects[name] = float(lu.unitarity_defect(U))
    assert defects["float16"] < 2.5 * defects["float32"]


def test_only_single_precision_is_split_into_half_precision():
    with pytest.raises(TypeError, match="unitary must be float32, got float64"):
        lu.CompensatedUnitary.split(np.eye(3), np.float16)
    with pytest.raises(TypeError, match="dtype must be one of float16, bfloat16, got float64"):
        lu.CompensatedUnitary.split(np.eye(3, dtype="float32"), np.float64)


@pytest.mark.gate
def test_assertions_and_delayed_products_take_half_precision_of_every_kind(store):
    xp, dtype, _ = store
    U = lu.random_unitary(8, dtype=dtype, rng=0, xp=xp)
    assert_unitary(U)
    rotation = lu.transport_rotation(lu.BodyFactors(U[:, :1], U[:, 1:2]))
    delayed = lu.DelayedUnitary(U).rotate(rotation).rotate(rotation)
    expected = single(U) @ reference.rotation_matrix(*(single(x) for x in rotation)).astype(float)
    expected = expected @ reference.rotation_matrix(*(single(x) for x in rotation)).astype(float)
    for wide in (xp.float32, xp.float64):
        x = xp.asarray(np.eye(8), dtype=wide)
        product = delayed.matmul(x)
        assert product.dtype == x.dtype
        assert np.abs(single(product) - expected).max() < 1e-6
        assert np.abs(single(delayed.adjoint_matmul(x)) - expected.T).max() < 1e-6
    wrong = lu.LowRankRotation(*(xp.asarray(np.ones((8, 2)), dtype=xp.float64) for _ in range(2)))
    with pytest.raises(TypeError, match=r"rotation\.left must have a dtype that fits into that of base"):
        lu.DelayedUnitary(U).rotate(wrong)


def test_a_matrix_beyond_the_range_of_half_precision_is_not_split():
    with pytest.raises(ValueError, match="unitary must have entries of at most 65504"):
        lu.CompensatedUnitary.split(7e4 * np.eye(3, dtype="float32"), np.float16)
    stored = lu.CompensatedUnitary.split(np.full((3, 3), np.nan, "float32"), np.float16)
    assert np.all(np.isnan(stored.single()))

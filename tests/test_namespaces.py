"""The same answers on every namespace, device and transformation."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from backends import at_once, on_every_backend
from cases import ONE_OF_EACH, ROTATIONS, UPDATES, ct, error, make_step, normal
from profiles import covering, thorough

import lowrank_unitary as lu
from lowrank_unitary._array import array_namespace, to_numpy, tolerance
from lowrank_unitary._linalg import inv

update = pytest.mark.parametrize("update", UPDATES)


def same_kind(backend, x, like):
    assert type(x) is type(like)
    assert x.dtype == like.dtype
    if backend.device is not None:
        assert str(x.device) == str(like.device)


@on_every_backend("update,dtype,size", UPDATES, ONE_OF_EACH, [(7, 2, 0.3), (7, 2, 4.0), (3, 4, 0.5)])
def test_step_gives_the_same_on_every_namespace(backend, update, dtype, size):
    apply, dense = UPDATES[update]
    n, k, norm = size
    step = make_step(0, n, k, dtype, norm=norm, batch=(2,))
    arrays = [backend.array(x) for x in step.arrays]
    # A long step is exact where its core is chosen by value, which a compiled one is not.
    result = (at_once(backend.xp, apply) if norm <= 1 else apply)(*arrays)
    same_kind(backend, result, arrays[0])
    assert error(to_numpy(result), dense(*step.arrays)) <= step.tolerance(10.0)
    for x, original in zip(arrays, step.arrays, strict=True):
        np.testing.assert_array_equal(to_numpy(x), original)


@on_every_backend("method,dtype", ["randomized", "exact", "lsi", "columns"], ONE_OF_EACH)
def test_sketch_gives_the_same_on_every_namespace(backend, dtype, method):
    matrix = normal(np.random.default_rng(0), (2, 9, 7), dtype)
    expected = lu.svd_sketch(matrix, 3, method=method, rng=4)
    sketch = at_once(backend.xp, lambda A: lu.svd_sketch(A, 3, method=method, rng=4))(backend.array(matrix))
    same_kind(backend, sketch.U, backend.array(matrix))
    bound = 100 * tolerance(np, dtype, 9, 3)
    product, expected_product = (
        to_numpy(s.U) * to_numpy(s.S)[..., None, :] @ to_numpy(s.Vh) for s in (sketch, expected)
    )
    assert np.abs(product - expected_product).max() <= bound
    left, right = sketch.factors()
    assert np.abs(to_numpy(left) @ ct(to_numpy(right)) - expected_product).max() <= bound


@on_every_backend(
    "update,sketch,dtype", ["geodesic", "polar"], ["tangent", "randomized", "columns"], ONE_OF_EACH
)
def test_whole_step_gives_the_same_on_every_namespace(backend, dtype, update, sketch):
    step = make_step(0, 8, 1, dtype)
    gradient = normal(np.random.default_rng(1), (8, 8), dtype)
    options = {"rank": 2, "update": update, "sketch": sketch, "heal": 1, "rng": 3}
    expected = lu.unitary_step(step.unitary, gradient, 0.05, **options)
    U = backend.array(step.unitary)
    move = at_once(backend.xp, lambda U, G: lu.unitary_step(U, G, 0.05, **options))
    result = move(U, backend.array(gradient))
    same_kind(backend, result, U)
    assert np.abs(to_numpy(result) - expected).max() <= 100 * tolerance(np, dtype, 8, 2)


@on_every_backend("dtype", ["float32", "complex128", "float64", "complex64"], jax=2)
def test_unitaries_give_the_same_on_every_namespace(backend, dtype):
    rng = np.random.default_rng(0)
    host = lu.random_unitary(6, dtype=dtype, rng=rng) + np.float32(0.1) * normal(rng, (6, 6), dtype)
    host = host.astype(dtype)
    U = backend.array(host)

    def judged(U):
        return lu.is_unitary(U), lu.unitarity_defect(U), lu.unitarity_defect(U, probes=3, rng=1)

    def mended(U):
        return lu.reunitarize(U), lu.heal_unitary(U, 2, rng=1)

    made, bound = at_once(backend.xp, mended)(U), 100 * tolerance(np, dtype, 6)
    for matrix, expected in zip(made, mended(host), strict=True):
        same_kind(backend, matrix, U)
        assert np.abs(to_numpy(matrix) - expected).max() <= bound
    judge = at_once(backend.xp, judged)
    assert bool(judge(made[0])[0])
    is_unitary, *defects = judge(U)
    assert not bool(is_unitary)
    for defect, expected in zip(defects, judged(host)[1:], strict=True):
        assert float(defect) == pytest.approx(float(expected), rel=1e-5)


def test_delayed_unitary_on_every_namespace(backend):
    step = make_step(0, 6, 1, "complex128")

    def moved(U, a, b):
        r = lu.transport_rotation(lu.LowRankFactors(a, b).to_body(U))
        delayed = lu.DelayedUnitary(U).rotate(r).rotate(r)
        return lu.rotate(lu.rotate(U, r), r), delayed.flush().base, delayed.matmul(a)

    made = at_once(backend.xp, moved)(*(backend.array(x) for x in step.arrays))
    expected, flushed, product = (to_numpy(x) for x in made)
    assert np.abs(flushed - expected).max() <= 1e-14
    assert np.abs(product - expected @ step.left).max() <= 1e-13


def test_inverse_of_a_singular_matrix_is_not_finite_and_leaves_its_batch_alone(backend):
    host = np.stack([2 * np.eye(2), np.array([[1.0, 2.0], [2.0, 4.0]]), np.eye(2)])
    x = backend.array(host)
    inverse = to_numpy(inv(array_namespace(x), x))
    assert not np.isfinite(inverse[1]).any()
    np.testing.assert_allclose(inverse[[0, 2]], [np.eye(2) / 2, np.eye(2)])


@on_every_backend("update", UPDATES, jax=1)
def test_overwriting_where_the_namespace_allows(backend, update):
    apply, _ = UPDATES[update]
    step = make_step(0, 6, 2, "complex128", norm=0.4)
    U, a, b = (backend.array(x) for x in step.arrays)
    expected = apply(*step.arrays)
    if backend.read_only:
        with pytest.raises(ValueError, match="unitary must be writeable"):
            apply(U, a, b, overwrite_unitary=True)
        return
    result = apply(U, a, b, overwrite_unitary=True)
    assert error(to_numpy(result), expected) <= step.tolerance()
    overwritten = to_numpy(U)
    if backend.name == "jax":
        np.testing.assert_array_equal(overwritten, step.unitary)
    else:
        assert error(overwritten, expected) <= step.tolerance()


@pytest.mark.parametrize(
    ("update", "core", "dtype"), covering(UPDATES, ["auto", "gram", "orthonormal"], ["float32", "complex128"])
)
def test_jax_jit_and_vmap_give_the_same(update, core, dtype):
    apply, dense = UPDATES[update]
    step = make_step(0, 6, 2, dtype, norm=0.5, batch=(3,))
    arrays = [jax.numpy.asarray(x) for x in step.arrays]

    def move(U, a, b):
        return apply(U, a, b, core=core)

    expected = dense(*step.arrays)
    for transformed in (jax.jit(move), jax.jit(jax.vmap(move))):
        result = transformed(*arrays)
        assert result.dtype == dtype
        assert error(to_numpy(result), expected) <= step.tolerance(10.0)


@update
@pytest.mark.parametrize("core", ["auto", "gram", "orthonormal"])
def test_torch_vmap_gives_the_same(update, core):
    apply, dense = UPDATES[update]
    step = make_step(0, 6, 2, "complex128", norm=0.5, batch=(3,))
    arrays = [torch.asarray(x) for x in step.arrays]
    result = torch.func.vmap(lambda U, a, b: apply(U, a, b, core=core))(*arrays)
    assert error(to_numpy(result), dense(*step.arrays)) <= step.tolerance(10.0)


def test_jax_jit_of_a_whole_step_with_a_traced_step_size():
    step = make_step(0, 6, 2, "complex64")
    gradient = normal(np.random.default_rng(1), (6, 6), "complex64")
    test = normal(np.random.default_rng(2), (6, 4), "complex64")

    @jax.jit
    def move(U, G, eta, omega):
        C, Q = lu.tangent_sketch(U, G, 2, test_matrix=omega)
        r = lu.transport_rotation(lu.BodyFactors(-eta * C, Q))
        return lu.rotate(U, r), lu.unitary_step(U, G, eta, rank=2, heal=1, rng=0)

    C, Q = lu.tangent_sketch(step.unitary, gradient, 2, test_matrix=test)
    expected = lu.rotate(step.unitary, lu.transport_rotation(lu.BodyFactors(np.float32(-0.1) * C, Q)))
    moved, stepped = move(step.unitary, gradient, jax.numpy.float32(0.1), test)
    assert np.abs(np.asarray(moved) - expected).max() < 1e-5
    expected = lu.unitary_step(step.unitary, gradient, 0.1, rank=2, heal=1, rng=0)
    assert np.abs(np.asarray(stepped) - expected).max() < 1e-5


def test_jax_tracing_refuses_a_draw_that_would_be_frozen():
    matrix = np.eye(4)
    with pytest.raises(ValueError, match="rng must be a seed"):
        jax.jit(lambda x: lu.svd_sketch(x, 2).S)(matrix)


def test_rotations_are_pytrees_and_scan_carries_them():
    step = make_step(0, 5, 1, "float64", norm=0.2)

    left, right = (jax.numpy.asarray(x) for x in (step.left, step.right))

    def body(U, _):
        r = lu.polar_rotation(lu.LowRankFactors(left, right).to_body(U))
        return lu.rotate(U, r), r

    U, rotations = jax.lax.scan(body, jax.numpy.asarray(step.unitary), None, length=4)
    expected = step.unitary
    for _ in range(4):
        expected = lu.polar_projection(expected, step.left, step.right)
    assert isinstance(rotations, lu.LowRankRotation)
    assert rotations.left.shape == (4, 5, 2)
    assert np.abs(np.asarray(U) - expected).max() < 1e-13


@pytest.mark.parametrize(
    ("kind", "update", "k"),
    covering(["generic", "collinear", "zero left", "zero", "repeated"], ROTATIONS, [2, 4]),
)
def test_derivatives_match_finite_differences_where_textbook_forms_fail(update, kind, k):
    step = make_step(1, 5, k, "complex128", kind, norm=0.3)
    weight = torch.asarray(normal(np.random.default_rng(2), (5, 5), "complex128"))

    def loss(c, b):
        r = ROTATIONS[update](lu.BodyFactors(c, b))
        return torch.real(torch.sum(weight * (r.left @ r.right.mH)))

    body = [torch.asarray(np.ascontiguousarray(x)).requires_grad_() for x in step.body]
    assert torch.autograd.gradcheck(loss, body, eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("update", "kind"), covering(UPDATES, ["collinear", "zero left"]))
def test_jax_gradient_matches_finite_differences(update, kind):
    apply, _ = UPDATES[update]
    step = make_step(3, 4, 1, "float64", kind, norm=0.3)
    weight = np.random.default_rng(4).standard_normal((4, 4))

    unitary, left, right = (jax.numpy.asarray(x) for x in step.arrays)

    @jax.jit
    def loss(a):
        return jax.numpy.sum(weight * apply(unitary, a, right))

    gradient = np.asarray(jax.grad(loss)(left))
    for i in range(4):
        shift = np.zeros_like(step.left)
        shift[i] = 1e-6
        slope = (loss(step.left + shift) - loss(step.left - shift)) / 2e-6
        assert gradient[i, 0] == pytest.approx(float(slope), rel=1e-6, abs=1e-8)


FLOAT32_ONLY = """
import jax, numpy as np, lowrank_unitary as lu, warnings
warnings.simplefilter("error")
from lowrank_unitary import reference
rng = np.random.default_rng(0)
U = lu.random_unitary(16, dtype="float32", rng=rng)
a, b = (rng.standard_normal((16, 2)).astype("float32") for _ in range(2))
a *= 0.5 / np.linalg.norm(a @ b.T, 2)
for f, g in ((lu.unitary_transport, reference.transport), (lu.polar_projection, reference.polar)):
    move = WRAP(f)
    V = move(*(jax.numpy.asarray(x) for x in (U, a, b)))
    assert V.dtype == "float32"
    error = float(np.max(np.abs(np.asarray(V) - g(U, a, b))))
    assert error < 2e-6, error
    for norm in (3, 10, 30, 100, 1e4):
        V = np.asarray(move(*(jax.numpy.asarray(x) for x in (U, a * np.float32(2 * norm), b))))
        error = float(np.max(np.abs(V - g(U, a * np.float32(2 * norm), b))))
        assert not error > 1e-2, (norm, error)
assert bool(WRAP(lambda U: lu.is_unitary(lu.reunitarize(U)))(jax.numpy.asarray(U)))
WRAP(lambda U: lu.unitary_step(U, U, 0.1, rank=2, heal=1, rng=0))(jax.numpy.asarray(U))
"""


@pytest.mark.gate
@pytest.mark.parametrize("wrap", ["jax.jit", thorough("(lambda f: f)")], ids=["compiled", "eager"])
def test_jax_without_float64_works_in_single_precision(wrap):
    subprocess.run([sys.executable, "-P", "-c", FLOAT32_ONLY.replace("WRAP", wrap)], check=True)


@pytest.mark.gate
@pytest.mark.parametrize(("dtype", "update"), covering(["float64", "complex128"], UPDATES))
def test_derivatives_of_a_healing_step_are_finite_and_right_at_an_exactly_unitary_matrix(update, dtype):
    apply, _ = UPDATES[update]
    step = make_step(0, 4, 1, dtype, norm=0.3)
    weight = normal(np.random.default_rng(1), (4, 4), dtype)
    left, right = (torch.asarray(x) for x in (step.left, step.right))

    def move(U):
        return apply(U, left, right, heal=1, rng=0)

    identity = torch.eye(4, dtype=left.dtype).requires_grad_()
    assert torch.autograd.gradcheck(move, (identity,))
    assert torch.autograd.gradgradcheck(move, (identity,))
    jax_left, jax_right = (jax.numpy.asarray(x) for x in (step.left, step.right))

    def loss(U):
        moved = apply(U, jax_left, jax_right, heal=1, rng=0)
        return jax.numpy.sum(jax.numpy.real(jax.numpy.conj(weight) * moved))

    gradient = jax.jit(jax.grad(loss))(jax.numpy.eye(4, dtype=dtype))
    torch.sum(torch.real(torch.conj(torch.asarray(weight)) * move(identity))).backward()
    # JAX differentiates with respect to the conjugate.
    np.testing.assert_allclose(np.conj(np.asarray(gradient)), identity.grad.numpy(), atol=1e-12)


@on_every_backend("update,turned", ROTATIONS, [False, True], jax=2)
def test_a_real_and_a_complex_factor_make_a_complex_rotation(backend, update, turned):
    rng = np.random.default_rng(0)
    real, complex_one = normal(rng, (5, 1), "float64"), normal(rng, (5, 1), "complex128")
    pair = (complex_one, real) if turned else (real, complex_one)
    expected = ROTATIONS[update](lu.BodyFactors(*(x.astype(complex) for x in pair)))
    body = lu.BodyFactors(*(backend.array(x) for x in pair))
    rotation = at_once(backend.xp, ROTATIONS[update])(body)
    left, right = (to_numpy(x) for x in rotation)
    assert left.dtype == right.dtype == np.complex128
    np.testing.assert_allclose(left @ ct(right), expected.left @ ct(expected.right), atol=1e-14)
    options = {"polar": {"update": "polar"}, "cayley": {"update": "cayley"}}.get(update, {})
    certify = at_once(backend.xp, lambda *parts: lu.rotation_certificate(*parts, **options))
    assert float(certify(body, rotation).step_error) < 1e-13

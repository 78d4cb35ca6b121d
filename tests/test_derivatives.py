"""First and second derivatives are those of the dense definitions, everywhere."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import at_once, on_every_backend
from cases import KINDS, ONE_OF_EACH, ROTATIONS, UPDATES, ct, make_step, normal
from profiles import thorough

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import to_numpy

# Inside torch's own formulas for forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

VJPS = {
    "geodesic": lu.unitary_transport_vjp,
    "cayley": functools.partial(lu.unitary_transport_vjp, update="cayley"),
    "polar": lu.polar_projection_vjp,
}
ROTATION_VJPS = {
    "geodesic": lu.transport_rotation_vjp,
    "cayley": functools.partial(lu.transport_rotation_vjp, update="cayley"),
    "polar": lu.polar_rotation_vjp,
}
POINTS = (*KINDS, "tiny", "equal angles")
# W has dependent columns there, or the small matrix has equal singular values.
TEXTBOOK_FAILS = ("collinear", "repeated", "zero column", "zero left", "zero")
update = pytest.mark.parametrize("update", UPDATES)


def arrays_at(kind, n=5, k=2, dtype="complex128", norm=0.5):
    if kind == "equal angles":
        U, E = lu.random_unitary(n, dtype=dtype, rng=0), np.eye(n, dtype=dtype)
        # Orthogonal planes turned by one angle; all singular values but 1 coincide in pairs.
        return U, norm * (U @ E[:, k : 2 * k]), E[:, :k]
    if kind == "tiny":
        return make_step(0, n, k, dtype, norm=1e-8).arrays
    return make_step(0, n, k, dtype, kind, norm=norm).arrays


def direction_at(arrays, seed=6):
    """A direction in U, left and right together, of norm 1; unbalanced columns change by what they are."""
    rng = np.random.default_rng(seed)
    dU, da, db = (normal(rng, x.shape, x.dtype) for x in arrays)
    size_a, size_b = (np.linalg.norm(x, axis=-2, keepdims=True) for x in arrays[1:])
    known = (size_a > 0) & (size_b > 0)
    ratio = np.sqrt(np.where(known, size_a, 1.0)) / np.sqrt(np.where(known, size_b, 1.0))
    ratio = np.where((ratio > 1e3) | (ratio < 1e-3), ratio, 1.0)
    size = np.sqrt(sum(np.linalg.norm(x) ** 2 for x in (dU, da, db)))
    return dU / size, da * ratio / size, db / ratio / size


def inner(x, y):
    return np.sum((np.conj(reference.extended(x)) * reference.extended(y)).real)


def slopes(dense, arrays, weight, direction, h=2.0**-8):
    """First and second derivative of Re tr(weightᴴ dense(…)) along a direction, by differences.

    Of sixth order, in extended precision: good to 1e-12 for functions whose derivatives are of order 1.
    """

    def at(t):
        moved = (reference.extended(x) + np.longdouble(t) * d for x, d in zip(arrays, direction, strict=True))
        return inner(weight, dense(*moved))

    ahead, behind = ([at(sign * j * h) for j in (1, 2, 3)] for sign in (1, -1))
    odd, even = ([x + s * y for x, y in zip(ahead, behind, strict=True)] for s in (-1, 1))
    first = (45 * odd[0] - 9 * odd[1] + odd[2]) / (60 * h)
    second = (270 * even[0] - 27 * even[1] + 2 * even[2] - 490 * at(0)) / (180 * h * h)
    return float(first), float(second)


def torch_slopes(apply, arrays, weight, direction):
    """The same by automatic differentiation, backwards twice; a list."""
    arrays = [torch.tensor(x, requires_grad=True) for x in arrays]
    direction = [torch.tensor(x) for x in direction]

    def along(gradients):
        return sum(torch.sum(torch.real(g.conj() * d)) for g, d in zip(gradients, direction, strict=True))

    loss = torch.sum(torch.real(torch.tensor(weight).conj() * apply(*arrays)))
    first = along(torch.autograd.grad(loss, arrays, create_graph=True))
    return [first.item(), along(torch.autograd.grad(first, arrays)).item()]


@functools.cache
def jax_slopes(update):
    def along(f, arrays, direction):
        # JAX has the conjugate gradient.
        return sum(jnp.sum(jnp.real(g * d)) for g, d in zip(jax.grad(f)(arrays), direction, strict=True))

    def both(arrays, weight, direction):
        def loss(arrays):
            return jnp.sum(jnp.real(jnp.conj(weight) * UPDATES[update][0](*arrays)))

        def first(arrays):
            return along(loss, arrays, direction)

        return first(arrays), along(first, arrays, direction)

    return jax.jit(both)


def problem(update, kind, n=5, k=2, dtype="complex128"):
    arrays = arrays_at(kind, n, k, dtype)
    weight, direction = normal(np.random.default_rng(5), (n, n), dtype), direction_at(arrays)
    return arrays, weight, direction, slopes(UPDATES[update][1], arrays, weight, direction)


CASES = [(kind, 5, 2, "complex128") for kind in POINTS]
CASES += [(kind, 5, 2, "float64") for kind in ("generic", "collinear", "zero", "equal angles")]
CASES += [(kind, 3, 2, "float64") for kind in ("generic", "collinear")]
CASES += [(kind, 1, 1, dtype) for kind in ("generic", "zero") for dtype in ("float64", "complex128")]


@update
@pytest.mark.parametrize(("kind", "n", "k", "dtype"), CASES)
def test_derivatives_are_those_of_the_dense_definition(update, kind, n, k, dtype):
    arrays, weight, direction, (first, second) = problem(update, kind, n, k, dtype)
    gradient = VJPS[update](*arrays, weight)
    pulled = float(sum(inner(g, d) for g, d in zip(gradient, direction, strict=True)))
    # Products of n numbers of order 1; differences are good to 1e-12.
    assert pulled == pytest.approx(first, rel=1e-11, abs=1e-11)
    made = [torch_slopes(UPDATES[update][0], arrays, weight, direction)]
    # Compiled once for every size and dtype, which takes longer than all the rest.
    if (n, dtype) == (5, "complex128"):
        made.append([float(x) for x in jax_slopes(update)(arrays, weight, direction)])
    for found in made:
        # The second derivative has the smallest singular value, 0.5 for "opposite", to the third power.
        assert found == pytest.approx([first, second], rel=1e-9, abs=1e-9)


def textbook(update):
    """QR of W, and a decomposition of the small matrix."""

    def rotated(U, a, b):
        Q, R = torch.linalg.qr(torch.cat([b, U.mH @ a], dim=-1))
        k = b.shape[-1]
        small, eye = R[:, k:] @ R[:, :k].mH, torch.eye(2 * k, dtype=U.dtype)
        if update == "polar":
            u, _, vh = torch.linalg.svd(eye + small)
            f = u @ vh
        else:
            theta, V = torch.linalg.eigh(-0.5j * (small - small.mH))
            f = (V * torch.exp(1j * theta)) @ V.mH
        return U + (U @ Q) @ (f - eye) @ Q.mH

    return rotated


@pytest.mark.parametrize("update", ["geodesic", "polar"])
@pytest.mark.parametrize("kind", TEXTBOOK_FAILS)
def test_textbook_form_is_wrong_where_ours_is_right(update, kind):
    arrays, weight, direction, (first, second) = problem(update, kind)
    ours = torch_slopes(UPDATES[update][0], arrays, weight, direction)
    assert ours == pytest.approx([first, second], rel=1e-9, abs=1e-9)
    try:
        theirs, _ = torch_slopes(textbook(update), arrays, weight, direction)
    except RuntimeError:
        # torch refuses: the derivative would depend on the choice of the vectors.
        theirs = np.nan
    assert not abs(theirs - first) <= 1e-3


def test_textbook_form_is_right_at_generic_points():
    arrays, weight, direction, expected = problem("geodesic", "generic")
    found = torch_slopes(textbook("geodesic"), arrays, weight, direction)
    assert found == pytest.approx(expected, rel=1e-9)


@update
@pytest.mark.parametrize("kind", ["generic", "zero"])
@pytest.mark.parametrize("k", [1, 2])
def test_all_ways_of_torch_agree(update, kind, k):
    apply = UPDATES[update][0]
    U, a, b = (torch.tensor(x) for x in arrays_at(kind, 4, k, "float64"))

    def move(a):
        # U and b come from outside: inside torch.func they are plain tensors.
        return apply(U, a, b)

    x = a.clone().requires_grad_()
    expected = torch.stack([torch.autograd.grad(y, x, retain_graph=True)[0] for y in move(x).reshape(-1)])
    expected = expected.reshape(4, 4, 4, k)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(jacobian(move)(a), expected)
    _, pull = torch.func.vjp(move, a)
    torch.testing.assert_close(pull(U)[0], torch.einsum("ij,ijkl->kl", U, expected))
    tangent = torch.ones_like(a)
    pushed = torch.einsum("ijkl,kl->ij", expected, tangent)
    torch.testing.assert_close(torch.func.jvp(move, (a,), (tangent,))[1], pushed)
    with torch.autograd.forward_ad.dual_level():
        dual = move(torch.autograd.forward_ad.make_dual(a, tangent))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, pushed)
    stack = torch.stack([a, 2 * a])
    gradient = torch.func.grad(lambda a: torch.sum(U * move(a)))
    each = torch.stack([gradient(x) for x in stack])
    torch.testing.assert_close(torch.func.vmap(gradient)(stack), each)


@pytest.mark.gate
@pytest.mark.parametrize("update", ["geodesic", thorough("cayley"), "polar"])
def test_gradcheck_and_gradgradcheck_pass_in_all_modes_at_a_collinear_step(update):
    U, a, b = arrays_at("collinear", 3, 1)
    body = [torch.tensor(x).requires_grad_() for x in (ct(U) @ a, b)]

    def rotated(c, b):
        return lu.rotate(torch.eye(3, dtype=c.dtype), ROTATIONS[update](lu.BodyFactors(c, b)))

    with warnings.catch_warnings():
        # torch batches gradients of formulas that have no rule for it one by one.
        warnings.filterwarnings("ignore", "There is a performance drop")
        assert torch.autograd.gradcheck(rotated, body, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(rotated, body, check_fwd_over_rev=True)


@pytest.mark.gate
def test_jax_hessian_jvp_and_batched_gradients_agree():
    U, a, b = arrays_at("zero left", 3, 1, "float64")
    weight, d = (normal(np.random.default_rng(seed), x.shape, "float64") for seed, x in ((5, U), (7, a)))

    def loss(a):
        return jnp.sum(weight * lu.polar_projection(jnp.asarray(U), a, jnp.asarray(b)))

    @jax.jit
    def all_ways(stack):
        return (
            jax.hessian(loss)(stack[0]),
            jax.jvp(loss, (stack[0],), (d,))[1],
            jax.vmap(jax.grad(loss))(stack),
        )

    hessian, slope, gradients = all_ways(jnp.stack([a, d]))
    first, second = slopes(UPDATES["polar"][1], (U, a, b), weight, (0 * U, d, 0 * b))
    assert float(slope) == pytest.approx(first, abs=1e-11)
    assert float(jnp.sum(d * gradients[0])) == pytest.approx(first, abs=1e-11)
    assert float(jnp.einsum("ij,ijkl,kl", d, hessian, d)) == pytest.approx(second, abs=1e-9)


@pytest.mark.parametrize("update", ROTATIONS)
@pytest.mark.parametrize("adjoint", [False, True])
def test_products_of_rotations_pull_back_as_torch_does(update, adjoint):
    step = make_step(0, 6, 2, "complex128", norm=0.5)
    rng = np.random.default_rng(1)
    x, cotangent = normal(rng, (3, 6), "complex128"), normal(rng, (3, 6), "complex128")
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, *step.body)]
    rotation = ROTATIONS[update](lu.BodyFactors(*leaves[1:]))
    lu.rotate(leaves[0], rotation, adjoint=adjoint).backward(torch.tensor(cotangent))
    rotation = ROTATIONS[update](step.body)
    array, thin = lu.rotate_vjp(x, rotation, cotangent, adjoint=adjoint)
    pulled = ROTATION_VJPS[update](step.body, thin)
    for found, leaf in zip((array, *pulled), leaves, strict=True):
        np.testing.assert_allclose(found, leaf.grad.numpy(), atol=1e-13)


@update
def test_pulling_back_part_by_part_is_pulling_back_the_step(update):
    step = make_step(0, 6, 2, "complex128", norm=0.5)
    cotangent = normal(np.random.default_rng(1), (6, 6), "complex128")
    expected = VJPS[update](*step.arrays, cotangent)
    array, thin = lu.rotate_vjp(step.unitary, ROTATIONS[update](step.body), cotangent)
    c_bar, b_bar = ROTATION_VJPS[update](step.body, thin)
    parts = array + step.left @ ct(c_bar), step.unitary @ c_bar, b_bar
    for found, known in zip(parts, expected, strict=True):
        np.testing.assert_allclose(found, known, atol=1e-13)


@update
def test_cotangents_have_the_shapes_and_kinds_of_the_arguments(update):
    # U is complex and batched, left is real and has one matrix, right has an axis of size 1.
    step = make_step(0, 5, 2, "complex128", norm=0.5, batch=(3, 2))
    arrays = step.unitary, step.left[0, 0].real.copy(), step.right[:, :1]
    cotangent = normal(np.random.default_rng(1), (3, 2, 5, 5), "complex128")
    leaves = [torch.tensor(x, requires_grad=True) for x in arrays]
    leaves[1] = torch.tensor(arrays[1], requires_grad=True)
    UPDATES[update][0](*leaves).backward(torch.tensor(cotangent))
    for found, leaf in zip(VJPS[update](*arrays, cotangent), leaves, strict=True):
        assert found.shape == tuple(leaf.shape)
        assert found.dtype == leaf.detach().numpy().dtype
        np.testing.assert_allclose(found, leaf.grad.numpy(), atol=1e-13)


@on_every_backend("update,dtype", UPDATES, ONE_OF_EACH, jax=2)
def test_cotangents_are_the_same_on_every_namespace(backend, dtype, update):
    step = make_step(0, 6, 2, dtype, norm=0.5, batch=(2,))
    cotangent = normal(np.random.default_rng(1), (2, 6, 6), dtype)
    arrays = [backend.array(x) for x in (*step.arrays, cotangent)]
    wide = np.complex128 if "complex" in dtype else np.float64
    expected = VJPS[update](*(x.astype(wide) for x in (*step.arrays, cotangent)))
    for found, known, array in zip(
        at_once(backend.xp, VJPS[update])(*arrays), expected, arrays, strict=False
    ):
        assert type(found) is type(array)
        assert found.dtype == array.dtype
        assert np.abs(to_numpy(found) - known).max() <= 10 * step.tolerance()


@update
@pytest.mark.parametrize("norm", [3.0, 100.0])
def test_cotangents_are_exact_at_steps_beyond_the_gram_core(update, norm):
    step = make_step(0, 8, 2, "complex128", norm=norm)
    weight = normal(np.random.default_rng(5), (8, 8), "complex128")
    # The second derivative grows with the norm.
    direction = [x / norm for x in direction_at(step.arrays)]
    first, _ = slopes(UPDATES[update][1], step.arrays, weight, direction)
    found = sum(inner(g, d) for g, d in zip(VJPS[update](*step.arrays, weight), direction, strict=True))
    sensitivity = norm / min(1.0, step.smallest_singular_value())
    assert abs(float(found) - first) <= 100 * sensitivity * np.finfo(float).eps * max(1.0, abs(first))


def test_gram_core_says_nan_where_its_derivative_would_be_wrong():
    step = make_step(0, 8, 2, "float64", norm=1e4)
    left = torch.tensor(step.left, requires_grad=True)
    moved = lu.polar_projection(torch.tensor(step.unitary), left, torch.tensor(step.right), core="gram")
    moved.sum().backward()
    assert torch.isnan(left.grad).all()


def test_polar_cotangents_at_a_singular_matrix_are_nan():
    e = np.eye(3)[:, :1]
    assert np.isnan(lu.polar_projection_vjp(np.eye(3), -e, e, np.ones((3, 3))).left).any()


@update
def test_nan_stays_in_its_matrix(update):
    step = make_step(0, 4, 1, "float64", batch=(2,))
    left = step.left.copy()
    left[0, 0, 0] = np.nan
    for part in VJPS[update](step.unitary, left, step.right, np.ones((2, 4, 4))):
        assert np.isnan(part[0]).any()
        assert np.isfinite(part[1]).all()


def sizes(jaxpr):
    """The numbers of entries of all arrays that a traced function makes, in its inner functions too."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars if hasattr(variable.aval, "size"))
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner_jaxpr := getattr(part, "jaxpr", part), "eqns"):
                yield from sizes(inner_jaxpr)


@pytest.mark.parametrize("update", ROTATIONS)
def test_no_derivative_of_a_rotation_makes_an_n_by_n_array(update):
    n, k, m = 40, 2, 3
    x, c, b = jnp.ones((m, n)), jnp.ones((n, k)), jnp.ones((n, k))

    def loss(x, c, b):
        return jnp.sum(lu.rotate(x, ROTATIONS[update](lu.BodyFactors(c, b))))

    def pull(x, c, b):
        return ROTATION_VJPS[update](lu.BodyFactors(c, b), lu.BodyFactors(x.T, x.T))

    for f in (jax.grad(loss, (0, 1, 2)), pull):
        assert max(sizes(jax.make_jaxpr(f)(x, c, b).jaxpr)) < n * n

    def square(U):
        return jnp.sum(UPDATES[update][0](U, c, b))

    # The check sees n×n arrays where there are some.
    assert max(sizes(jax.make_jaxpr(jax.grad(square))(jnp.eye(n)).jaxpr)) == n * n


def test_factors_that_are_only_pulled_back_are_differentiable():
    U, a, b = (torch.tensor(x, requires_grad=True) for x in arrays_at("zero column", 3, 2))

    def pulled(U, a, b):
        return lu.tangent_sketch(U, lu.LowRankFactors(a, b), 2)

    assert torch.autograd.gradcheck(pulled, (U, a, b))
    assert torch.autograd.gradgradcheck(pulled, (U, a, b))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: lu.transport_rotation_vjp(lu.BodyFactors(x, x), (x, x)), "cotangent must be BodyFactors"),
        (lambda x: lu.unitary_transport_vjp(np.eye(4), x, x, x), "cotangent must have shape"),
        (lambda x: lu.rotate_vjp(x.T, lu.LowRankRotation(x, x), x), "cotangent must have shape"),
        (
            lambda x: lu.unitary_transport_vjp(np.eye(4), x, x, np.eye(4), update="line"),
            "update must be one of",
        ),
        (lambda x: lu.polar_projection_vjp(np.eye(4), x, x, 1j * np.eye(4)), "cotangent must have a dtype"),
    ],
)
def test_wrong_cotangents_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(np.ones((4, 2)))

"""Steps as operators of torch: the same steps, with plain memory at hand wherever torch looks on."""

import functools
import itertools

import numpy as np
import pytest
import torch
from cases import make_step, normal
from profiles import covering, thorough

import lowrank_unitary as lu
import lowrank_unitary.torch as lut
from lowrank_unitary._array import numpy_view
from lowrank_unitary.torch import operators

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
    # torch runs products that have no rule for a stack one by one.
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:`torch._prims_common.check` is deprecated"),
]
UPDATES = {
    "geodesic": (lut.unitary_transport, lu.unitary_transport),
    "cayley": tuple(
        functools.partial(f, update="cayley") for f in (lut.unitary_transport, lu.unitary_transport)
    ),
    "polar": (lut.polar_projection, lu.polar_projection),
}
update = pytest.mark.parametrize("update", UPDATES)
# Where a QR of the factors and an SVD of the small matrix have no derivative; and elsewhere.
POINTS = ("generic", "collinear", "repeated", "zero column", "zero left", "zero")
FIELDS = pytest.mark.parametrize("dtype", ["float64", "complex128"])


def tensors(n=5, k=2, dtype="float64", kind="generic", batch=(), seed=0):
    step = make_step(seed, n, k, dtype, kind, norm=0.5, batch=batch)
    return [torch.tensor(x) for x in step.arrays]


def leaves(*arrays):
    return [x.detach().clone().requires_grad_() for x in arrays]


def weight(n=5, dtype="float64", batch=()):
    return torch.tensor(normal(np.random.default_rng(5), (*batch, n, n), dtype))


def gradients(move, arrays, cotangent):
    """Of the functions of the package those of their products, which they keep for a chosen core."""
    if getattr(move, "func", move) in (lu.unitary_transport, lu.polar_projection):
        move = functools.partial(move, core="gram")
    made = leaves(*arrays)
    return torch.autograd.grad(move(*made), made, cotangent)


def compiled(function, **options):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, **{"backend": "aot_eager"} | options)


def same(found, expected):
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


@pytest.fixture
def seen(monkeypatch):
    """The addresses of the matrices that steps are made of; None where a step sees no plain memory."""
    addresses = []

    def note(function):
        def noted(unitary, *args, **options):
            view = numpy_view(unitary)
            addresses.append(None if view is None else view.ctypes.data)
            return function(unitary, *args, **options)

        return noted

    for name in ("unitary_transport", "polar_projection"):
        monkeypatch.setattr(operators, name, note(getattr(operators, name)))
    return addresses


# The same step.


@update
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("n", "k", "batch"), [(6, 1, ()), (6, 2, ()), (3, 2, ()), (1, 1, ()), (6, 1, (2, 3)), (6, 2, (0,))]
)
def test_it_is_the_step_of_the_package_to_the_last_bit(update, dtype, n, k, batch):
    ours, theirs = UPDATES[update]
    arrays = tensors(n, k, dtype, batch=batch)
    expected = theirs(*arrays)
    assert torch.equal(ours(*arrays), expected)
    recorded = ours(*leaves(*arrays))
    assert torch.equal(recorded, expected)
    assert recorded.requires_grad
    assert recorded.is_contiguous()


@update
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_takes_factors_in_single(update, half):
    ours, theirs = UPDATES[update]
    U, a, b = tensors(dtype="float32")
    arrays = U.to(half), a, b
    made = leaves(*arrays)
    moved = ours(*made)
    assert torch.equal(moved, theirs(*arrays))
    found = torch.autograd.grad(moved, made, torch.ones_like(moved))
    assert [x.dtype for x in found] == [half, torch.float32, torch.float32]
    expected = gradients(theirs, arrays, torch.ones_like(moved))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-2, atol=2e-2)


@update
@FIELDS
def test_batches_broadcast_and_gradients_are_summed_over_them(update, dtype):
    ours, theirs = UPDATES[update]
    U, a, b = tensors(dtype=dtype, batch=(3, 2))
    # One U, a left factor of two axes that is real, and a right one with an axis of size 1.
    arrays = U[0, 0], a.real.contiguous(), b[:, :1]
    moved = ours(*arrays)
    assert moved.is_contiguous()
    same([moved], [theirs(*arrays)])
    w = weight(dtype=dtype, batch=(3, 2))
    same(gradients(ours, arrays, w), gradients(theirs, arrays, w))


def variants(U, a, b):
    """Tensors with the values of U and b that lie in memory in another way."""
    wide = torch.zeros((10, 10), dtype=U.dtype)
    wide[::2, ::2] = U
    yield U.mT.contiguous().mT, a, b
    yield wide[::2, ::2], a, b.mT.contiguous().mT
    if U.is_complex():
        yield U.conj().resolve_conj().conj(), a.conj().resolve_conj().conj(), b
        yield U, a, b.conj().resolve_conj().conj()
    else:
        yield torch.complex(0 * U, -U).conj().imag, a, torch.complex(0 * b, -b).conj().imag


@update
@FIELDS
def test_how_a_tensor_lies_in_memory_does_not_matter(update, dtype):
    ours, theirs = UPDATES[update]
    U, a, b = tensors(dtype=dtype)
    expected, w = theirs(U, a, b), weight(dtype=dtype)
    for arrays in variants(U, a, b):
        assert any(x.is_conj() or x.is_neg() or not x.is_contiguous() for x in arrays)
        same([ours(*arrays)], [expected])
        assert ours(*arrays).is_contiguous()
        found = [x.requires_grad_() for x in map(torch.Tensor.detach, arrays)]
        same(torch.autograd.grad(ours(*found), found, w), gradients(theirs, (U, a, b), w))
        given = arrays[0]
        kept = given.is_conj(), given.is_neg(), given.stride(), given.data_ptr()
        assert ours(*arrays, overwrite_unitary=True) is given
        assert kept == (given.is_conj(), given.is_neg(), given.stride(), given.data_ptr())
        same([given], [expected])
        U = U.clone()


@update
def test_a_column_major_matrix_is_moved_by_the_same_formula(update):
    # Elsewhere it is moved from its other side, which differs where it is not unitary.
    U, a, b = tensors()
    move = UPDATES[update][0]
    assert torch.equal(move(1.1 * U.mT.contiguous().mT, a, b), move(1.1 * U, a, b))


# Plain memory, and no copy of it.


@pytest.mark.parametrize("way", ["plain", "recorded", "compiled", "torch.func.grad", "mapped"])
def test_a_step_sees_the_memory_of_the_matrix_itself(seen, way):
    U, a, b = tensors(6, 1)

    def loss(a):
        return lut.unitary_transport(U, a, b).square()[0].sum()

    if way == "plain":
        loss(a)
    elif way == "recorded":
        loss(a.requires_grad_()).backward()
    elif way == "compiled":
        compiled(loss)(a.requires_grad_()).backward()
    elif way == "torch.func.grad":
        torch.func.grad(loss)(a)
    else:
        torch.func.vmap(lut.unitary_transport)(U[None], a[None], b[None])
    assert seen == [U.data_ptr()]


# Derivatives.


@pytest.mark.gate
@update
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "complex128") for kind in POINTS), ("collinear", "float64"), ("zero", "float64")],
)
def test_gradients_are_differences_also_where_the_textbook_form_fails(update, kind, dtype):
    arrays = tensors(2, 2 if kind in ("repeated", "zero column") else 1, dtype, kind)
    assert torch.autograd.gradcheck(UPDATES[update][0], leaves(*arrays))


@pytest.mark.gate
@pytest.mark.parametrize(("update", "dtype"), covering(UPDATES, ["float64", "complex128"]))
def test_second_derivatives_are_differences_of_first_ones(update, dtype):
    arrays = leaves(*tensors(2, 1, dtype, "collinear"))
    assert torch.autograd.gradgradcheck(UPDATES[update][0], arrays)


@update
@FIELDS
def test_any_of_the_arguments_may_require_a_gradient(update, dtype):
    arrays, w = tensors(dtype=dtype), weight(dtype=dtype)
    expected = gradients(UPDATES[update][1], arrays, w)
    for wanted in itertools.product([False, True], repeat=3):
        made = [x.clone().requires_grad_(yes) for x, yes in zip(arrays, wanted, strict=True)]
        moved = UPDATES[update][0](*made)
        assert moved.requires_grad == any(wanted)
        if any(wanted):
            moved.backward(w)
        assert [x.grad is not None for x in made] == list(wanted)
        same([x.grad for x in made if x.requires_grad], list(itertools.compress(expected, wanted)))


@update
def test_a_constant_matrix_is_given_no_gradient(monkeypatch, update):
    asked = []

    def note(*args, **options):
        asked.append(options["of_unitary"])
        return step_cotangents(*args, **options)

    step_cotangents = operators.step_cotangents
    monkeypatch.setattr(operators, "step_cotangents", note)
    U, a, b = tensors()
    for made in ((U, *leaves(a, b)), leaves(U, a, b)):
        UPDATES[update][0](*made).sum().backward()
    assert asked == [False, True]


def test_gradients_are_exact_where_those_of_the_products_are_not_finite():
    step = make_step(0, 8, 2, "float64", norm=1e4)
    arrays, w = [torch.tensor(x) for x in step.arrays], weight(8)
    assert not all(torch.isfinite(x).all() for x in gradients(lu.polar_projection, arrays, w))
    same(gradients(lut.polar_projection, arrays, w), lu.polar_projection_vjp(*arrays, w))


@pytest.mark.gate
@update
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_one_name_has_one_derivative(update, dtype, batch):
    step = make_step(0, 8, 2, dtype, norm=1e4, batch=batch)
    arrays, w = [torch.tensor(x) for x in step.arrays], weight(8, dtype, batch)
    ours, theirs = UPDATES[update]
    for wanted in itertools.product([False, True], repeat=3):
        found = []
        for move in (ours, theirs):
            made = [x.clone().requires_grad_(yes) for x, yes in zip(arrays, wanted, strict=True)]
            moved = move(*made)
            if any(wanted):
                moved.backward(w)
            found.append([moved, *(x.grad for x in made if x.requires_grad)])
        for x, y in zip(*found, strict=True):
            assert torch.isfinite(x).all()
            assert torch.equal(x, y)


@pytest.mark.gate
@update
@FIELDS
def test_second_derivatives_under_the_name_of_the_package(update, dtype):
    assert torch.autograd.gradgradcheck(UPDATES[update][1], leaves(*tensors(2, 1, dtype, "collinear")))


@update
def test_options_that_operators_do_not_have_are_kept_under_the_name_of_the_package(update):
    U, a, b = leaves(*tensors())
    move, moved = UPDATES[update][1], []
    for options in ({"heal": 2, "rng": 0}, {"core": "gram"}, {"core": "orthonormal"}, {}):
        moved.append(move(U, a, b, **options))
        assert moved[-1].requires_grad
    same(moved[:3], 3 * moved[3:])
    assert "Move" not in type(moved[1].grad_fn).__name__
    assert "Move" in type(moved[3].grad_fn).__name__ or "move" in type(moved[3].grad_fn).__name__


@pytest.mark.parametrize("of_unitary", [False, True])
def test_where_no_value_can_be_read_products_give_the_same_gradients(monkeypatch, of_unitary):
    U, a, b = tensors(dtype="float64")

    def gradients(move):
        made = leaves(U, a, b) if of_unitary else [U, *leaves(a, b)]
        found = torch.autograd.grad((move(*made) ** 3).sum(), [x for x in made if x.requires_grad])
        by_func = torch.func.grad(lambda a, b: (move(U, a, b) ** 3).sum(), (0, 1))(a, b)
        each = torch.func.vmap(torch.func.grad(lambda a: (move(U, a, b) ** 3).sum()))(torch.stack([a, 2 * a]))
        return *found, *by_func, each

    for ours, theirs in UPDATES.values():
        with monkeypatch.context() as patch:
            patch.setattr(operators, "values_are_at_hand", lambda x: False)
            patch.setattr(operators, "step_cotangents", None)
            found = gradients(ours)
        same(found, gradients(theirs))
        same(found, gradients(ours))


def test_tensors_that_hold_no_values_have_gradients_that_hold_none():
    made = [x.to("meta").requires_grad_() for x in tensors()]
    moved = lut.polar_projection(*made)
    moved.sum().backward()
    assert [x.grad.shape for x in made] == [x.shape for x in made]


@update
def test_forward_mode_has_the_tangents_of_the_package(update):
    (U, a, b), d, w = tensors(), torch.ones(5, 2, dtype=torch.float64), weight()
    pushed, expected = (
        torch.func.jvp(lambda a, move=move: move(U, a, b), (a,), (d,)) for move in UPDATES[update]
    )
    same(pushed, expected)
    dual, parts = torch.autograd.forward_ad.make_dual, torch.autograd.forward_ad.unpack_dual
    with torch.autograd.forward_ad.dual_level():
        same([parts(UPDATES[update][0](U, dual(a, d), b)).tangent], expected[1:])
        # The derivative of a gradient along a cotangent.
        found, expected = (
            parts(torch.autograd.grad(move(U, x, b), x, dual(w, w))[0]).tangent
            for move, x in zip(UPDATES[update], leaves(a, a), strict=True)
        )
        same([found], [expected])


def test_hessians_of_torch_func_are_those_of_the_package():
    U, a, b = tensors(3, 1)

    def loss(move, U, a):
        return (move(U, a, b) ** 3)[0].sum()

    ours, theirs = (functools.partial(loss, move) for move in UPDATES["polar"])
    expected = torch.func.hessian(theirs, argnums=(0, 1))(U, a)
    for hessian in (
        torch.func.hessian,
        lambda f, argnums: torch.func.jacrev(torch.func.jacrev(f, argnums), argnums),
        lambda f, argnums: torch.func.jacrev(torch.func.jacfwd(f, argnums), argnums),
    ):
        for row, known in zip(hessian(ours, (0, 1))(U, a), expected, strict=True):
            same(row, known)


# Operators as torch wants them.


@pytest.mark.gate
@pytest.mark.parametrize(("kind", "dtype"), [("polar", "float64"), ("geodesic", "complex128")])
def test_torch_finds_the_operators_well_registered(kind, dtype):
    arrays = tensors(dtype=dtype, batch=(2,))
    U, a, b = leaves(*arrays)
    torch.library.opcheck(operators._move, (U, a, b, kind, "auto"))
    torch.library.opcheck(operators._move, (U.detach().mT[0], a, b.detach(), kind, "gram"))
    torch.library.opcheck(operators._move_vjp, (*arrays, weight(dtype=dtype, batch=(2,)), kind, False))
    # Compiled, there are no second derivatives.
    uncompiled = ("test_schema", "test_autograd_registration", "test_faketensor")
    recorded = U, a, b, weight(dtype=dtype, batch=(2,)), kind, True
    torch.library.opcheck(operators._move_vjp, recorded, test_utils=uncompiled)
    torch.library.opcheck(operators._move_, (*arrays, kind, "auto"))


@pytest.mark.parametrize(("update", "dtype"), [("geodesic", "float64"), ("polar", "complex128")])
def test_compiled_it_is_one_node_and_needs_no_new_graph_for_new_values(update, dtype):
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    move = UPDATES[update][0]
    fast = compiled(move, backend=count)
    U, a, b = tensors(dtype=dtype)
    # Above and below the step at which the core changes.
    for scale in (0.0, 1e-3, 1.0, 100.0):
        assert torch.equal(fast(U, scale * a, b), move(U, scale * a, b))
    assert len(graphs) == 1
    targets = [node.target for node in graphs[0].graph.nodes]
    # Beside it stands a question to torch.func, which has been answered.
    assert [x for x in targets if isinstance(x, torch._ops.OpOverload)] == [
        torch.ops.lowrank_unitary.move.default
    ]


def test_compiled_gradients_are_those_of_eager_ones():
    arrays, w = tensors(), weight()

    def loss(*arrays):
        return torch.sin(lut.unitary_transport(2 * arrays[0] / 2, *arrays[1:]))

    same(gradients(compiled(loss), arrays, w), gradients(loss, arrays, w))


def test_compiled_second_derivatives_are_refused():
    U, a, b = tensors()
    (a,) = leaves(a)
    (gradient,) = torch.autograd.grad(compiled(lut.unitary_transport)(U, a, b).sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        gradient.sum().backward()


@pytest.mark.gate
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_torch_func_can_be_compiled_around_it():
    U, a, b = tensors(3, 1)

    def gradient(a):
        return torch.func.grad(lambda a: lut.unitary_transport(U, a, b, update="cayley")[0].sum())(a)

    same([compiled(gradient)(a)], [gradient(a)])


def test_it_is_exported_as_one_node():
    class Step(torch.nn.Module):
        def forward(self, U, a, b):
            return lut.polar_projection(U, a, b)

    arrays = tensors()
    exported = torch.export.export(Step(), tuple(arrays))
    assert torch.ops.lowrank_unitary.move.default in [node.target for node in exported.graph.nodes]
    assert torch.equal(exported.module()(*arrays), lut.polar_projection(*arrays))


# Mapped.

IN_DIMS = [dims for dims in itertools.product((None, 0, 1), repeat=3) if any(d is not None for d in dims)]


def one_of(x, dim, i):
    return x if dim is None else x.select(dim, i)


@pytest.mark.parametrize("in_dims", IN_DIMS)
def test_mapped_it_is_a_loop(in_dims):
    # Batches of different ranks besides the mapped axis of length 4.
    dtype = "complex128"
    parts = tensors(5, 2, dtype)
    shapes = [(2, 5, 5), (5, 2), (1, 1, 5, 2)]
    arrays = []
    for x, dim, shape in zip(parts, in_dims, shapes, strict=True):
        x = x.broadcast_to(shape)
        arrays.append(x if dim is None else torch.stack([(1 + 0.1 * i) * x for i in range(4)], dim))
    w = weight(dtype=dtype, batch=(1, 2))

    def all_of_it(*arrays):
        moved, pull = torch.func.vjp(lut.unitary_transport, *arrays)
        return moved, *pull(w)

    mapped = torch.func.vmap(all_of_it, in_dims)(*arrays)
    for i in range(4):
        expected = all_of_it(*(one_of(x, dim, i) for x, dim in zip(arrays, in_dims, strict=True)))
        same([x[i] for x in mapped], expected)


def test_mapped_twice_it_is_two_loops():
    U, a, b = tensors(batch=(2, 3))
    inner = torch.func.vmap(lut.polar_projection, in_dims=(None, 0, 0))
    mapped = torch.func.vmap(inner, in_dims=(0, 1, 1))(U[:, 0], a.movedim(0, 1), b.movedim(0, 1))
    for i, j in itertools.product(range(2), range(3)):
        same([mapped[i, j]], [lut.polar_projection(U[i, 0], a[i, j], b[i, j])])


# In place.


def test_in_place_the_tensor_itself_is_moved_and_torch_knows(seen):
    for update, (move, _) in UPDATES.items():
        U, a, b = tensors(6, 1)
        expected, version, address = move(U, a, b), U._version, U.data_ptr()
        seen.clear()
        assert move(U, a, b, overwrite_unitary=True) is U, update
        assert torch.equal(U, expected)
        assert U.data_ptr() == address
        assert seen == [address]
        assert U._version > version


@pytest.mark.parametrize("backend", ["aot_eager", thorough("inductor")])
def test_compiled_in_place_it_writes_to_the_argument(backend):
    U, a, b = tensors()
    expected, address = 2 * lut.polar_projection(2 * U / 2, a, b), U.data_ptr()

    def move(U, a, b):
        lut.polar_projection(U, a, b, overwrite_unitary=True)
        return 2 * U

    assert torch.equal(compiled(move, backend=backend)(U, a, b), expected)
    assert torch.equal(2 * U, expected)
    assert U.data_ptr() == address


def test_mapped_in_place_every_matrix_is_moved():
    U, a, b = tensors(batch=(3,))
    expected = lut.unitary_transport(U, a[0], b)
    moved = U.movedim(0, 1).contiguous()
    step = functools.partial(lut.unitary_transport, overwrite_unitary=True)
    torch.func.vmap(step, in_dims=(1, None, 0), out_dims=1)(moved, a[0], b)
    same([moved.movedim(1, 0)], [expected])
    with pytest.raises(ValueError, match="unitary must be mapped"):
        torch.func.vmap(step, in_dims=(None, 0, 0))(U[0], a, b)


@pytest.mark.parametrize("which", range(3))
def test_in_place_nothing_that_is_recorded_is_overwritten(which):
    arrays = tensors()
    arrays[which].requires_grad_()
    name = ("unitary", "left", "right")[which]
    kept = arrays[0].detach().clone()
    for move in (lut.unitary_transport, lut.polar_projection):
        with pytest.raises(RuntimeError, match=f"gradients are recorded for {name}"):
            move(*arrays, overwrite_unitary=True)
        assert torch.equal(arrays[0], kept)
        with torch.no_grad():
            move(*arrays, overwrite_unitary=True)
        assert not torch.equal(arrays[0], kept)
        kept = arrays[0].detach().clone()


def test_a_backward_pass_that_needs_the_old_matrix_is_refused():
    U, a, b = tensors()
    y = leaves(a)[0].mT @ U
    lut.unitary_transport(U, a, b, overwrite_unitary=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_in_place_works_in_inference_mode():
    with torch.inference_mode():
        U, a, b = (x.clone() for x in tensors(6, 1))
        expected = lut.unitary_transport(U, a, b)
        lut.unitary_transport(U, a, b, overwrite_unitary=True)
        assert torch.equal(U, expected)


# Errors.


@pytest.mark.parametrize(
    "change",
    [
        lambda U, a, b: (U[:3], a, b),
        lambda U, a, b: (U, a[:3], b),
        lambda U, a, b: (U, a[:, 0], b),
        lambda U, a, b: (U, a, b[:, :1]),
        lambda U, a, b: (U, a.to(torch.complex128), b),
        lambda U, a, b: (U.long(), a, b),
        lambda U, a, b: (U.expand(2, 5, 5), a.expand(3, 5, 2), b),
        lambda U, a, b: (U, a.to("meta"), b),
    ],
)
def test_errors_are_those_of_the_package_and_come_before_the_operator(seen, change):
    arrays = change(*tensors())
    for ours, theirs in UPDATES.values():
        with pytest.raises((TypeError, ValueError)) as expected:
            theirs(*arrays)
        with pytest.raises(expected.type) as found:
            ours(*arrays)
        assert str(found.value) == str(expected.value)
    assert seen == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda U, a, b: lut.unitary_transport(U.numpy(), a, b), TypeError, "unitary must be a torch tensor"),
        (lambda U, a, b: lut.unitary_transport(U, a, b, update="line"), ValueError, "update must be one of"),
        (lambda U, a, b: lut.polar_projection(U, a, b, core="svd"), ValueError, "core must be one of"),
        (
            lambda U, a, b: lut.polar_projection(U, a[None], b, overwrite_unitary=True),
            ValueError,
            "batch shape of the result",
        ),
    ],
)
def test_wrong_arguments_are_named(seen, call, error, message):
    with pytest.raises(error, match=message):
        call(*tensors())
    assert seen == []


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_rectangular_matrices_take_the_steps_of_the_package(shape):
    generator = torch.Generator().manual_seed(0)
    U = lu.random_unitary(*shape, xp=torch, dtype=torch.float64, rng=0)
    a, b = (torch.randn(n, 2, dtype=torch.float64, generator=generator) for n in shape)
    for ours, theirs in UPDATES.values():
        assert torch.equal(ours(U, a, b), theirs(U, a, b))
    a.requires_grad_()
    torch.sum(lut.unitary_transport(U, a, b) ** 3).backward()
    assert torch.isfinite(a.grad).all()

"""Optimisers: ordinary parameters as torch moves them, unitary ones as the dense definitions say."""

import copy
import io
import math

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint.state_dict as checkpoint
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import lowrank_unitary as lu
import lowrank_unitary.torch as lut
from lowrank_unitary._array import array_namespace, tolerance
from lowrank_unitary.testing import assert_unitary
from lowrank_unitary.torch.optimisers import optimiser as optimiser_module

XP = array_namespace(torch.zeros(1))
FIELDS = (torch.float64, torch.complex128)
OPTIMISERS = {
    "SGD": lut.UnitarySGD,
    "momentum": lambda params, **options: lut.UnitarySGD(params, momentum=0.9, **options),
    "Nesterov": lambda params, **options: lut.UnitarySGD(params, momentum=0.9, nesterov=True, **options),
    "polar": lambda params, **options: lut.UnitarySGD(params, update="polar", **options),
    "Adam": lut.UnitaryAdam,
    "Adam by rows": lambda params, **options: lut.UnitaryAdam(params, scaling="rows", **options),
    "RMSprop": lambda params, **options: lut.UnitaryAdam(params, betas=(0.0, 0.99), **options),
}


@pytest.fixture(params=OPTIMISERS)
def optimiser(request):
    return OPTIMISERS[request.param]


@pytest.fixture(params=FIELDS, ids=str)
def dtype(request):
    return request.param


def start(n, dtype=torch.float64, seed=0):
    return torch.nn.Parameter(lu.random_unitary(n, rng=seed, xp=torch, dtype=dtype))


def descend(optimiser, parameters, steps, first=0, dtype=torch.float64):
    """Towards fixed targets, one for each parameter, with noise that differs from step to step."""
    for step in range(first, first + steps):
        optimiser.zero_grad()
        generator = torch.Generator().manual_seed(step)
        loss = 0.0
        for parameter in parameters:
            noise = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
            loss = loss + torch.sum(torch.abs(parameter - noise) ** 2)
        loss.backward()
        optimiser.step()


class Mixed(torch.nn.Module):
    """A unitary weight between ordinary ones."""

    def __init__(self, n=6, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.before = torch.nn.Linear(3, n, dtype=dtype)
        self.unitary = lut.mark_unitary(start(n, dtype))
        self.after = torch.nn.Linear(n, 2, dtype=dtype)

    def forward(self, x):
        return self.after(torch.tanh(self.before(x)) @ self.unitary.mT)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (lut.UnitarySGD, torch.optim.SGD, {}),
        (lut.UnitarySGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        (lut.UnitarySGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "maximize": True}),
        (lut.UnitaryAdam, torch.optim.Adam, {}),
        (lut.UnitaryAdam, torch.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
    ],
)
def test_ordinary_parameters_move_as_in_torch_to_the_last_bit(ours, theirs, options):
    ordinary = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    expected = copy.deepcopy(ordinary)
    mixed = [ordinary[0], lut.mark_unitary(start(4)), ordinary[1]]
    one, other = ours(mixed, lr=0.1, **options), theirs(expected, lr=0.1, **options)
    for step in range(5):
        for parameter, twin in zip(ordinary, expected, strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
            twin.grad = parameter.grad.clone()
        mixed[1].grad = torch.ones(4, 4, dtype=torch.float64)
        one.step()
        other.step()
    for parameter, twin in zip(ordinary, expected, strict=True):
        assert torch.equal(parameter, twin)


def test_unitary_parameters_stay_unitary_and_reach_the_minimum(optimiser, dtype):
    n = 8
    target = lu.cayley_unitary(n, rng=1, xp=torch, dtype=torch.float64).to(dtype)
    U = torch.nn.Parameter(torch.eye(n, dtype=dtype))
    descent = optimiser([U], lr=0.1, rank=2, unitary=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(descent, 0.98)
    before = torch.linalg.norm(U.detach() - target)
    for _ in range(120):
        descent.zero_grad()
        torch.sum(torch.abs(U - target) ** 2).backward()
        descent.step()
        schedule.step()
    assert_unitary(U.detach())
    assert torch.linalg.norm(U.detach() - target) < 0.05 * before


def test_a_step_is_that_of_the_plain_function(dtype):
    idle, U = start(3), start(20, dtype)
    expected = U.detach().clone()
    descent = lut.UnitarySGD([idle, U], lr=0.3, rank=2, unitary=True, seed=7)
    for step in range(2):
        # Fewer samples than n, so that what is drawn makes a difference.
        U.grad = torch.randn(20, 20, dtype=dtype, generator=torch.Generator().manual_seed(step))
        expected = lu.unitary_step(expected, U.grad, 0.3, rank=2, rng=[7, 1, step])
        descent.step()
    assert torch.equal(U, expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_of_full_rank_is_that_of_torch_in_the_tangent_space(dtype, nesterov):
    n, lr, beta = 6, 0.02, 0.8
    U = start(n, dtype)
    dense, buffer = U.detach().clone(), 0.0
    descent = lut.UnitarySGD([U], lr=lr, rank=n, momentum=beta, nesterov=nesterov, unitary=True, heal=0)
    for step in range(5):
        G = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(step))
        U.grad = G
        descent.step()
        A = 0.5 * (dense.mH @ G - G.mH @ dense)
        buffer = beta * buffer + A
        dense = dense @ torch.linalg.matrix_exp(-lr * (A + beta * buffer if nesterov else buffer))
    # Five steps of norm below 1, each as exact as one.
    assert torch.linalg.norm(U.detach() - dense) < 5 * tolerance(XP, dtype, n, n)


def test_adam_moves_along_the_direction_of_the_momentum_step(dtype):
    n, k, lr = 8, 2, 0.01
    U = start(n, dtype)
    plain = U.detach().clone()
    state = lu.MomentumState.start(plain, k, scaling="rows")
    descent = lut.UnitaryAdam([U], lr, (0.8, 0.95), 1e-3, rank=k, scaling="rows", unitary=True, heal=0)
    for step in range(4):
        G = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(step))
        U.grad = G
        descent.step()
        body = lu.tangent_sketch(plain, G, k, rng=[0, 0, step])
        along, state = lu.momentum_step(body, state, decay=0.8, second_decay=0.95, eps=1e-3)
        plain = lu.rotate(plain, lu.transport_rotation(lu.BodyFactors(-lr * along.left, along.right)))
    assert torch.linalg.norm(U.detach() - plain) < 4 * tolerance(XP, dtype, n, k)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.bfloat16])
def test_training_continues_from_a_saved_state_to_the_last_bit(optimiser, dtype):
    def fresh():
        parameters = [start(6, torch.float32).data.to(dtype), torch.ones(3, 2).to(dtype)]
        parameters = [torch.nn.Parameter(x) for x in parameters]
        lut.mark_unitary(parameters[0])
        return parameters, optimiser(parameters, lr=0.05, rank=2, seed=3)

    parameters, descent = fresh()
    descend(descent, parameters, 3)
    buffer = io.BytesIO()
    torch.save({"parameters": parameters, "optimiser": descent.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    descend(descent, parameters, 3, first=3)

    others, continued = fresh()
    for parameter, value in zip(others, saved["parameters"], strict=True):
        parameter.data = value.data
    continued.load_state_dict(saved["optimiser"])
    descend(continued, others, 3, first=3)
    for parameter, other in zip(parameters, others, strict=True):
        assert torch.equal(parameter, other)
    for key, value in descent.state[parameters[0]].items():
        again = continued.state[others[0]][key]
        assert again == value if isinstance(value, int) else torch.equal(again, value)


def test_parameters_of_a_kind_move_as_each_alone(optimiser, dtype):
    n = 5
    together = [start(n, dtype, seed) for seed in range(3)]
    alone = copy.deepcopy(together)
    descend(optimiser(together, lr=0.01, rank=n, unitary=True), together, 3)
    for index, parameter in enumerate(alone):
        descent = optimiser([parameter], lr=0.01, rank=n, unitary=True)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            noise = [torch.randn(n, n, dtype=dtype, generator=generator) for _ in together][index]
            parameter.grad = 2 * (parameter.detach() - noise)
            descent.step()
    # Sketches of full rank see everything, whatever is drawn; Adam divides by sizes of about 1.
    bound = 3 * tolerance(XP, dtype, n, n)
    for one, other in zip(together, alone, strict=True):
        assert torch.linalg.norm(one.detach() - other.detach()) < bound


def test_a_stack_in_one_parameter_moves(optimiser):
    U = torch.nn.Parameter(lu.random_unitary(4, batch=(2, 3), rng=0, xp=torch, dtype=torch.float64))
    before = U.detach().clone()
    descend(optimiser([U], lr=0.1, unitary=True), [U], 2)
    assert_unitary(U.detach())
    assert torch.all(torch.linalg.matrix_norm(U.detach() - before) > 0.01)


def test_a_parameter_is_moved_where_it_lies(optimiser):
    parameters = [start(4), start(4), start(5)]
    places = [parameter.data_ptr() for parameter in parameters]
    descend(optimiser(parameters, lr=0.1, unitary=True), parameters, 2)
    assert [parameter.data_ptr() for parameter in parameters] == places


@pytest.mark.parametrize("n", [4, 300])
@pytest.mark.parametrize("count", [1, 2])
def test_a_graph_from_before_the_step_is_refused(n, count):
    # n = 300 is beyond what is stacked; both ways have to tell autograd.
    parameters = [torch.nn.Parameter(torch.eye(n)) for _ in range(count)]
    descent = lut.UnitarySGD(parameters, lr=0.1, unitary=True)
    loss = torch.sum(parameters[0] ** 3)
    for parameter in parameters:
        parameter.grad = torch.ones(n, n)
    descent.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_maximize_ascends_by_as_much(optimiser):
    one, other = start(5), start(5)
    up = optimiser([one], lr=0.1, unitary=True, maximize=True)
    down = optimiser([other], lr=0.1, unitary=True)
    for step in range(3):
        one.grad = torch.randn(5, 5, dtype=one.dtype, generator=torch.Generator().manual_seed(step))
        other.grad = -one.grad
        up.step()
        down.step()
    assert torch.linalg.norm(one.detach() - other.detach()) < 3 * tolerance(XP, one.dtype, 5)


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_schedulers_set_the_step_size(rate):
    U, V = start(5), start(5)
    scheduled = lut.UnitarySGD([U], lr=rate, unitary=True)
    schedule = torch.optim.lr_scheduler.StepLR(scheduled, step_size=1, gamma=0.5)
    for step in range(3):
        U.grad = torch.ones_like(U).cumsum(0)
        lu.unitary_step(V.data, U.grad, 0.1 * 0.5**step, rank=1, rng=[0, 0, step], overwrite_unitary=True)
        scheduled.step()
        schedule.step()
    # A rate that is a tensor is one in single precision.
    bound = tolerance(XP, torch.float32 if torch.is_tensor(rate) else U.dtype, 5)
    assert torch.linalg.norm(U.detach() - V.detach()) < bound


def test_schedulers_may_cycle_momentum(optimiser):
    U = start(5)
    descent = optimiser([U], lr=0.01, unitary=True)
    if descent.defaults.get("momentum") != 0:
        schedule = torch.optim.lr_scheduler.OneCycleLR(descent, 0.1, total_steps=10)
        for step in range(5):
            descend(descent, [U], 1, first=step)
            schedule.step()
        assert_unitary(U.detach())


def test_closure_is_evaluated_with_gradients_and_returned(optimiser):
    U = start(4)
    descent = optimiser([U], lr=0.1, unitary=True)

    def closure():
        descent.zero_grad()
        loss = torch.sum(U**3)
        loss.backward()
        return loss

    assert descent.step(closure) == torch.sum(start(4) ** 3)


def test_no_gradient_no_step(optimiser):
    U, V = start(4), start(4)
    descent = optimiser([U, V], lr=0.1, unitary=True)
    U.grad = torch.ones_like(U)
    descent.step()
    assert torch.equal(V, start(4))
    assert not torch.equal(U, start(4))


def test_parameters_of_a_kind_may_have_taken_different_numbers_of_steps(optimiser):
    U, V = start(4), start(4)
    descent = optimiser([U, V], lr=0.1, unitary=True)
    for late in (None, torch.ones_like(V).cumsum(0)):
        U.grad, V.grad = torch.ones_like(U).cumsum(0), late
        descent.step()
    assert (descent.state[U]["steps"], descent.state[V]["steps"]) == (2, 1)
    assert_unitary(V.detach())


def test_nan_in_the_gradient_is_nan_in_the_parameter_and_in_no_other(optimiser):
    parameters = [start(4), start(4)]
    descent = optimiser(parameters, lr=0.1, unitary=True)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter).cumsum(0)
    parameters[0].grad[1, 2] = np.nan
    descent.step()
    assert torch.all(torch.isnan(parameters[0]))
    assert_unitary(parameters[1].detach())


def test_sparse_gradients_are_refused(optimiser):
    U = start(4)
    U.grad = torch.eye(4, dtype=U.dtype).to_sparse()
    with pytest.raises(RuntimeError, match="dense"):
        optimiser([U], lr=0.1, unitary=True).step()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lr": -1.0}, "lr"),
        ({"rank": 5}, "rank"),
        ({"rank": 0}, "rank"),
        ({"heal": -1}, "heal"),
        ({"heal": 5}, "heal"),
        ({"seed": -1}, "seed"),
        ({"update": "line"}, "update"),
    ],
)
@pytest.mark.parametrize("kind", [lut.UnitarySGD, lut.UnitaryAdam])
def test_options_out_of_range_are_refused(kind, options, word):
    with pytest.raises(ValueError, match=word):
        kind([start(4)], unitary=True, **options)


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        (lut.UnitarySGD, {"momentum": -0.1}, "momentum"),
        (lut.UnitarySGD, {"nesterov": True}, "momentum"),
        (lut.UnitarySGD, {"weight_decay": -1.0}, "weight_decay"),
        (lut.UnitaryAdam, {"betas": (1.0, 0.9)}, "beta"),
        (lut.UnitaryAdam, {"scaling": "none"}, "scaling"),
    ],
)
def test_options_of_one_kind_out_of_range_are_refused(kind, options, word):
    with pytest.raises(ValueError, match=word):
        kind([start(4)], **options)


def test_a_group_that_is_refused_is_not_kept():
    descent = lut.UnitarySGD([start(4)], unitary=True)
    with pytest.raises(ValueError, match="rank must be between 1 and 2"):
        descent.add_param_group({"params": [torch.nn.Parameter(torch.ones(2, 3))], "rank": 3})
    assert len(descent.param_groups) == 1
    descent.add_param_group({"params": [torch.nn.Parameter(torch.ones(2, 3))], "unitary": False})
    assert len(descent.param_groups) == 2


def test_group_option_moves_what_carries_no_mark(optimiser):
    model = Mixed()
    model.unitary = torch.nn.Parameter(model.unitary.detach().clone())  # without the mark
    groups = [
        {"params": [model.unitary], "unitary": True, "rank": 2},
        {"params": [*model.before.parameters(), *model.after.parameters()]},
    ]
    descent = optimiser(groups, lr=0.1)
    for _ in range(3):
        descent.zero_grad()
        model(torch.ones(4, 3, dtype=torch.float64)).square().sum().backward()
        descent.step()
    assert_unitary(model.unitary.detach())
    assert not torch.equal(model.unitary, Mixed().unitary)
    assert not torch.equal(model.before.weight, Mixed().before.weight)


@pytest.mark.parametrize("optimiser", [lut.UnitarySGD, lut.UnitaryAdam])
def test_a_parameter_that_lost_its_mark_in_training_is_not_moved_off_the_unitary_matrices(optimiser):
    U = lut.mark_unitary(torch.nn.Parameter(lu.random_unitary(4, rng=0, xp=torch, dtype=torch.float64)))
    U.grad = torch.ones_like(U)
    trained = optimiser([U], lr=0.1)
    trained.step()
    copied, other = torch.nn.Parameter(U.detach().clone()), lut.mark_unitary(start(4))
    again = optimiser([copied, other], lr=0.1)
    again.load_state_dict(optimiser([U, start(4)], lr=0.1).state_dict() | {"state": {0: trained.state[U]}})
    copied.grad = torch.ones_like(copied)
    with pytest.raises(RuntimeError, match="has no mark"):
        again.step()
    lut.mark_unitary(copied)
    again.step()
    assert lu.is_unitary(copied.detach())


def test_groups_saved_by_an_optimiser_of_torch_get_the_missing_options():
    W, U = torch.nn.Parameter(torch.ones(2, 3)), lut.mark_unitary(start(4))
    saved = torch.optim.SGD([W, U], lr=0.5).state_dict()
    ours = lut.UnitarySGD([W, U], lr=0.1, rank=3)
    ours.load_state_dict(saved)
    W.grad = torch.ones_like(W)
    ours.step()
    assert torch.equal(W.detach(), torch.full((2, 3), 0.5))
    assert ours.param_groups[0]["rank"] == 3


def test_weight_decay_leaves_unitary_parameters_alone():
    one, other = start(4), start(4)
    for U, decay in ((one, 0.0), (other, 0.5)):
        U.grad = torch.ones_like(U).cumsum(0)
        lut.UnitarySGD([U], lr=0.1, weight_decay=decay, unitary=True).step()
    assert torch.equal(one, other)


@pytest.mark.parametrize("heal", [0, 6])
def test_probes_remove_a_defect_and_without_them_it_stays(heal):
    U = torch.nn.Parameter(start(6).detach() * (1 + 1e-4))
    before = U.detach().clone()
    U.grad = torch.zeros_like(U)
    lut.UnitarySGD([U], lr=0.1, heal=heal, unitary=True).step()
    assert torch.equal(U, before) == (heal == 0)
    # As many probes as n leave the square of the defect.
    remaining = lu.unitarity_defect(U.detach()) / lu.unitarity_defect(before)
    assert remaining == 1 if heal == 0 else remaining < 1e-3


def swapped_states(_, saved):
    saved["state"] = {0: saved["state"][1], 1: saved["state"][0]}


def without_momentum(_, saved):
    return {**saved, "state": {i: {**x, "left": 0 * x["left"]} for i, x in saved["state"].items()}}


@pytest.mark.parametrize("hook", [swapped_states, without_momentum])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_hooks_before_and_after_a_state_is_loaded_have_the_last_word(hook, dtype):
    parameters = [torch.nn.Parameter(start(4, torch.float32, seed).data.to(dtype)) for seed in range(2)]
    trained = lut.UnitarySGD(parameters, lr=0.1, momentum=0.9, unitary=True)
    for index, parameter in enumerate(parameters):
        parameter.grad = (1 + index) * torch.ones_like(parameter).cumsum(0)
    trained.step()
    saved = copy.deepcopy(trained.state_dict())
    changed = copy.deepcopy(saved)
    changed = hook(None, changed) or changed
    trained.register_load_state_dict_pre_hook(hook)
    found = []
    trained.register_load_state_dict_post_hook(lambda x: found.append(x.state[parameters[0]]["left"].dtype))
    for _ in range(2):
        trained.load_state_dict(copy.deepcopy(saved))
        for index, parameter in enumerate(parameters):
            for key, value in changed["state"][index].items():
                loaded = trained.state[parameter][key]
                assert loaded == value if isinstance(value, int) else torch.equal(loaded, value)
    assert found == 2 * [torch.float32 if dtype == torch.bfloat16 else dtype]
    assert not torch.equal(changed["state"][0]["left"], saved["state"][0]["left"])


def test_hooks_of_all_optimisers_run_once_a_step(optimiser):
    model = Mixed()
    descent, called = optimiser(model.parameters(), lr=0.1), []
    hooks = [
        register(lambda moved, *_, name=register.__name__: called.append((name, moved)))
        for register in (
            register_optimizer_step_pre_hook,
            register_optimizer_step_post_hook,
        )
    ]
    try:
        descend(descent, list(model.parameters()), 2)
    finally:
        for hook in hooks:
            hook.remove()
    assert called == 2 * [
        ("register_optimizer_step_pre_hook", descent),
        ("register_optimizer_step_post_hook", descent),
    ]


def test_a_compiled_step_is_the_step_itself_and_counts_on(optimiser):
    parameters = [start(6), start(6)]
    twins = copy.deepcopy(parameters)
    one, other = (optimiser(x, lr=0.1, unitary=True) for x in (parameters, twins))
    torch._dynamo.reset()
    move = torch.compile(one.step, backend="eager")
    for step in range(3):
        for parameter, twin in zip(parameters, twins, strict=True):
            parameter.grad = torch.randn(
                6, 6, dtype=twin.dtype, generator=torch.Generator().manual_seed(step)
            )
            twin.grad = parameter.grad.clone()
        move()
        other.step()
    for parameter, twin in zip(parameters, twins, strict=True):
        assert torch.equal(parameter, twin)
        assert one.state[parameter]["steps"] == 3


NUMBERS = {
    lut.UnitarySGD: ("lr", "momentum", "weight_decay"),
    lut.UnitaryAdam: ("lr", "betas", "eps", "weight_decay"),
}
WRONG_NUMBERS = [
    *((x, ValueError) for x in (math.nan, math.inf, -0.1, torch.tensor(math.nan), torch.zeros(2))),
    *((x, TypeError) for x in (None, "0.1", 0.1j, True, [0.1], {}, np.zeros(1), torch.tensor(0.1j))),
]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in NUMBERS.items() for name in names]
)
@pytest.mark.parametrize(("value", "error"), WRONG_NUMBERS, ids=str)
@pytest.mark.parametrize("unitary", [False, True])
def test_numbers_that_are_none_are_refused_by_name(kind, name, value, error, unitary):
    values = [(value, 0.9), (0.9, value)] if name == "betas" else [value]
    for wrong in values:
        with pytest.raises(error, match=rf"^{name}"):
            kind([start(4)], unitary=unitary, **{name: wrong})


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 0.9, 0.9), None, "ab", torch.zeros(2)])
def test_betas_are_a_pair(betas):
    with pytest.raises((TypeError, ValueError), match=r"^betas"):
        lut.UnitaryAdam([start(4)], betas=betas)


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("name", ["maximize", "unitary", "nesterov"])
@pytest.mark.parametrize("value", ["x", 1, None, 0.0])
def test_flags_are_true_or_false(kind, name, value):
    if name in kind([start(4)]).defaults:
        with pytest.raises(TypeError, match=f"^{name} must be True or False"):
            kind([start(4)], **{name: value})


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("name", ["rank", "heal", "seed"])
@pytest.mark.parametrize("value", ["x", 1.0, None, True, -1])
@pytest.mark.parametrize("unitary", [False, True])
def test_counts_are_whole_numbers(kind, name, value, unitary):
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
        kind([start(4)], unitary=unitary, **{name: value})


@pytest.mark.parametrize("rate", [np.float32(0.25), torch.tensor([0.25]), torch.tensor([[0.25]]), 1])
def test_rates_of_other_types_are_taken_as_numbers(optimiser, rate):
    model, twin = Mixed(), Mixed()
    descend(optimiser(model.parameters(), lr=rate), list(model.parameters()), 2)
    descend(optimiser(twin.parameters(), lr=float(rate)), list(twin.parameters()), 2)
    # A rate that is a tensor is one in single precision.
    bound = tolerance(XP, torch.float32, 6)
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=0, atol=bound)


def test_a_seed_may_be_as_long_as_one_likes():
    moved = []
    for seed in (2**70, 2**70, 2**70 + 1):
        U = start(20)
        U.grad = torch.randn(20, 20, dtype=U.dtype, generator=torch.Generator().manual_seed(0))
        lut.UnitarySGD([U], lr=0.1, seed=seed, unitary=True).step()
        moved.append(U.detach())
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


@pytest.mark.parametrize("rate", [0.0, 0, torch.tensor(0.0), torch.tensor([0.0])], ids=repr)
@pytest.mark.parametrize("zero", [True, False])
def test_at_a_rate_of_zero_nothing_moves_and_no_step_is_counted(optimiser, rate, zero):
    U, others = start(6), [start(4), start(4)]
    before = copy.deepcopy([U, *others])
    twins = copy.deepcopy([U, *others])
    descent, untouched = (optimiser(x, lr=0.1, unitary=True) for x in ([U, *others], twins))
    descent.param_groups[0]["lr"] = rate
    for parameter in (U, *others):
        parameter.grad = torch.zeros_like(parameter) if zero else torch.ones_like(parameter).cumsum(0)
    descent.step()
    for parameter, expected in zip((U, *others), before, strict=True):
        assert torch.equal(parameter, expected)
        assert descent.state[parameter]["steps"] == 0
    descent.param_groups[0]["lr"] = 0.1
    for x, y in ((descent, [U, *others]), (untouched, twins)):
        descend(x, y, 2)
    for parameter, expected in zip((U, *others), twins, strict=True):
        assert torch.equal(parameter, expected)
        assert descent.state[parameter].keys() == untouched.state[expected].keys()


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("count", [1, 2])
def test_a_rate_that_is_not_read_moves_as_the_same_number(monkeypatch, rate, count):
    # As on a GPU, where reading it would mean to wait.
    parameters = [start(5, seed=seed) for seed in range(count)]
    expected = copy.deepcopy(parameters)
    descend(lut.UnitarySGD(expected, lr=rate, unitary=True), expected, 1)
    monkeypatch.setattr(optimiser_module, "is_readable", lambda rate: not isinstance(rate, torch.Tensor))
    places = [parameter.data_ptr() for parameter in parameters]
    scale = torch.tensor(rate, dtype=torch.float64)
    descend(lut.UnitarySGD(parameters, lr=scale, unitary=True), parameters, 1)
    assert places == [parameter.data_ptr() for parameter in parameters]
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter, value, rtol=0, atol=0 if rate == 0 else 1e-15)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_reading_a_state_for_a_checkpoint_changes_nothing(optimiser):
    model = Mixed()
    descent, before = optimiser(model.parameters(), lr=0.1), copy.deepcopy(model)
    state = checkpoint.get_optimizer_state_dict(model, descent)
    for parameter, expected in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(parameter, expected)
    assert descent.state[model.unitary]["steps"] == 0
    descend(descent, list(model.parameters()), 2)
    state = copy.deepcopy(checkpoint.get_optimizer_state_dict(model, descent))
    again = copy.deepcopy(model)
    continued = optimiser(again.parameters(), lr=0.1)
    # SGD without momentum keeps nothing of ordinary parameters.
    options = checkpoint.StateDictOptions(strict=False)
    checkpoint.set_optimizer_state_dict(again, continued, state, options=options)
    for x, y in ((descent, model), (continued, again)):
        descend(x, list(y.parameters()), 2, first=2)
    for parameter, expected in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(parameter, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, *FIELDS], ids=str)
@pytest.mark.parametrize("n", [2, 40])
@pytest.mark.parametrize("optimiser", [lut.UnitarySGD, lut.UnitaryAdam])
def test_what_is_not_unitary_is_refused_unless_that_is_accepted(optimiser, dtype, n):
    generator = torch.Generator().manual_seed(n)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    normal = torch.randn(n, n, dtype=wide, generator=generator)
    for values in (
        normal,
        normal / math.sqrt(n),
        torch.nn.Linear(n, n).weight.data,
        0 * normal,
        math.nan * normal,
    ):
        W = torch.nn.Parameter(values.to(dtype))
        V = torch.nn.Parameter(torch.eye(n, dtype=dtype))
        before, descent = W.detach().clone(), optimiser([V, W], lr=0.1, unitary=True)
        V.grad = W.grad = torch.ones_like(W)
        with pytest.raises(ValueError, match="reunitarize"):
            descent.step()
        with pytest.raises(ValueError, match="reunitarize"):
            descent.step()
        torch.testing.assert_close(W.detach(), before, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(V, torch.eye(n, dtype=dtype))
        accepting = optimiser([{"params": [V]}, {"params": [W], "check": False}], lr=0.1, unitary=True)
        accepting.step()
        if not values.isnan().any():
            W.data = lu.reunitarize(normal).to(dtype)
            optimiser([W], lr=0.1, unitary=True).step()


@pytest.mark.gate
@pytest.mark.parametrize(
    ("dtype", "heal", "steps"),
    [(torch.float32, 0, 300), (torch.complex64, 1, 300), (torch.bfloat16, 1, 300), (torch.float16, 0, 300)],
    ids=str,
)
def test_what_training_has_left_is_unitary_enough_for_another_optimiser(dtype, heal, steps):
    n = 32
    exact = torch.complex64 if dtype.is_complex else torch.float32
    U = torch.nn.Parameter(lu.random_unitary(n, rng=0, xp=torch, dtype=exact).to(dtype))
    descend(lut.UnitarySGD([U], lr=0.01, heal=heal, unitary=True), [U], steps)
    for wide in (dtype, torch.complex128 if dtype.is_complex else exact):
        V = torch.nn.Parameter(U.detach().to(wide))
        if wide == dtype or dtype not in (torch.float16, torch.bfloat16):
            descend(lut.UnitarySGD([V], lr=0.01, unitary=True), [V], 1)


def test_a_parameter_is_checked_once_and_again_after_a_state_was_loaded(monkeypatch):
    checked = []
    monkeypatch.setattr(optimiser_module, "check_unitary", lambda parameter, rng: checked.append(parameter))
    U, V = start(4), start(4)
    descent = lut.UnitarySGD([U, V], lr=0.1, unitary=True)
    U.grad = torch.ones_like(U)
    descent.step()
    descent.step()
    assert len(checked) == 1
    V.grad = torch.ones_like(V)
    descent.step()
    assert [id(x) for x in checked] == [id(U), id(V)]
    descent.load_state_dict(copy.deepcopy(descent.state_dict()))
    descent.step()
    assert len(checked) == 4
    V.grad = None
    U, descent = copy.deepcopy((U, descent))
    descent.step()
    assert len(checked) == 4


@pytest.mark.parametrize("scaling", ["scalar", "rows"])
@pytest.mark.parametrize("size", [1e-17, 1e-8, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, *FIELDS], ids=str)
def test_adam_is_damped_by_eps_as_that_of_torch(scaling, size, dtype):
    n, lr = 6, 0.01
    U, W = (torch.nn.Parameter(torch.eye(n, dtype=dtype)) for _ in range(2))
    # A skew matrix is its own tangent part, and every row of this one has one root mean square.
    skew = torch.roll(torch.eye(n, dtype=dtype), 1, 0)
    skew = size * (skew - skew.mT)
    U.grad, W.grad = skew, skew
    lut.UnitaryAdam([U], lr, rank=n, scaling=scaling, heal=0, unitary=True).step()
    rms = float(torch.linalg.norm(skew)) / n
    # The exponential of torch is exact to 4e-11 only.
    angles, vectors = torch.linalg.eigh(1j * lr * skew / (rms + 1e-8))
    expected = (vectors * torch.exp(1j * angles)) @ vectors.mH
    bound = tolerance(XP, dtype, n)
    assert torch.linalg.norm(U.detach() - expected) < bound
    if size == 1e-17:
        torch.optim.Adam([W], lr).step()
        for moved in (U, W):
            assert torch.linalg.norm(moved.detach() - torch.eye(n)) < 1e-8

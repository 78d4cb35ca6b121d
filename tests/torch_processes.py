"""What processes of torch.distributed check of matrices that are spread over them (test_torch_sharding.py).

A module of its own: one process imports it and divides into those that meet, as importing takes longer than
all checks.
"""

import datetime
import json
import os
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

import lowrank_unitary as lu
import lowrank_unitary.torch as lut

# Of the process group, in seconds.
TIMEOUT = 120
UPDATES = ("geodesic", "cayley", "polar")


class World:
    def __init__(self, rank, size, folder, thorough):
        self.rank, self.size, self.thorough = rank, size, thorough
        # Of the functions, one in so many is tried.
        self.share = 1 if thorough else 2 if size == 2 else 6
        self.checkpoint = Path(folder, "checkpoint")
        self.mesh = init_device_mesh("cpu", (size,))

    def spread(self, x, placement):
        return distribute_tensor(x, self.mesh, [placement])


def whole(x):
    return x.full_tensor() if isinstance(x, DTensor) else x


def assert_same(one, many, scale=1.0):
    """Equal to rounding: 64 eps an entry, where sums of 1000 products in another order differ by a few."""
    many = whole(many)
    error = float(torch.amax(torch.abs(one - many))) if one.numel() else 0.0
    bound = 64 * torch.finfo(one.dtype).eps * scale
    assert one.dtype == many.dtype
    assert one.shape == many.shape
    assert error <= bound, f"differs by {error:.1e}, more than {bound:.1e}"


def problem(n, dtype, batch=()):
    """U, a gradient, and thin factors of a step."""
    source = torch.Generator().manual_seed(1)
    U = lu.random_unitary(n, rng=0, xp=torch, dtype=dtype, batch=batch)
    return U, *(
        torch.randn(*batch, n, m, dtype=dtype, generator=source) / n**0.5 for m in (n, min(2, n), min(2, n))
    )


def skew(factors):
    product = factors.dense()
    return (product - product.mH) / 2


def functions(k, share=1):
    """Pure functions as ones of U, a gradient and factors of a step: all of them, or every so manieth."""
    return list(_functions(k))[::share]


def _functions(k):
    for update in UPDATES:
        options = {"rank": k, "rng": 3, "update": update}
        yield lambda U, G, a, b, o=options: lu.unitary_step(U, G, 0.3, **o)
        yield lambda U, G, a, b, o=options: lu.unitary_step(U, lu.LowRankFactors(a, b), 0.3, **o)
        yield lambda U, G, a, b, o={**options, "rank": 1}: lu.unitary_step(
            U, lu.LowRankFactors(a, b), 0.3, **o
        )
    yield lambda U, G, a, b: lu.unitary_step(U, lu.BodyFactors(a, b), 0.3, 1, rng=3, heal=0)
    yield lambda U, G, a, b: lu.unitary_step(U, G, 0.3, k, rng=3, sketch="randomized")
    yield lambda U, G, a, b: lu.unitary_step(U.clone(), G, 0.3, k, rng=3, overwrite_unitary=True)
    for heal in (0, 1):
        yield lambda U, G, a, b, p=heal: lu.unitary_transport(U, a, b, heal=p, rng=1)
        yield lambda U, G, a, b, p=heal: lu.unitary_transport(U, a, b, heal=p, rng=1, update="cayley")
        yield lambda U, G, a, b, p=heal: lu.polar_projection(U, a, b, heal=p, rng=1)
    yield lambda U, G, a, b: lut.unitary_transport(U, a, b)
    yield lambda U, G, a, b: lut.polar_projection(U, a, b)
    yield lambda U, G, a, b: lu.rotate(U, lu.polar_rotation(lu.BodyFactors(a, b)))
    yield lambda U, G, a, b: lu.heal_unitary(1.001 * U, 1, rng=0)
    yield lambda U, G, a, b: lu.unitarity_defect(1.01 * U, probes=2, rng=0)
    yield lambda U, G, a, b: lu.unitarity_defect(1.01 * U)
    yield lambda U, G, a, b: lu.reunitarize(1.01 * U)


def sketches(k):
    yield lambda U, G: lu.tangent_sketch(U, G, k, rng=0)
    # With few samples the basis of the tangent of a real matrix of rank one is determined to rounding.
    yield lambda U, G: lu.tangent_sketch(U, G, rtol=0.3, rng=0)


def matrices_with_divided_rows_move_as_in_one_process(world):
    kinds = [(50, torch.float32), (4, torch.complex64)]
    if world.thorough:
        kinds += [
            (48, torch.complex64),
            (1, torch.float64),
            (2, torch.float32),
            (1000, torch.float32),
            (1000, torch.complex64),
        ]
    for n, dtype in kinds:
        k = min(2, n)
        U, G, a, b = problem(n, dtype)
        layouts = [(Shard(0), world.share if n > 4 else 3), (Replicate(), 8)]
        for placement, share in layouts if n < 1000 else layouts[:1]:
            Us, Gs = world.spread(U, placement), world.spread(G, placement)
            for function in functions(k, 1 if world.thorough and n < 1000 else share):
                assert_same(function(U, G, a, b), function(Us, Gs, a, b))
            # Perturbed samples turn a sketch by the gap of its singular values.
            for function in sketches(k):
                assert_same(skew(function(U, G)), skew(function(Us, Gs)), scale=10.0)
        moved = lu.unitary_step(Us, G, 0.3, k, rng=3)
        assert moved.placements == Us.placements
        assert_same(lu.unitary_step(U, G, 0.3, k, rng=3), moved)


def rows_of_a_stack_move_as_in_one_process(world):
    U, G, a, b = problem(7, torch.float32, (5,))
    Us, Gs = world.spread(U, Shard(1)), world.spread(G, Shard(1))
    for function in functions(2, 1 if world.thorough else 4):
        assert_same(function(U, G, a, b), function(Us, Gs, a, b))


def a_divided_stack_moves_as_in_one_process_without_communication(world):
    sizes = torch.arange(5.0) / 10
    for dtype in (torch.float32, torch.complex64)[: 2 if world.thorough else 1]:
        U, G, a, b = problem(7, dtype, (5,))
        Us, Gs, as_ = (world.spread(x, Shard(0)) for x in (U, G, a))
        with CommDebugMode() as sent:
            many = [function(Us, Gs, a, b) for function in functions(2, world.share)]
            many.append(lu.unitary_step(Us, G, sizes, 2, rng=1))
            many.append(lu.unitary_transport(Us, as_, b, heal=1, rng=1))
        assert not sent.get_total_counts()
        one = [function(U, G, a, b) for function in functions(2, world.share)]
        one.append(lu.unitary_step(U, G, sizes, 2, rng=1))
        one.append(lu.unitary_transport(U, a, b, heal=1, rng=1))
        for x, y in zip(one, many, strict=True):
            assert_same(x, y)


def counted(function):
    """The result, and the sizes of the sums over processes; anything else that is sent is an error."""
    sizes, inner = [], dist.all_reduce

    def all_reduce(tensor, *rest, **options):
        sizes.append(tensor.numel())
        return inner(tensor, *rest, **options)

    dist.all_reduce = all_reduce
    try:
        with CommDebugMode() as sent:
            result = function()
    finally:
        dist.all_reduce = inner
    assert sent.get_total_counts() == len(sizes)
    return result, sizes


def a_step_sends_at_most_three_thin_sums(world):
    n = 60
    U, G, a, b = problem(n, torch.float32)
    Us, Gs = world.spread(U, Shard(0)), world.spread(G, Shard(0))
    for k in (1, 3):
        for options in ({}, {"momentum": 0.9}, {"betas": (0.9, 0.99)}):
            parameter = torch.nn.Parameter(Us.clone())
            kind = lut.UnitaryAdam if "betas" in options else lut.UnitarySGD
            optimiser = kind([parameter], lr=0.1, rank=k, unitary=True, check=False, **options)
            parameter.grad = Gs
            _, sizes = counted(optimiser.step)
            assert 0 < len(sizes) <= (3 if options else 2)
            assert max(sizes) <= n * (4 * k + 16)
    assert counted(lambda: lu.unitary_transport(Us, a, b, heal=1, rng=0))[1] == [n * 3]
    assert counted(lambda: lu.rotate(Us, lu.transport_rotation(lu.BodyFactors(a, b))))[1] == []


def optimisers_move_spread_parameters_as_whole_ones(world):
    n, steps = (50, 50) if world.thorough else (20, 6)
    target = lu.cayley_unitary(n, rng=5, xp=torch, dtype=torch.float64)
    kinds = [(lut.UnitarySGD, {}), (lut.UnitarySGD, {"momentum": 0.9}), (lut.UnitaryAdam, {})]
    layouts = [((), Shard(0)), ((), Replicate()), ((4,), Shard(0)), ((4,), Shard(1))]
    if not world.thorough:
        # Each layout with one rule, the rows with two.
        pairs = list(
            zip([layouts[0], *layouts], [kinds[0], kinds[1], kinds[2], kinds[1], kinds[2]], strict=True)
        )
    else:
        pairs = [(layout, kind) for layout in layouts for kind in kinds]
    for (batch, placement), (kind, options) in pairs:
        start = lu.random_unitary(n, rng=0, xp=torch, dtype=torch.float64, batch=batch)
        one, many = torch.nn.Parameter(start.clone()), torch.nn.Parameter(world.spread(start, placement))
        goal = world.spread(target.expand(start.shape).contiguous(), placement)
        rules = [kind([p], lr=0.02, rank=2, unitary=True, **options) for p in (one, many)]
        for _ in range(steps):
            one.grad, many.grad = one.detach() - target, many.detach() - goal
            for rule in rules:
                rule.step()
        # A step of size one amplifies rounding by some units; Adam divides by small numbers.
        assert_same(one.detach(), many.detach(), scale=50.0)
        assert torch.all(lu.unitarity_defect(whole(many.detach())) < 1e-13)


class Recurrent(torch.nn.Module):
    def __init__(self, n):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = torch.nn.Linear(3, n), torch.nn.Linear(n, 2)
        self.U = torch.nn.Parameter(lu.random_unitary(n, rng=0, xp=torch, dtype=torch.float32))
        # Of the heads; fully sharded, whole matrices of it are divided, not rows.
        self.heads = torch.nn.Parameter(
            lu.random_unitary(n // 3, rng=1, batch=(3,), xp=torch, dtype=torch.float32)
        )

    def forward(self, x):
        h = torch.tanh(self.enter(x[:, 0]))
        for t in range(1, x.shape[1]):
            h = torch.tanh(self.enter(x[:, t]) + h @ self.U.mT)
        h = torch.einsum("hij,bhj->bhi", self.heads, h.unflatten(-1, (3, -1)))
        return self.leave(torch.sin(3 * h).flatten(-2))


class Training:
    """A recurrent network with its optimiser, on the share of the samples that a process has."""

    def __init__(self, wrap=lambda model: model, rank=0, size=1):
        self.rank, self.size = rank, size
        self.model = Recurrent(21)
        self.called = wrap(self.model)
        ordinary = [*self.model.enter.parameters(), *self.model.leave.parameters()]
        unitary = [self.model.U, self.model.heads]
        groups = [{"params": unitary, "unitary": True, "rank": 2}, {"params": ordinary}]
        self.optimiser = lut.UnitaryAdam(groups, lr=0.01)

    def losses(self, first, last):
        """The mean loss of all processes in each of these steps."""
        found = []
        for step in range(first, last):
            x = torch.randn(12, 5, 3, generator=torch.Generator().manual_seed(step))
            y = torch.stack([x.sum((1, 2)), x[:, 0, 0]], dim=1)
            mine = slice(self.rank * 12 // self.size, (self.rank + 1) * 12 // self.size)
            self.optimiser.zero_grad()
            loss = torch.nn.functional.mse_loss(self.called(x[mine]), y[mine])
            loss.backward()
            self.optimiser.step()
            mean = loss.detach() / self.size
            if self.size > 1:
                dist.all_reduce(mean)
            found.append(float(mean))
        return torch.tensor(found)

    def state(self):
        model, optimiser = get_state_dict(self.model, self.optimiser)
        return {"model": model, "optimiser": optimiser}


def a_fully_sharded_network_learns_as_in_one_process_and_is_saved(world):
    steps = 100 if world.thorough else 10
    many = Training(lambda model: fully_shard(model, mesh=world.mesh), world.rank, world.size)
    curve = many.losses(0, steps)
    assert torch.amax(torch.abs(curve - Training().losses(0, steps))) < 1e-5 * torch.amax(curve)
    if world.size == 2:
        dcp.save(many.state(), checkpoint_id=world.checkpoint)


def a_checkpoint_continues_on_another_number_of_processes(world):
    saved = 100 if world.thorough else 10
    many = Training(lambda model: fully_shard(model, mesh=world.mesh), world.rank, world.size)
    state = many.state()
    dcp.load(state, checkpoint_id=world.checkpoint)
    set_state_dict(
        many.model, many.optimiser,
        model_state_dict=state["model"], optim_state_dict=state["optimiser"],
    )  # fmt: skip
    curve = many.losses(saved, saved + 5)
    expected = Training().losses(0, saved + 5)[-5:]
    assert torch.amax(torch.abs(curve - expected)) < 1e-5 * torch.amax(curve)


def replicas_take_the_same_step_to_the_last_bit(world):
    wrap = torch.nn.parallel.DistributedDataParallel
    many = Training(wrap, world.rank, world.size)
    curve = many.losses(0, 10)
    assert torch.amax(torch.abs(curve - Training().losses(0, 10))) < 1e-5 * torch.amax(curve)
    for parameter in (many.model.U, many.model.heads):
        mine = parameter.detach()
        all_of_them = [torch.empty_like(mine) for _ in range(world.size)]
        dist.all_gather(all_of_them, mine)
        assert all(torch.equal(other, mine) for other in all_of_them)


def captured_factors_are_averaged_in_thin_blocks(world):
    """By DDP and FSDP2, which leave the capturing weight alone; few samples, then more than U has columns."""
    n = 12
    for count, scaled in ((3, False), (3, True), (15, False)):
        models = []
        for _ in range(2):
            torch.manual_seed(0)
            layer = lut.capture_factors(torch.nn.Linear(n, n))
            layer.weight.data = lu.random_unitary(n, rng=0, xp=torch, dtype=torch.float32)
            models.append(torch.nn.Sequential(layer, torch.nn.Tanh()))
        one, many = models
        if scaled:
            called = fully_shard(many, mesh=world.mesh, ignored_params={many[0].weight})
        else:
            # What torch's own documentation names for parameters that are exchanged in another way.
            kind = torch.nn.parallel.DistributedDataParallel
            kind._set_params_and_buffers_to_ignore_for_model(many, ["0.weight"])
            called = kind(many)
        rules = [lut.UnitarySGD(x.parameters(), lr=0.1, rank=2) for x in models]
        for step in range(2):
            x = torch.randn(world.size * count, n, generator=torch.Generator().manual_seed(step))
            mine = x[world.rank * count : (world.rank + 1) * count]
            for rule in rules:
                rule.zero_grad()
            one(x).square().sum().div(world.size).backward()
            called(mine).square().sum().backward()
            with CommDebugMode() as sent:
                lut.average_factors(many.parameters())
            # The numbers of columns, and the factors.
            assert sent.get_total_counts() == 2
            for rule in rules:
                rule.step()
        assert_same(one[0].weight.detach(), many[0].weight.detach())
        assert_same(one[0].bias.detach(), whole(many[0].bias.detach()))
    # Some processes may have captured nothing.
    layer = lut.capture_factors(torch.nn.Linear(2, 2))
    if world.rank == 0:
        layer(torch.ones(1, 2)).sum().backward()
    lut.average_factors(layer.weight)
    left, right = lut.captured_factors(layer.weight)
    expected = torch.ones(2) @ layer.weight.detach() / world.size
    assert_same(expected[:, None], left)
    assert_same(torch.ones(2, 1), right)


def refused(error, words, function, *arguments, **options):
    try:
        function(*arguments, **options)
        message = "nothing was refused"
    except error as found:
        message = str(found)
    assert words in message, message


def what_is_laid_out_otherwise_is_refused(world):
    U, G, a, b = problem(6, torch.float32)
    Us, Gs, as_ = (world.spread(x, Shard(0)) for x in (U, G, a))
    columns = world.spread(U, Shard(1))
    partial = DTensor.from_local(U, world.mesh, [Partial()], run_check=False)
    tall = world.spread(torch.eye(6)[:, :3].contiguous(), Shard(0))
    stack = world.spread(torch.stack([U, U, U]), Shard(0))
    refused(ValueError, "Shard(0)", lu.unitary_step, columns, G, 0.1, 1, rng=0)
    refused(ValueError, "Partial", lu.unitary_step, partial, G, 0.1, 1, rng=0)
    refused(ValueError, "must be square", lu.heal_unitary, tall, 1, rng=0)
    refused(ValueError, "gradient must be laid out", lu.unitary_step, U, Gs, 0.1, 1, rng=0)
    refused(TypeError, "left.full_tensor()", lu.unitary_transport, Us, as_, b)
    refused(ValueError, "same on every process", lu.unitary_step, Us, Gs, 0.1, 1)
    refused(RuntimeError, "no_grad", lu.unitary_transport, Us.clone().requires_grad_(), a, b)
    refused(TypeError, "to_local()", lu.tangent_sketch, stack, stack, 1, rng=0)
    refused(TypeError, "take method='randomized'", lu.svd_sketch, Gs, 1, method="exact")
    far = torch.nn.Parameter(world.spread(2 * U, Shard(0)))
    far.grad = Gs
    refused(ValueError, "reunitarize", lut.UnitarySGD([far], unitary=True).step)


def a_dead_process_is_an_error_to_all_others(world):
    U, G, _, _ = problem(30, torch.float32)
    Us, Gs = world.spread(U, Shard(0)), world.spread(G, Shard(0))
    moved = lu.unitary_step(Us, Gs, 0.1, 1, rng=0)
    if world.rank == world.size - 1:
        return
    started = time.monotonic()
    refused(RuntimeError, "one of them has ended", lu.unitary_step, moved, Gs, 0.1, 1, rng=1)
    assert time.monotonic() - started < TIMEOUT


CHECKS = (
    matrices_with_divided_rows_move_as_in_one_process,
    rows_of_a_stack_move_as_in_one_process,
    a_divided_stack_moves_as_in_one_process_without_communication,
    a_step_sends_at_most_three_thin_sums,
    optimisers_move_spread_parameters_as_whole_ones,
    a_fully_sharded_network_learns_as_in_one_process_and_is_saved,
    a_checkpoint_continues_on_another_number_of_processes,
    replicas_take_the_same_step_to_the_last_bit,
    captured_factors_are_averaged_in_thin_blocks,
    what_is_laid_out_otherwise_is_refused,
    # The last one: a process has ended.
    a_dead_process_is_an_error_to_all_others,
)


def work(rank, size, folder, names, thorough):
    """Run the named checks, and write down what each found."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting-{size}", rank=rank, world_size=size,
        timeout=datetime.timedelta(seconds=TIMEOUT),
    )  # fmt: skip
    world, found = World(rank, size, folder, thorough), {}
    report = Path(folder, f"found-{size}-{rank}.json")
    for check in CHECKS:
        if check.__name__ not in names:
            continue
        started = time.process_time()
        try:
            check(world)
        except Exception:
            found[check.__name__] = traceback.format_exc()
            report.write_text(json.dumps(found))
            # The others find out at their next sum.
            os._exit(1)
        found[check.__name__] = None
        found[f"seconds of {check.__name__}"] = round(time.process_time() - started, 2)
        report.write_text(json.dumps(found))
    # The last check has left no group to be closed.
    os._exit(0)


def run(folder, plan, thorough):
    """For every number of processes of the plan, its checks in so many copies of this process."""
    torch.set_num_threads(1)
    # What torch would load in each of them at its first use.
    torch.optim.SGD([torch.zeros(1)])
    for size, names in plan:
        copies = []
        for rank in range(size):
            if (copy := os.fork()) == 0:
                try:
                    work(rank, size, folder, names, thorough)
                except BaseException:
                    traceback.print_exc()
                os._exit(1)
            copies.append(copy)
        for copy in copies:
            os.waitpid(copy, 0)

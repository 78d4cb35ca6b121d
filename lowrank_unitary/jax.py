"""Optimisers for optax that move unitary matrices by low-rank steps.

gradient of jax.grad ─conjugate→ direction of steepest ascent ─sketch→ body factors
                     ─momentum, Adam→ body factors ─rotate U→ update U_new − U
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ._array import Array, placement, validate
from ._kernels import UPDATES
from ._linalg import RNG
from .step import unitary_step
from .tangent.momentum import MomentumState, momentum_step
from .tangent.sketch import compress_tangent, tangent_sketch
from .types import BodyFactors, LowRankFactors

try:
    import jax
    import jax.numpy as jnp
    import optax
except ImportError as error:
    raise ImportError(
        f"lowrank_unitary.jax needs jax and optax, and {error.name or error} is missing: "
        f"pip install jax optax."
    ) from error

__all__ = ["UnitaryState", "unitary_adam", "unitary_sgd"]

# (U, gradient, carried state, key) -> (gradient or body factors, carried state)
Direction = Callable[[Array, Any, Any, RNG], tuple[Any, Any]]


class UnitaryState(NamedTuple):
    """The state of an optimiser, arrays only.

    Attributes
    ----------
    count : array, shape ()
        Number of steps taken, int32.
    key : array, shape (2,)
        The words of a JAX key of the kind threefry2x32, from the seed; a key for every step and leaf is
        derived from it.
    momentum : pytree like the parameters
        A :class:`~lowrank_unitary.MomentumState` for every leaf, or None without momentum.
    """

    count: Array
    key: Array
    momentum: Any


def unitary_sgd(
    learning_rate: Any,
    *,
    rank: int = 1,
    momentum: float = 0.0,
    nesterov: bool = False,
    update: str = "geodesic",
    heal: int = 1,
    seed: int = 0,
) -> optax.GradientTransformation:
    """Stochastic gradient descent over unitary matrices, in the manner of ``optax.sgd``.

    Parameters
    ----------
    learning_rate : float, array or schedule
        η, or a function of the number of steps. May be traced.
    rank : int
        k, the number of columns of sketches and momentum, from 1 to the smallest n.
    momentum : float
        β, from 0 to less than 1, of the average tangent M ← βM + A in the body frame.
    nesterov : bool
        Move along A + βM in place of M.
    update, heal : as for :func:`~lowrank_unitary.unitary_step`
    seed : int
        Of all random numbers.

    Returns
    -------
    optax.GradientTransformation
        Its update needs the parameters, ``update(gradients, state, params)``, and returns U_new − U. All
        leaves must be stacks of matrices, square or with orthonormal columns or rows.

    Notes
    -----
    O(kn²) a step; with momentum healing reads U once more. Arrays among the gradients are those of
    ``jax.grad``, for complex parameters the conjugate of the direction of steepest ascent; they are
    conjugated here. LowRankFactors and BodyFactors in place of an array are not conjugated. It must come last
    in ``optax.chain``: a multiple of U_new − U leads away from the unitary matrices.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary.jax import unitary_sgd
    >>> target = lu.cayley_unitary(16, rng=1, xp=jnp, dtype=jnp.float32)
    >>> optimiser = unitary_sgd(0.3, rank=4, momentum=0.5)
    >>> @jax.jit
    ... def step(U, state):
    ...     gradient = jax.grad(lambda U: 0.5 * jnp.sum((U - target) ** 2))(U)
    ...     updates, state = optimiser.update(gradient, state, U)
    ...     return optax.apply_updates(U, updates), state
    >>> U = jnp.eye(16, dtype=jnp.float32)
    >>> state = optimiser.init(U)
    >>> for _ in range(60):
    ...     U, state = step(U, state)
    >>> bool(jnp.linalg.norm(U - target) < 1e-2), bool(lu.unitarity_defect(U) < 1e-5)
    (True, True)
    """
    momentum = _fraction("momentum", momentum)
    validate.flag("nesterov", nesterov)
    if nesterov and not momentum:
        raise ValueError(f"momentum must be more than 0 for nesterov=True, got {momentum}: pass one.")

    def direction(U: Array, G: Any, carried: Any, key: RNG) -> tuple[Any, Any]:
        if not momentum:
            return G, carried
        body = _body_factors(U, G, rank, key)
        return momentum_step(body, carried, decay=momentum, average=False, nesterov=nesterov)

    return _optimiser(learning_rate, direction, rank, update, heal, seed, "none" if momentum else None)


def unitary_adam(
    learning_rate: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    rank: int = 1,
    scaling: str = "scalar",
    nesterov: bool = False,
    update: str = "geodesic",
    heal: int = 1,
    seed: int = 0,
) -> optax.GradientTransformation:
    """Adam over unitary matrices; with b1=0 it is RMSprop.

    Parameters
    ----------
    learning_rate, rank, update, heal, seed : as for :func:`unitary_sgd`
    b1, b2 : float
        The decays of the average tangent and of its mean squares, from 0 to less than 1.
    eps, scaling, nesterov : as for :func:`~lowrank_unitary.momentum_step`

    Notes
    -----
    Gradients, chains and cost as for :func:`unitary_sgd`. With scaling="scalar" the entries of the direction
    have a root mean square of about 1; it turns U by angles of about η√n.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary.jax import unitary_adam
    >>> target = lu.random_unitary(16, rng=1, xp=jnp, dtype=jnp.complex64)
    >>> optimiser = unitary_adam(optax.exponential_decay(0.2, 1, 0.98), rank=4)
    >>> @jax.jit
    ... def step(U, state):
    ...     gradient = jax.grad(lambda U: jnp.sum(jnp.abs(U - target) ** 2))(U)
    ...     updates, state = optimiser.update(gradient, state, U)
    ...     return optax.apply_updates(U, updates), state
    >>> U = jnp.eye(16, dtype=jnp.complex64)
    >>> state = optimiser.init(U)
    >>> for _ in range(200):
    ...     U, state = step(U, state)
    >>> bool(jnp.linalg.norm(U - target) < 0.1), bool(lu.unitarity_defect(U) < 1e-5)
    (True, True)
    """
    b1, b2 = _fraction("b1", b1), _fraction("b2", b2)
    _known("eps", eps)
    if not validate.size("eps", eps) < math.inf:
        raise ValueError(f"eps must be finite, got {eps}.")
    validate.flag("nesterov", nesterov)
    validate.choice("scaling", scaling, ("scalar", "rows"))

    def direction(U: Array, G: Any, carried: Any, key: RNG) -> tuple[Any, Any]:
        body = _body_factors(U, G, rank, key)
        return momentum_step(body, carried, decay=b1, second_decay=b2, nesterov=nesterov, eps=eps)

    return _optimiser(learning_rate, direction, rank, update, heal, seed, scaling)


def _optimiser(
    learning_rate: Any,
    direction: Direction,
    rank: int,
    update: str,
    heal: int,
    seed: int,
    scaling: str | None,
) -> optax.GradientTransformation:
    """The transformation that moves every leaf along its direction."""
    for name, value in (("rank", rank), ("heal", heal)):
        _known(name, value)
        validate.count(name, value)
    validate.positive("rank", rank)
    validate.choice("update", update, UPDATES)
    _check_rate(learning_rate)
    seed = _checked_seed(seed)

    def init(params: Any) -> UnitaryState:
        leaves, tree = _leaves(params)
        averages = [scaling and MomentumState.start(U, rank, scaling=scaling) for _, U in leaves]
        # One kind of key whatever the default is, as plain words for checkpoints.
        words = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
        count, words = (_spread(x, leaves) for x in (jnp.zeros((), jnp.int32), words))
        return UnitaryState(count, words, tree.unflatten(averages))

    def step(gradients: Any, state: UnitaryState, params: Any = None) -> tuple[Any, UnitaryState]:
        if params is None:
            raise ValueError(
                "params must be given, got None: a step depends on where the matrices are. "
                "Call update(gradients, state, params)."
            )
        leaves, tree = _leaves(params)
        # The gradient of a leaf may be factors, two arrays.
        given = zip(leaves, tree.flatten_up_to(gradients), tree.flatten_up_to(state.momentum), strict=True)
        eta = learning_rate(state.count) if callable(learning_rate) else learning_rate
        _check_rate(eta)
        # optax.inject_hyperparams makes numbers complex for complex parameters.
        eta = jnp.real(jnp.asarray(eta))
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl="threefry2x32"), state.count)
        updates, momentum = [], []
        for index, ((name, U), G, carried) in enumerate(given):
            leaf_key = jax.random.fold_in(key, index)
            try:
                thin = isinstance(G, LowRankFactors | BodyFactors)
                G = jax.tree.map(jnp.asarray if thin else jnp.conj, G)
                along, carried = direction(U, G, carried, leaf_key)
                moved = unitary_step(U, along, eta, rank=rank, update=update, heal=heal, rng=leaf_key)
            except (TypeError, ValueError) as error:
                error.add_note(f"This happened at {name}.")
                raise
            updates.append(moved - U)
            momentum.append(carried)
        count = optax.safe_increment(state.count)
        return tree.unflatten(updates), UnitaryState(count, state.key, tree.unflatten(momentum))

    return optax.GradientTransformation(init, step)


def _body_factors(U: Array, G: Any, rank: int, key: RNG) -> BodyFactors:
    if isinstance(G, BodyFactors):
        return compress_tangent(G, rank, rng=key)
    return tangent_sketch(U, G, rank, rng=key)


def _leaves(params: Any) -> tuple[list[tuple[str, Array]], Any]:
    """The matrices with their names, and the tree structure."""
    leaves, tree = jax.tree.flatten_with_path(params)
    named = [(f"params{jax.tree_util.keystr(path)}", jnp.asarray(U)) for path, U in leaves]
    for name, U in named:
        if U.ndim < 2:
            raise ValueError(
                f"{name} must have shape (…, m, n), got {U.shape}: leave other parameters to another "
                f"optimiser, by optax.multi_transform."
            )
    return named, tree


def _spread(small: Array, leaves: list[tuple[str, Array]]) -> Array:
    """An array on all devices of matrices that are spread over several, where a step leaves it.

    Were it elsewhere before the first step, the second one would be compiled anew.
    """
    places = (placement(U) for _, U in leaves)
    place = next((place for place in places if isinstance(place, jax.sharding.Sharding)), None)
    return small if place is None else jax.device_put(small, place)


def _check_rate(learning_rate: Any) -> None:
    """Refuse what is no number, and more of them than one."""
    if callable(learning_rate):
        return
    if not hasattr(learning_rate, "dtype"):
        validate.number("learning_rate", learning_rate)
        return
    wrong = learning_rate.ndim > 0 or isinstance(learning_rate, np.ma.MaskedArray)
    wrong |= not jnp.isdtype(learning_rate.dtype, "numeric")
    # optax.inject_hyperparams makes numbers complex beside complex parameters.
    if not wrong and not isinstance(learning_rate, jax.core.Tracer):
        wrong = bool(np.imag(learning_rate) != 0)
    if wrong:
        raise TypeError(
            f"learning_rate must be one real number or a schedule, got {type(learning_rate).__name__} of "
            f"{learning_rate.dtype} and shape {tuple(learning_rate.shape)}."
        )


def _checked_seed(seed: int) -> int:
    number = validate.index(seed)
    if number is None:
        raise TypeError(f"seed must be a whole number, got {seed!r} of type {type(seed).__name__}.")
    # What jax.random.key takes.
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"seed must be a whole number of 64 bits, from −2⁶³ to 2⁶³ − 1, got {number}.")
    return number


def _known(name: str, value: Any) -> None:
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} must be known before anything is traced, got a tracer: only learning_rate may be one. "
            f"With optax.inject_hyperparams wrap a function of the learning rate alone, "
            f"lambda learning_rate: unitary_sgd(learning_rate, {name}=…)."
        )


def _fraction(name: str, value: float) -> float:
    _known(name, value)
    return validate.fraction(name, value)

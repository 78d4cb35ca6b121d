"""Initialisers, defects and repair."""

import numpy as np
import pytest
import scipy.stats
from cases import ct, normal
from hypothesis import given
from hypothesis import strategies as st
from profiles import of_profile

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import tolerance
from lowrank_unitary.testing import assert_unitary

INITIALISERS = (lu.random_unitary, lu.henaff_unitary, lu.cayley_unitary)


@pytest.mark.parametrize("initialise", INITIALISERS)
@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("batch", [(), (3,), (2, 0)])
def test_initialisers_give_unitary_matrices(initialise, n, batch, dtype):
    U = initialise(n, dtype=dtype, batch=batch, rng=0)
    assert U.shape == (*batch, n, n)
    assert U.dtype == dtype
    assert_unitary(U)
    np.testing.assert_array_equal(U, initialise(n, dtype=dtype, batch=batch, rng=0))


@pytest.mark.parametrize("initialise", INITIALISERS)
def test_initialisers_serve_every_namespace_and_device(initialise, backend):
    if backend.read_only:
        return
    U = initialise(3, dtype=backend.xp.complex128, rng=1, xp=backend.xp, device=backend.device)
    assert type(U) is type(backend.array(np.zeros(2)))
    if backend.device is not None:
        assert str(U.device) == str(backend.device)
    assert np.abs(lu.testing.to_numpy(U) - initialise(3, dtype=np.complex128, rng=1)).max() < 1e-14


def test_haar_matrices_have_uniform_eigenvalue_phases_and_both_determinants():
    complex_phases = np.angle(
        np.linalg.eigvals(lu.random_unitary(4, dtype=complex, batch=(500,), rng=0)[:, :, :])
    )
    # One phase a matrix, chosen at random: those of one matrix repel each other.
    chosen = complex_phases[np.arange(500), np.random.default_rng(1).integers(0, 4, 500)]
    assert scipy.stats.kstest(chosen, scipy.stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    signs = np.sign(np.linalg.det(lu.random_unitary(3, batch=(400,), rng=2)))
    assert scipy.stats.binomtest(int((signs > 0).sum()), 400).pvalue > 1e-3
    # E|u₁₁|⁴ is 2/(n(n+1)) for unitary and 3/(n(n+2)) for orthogonal Haar matrices.
    for kind, expected in ((complex, 2 / 20), (float, 3 / 24)):
        U = lu.random_unitary(4, dtype=kind, batch=(4000,), rng=3)
        assert np.mean(np.abs(U) ** 4) == pytest.approx(expected, rel=0.03)


def test_plane_rotations_have_the_angles_of_their_papers():
    U = lu.henaff_unitary(2, batch=(2000,), rng=0)
    angles = np.arctan2(U[:, 1, 0], U[:, 0, 0])
    assert scipy.stats.kstest(angles, scipy.stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    U = lu.cayley_unitary(2, batch=(2000,), rng=0)
    angles = np.arctan2(U[:, 1, 0], U[:, 0, 0])
    assert scipy.stats.kstest(angles, scipy.stats.uniform(0, np.pi / 2).cdf).pvalue > 1e-3
    # Defined as (I + A)⁻¹(I − A) with A = [[0, s], [−s, 0]], s = tan(t/2).
    s = np.tan(angles[0] / 2)
    A = np.array([[0, s], [-s, 0]])
    np.testing.assert_allclose(U[0], np.linalg.solve(np.eye(2) + A, np.eye(2) - A), atol=1e-14)
    assert lu.henaff_unitary(5, rng=0)[4, 4] == lu.cayley_unitary(5, rng=0)[4, 4] == 1


@given(n=st.integers(1, 10), seed=st.integers(0, 2**32 - 1), log_size=st.floats(-6, 1))
def test_defect_equals_its_definition(n, seed, log_size):
    rng = np.random.default_rng(seed)
    for kind in ("float64", "complex64"):
        U = (lu.random_unitary(n, dtype=kind, rng=rng) + 10**log_size * normal(rng, (n, n), kind)).astype(
            kind
        )
        expected = float(reference.unitarity_defect(U))
        assert float(lu.unitarity_defect(U)) == pytest.approx(expected, rel=1e-10, abs=1e-14 * n)


def test_estimated_defect_is_unbiased_in_the_square():
    rng = np.random.default_rng(0)
    for kind in ("float64", "complex128"):
        U = lu.random_unitary(10, dtype=kind, rng=rng) + 1e-3 * normal(rng, (10, 10), kind)
        exact = float(lu.unitarity_defect(U))
        squares = [float(lu.unitarity_defect(U, probes=2, rng=seed)) ** 2 for seed in range(400)]
        spread = np.std(squares) / np.sqrt(400)
        assert abs(np.mean(squares) - exact**2) <= 4 * spread


def test_is_unitary_separates_rounding_from_faults(dtype):
    U = lu.random_unitary(30, dtype=dtype, batch=(2,), rng=0)
    U[1] *= 1 + 100 * np.finfo(dtype).eps
    assert lu.is_unitary(U).tolist() == [True, False]
    assert lu.is_unitary(U, atol=1.0).tolist() == [True, True]
    assert not lu.is_unitary(U * np.nan).any()


@pytest.mark.parametrize("size", [1e-9, 1e-4, 0.1, 10.0])
def test_reunitarize_gives_the_nearest_unitary_matrix(size, dtype):
    rng = np.random.default_rng(1)
    U = lu.random_unitary(8, dtype=dtype, batch=(2,), rng=rng) + np.float32(size) * normal(
        rng, (2, 8, 8), dtype
    )
    U = U.astype(dtype)
    repaired = lu.reunitarize(U)
    smallest = np.linalg.svd(U, compute_uv=False).min()
    bound = tolerance(np, dtype, 8) * max(1, 1 / smallest)
    # One Newton–Schulz step leaves the square of the defect, below eps where it is taken.
    assert np.abs(repaired - reference.polar_factor(U)).max() <= bound
    assert_unitary(repaired)


def test_reunitarize_answers_singular_and_nan_matrices():
    assert_unitary(lu.reunitarize(np.zeros((3, 3))))
    both = np.stack([np.eye(3) * np.nan, 2 * np.eye(3)])
    repaired = lu.reunitarize(both)
    assert np.isnan(repaired[0]).all()
    np.testing.assert_allclose(repaired[1], np.eye(3), atol=1e-15)


@pytest.mark.parametrize("probes", [1, 4])
@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_healing_contracts_the_defect_at_its_rate(probes, kind):
    n = 32
    rng = np.random.default_rng(0)
    U = lu.random_unitary(n, dtype=kind, rng=rng)
    H = normal(rng, (n, n), kind)
    U = U @ (np.eye(n) + 1e-3 * (H + ct(H)) / np.linalg.norm(H + ct(H)))
    steps = int(np.log(1e6) / (probes / n))
    before = float(lu.unitarity_defect(U))
    for _ in range(steps):
        U = lu.heal_unitary(U, probes, rng=rng)
    # Its Frobenius norm falls like (1 − p/n)^steps, within ±30 % of the rate.
    rate = -np.log(float(lu.unitarity_defect(U)) / before) / steps
    assert 0.7 <= rate / (probes / n) <= 1.3


@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_healing_along_all_directions_leaves_the_square_of_the_defect(kind):
    rng = np.random.default_rng(3)
    U = lu.random_unitary(8, dtype=kind, rng=rng) + 1e-4 * normal(rng, (8, 8), kind)
    before = float(lu.unitarity_defect(U))
    assert float(lu.unitarity_defect(lu.heal_unitary(U, 8, rng=rng))) <= before**2


@pytest.mark.parametrize("update", ["geodesic", "polar"])
def test_healing_within_a_step_contracts_the_defect_while_it_moves(update):
    n = 16
    rng = np.random.default_rng(1)
    U = lu.random_unitary(n, dtype=complex, rng=rng) * (1 + 1e-4)
    for _ in range(300):
        lu.unitary_step(
            U,
            normal(rng, (n, n), complex),
            0.1,
            rank=2,
            update=update,
            heal=2,
            rng=rng,
            overwrite_unitary=True,
        )
    assert float(lu.unitarity_defect(U)) < 1e-13


def test_one_probe_a_step_stops_the_drift_of_single_precision():
    n, steps = 64, of_profile(quick=1000, thorough=3000)
    defects = {}
    for heal in (0, 1):
        rng = np.random.default_rng(2)
        U = lu.random_unitary(n, dtype="float32", rng=rng)
        for _ in range(steps):
            G = normal(rng, (n, 1), "float32") @ normal(rng, (1, n), "float32") / n
            lu.unitary_step(U, G, 0.3, rank=1, sketch="lsi", heal=heal, rng=rng, overwrite_unitary=True)
        defects[heal] = float(lu.unitarity_defect(U))
    assert defects[1] < 4e-6
    # Without healing, 3.6e-8·√(n·steps) = 1.6e-5.
    assert 0.5 < defects[0] / (3.6e-8 * np.sqrt(n * steps)) < 2


def seeded_defect(n, size, dtype, rng):
    U = lu.random_unitary(n, dtype=dtype, rng=rng)
    H = normal(rng, (n, n), dtype)
    H = H + ct(H)
    return U @ (np.eye(n) + 0.5 * size * H / np.linalg.norm(H))


@pytest.mark.parametrize("probes", [1, 4])
@pytest.mark.parametrize("how", ["alone", "transport", "polar"])
def test_a_seeded_defect_is_healed_within_the_steps_that_the_rate_predicts(probes, how):
    n = 64
    rng = np.random.default_rng(0)
    U = seeded_defect(n, 1e-3, "float64", rng)
    assert 0.9e-3 < float(lu.unitarity_defect(U)) < 1.1e-3
    # (1 − p/n)^steps = 1e-9
    predicted = np.log(1e-9) / np.log(1 - probes / n)
    update = {"transport": lu.unitary_transport, "polar": lu.polar_projection}
    steps = 0
    while float(lu.unitarity_defect(U)) > 1e-12 and steps < 2 * predicted:
        for _ in range(10):
            if how == "alone":
                U = lu.heal_unitary(U, probes, rng=rng)
            else:
                a, b = normal(rng, (n, 1), "float64"), normal(rng, (n, 1), "float64") / n
                U = update[how](U, a, b, heal=probes, rng=rng)
            steps += 1
    assert 0.7 <= steps / predicted <= 1.3


@pytest.mark.parametrize("factor", [0.01, 0.5, 3.0, 1e4])
def test_healing_brings_a_matrix_far_from_unitary_nearer(factor, dtype):
    rng = np.random.default_rng(1)
    U = (lu.random_unitary(8, dtype=dtype, rng=rng) * np.float32(factor)).astype(dtype)
    for _ in range(400):
        U = lu.heal_unitary(U, 2, rng=rng)
    assert float(lu.unitarity_defect(U)) < 1e3 * np.finfo(dtype).eps


def test_probes_miss_a_defect_no_more_often_than_stated():
    # The worst case is a defect of rank one: χ² with one degree of freedom a probe, two for complex data.
    rng = np.random.default_rng(0)
    n, draws = 6, 4000
    for kind, degrees in (("float64", 1), ("complex128", 2)):
        for p in (1, 2, 4):
            for rank_one in (True, False):
                U = np.eye(n, dtype=kind)
                U[0, 0] += 1e-3
                if not rank_one:
                    U = seeded_defect(n, 1e-3, kind, rng)
                estimates = lu.unitarity_defect(
                    np.broadcast_to(U, (draws, n, n)), probes=p, rng=np.random.default_rng(p)
                )
                for factor in (3.0, 10.0):
                    missed = np.mean(estimates * factor < float(lu.unitarity_defect(U)))
                    stated = scipy.stats.chi2(degrees * p).cdf(degrees * p / factor**2)
                    assert missed <= stated + 4 * np.sqrt(stated / draws)
                    if rank_one:
                        assert missed >= stated - 4 * np.sqrt(stated / draws) - 1 / draws


def test_a_delayed_unitary_heals_when_it_is_flushed(dtype):
    rng = np.random.default_rng(2)
    U = (lu.random_unitary(8, dtype=dtype, rng=rng) * np.float32(1 + 1e-3)).astype(dtype)
    delayed = lu.DelayedUnitary(U)
    before = lu.unitarity_defect(U)
    healed = delayed.flush(heal=2, rng=0).base
    np.testing.assert_allclose(healed, lu.heal_unitary(U, 2, rng=0), atol=10 * np.finfo(dtype).eps)
    body = lu.BodyFactors(normal(rng, (8, 1), dtype), normal(rng, (8, 1), dtype))
    rotation = lu.transport_rotation(body)
    moved = delayed.rotate(rotation).flush(heal=2, rng=0)
    assert moved.rotation is None
    np.testing.assert_allclose(moved.base, lu.rotate(healed, rotation), atol=20 * np.finfo(dtype).eps)
    assert lu.unitarity_defect(moved.base) < before


@pytest.mark.parametrize("sketch", ["tangent", "lsi"])
def test_a_step_heals_unless_told_not_to(sketch, dtype):
    rng = np.random.default_rng(3)
    U = (lu.random_unitary(6, dtype=dtype, rng=rng) * np.float32(1 + 1e-3)).astype(dtype)
    G = normal(rng, (6, 6), dtype)
    options = {"rank": 1, "sketch": sketch, "rng": 0}
    before = lu.unitarity_defect(U)
    assert lu.unitarity_defect(lu.unitary_step(U, G, 0.01, **options)) < 0.95 * before
    kept = lu.unitarity_defect(lu.unitary_step(U, G, 0.01, heal=0, **options))
    assert kept == pytest.approx(before, rel=2e4 * float(np.finfo(dtype).eps))
    np.testing.assert_array_equal(lu.unitary_step(U, 0 * G, 0.01, heal=0, **options), U)

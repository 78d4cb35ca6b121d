"""What the published projUNN code gets wrong, each as a property that holds here.

The list is in the order of the paper's algorithms: core, sketches, degenerate steps, drift, side effects.
"""

import numpy as np
import pytest
from cases import UPDATES, ct, error, make_step, normal

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary.testing import assert_rotation, assert_unitary

update = pytest.mark.parametrize("update", UPDATES)
double = pytest.mark.parametrize("dtype", ["float64", "complex128"])


@update
@double
@pytest.mark.parametrize("k", [1, 2, 5])
def test_double_precision_is_kept_at_every_rank(update, dtype, k):
    # Published: 5e-8 at rank 1 (a complex64 core), 1e-8 otherwise (an absolute 1e-8 under the root).
    apply, dense = UPDATES[update]
    for norm in (1e-8, 1e-2, 0.9):
        step = make_step(k, 20, k, dtype, norm=norm)
        difference = reference.extended(apply(*step.arrays)) - dense(*step.arrays)
        assert reference.spectral_norm(difference) < 1e-14


@update
@double
def test_repeated_eigenvalues_of_the_core_leave_the_rotation_unitary(update, dtype):
    # Orthonormal c and b make every rotation angle equal, where vectors of a general eig are not orthonormal.
    n, k = 12, 3
    basis = lu.random_unitary(n, dtype=dtype, rng=0)
    for size in (1e-3, 0.5, 4.0):
        body = lu.BodyFactors(size * basis[:, :k], basis[:, k : 2 * k])
        r = lu.polar_rotation(body) if update == "polar" else lu.transport_rotation(body)
        assert_rotation(r, atol=3e-15 * n)


@pytest.mark.parametrize("norm", [1e-6, 1e-7, 1e-12])
@pytest.mark.parametrize("sketch", ["lsi", "columns", "randomized", "tangent"])
def test_small_updates_are_not_shrunk(norm, sketch):
    # Published: an update of norm 1e-6 is multiplied by 0.25, of 1e-7 by 0.008.
    rng = np.random.default_rng(0)
    unitary, gradient = lu.random_unitary(16, rng=rng), rng.standard_normal((16, 16))
    gradient /= np.linalg.norm(gradient)

    def length(size):
        moved = lu.unitary_step(unitary, size * gradient, 1.0, rank=2, sketch=sketch, rng=1)
        return np.linalg.norm(moved - unitary) / size

    assert length(norm) == pytest.approx(length(1e-3), rel=1e-2)


@pytest.mark.gate
def test_columns_are_drawn_by_squared_norm_and_the_largest_directions_kept():
    # Two orthogonal columns of norms 1 and 3: squared norms make the first come up in a tenth of the draws
    # (plain norms would in a quarter).
    matrix = np.diag([1.0, 3.0])
    hits = [
        lu.svd_sketch(matrix, 1, method="columns", oversample=0, rng=seed).S[0] < 2 for seed in range(2000)
    ]
    assert np.mean(hits) == pytest.approx(0.1, abs=0.03)
    # Drawn columns are scaled by 1/√(c p), which makes them count equally: of two orthogonal columns the one
    # that was drawn more often wins, not the longer one.
    lengths, wins = np.diag([1.0, 1.2]), []
    for seed in range(400):
        wins.append(lu.svd_sketch(lengths, 1, method="columns", oversample=8, rng=seed).S[0] > 1.1)
    # Nine draws, each with chance 1.44/2.44: the majority is the longer one in 0.71 of all cases.
    assert np.mean(wins) == pytest.approx(0.71, abs=0.08)
    # With c > k the largest singular directions of the sampled columns are kept.
    matrix = np.diag([5.0, 4.0, 0.1, 0.1])
    values = [lu.svd_sketch(matrix, 1, method="columns", oversample=30, rng=seed).S[0] for seed in range(50)]
    assert np.mean(np.isclose(values, 5.0)) > 0.6
    assert min(values) > 3.9


@update
@double
@pytest.mark.parametrize("kind", ["collinear", "opposite", "zero", "zero left", "repeated", "rank one"])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_critical_points_and_degenerate_factors_need_no_special_case(update, dtype, kind, batch):
    # Published: b ∥ Uᴴa and zero gradients give NaN in a batch; exactly collinear ones are dropped.
    apply, dense = UPDATES[update]
    for k in (1, 2):
        step = make_step(3, 7, k, dtype, kind, norm=0.6, batch=batch)
        assert error(apply(*step.arrays), dense(*step.arrays)) <= step.tolerance(2.5)


def test_collinear_complex_step_still_turns_phases():
    # b = i·c: skew(cbᴴ) = −i ccᴴ is not zero, though the factors are collinear.
    c = normal(np.random.default_rng(0), (4, 1), "complex128")
    moved = lu.rotate(np.eye(4, dtype=complex), lu.transport_rotation(lu.BodyFactors(c, 1j * c)))
    assert error(moved, reference.exponential(reference.skew(reference.extended(c) @ ct(1j * c)))) < 1e-13
    assert np.abs(moved - np.eye(4)).max() > 0.1


@pytest.mark.gate
@pytest.mark.parametrize("k", [1, 4])
def test_a_defect_is_not_amplified_by_large_polar_steps(k):
    # Published: a defect of 1.2e-3 grows to NaN within 500 … 2000 steps of size 0.5 … 0.9.
    n = 24
    rng = np.random.default_rng(k)
    unitary = lu.random_unitary(n, rng=rng)
    disturbance = rng.standard_normal((n, n))
    unitary += 1.2e-3 * disturbance / np.linalg.norm(disturbance)
    before = float(lu.unitarity_defect(unitary))
    for _ in range(2000):
        left, right = rng.standard_normal((2, n, k))
        left *= 0.9 / np.linalg.norm(left @ right.T, 2)
        lu.polar_projection(unitary, left, right, overwrite_unitary=True)
    assert float(lu.unitarity_defect(unitary)) == pytest.approx(before, rel=1e-3)


def test_a_real_matrix_stays_real_and_the_callers_factors_stay_as_they_were():
    step = make_step(0, 8, 2, "float32")
    copies = [x.copy() for x in step.arrays]
    for apply, _ in UPDATES.values():
        assert apply(*step.arrays).dtype == np.float32
    for x, copy in zip(step.arrays, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_the_unitary_can_be_re_orthonormalised_at_low_rank_cost():
    rng = np.random.default_rng(0)
    unitary = lu.random_unitary(16, rng=rng) * (1 + 1e-5)
    for _ in range(300):
        gradient = rng.standard_normal((16, 16))
        unitary = lu.unitary_step(unitary, gradient, 0.01, rank=1, heal=2, rng=rng)
    assert_unitary(unitary)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_compression_after_projection_keeps_what_moves_the_matrix(dtype):
    # A gradient ten times more Hermitian than skew in the body frame: compress-first points at random.
    rng = np.random.default_rng(0)
    n, k = 64, 1
    cosines = {"first project": [], "first compress": []}
    for seed in range(60):
        unitary = lu.random_unitary(n, dtype=dtype, rng=rng)
        S, A = normal(rng, (n, n), dtype), normal(rng, (n, n), dtype)
        S, A = S + ct(S), A - ct(A)
        gradient = unitary @ (10 * S + A)
        for name, body in (
            ("first project", lu.tangent_sketch(unitary, gradient, k, rng=seed)),
            ("first compress", lu.svd_sketch(gradient, k, method="lsi", rng=seed).factors().to_body(unitary)),
        ):
            tangent = body.left @ ct(body.right)
            tangent = tangent - ct(tangent)
            size = np.linalg.norm(tangent) * np.linalg.norm(A)
            cosines[name].append(np.sum(np.real(np.conj(tangent) * A)) / size)
    assert min(cosines["first project"]) > 0.1
    assert np.mean(cosines["first compress"]) < 0.05
    assert min(cosines["first compress"]) < 0

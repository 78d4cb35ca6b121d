"""Beside scikit-learn and torch: no less accurate at equal rank and passes, and not as choosy."""

import numpy as np
import pytest
import torch
from cases import normal
from profiles import of_profile
from sklearn.utils.extmath import randomized_svd

import lowrank_unitary as lu


def scikit_learn(matrix, k, seed):
    u, s, vh = randomized_svd(
        matrix, k, n_oversamples=8, n_iter=2, power_iteration_normalizer="QR", random_state=seed
    )
    return (u * s) @ vh


def torch_lowrank(matrix, k, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(torch.from_numpy(matrix), q=min(k + 8, *matrix.shape), niter=2)
    return ((u * s)[:, :k] @ v[:, :k].T).numpy()


def ours(matrix, k, seed):
    U, S, Vh = lu.svd_sketch(matrix, k, rng=seed)
    return (U * S) @ Vh


@pytest.fixture
def one_thread():
    # Small matrices on several threads, beside other tests, take ten times as long.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("peer", [scikit_learn, torch_lowrank])
def test_no_less_accurate_than_peers_at_equal_rank_and_passes(peer):
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(of_profile(quick=50, thorough=200)):
        m, n = rng.integers(20, 150, 2)
        size = min(m, n)
        k = int(rng.integers(1, min(16, size) + 1))
        j = np.arange(1.0, size + 1)
        spectra = (j**-0.5, 1 / j, j**-2, 10 ** (-j / 10), np.where(j <= k, 1.0, 0.1), np.ones(size))
        s = spectra[rng.integers(len(spectra))]
        matrix = (lu.random_unitary(m, rng=rng)[:, :size] * s) @ lu.random_unitary(n, rng=rng)[:size]
        error = [
            np.mean([np.linalg.norm(matrix - sketch(matrix, k, seed)) for seed in range(5)])
            for sketch in (ours, peer)
        ]
        # Exactly nothing is left where k is the smaller side.
        ratios.append((error[0] + 1e-13) / (error[1] + 1e-13))
    assert max(ratios) <= 1.05
    assert np.mean(ratios) <= 1.001


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_batches_and_complex_matrices_are_taken(dtype):
    matrix = normal(np.random.default_rng(1), (3, 2, 30, 20), dtype)
    with pytest.raises(ValueError, match=r"Found array with dim 4|Complex data not supported"):
        randomized_svd(matrix, 4)
    U, S, Vh = lu.svd_sketch(matrix, 4, rng=0)
    s = np.linalg.svd(matrix, compute_uv=False)
    error = np.linalg.norm(matrix - (U * S[..., None, :]) @ Vh, axis=(-2, -1))
    assert (error <= 1.05 * np.sqrt(np.sum(s[..., 4:] ** 2, axis=-1))).all()

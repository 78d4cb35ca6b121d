"""A certificate states what dense computations in extended precision confirm."""

import jax
import numpy as np
import pytest
import torch
from backends import at_once, on_every_backend
from cases import KINDS, ROTATIONS, ct, error, make_step, normal, steps
from hypothesis import given
from hypothesis import strategies as st
from profiles import covering, of_profile, thorough

import lowrank_unitary as lu
from lowrank_unitary import reference
from lowrank_unitary._array import to_numpy
from lowrank_unitary.testing import assert_rotation

OPTIONS = {
    "geodesic": {"update": "geodesic"},
    "cayley": {"update": "cayley"},
    "polar": {"update": "polar"},
}
update = pytest.mark.parametrize("update", ROTATIONS)


def dense(step, update):
    if update == "polar":
        return reference.polar(*step.arrays)
    return reference.transport(*step.arrays, update)


def frobenius(x):
    return np.sqrt(np.sum(np.abs(x) ** 2, axis=(-2, -1))).astype(float)


def near_singular(n, k, distance, dtype, seed=0):
    """A step with k singular values of I + left rightᴴ at `distance`, from a chosen polar decomposition."""
    rng = np.random.default_rng(seed)
    b, _ = np.linalg.qr(normal(rng, (n, k), dtype))
    return lu.BodyFactors(-(1 - distance) * b, b)


@update
@pytest.mark.parametrize(
    ("n", "dtype"), covering([1, 3, 7, 24], ["float32", "complex64", "float64", "complex128"])
)
def test_figures_are_exceeded_no_more_often_than_stated_and_are_not_far_off(update, n, dtype):
    # 900 steps for each dtype, update and size of the thorough profile: 43 000 in all.
    batch = of_profile(quick=5, thorough=30)
    rng = np.random.default_rng(n)
    worse, drawn, ratios = 0, 0, []
    for k in (1, 2, 4):
        for kind in KINDS:
            step = make_step(int(rng.integers(2**32)), n, k, dtype, kind, batch=(batch,))
            # Norms from 1e-9 to 1e3, most of them around 1.
            norm = 10.0 ** np.where(
                rng.random(batch) < 0.5, rng.uniform(-9, 3, batch), rng.uniform(-1.5, 0.5, batch)
            )
            left = (step.left * norm[:, None, None]).astype(dtype)
            step = type(step)(step.unitary, left, step.right, 1.0, kind, 0)
            body = step.body
            rotation = ROTATIONS[update](body)
            moved = lu.rotate(step.unitary, rotation)
            before = reference.unitarity_defect(step.unitary).astype(float)
            certificate = lu.rotation_certificate(body, rotation, unitary_defect=before, **OPTIONS[update])
            errors = frobenius(reference.extended(moved) - dense(step, update))
            defects = reference.unitarity_defect(moved).astype(float)
            # Where I + left rightᴴ is singular the dense definition has no digits to compare with.
            usable = np.isfinite(errors) & (certificate.smallest_singular_value > 1e-15)
            worse += np.sum((errors > certificate.step_error)[usable]) + np.sum(defects > certificate.defect)
            drawn += 2 * usable.sum()
            for figure, truth, shown in (
                (certificate.step_error, errors, usable),
                (certificate.defect, defects, True),
            ):
                ratios += list(figure[shown & (truth > 0)] / truth[shown & (truth > 0)])
    assert certificate.probability == 0.01
    # Calibrated to a tenth of what is stated.
    assert worse <= 0.001 * drawn
    assert not ratios or np.median(ratios) < 100


@given(step=steps(max_n=8))
def test_singular_value_angles_and_defect_are_those_of_the_dense_matrices(step):
    body = step.body
    n, k = step.n, step.k
    matrix = reference.rotation_matrix(*body)
    wide = matrix.astype(complex)
    for update in ROTATIONS:
        rotation = ROTATIONS[update](body)
        certificate = lu.rotation_certificate(body, rotation, left=step.left, **OPTIONS[update])
        singular = np.linalg.svd(wide, compute_uv=False)
        np.testing.assert_allclose(
            certificate.smallest_singular_value,
            singular[..., -1],
            atol=1e-13 * max(1.0, float(singular.max(initial=0.0))),
        )
        F = reference.rotation_matrix(*rotation)
        phases = np.sort(np.abs(np.angle(np.linalg.eigvals(F.astype(complex)))), axis=-1)[..., ::-1]
        assert certificate.angles.shape == (*step.unitary.shape[:-2], min(2 * k, n))
        np.testing.assert_allclose(certificate.angles, phases[..., : 2 * k], atol=1e-6)
        np.testing.assert_allclose(
            certificate.factor_defect, reference.unitarity_defect(F).astype(float), atol=1e-14 * n
        )
        double = np.linalg.norm(ct(step.unitary) @ step.unitary - np.eye(n), 2, axis=(-2, -1))
        assert (certificate.defect_along_left <= double + 50 * np.finfo(step.dtype).eps).all()


@update
def test_angles_are_exact_at_zero_and_at_a_half_turn(update):
    # A plane turned by θ: transport of 2θ e₂e₁ᵀ, and its polar counterpart tan θ.
    e1, e2 = np.eye(5)[:, :1], np.eye(5)[:, 1:2]
    for theta in (1e-12, 1e-3, 1.0):
        size = {"geodesic": theta, "cayley": 2 * np.tan(theta / 2), "polar": np.tan(theta)}[update]
        body = lu.BodyFactors(np.hstack([size * e2, -size * e1]), np.hstack([e1, e2]))
        if update != "polar":
            body = lu.BodyFactors(2 * size * e2, e1)
        certificate = lu.rotation_certificate(body, ROTATIONS[update](body), **OPTIONS[update])
        np.testing.assert_allclose(certificate.angles[:2], theta, rtol=1e-14)
    half_turn = lu.BodyFactors(2 * np.pi * e2, e1)
    certificate = lu.rotation_certificate(half_turn, lu.transport_rotation(half_turn))
    np.testing.assert_allclose(certificate.angles, np.pi, rtol=1e-15)


@pytest.mark.parametrize(("n", "k"), [(9, 1), (9, 3), (4, 3)])
@pytest.mark.parametrize("distance", [1e-3, 1e-8, 0.0])
def test_adversarial_singular_values_are_seen_and_flagged(n, k, distance, dtype):
    body = near_singular(n, k, distance, "complex128" if "complex" in dtype else "float64")
    body = lu.BodyFactors(*(x.astype(dtype) for x in body))
    exact = np.linalg.svd(reference.rotation_matrix(*body).astype(complex), compute_uv=False).min()
    rotation = lu.polar_rotation(body)
    certificate = lu.rotation_certificate(body, rotation, update="polar")
    assert certificate.smallest_singular_value == pytest.approx(exact, abs=1e-14)
    eps = np.finfo(dtype).eps
    assert certificate.near_singular == (exact <= np.sqrt(eps))
    assert_rotation(rotation)
    assert certificate.factor_defect <= 40 * np.sqrt(n) * eps
    if exact > 100 * eps:
        moved = lu.rotate(np.eye(n, dtype=dtype), rotation)
        assert error(moved, reference.polar_factor(reference.rotation_matrix(*body))) <= (
            certificate.step_error
        )
    if distance == 0:
        # Any of the nearest unitary matrices: the figure admits it.
        assert certificate.step_error >= 1
    # The transport step of the same factors is unique.
    transported = lu.rotation_certificate(body, lu.transport_rotation(body))
    assert not transported.near_singular
    assert transported.step_error < 1e3 * eps


@update
def test_a_wrong_rotation_is_found(update):
    step = make_step(0, 10, 2, "float64", norm=0.4)
    rotation = ROTATIONS[update](step.body)
    for spoil in (1e-10, 1e-6, 1e-2):
        spoiled = lu.LowRankRotation(rotation.left * (1 + spoil), rotation.right)
        certificate = lu.rotation_certificate(step.body, spoiled, **OPTIONS[update])
        moved = lu.rotate(step.unitary, spoiled)
        assert error(moved, dense(step, update)) <= certificate.step_error <= 10 * spoil
        assert float(reference.unitarity_defect(moved)) <= certificate.defect
    other = {"geodesic": "cayley", "cayley": "polar", "polar": "geodesic"}[update]
    confused = lu.rotation_certificate(step.body, rotation, **OPTIONS[other])
    assert confused.step_error > 1e-3


@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.1])
def test_the_defect_of_the_matrix_shows_along_the_factors(size, dtype):
    rng = np.random.default_rng(0)
    U = lu.random_unitary(12, dtype=dtype, rng=rng)
    factor = np.float32(1 + size)
    U, size = (U * factor).astype(dtype), float(factor) - 1
    a, b = normal(rng, (12, 2), dtype), normal(rng, (12, 2), dtype)
    body = lu.LowRankFactors(a, b).to_body(U)
    certificate = lu.rotation_certificate(body, lu.transport_rotation(body), left=a)
    # Uᴴ scales every column alike.
    assert certificate.defect_along_left == pytest.approx(
        2 * size + size**2, abs=20 * float(np.finfo(dtype).eps)
    )
    unknown = lu.rotation_certificate(body, lu.transport_rotation(body))
    assert np.isnan(unknown.defect_along_left)


def test_the_certificate_says_which_core_is_exact():
    for norm, exact in ((0.1, True), (3.0, False)):
        step = make_step(0, 10, 2, "float64", norm=norm)
        certificate = lu.rotation_certificate(step.body, lu.polar_rotation(step.body), update="polar")
        assert certificate.gram_is_exact == exact
    wide = make_step(0, 4, 2, "float64", norm=0.01).body
    assert not lu.rotation_certificate(wide, lu.transport_rotation(wide)).gram_is_exact


@on_every_backend("update,dtype", ROTATIONS, ["float32", "complex128", "float64", "complex64"], jax=2)
def test_certificate_gives_the_same_on_every_namespace_and_batched(backend, update, dtype):
    step = make_step(1, 7, 2, dtype, norm=0.1, batch=(2,))
    body = step.body
    rotation = ROTATIONS[update](body, core="orthonormal")
    expected = lu.rotation_certificate(
        body, rotation, left=step.left, unitary_defect=np.array([1e-3, 0.0]), **OPTIONS[update]
    )
    moved_body = lu.BodyFactors(*(backend.array(x) for x in body))
    moved_rotation = lu.LowRankRotation(*(backend.array(x) for x in rotation))

    def certify(body, rotation, left, defect):
        return lu.rotation_certificate(body, rotation, left=left, unitary_defect=defect, **OPTIONS[update])

    rest = backend.array(step.left), backend.array(np.array([1e-3, 0.0]))
    certificate = at_once(backend.xp, certify)(moved_body, moved_rotation, *rest)
    for name in lu.RotationCertificate._fields:
        got = getattr(certificate, name)
        assert type(got) is type(backend.array(np.zeros(2))) or backend.xp is np, name
        # Figures at rounding level are themselves rounded.
        np.testing.assert_allclose(
            to_numpy(got), getattr(expected, name), rtol=0.3 if "err" in name else 1e-5, atol=1e-14
        )
    alone = lu.rotation_certificate(
        lu.BodyFactors(*(x[0] for x in body)),
        lu.LowRankRotation(*(x[0] for x in rotation)),
        **OPTIONS[update],
    )
    assert alone.smallest_singular_value == pytest.approx(expected.smallest_singular_value[0], rel=1e-12)
    assert alone.angles.shape == (4,)


@pytest.mark.gate
@pytest.mark.parametrize("update", [thorough("geodesic"), thorough("cayley"), "polar"])
def test_certificate_works_under_jit_and_vmap(update):
    step = make_step(1, 7, 1, "float32", norm=0.5, batch=(3,))

    def certify(c, b):
        body = lu.BodyFactors(c, b)
        return lu.rotation_certificate(body, ROTATIONS[update](body), **OPTIONS[update])

    expected = certify(*step.body)
    for transformed in (jax.jit(certify), jax.jit(jax.vmap(certify))):
        got = transformed(*(jax.numpy.asarray(x) for x in step.body))
        assert isinstance(got, lu.RotationCertificate)
        np.testing.assert_allclose(got.angles, expected.angles, rtol=1e-5)
        np.testing.assert_allclose(got.step_error, expected.step_error, rtol=0.5)


def test_certificate_is_a_constant_for_autodiff():
    c, b = (torch.asarray(x).requires_grad_() for x in make_step(0, 6, 1, "float64").body)
    body = lu.BodyFactors(c, b)
    certificate = lu.rotation_certificate(body, lu.polar_rotation(body), update="polar")
    assert not any(field.requires_grad for field in certificate)


def test_nan_comes_out_as_nan_and_rank_zero_is_exact():
    step = make_step(0, 6, 2, "float64", norm=0.3, batch=(2,))
    body = step.body
    body.left[0, 0, 0] = np.nan
    certificate = lu.rotation_certificate(body, lu.polar_rotation(body), update="polar")
    for name in ("smallest_singular_value", "step_error", "defect", "factor_defect"):
        assert np.isnan(getattr(certificate, name)).tolist() == [True, False]
    nothing = lu.BodyFactors(np.zeros((5, 0)), np.zeros((5, 0)))
    certificate = lu.rotation_certificate(nothing, lu.transport_rotation(nothing), left=np.zeros((5, 0)))
    assert certificate.smallest_singular_value == 1
    assert certificate.angles.shape == (0,)
    assert certificate.factor_defect == certificate.defect_along_left == 0


@pytest.mark.parametrize("dtype", [np.float16, torch.bfloat16])
def test_a_matrix_in_half_precision_is_rounded_at_its_own_eps(dtype):
    xp = torch if dtype is torch.bfloat16 else np
    U = lu.random_unitary(32, dtype=dtype, rng=0, xp=xp)
    rng = np.random.default_rng(1)
    a, b = (xp.asarray(normal(rng, (32, 1), "float32") / 6) for _ in range(2))
    body = lu.LowRankFactors(a, b).to_body(U)
    rotation = lu.transport_rotation(body)
    moved = lu.rotate(U, rotation)
    certificate = lu.rotation_certificate(body, rotation, dtype=dtype, unitary_defect=lu.unitarity_defect(U))
    single = [x.to(torch.float32).numpy() if xp is torch else x.astype("float32") for x in (U, moved)]
    wrong = error(single[1], reference.transport(single[0], to_numpy(a), to_numpy(b)))
    assert wrong <= float(certificate.step_error) <= 100 * wrong
    assert float(lu.unitarity_defect(moved)) <= float(certificate.defect)


@given(seed=st.integers(0, 2**32 - 1), norm=st.floats(1e-3, 1e3))
def test_certificate_costs_no_more_digits_for_unbalanced_factors(seed, norm):
    step = make_step(seed, 8, 2, "float64", "generic", norm)
    body = step.body
    skewed = lu.BodyFactors(body.left * 2.0**300, body.right * 2.0**-300)
    for update in ROTATIONS:
        one, other = (
            lu.rotation_certificate(x, ROTATIONS[update](x), **OPTIONS[update]) for x in (body, skewed)
        )
        for field in ("smallest_singular_value", "step_error", "defect", "angles"):
            np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("defect", [1e-3, 0, np.float32(1e-3), np.float64(1e-3), torch.tensor(1e-3)])
def test_the_defect_before_may_be_any_number_or_an_array_of_the_same_kind(defect):
    body = lu.BodyFactors(*(torch.asarray(x) for x in make_step(0, 5, 1, "float64").body))
    certificate = lu.rotation_certificate(
        body, lu.polar_rotation(body), update="polar", unitary_defect=defect
    )
    assert float(certificate.defect) == pytest.approx(float(defect), abs=1e-13)
    with pytest.raises(TypeError, match="unitary_defect and body_factors must come from one array library"):
        lu.rotation_certificate(body, lu.polar_rotation(body), unitary_defect=np.ones(2))


def test_arguments_that_do_not_fit_are_named():
    body = make_step(0, 5, 1, "float64").body
    rotation = lu.polar_rotation(body)
    with pytest.raises(ValueError, match="update must be one of 'geodesic', 'cayley', 'polar'"):
        lu.rotation_certificate(body, rotation, update="up")
    with pytest.raises(TypeError, match="body_factors must be BodyFactors"):
        lu.rotation_certificate(rotation, rotation)
    with pytest.raises(TypeError, match="rotation must be a LowRankRotation"):
        lu.rotation_certificate(body, body)
    small = lu.polar_rotation(lu.BodyFactors(body.left[:3], body.right[:3]))
    with pytest.raises(ValueError, match=r"rotation.left must have shape \(…, 5, k\)"):
        lu.rotation_certificate(body, small)
    with pytest.raises(TypeError, match="left must have a dtype that fits into that of body_factors"):
        lu.rotation_certificate(body, rotation, left=body.left + 0j)
    with pytest.raises(ValueError, match="left must have shape"):
        lu.rotation_certificate(body, rotation, left=body.left[:3])


@pytest.mark.parametrize("size", [1.01, 10.0])
@pytest.mark.parametrize("n", [1, 2, 8])
def test_figures_hold_for_a_matrix_that_is_far_from_unitary(n, size, dtype):
    step = make_step(3, n, 1, dtype, norm=1e-4, batch=(1000,))
    U = (step.unitary * np.float32(size)).astype(dtype)
    body = lu.LowRankFactors(step.left, step.right).to_body(U)
    rotation = lu.transport_rotation(body)
    moved = lu.rotate(U, rotation)
    before = reference.unitarity_defect(U).astype(float)
    certificate = lu.rotation_certificate(body, rotation, unitary_defect=before)
    errors = frobenius(reference.extended(moved) - reference.transport(U, step.left, step.right))
    assert np.mean(errors > certificate.step_error) <= 0.01
    assert np.mean(reference.unitarity_defect(moved).astype(float) > certificate.defect) <= 0.01


@pytest.mark.parametrize("n", [1, 3])
def test_cancellation_in_every_direction_is_near_singular(n):
    noise = np.random.default_rng(0).standard_normal((n, n))
    body = lu.BodyFactors(-(np.eye(n) + 1e-15 * noise), np.eye(n))
    certificate = lu.rotation_certificate(body, lu.polar_rotation(body), update="polar")
    assert certificate.smallest_singular_value < 1e-14
    assert certificate.near_singular


def test_the_coarsest_dtype_that_took_part_bounds_the_error():
    step = make_step(0, 40, 3, "float64", norm=0.5)
    single = lu.BodyFactors(*(x.astype("float32") for x in step.body))
    rotation = lu.transport_rotation(single)
    certificate = lu.rotation_certificate(step.body, rotation)
    moved = lu.rotate(step.unitary.astype("float32"), rotation)
    true = error(moved, dense(step, "geodesic"))
    assert 1e-8 < true <= certificate.step_error


def test_one_small_singular_value_disturbs_a_complex_polar_step_and_no_real_one():
    errors = []
    for dtype in ("float64", "complex128"):
        body = near_singular(8, 1, 1e-8, dtype)
        errors.append(lu.rotation_certificate(body, lu.polar_rotation(body), update="polar").step_error)
    assert errors[0] < 1e-13
    assert errors[1] > 1e-9

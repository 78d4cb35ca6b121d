"""Matrices in files: equal to those in memory, and to the bit the same however often they are interrupted."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from cases import normal
from profiles import covering, thorough

import lowrank_unitary as lu
from lowrank_unitary import on_disk
from lowrank_unitary._array import tolerance

N, K, ROWS = 42, 2, 10
UPDATES = ("geodesic", "cayley", "polar")


class Stopped(Exception):
    """In place of a power failure."""


def saved(folder, array):
    path = folder / "U.npy"
    np.save(path, array)
    return path


def mapped(path):
    return np.load(path, mmap_mode="r+")


def panel(array):
    """Bytes of some rows, of which the last panel has fewer."""
    return ROWS * array[0].nbytes


def gradients(U, rng):
    left, right = (normal(rng, (N, K), U.dtype) / 4 for _ in range(2))
    decay = np.exp(-np.arange(20)).astype(U.real.dtype)
    return {
        # Of rank K: planes that are left out would make the result depend on a gap.
        "array": (left @ right.conj().T).astype(U.dtype),
        "ambient": lu.LowRankFactors(left, right),
        "body": lu.LowRankFactors(left, right).to_body(U),
        "many": lu.BodyFactors(*(normal(rng, (N, 20), left.dtype) * decay for _ in range(2))),
    }


@pytest.mark.parametrize(
    ("kind", "dtype", "update", "heal"),
    covering(
        ("array", "ambient", "body", "many"),
        ("float32", "complex64", "float64", "complex128", "float16"),
        UPDATES,
        (0, 1, 3),
    ),
)
def test_a_step_on_disk_is_that_in_memory(tmp_path, kind, dtype, update, heal):
    rng = np.random.default_rng(0)
    # A defect that healing works on.
    U = lu.random_unitary(N, dtype=dtype, rng=rng) * np.asarray(1.01, dtype)
    G = gradients(U, rng)[kind]
    expected = lu.unitary_step(U, G, 0.3, K, update=update, heal=heal, rng=3)
    file = mapped(saved(tmp_path, U))
    result = on_disk.unitary_step(
        file, G, 0.3, K, update=update, heal=heal, rng=3, panel_bytes=panel(U), progress=None
    )
    assert result is file
    assert np.linalg.norm(np.load(tmp_path / "U.npy") - expected) <= tolerance(np, dtype, N, K)
    assert np.linalg.norm(expected - U) > 0.1
    assert os.listdir(tmp_path) == ["U.npy"]


def started(folder, *, update="geodesic"):
    """A file of a matrix, the arguments of a step, and the result of an undisturbed one."""
    rng = np.random.default_rng(1)
    U = lu.random_unitary(N, dtype=np.float32, rng=rng)
    arguments = gradients(U, rng)["ambient"], 0.3, K
    options = {"update": update, "rng": 5, "panel_bytes": panel(U)}
    path = saved(folder, U)
    expected = np.array(on_disk.unitary_step(mapped(path), *arguments, **options))
    np.save(path, U)
    return path, U, arguments, options, expected


def journal_of(path):
    return path.with_name(path.name + ".journal")


CALLS = ((os, "fsync"), (os, "replace"), (os, "remove"), (np.memmap, "flush"))


def before_each_call(monkeypatch, action):
    """Have `action(name)` called before whatever makes a change last."""
    for owner, name in CALLS:
        original = getattr(owner, name)

        def call(*args, original=original, name=name):
            action(name)
            return original(*args)

        monkeypatch.setattr(owner, name, call)


def test_nothing_is_overwritten_before_what_replaces_it_is_on_the_disk(tmp_path, monkeypatch):
    path, _, arguments, options, _ = started(tmp_path)
    calls = []
    before_each_call(monkeypatch, calls.append)
    on_disk.unitary_step(mapped(path), *arguments, **options)
    panels = -(-N // ROWS)
    assert calls == ["fsync", "replace", "fsync", "flush"] * panels + ["remove", "fsync"]


def test_stopped_at_any_moment_and_resumed_it_ends_at_the_same_bits(tmp_path, monkeypatch):
    path, U, arguments, options, expected = started(tmp_path)
    left = 1
    seen = []

    def stop(name):
        nonlocal left
        left -= 1
        if left == 0:
            raise Stopped(name)

    before_each_call(monkeypatch, stop)
    for moment in range(1, 100):
        np.save(path, U)
        left = moment
        try:
            on_disk.unitary_step(mapped(path), *arguments, **options)
            break
        except Stopped as error:
            seen.append(str(error))
        left = 0
        if not journal_of(path).exists():
            untouched = np.array_equal(np.load(path), U)
            assert untouched or (np.array_equal(np.load(path), expected) and moment > 4 * (N // ROWS))
            continue
        # The rows of the panel may have been written in part.
        with np.load(journal_of(path)) as journal:
            mapped(path)[journal["start"] + 1] = np.nan
        # Stopped again, at the next call.
        left = 2
        with pytest.raises(Stopped):
            on_disk.resume(path)
        left = 0
        assert np.array_equal(on_disk.resume(path), expected)
        assert not journal_of(path).exists()
    assert len(seen) == 4 * -(-N // ROWS) + 2
    assert np.array_equal(np.load(path), expected)


KILLED = """
import os, signal, sys
import numpy as np
import lowrank_unitary as lu
from lowrank_unitary import on_disk

def progress(done, total):
    if done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

folder = sys.argv[1]
factors = lu.LowRankFactors(np.load(folder + "/left.npy"), np.load(folder + "/right.npy"))
U = np.load(folder + "/U.npy", mmap_mode="r+")
on_disk.unitary_step(U, factors, 0.3, {k}, rng=5, panel_bytes={bytes}, progress=progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal on this system")
@pytest.mark.parametrize("done", [N + 2 * ROWS, *(thorough(x) for x in (N + ROWS, 2 * N))])
def test_killed_and_resumed_it_ends_at_the_same_bits(tmp_path, done):
    path, U, (factors, *_), options, expected = started(tmp_path)
    for name, factor in factors._asdict().items():
        np.save(tmp_path / f"{name}.npy", factor)
    script = KILLED.format(k=K, bytes=options["panel_bytes"])
    killed = subprocess.run([sys.executable, "-P", "-c", script, str(tmp_path), str(done)], check=False)
    assert killed.returncode == -signal.SIGKILL
    rows = min(done - N, N)
    assert np.array_equal(np.load(path)[:rows], expected[:rows])
    assert np.array_equal(np.load(path)[rows:], U[rows:])
    assert np.array_equal(on_disk.resume(path), expected)


def test_a_step_does_not_begin_before_the_last_one_has_been_resumed(tmp_path):
    path, U, arguments, options, expected = started(tmp_path)

    def stop(done, total):
        if done > N:
            raise Stopped

    with pytest.raises(Stopped):
        on_disk.unitary_step(mapped(path), *arguments, progress=stop, **options)
    before = np.load(path)
    unchanged = lu.LowRankRotation(U[:, :1], 0 * U[:, :1])
    for again in (
        lambda: on_disk.unitary_step(mapped(path), *arguments, **options),
        lambda: on_disk.rotate(mapped(path), unchanged),
    ):
        with pytest.raises(FileExistsError, match=r"on_disk\.resume\('.*U\.npy'\) first"):
            again()
    assert np.array_equal(np.load(path), before)
    link = tmp_path / "link.npy"
    link.symlink_to(path)
    assert np.array_equal(on_disk.resume(link), expected)


def changed(content, where):
    content = bytearray(content)
    content[where] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    "torn",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: bytes(len(content)),
        lambda content: changed(content, content.index(b"rows.npy") + 400),
    ],
    ids=["half", "last byte", "empty", "zeros", "one bit"],
)
def test_a_damaged_journal_is_refused(tmp_path, torn):
    path, _, arguments, options, _ = started(tmp_path)

    def stop(done, total):
        if done > N:
            raise Stopped

    with pytest.raises(Stopped):
        on_disk.unitary_step(mapped(path), *arguments, progress=stop, **options)
    before = np.load(path)
    journal_of(path).write_bytes(torn(journal_of(path).read_bytes()))
    with pytest.raises(ValueError, match=r"U\.npy\.journal is damaged"):
        on_disk.resume(path)
    assert np.array_equal(np.load(path), before)


def test_resuming_needs_a_journal_and_the_file_that_it_belongs_to(tmp_path):
    U = lu.random_unitary(N, rng=0)
    path = saved(tmp_path, U)
    with pytest.raises(FileNotFoundError, match=r"there is no .*U\.npy\.journal"):
        on_disk.resume(path)

    def stop(done, total):
        raise Stopped

    with pytest.raises(Stopped):
        on_disk.rotate(mapped(path), lu.LowRankRotation(U[:, :1], U[:, :1]), progress=stop)
    np.save(path, np.eye(2))
    with pytest.raises(ValueError, match="too short"):
        on_disk.resume(path)
    assert np.array_equal(np.load(path), np.eye(2))


def test_an_array_in_the_middle_of_a_file_is_moved_and_nothing_else(tmp_path):
    path = tmp_path / "raw"
    U = lu.random_unitary(N, rng=0)
    path.write_bytes(b"before: 8" + bytes(7) + U.tobytes() + b"after")
    body = lu.BodyFactors(U[:, :1], U[:, 1:2])
    rotation = lu.transport_rotation(body)

    def stop(done, total):
        raise Stopped

    with pytest.raises(Stopped):
        on_disk.rotate(
            np.memmap(path, U.dtype, "r+", 16, (N, N)), rotation, panel_bytes=panel(U), progress=stop
        )
    result = on_disk.resume(path)
    assert np.linalg.norm(result - lu.rotate(U, rotation)) <= tolerance(np, U.dtype, N, 1)
    content = path.read_bytes()
    assert content.startswith(b"before: 8")
    assert content.endswith(b"after")
    assert len(content) == 16 + U.nbytes + 5


@pytest.mark.parametrize(
    ("kind", "heal", "traversals"),
    [("array", 0, 3), ("ambient", 1, 2), ("body", 1, 2), ("body", 0, 1)],
)
def test_progress_counts_the_rows_of_all_traversals(tmp_path, kind, heal, traversals):
    U = lu.random_unitary(N, rng=0)
    G = gradients(U, np.random.default_rng(0))[kind]
    told = []
    on_disk.unitary_step(
        mapped(saved(tmp_path, U)), G, 0.1, K, heal=heal, panel_bytes=panel(U),
        progress=lambda *numbers: told.append(numbers),
    )  # fmt: skip
    ends = [min(start + ROWS, N) for start in range(0, N, ROWS)]
    assert told == [(t * N + end, traversals * N) for t in range(traversals) for end in ends]


def test_a_panel_has_one_row_at_least(tmp_path):
    U = lu.random_unitary(4, rng=0)
    G = lu.BodyFactors(U[:, :1], U[:, 1:2])
    told = []
    on_disk.unitary_step(
        mapped(saved(tmp_path, U)), G, 0.1, 1, heal=0, panel_bytes=1,
        progress=lambda done, total: told.append(done),
    )  # fmt: skip
    assert told == [1, 2, 3, 4]


WRONG = {
    "array in memory": (lambda U: np.array(U), TypeError, "numpy.memmap, got ndarray"),
    "read-only": (lambda U: np.load(U.filename, mmap_mode="r"), ValueError, "writes to its file"),
    "copy on write": (lambda U: np.load(U.filename, mmap_mode="c"), ValueError, "writes to its file"),
    "part": (lambda U: U[:20, :20], ValueError, "all of one mapped matrix"),
    "transposed": (lambda U: U.T, ValueError, "all of one mapped matrix"),
    "stack": (
        lambda U: np.memmap(U.filename, U.dtype, "r+", U.offset, (1, N, N)),
        ValueError,
        "all of one mapped matrix",
    ),
    "column-major": (
        lambda U: np.memmap(U.filename, U.dtype, "r+", U.offset, (N, N), "F"),
        ValueError,
        "row-major",
    ),
    "not aligned": (
        lambda U: np.memmap(U.filename, U.dtype, "r+", U.offset - 1, (N, N)),
        ValueError,
        "multiple of its item size",
    ),
    "rectangular": (
        lambda U: np.memmap(U.filename, U.dtype, "r+", U.offset, (N - 2, N)),
        ValueError,
        "square matrices",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_rewritten_row_by_row_is_refused(tmp_path, case):
    make, error, message = WRONG[case]
    U = lu.random_unitary(N, rng=0)
    path = saved(tmp_path, U)
    wrong, thin = make(mapped(path)), U[:, :1]
    for call in (
        lambda: on_disk.unitary_step(wrong, lu.BodyFactors(thin, thin), 0.1, 1),
        lambda: on_disk.rotate(wrong, lu.LowRankRotation(thin, thin)),
    ):
        with pytest.raises(error, match=message) as raised:
            call()
        assert str(raised.value).startswith("unitary must")
    assert np.array_equal(np.load(path), U)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gradient": [[1.0]]}, TypeError, "gradient must be a numpy array, LowRankFactors or BodyFactors"),
        ({"gradient": np.zeros((2, N, N))}, ValueError, "gradient must be one matrix"),
        ({"gradient": np.zeros((N, N + 1))}, ValueError, "gradient must have shape"),
        ({"gradient": np.zeros((N, N), complex)}, TypeError, "gradient must have a dtype"),
        ({"rank": N + 1}, ValueError, "rank must be between 1 and 42"),
        ({"heal": N + 1}, ValueError, "heal must be between 0 and n = 42"),
        ({"update": "transport"}, ValueError, "update must be one of"),
        ({"panel_bytes": 0}, ValueError, "panel_bytes must be 1 or more"),
        ({"panel_bytes": 1.5}, TypeError, "panel_bytes must be a whole number"),
        ({"progress": True}, TypeError, "progress must be callable or None"),
        ({"step_size": 1j}, TypeError, "step_size must be a real number"),
        ({"rng": "seed"}, TypeError, "rng must be"),
    ],
)
def test_wrong_arguments_are_refused_by_name(tmp_path, change, error, message):
    U = lu.random_unitary(N, rng=0)
    path = saved(tmp_path, U)
    given = {"gradient": np.zeros((N, N)), "step_size": 0.1, "rank": 1, **change}
    gradient, step_size = given.pop("gradient"), given.pop("step_size")
    with pytest.raises(error, match=message):
        on_disk.unitary_step(mapped(path), gradient, step_size, **given)
    assert np.array_equal(np.load(path), U)


@pytest.mark.parametrize(
    ("rotation", "error", "message"),
    [
        (lu.BodyFactors(np.zeros((N, 1)), np.zeros((N, 1))), TypeError, "rotation must be a LowRankRotation"),
        (lu.LowRankRotation(*np.zeros((2, N + 1, 1))), ValueError, "rotation.left must have shape"),
        (lu.LowRankRotation(*np.zeros((2, 3, N, 1))), ValueError, "rotation must be of one matrix"),
        (lu.LowRankRotation(*np.zeros((2, N, 1), complex)), TypeError, "must have a dtype"),
    ],
)
def test_a_wrong_rotation_is_refused(tmp_path, rotation, error, message):
    with pytest.raises(error, match=message):
        on_disk.rotate(mapped(saved(tmp_path, np.eye(N))), rotation)


def test_a_rotation_may_lie_in_the_matrix_that_it_moves(tmp_path):
    U = lu.random_unitary(N, rng=0)
    file = mapped(saved(tmp_path, U))
    expected = U + (U @ U[:, :2]) @ U[:, 2:4].T
    on_disk.rotate(file, lu.LowRankRotation(file[:, :2], file[:, 2:4]), panel_bytes=panel(U))
    assert np.linalg.norm(file - expected) <= tolerance(np, U.dtype, N, 1)

"""Steps of a matrix in a file, in place."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np

from .._array import Array, core_dtype, real_dtype, thin_dtype, validate
from .._kernels import UPDATES
from .._linalg import RNG, gram_product, key_of, rotate_rows
from ..step.from_gradient import tangent_planes, tangent_rotation
from ..step.stages import healed, pulled_back
from ..tangent.sketch import Tangent
from ..types import BodyFactors, LowRankFactors, LowRankRotation, checked_rotation
from ..unitary.heal import orthonormal_probes
from .journal import Journal, journal_of
from .panels import Panels, Progress, TangentByPanels, summed

_PANEL_BYTES = 1 << 26


def unitary_step(
    unitary: Array,
    gradient: Array | LowRankFactors | BodyFactors,
    step_size: float,
    /,
    rank: int,
    *,
    update: str = "geodesic",
    heal: int = 1,
    rng: RNG = None,
    panel_bytes: int = _PANEL_BYTES,
    progress: Progress | None = None,
) -> Array:
    """One descent step of a matrix in a file, in place, as :func:`lowrank_unitary.unitary_step`.

    Parameters
    ----------
    unitary : numpy.memmap, shape (n, n)
        U, a whole array of a file, opened for writing, row-major: ``numpy.load(path, mmap_mode="r+")``.
    gradient : numpy array, also a memory map, shape (n, n), LowRankFactors or BodyFactors
        As for :func:`lowrank_unitary.unitary_step`. Of LowRankFactors the left one is pulled back by Uᴴ.
    step_size : float
    rank, update, heal, rng : as for :func:`lowrank_unitary.unitary_step`
    panel_bytes : int
        Size of a panel of rows of U: memory that a step needs beside O(n rank), and half of what it needs of
        free disk space.
    progress : callable, optional
        Called after every panel with the number of rows done and that of all, over all traversals.

    Returns
    -------
    numpy.memmap, shape (n, n)
        `unitary` itself.

    Raises
    ------
    FileExistsError
        While there is a journal: the matrix has been moved in part, and :func:`resume` moves the rest.

    Notes
    -----
    Reads U once for LowRankFactors, not at all for BodyFactors (once with healing), and U and G twice for an
    array; then U is read and written once.

    While rows are rewritten, ``<file>.journal`` holds the rotation and the new rows of one panel. It is
    replaced, and the file brought to the disk, panel by panel; so all rows are written twice. At whatever
    moment the process or the machine stops, :func:`resume` gives the same bits as an undisturbed step.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary import on_disk
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = folder.name + "/U.npy"
    >>> np.save(path, lu.random_unitary(50, rng=0))
    >>> U = np.load(path, mmap_mode="r+")
    >>> a, b = np.random.default_rng(1).standard_normal((2, 50, 2))
    >>> expected = lu.unitary_step(np.array(U), lu.LowRankFactors(a, b), 0.01, rank=2, rng=2)
    >>> U = on_disk.unitary_step(U, lu.LowRankFactors(a, b), 0.01, rank=2, rng=2)
    >>> np.allclose(U, expected)
    True
    >>> del U
    >>> folder.cleanup()
    """
    validate.choice("update", update, UPDATES)
    heal = validate.count("heal", heal)
    n = _checked_file(unitary)
    if not isinstance(gradient, np.ndarray | LowRankFactors | BodyFactors):
        raise TypeError(
            f"gradient must be a numpy array, LowRankFactors or BodyFactors, got {type(gradient).__name__}: "
            f"convert it first."
        )
    tangent = Tangent.of(unitary, gradient, of_unitary=True)
    if tangent.batch:
        raise ValueError(f"gradient must be one matrix, got a batch of shape {tangent.batch}.")
    k = validate.rank(rank, n)
    validate.probes("heal", heal, n, least=0)
    wide = real_dtype(np, core_dtype(np, unitary.dtype))
    eta = validate.real_scalar(np, "step_size", step_size, unitary, dtype=wide)
    key = key_of(rng, unitary)
    U = np.asarray(unitary)
    Z = orthonormal_probes(np, U, heal, key) if heal else None
    panels = Panels.of(U, panel_bytes, progress)
    image = None
    if isinstance(gradient, np.ndarray):
        panels.total = 3 * n
        planes, image = tangent_planes(TangentByPanels(np, U, tangent.gradient, panels), k, key, Z)
        rotation = planes.rotation(eta, update)
    else:
        if isinstance(gradient, LowRankFactors):
            panels.total = 2 * n
            left, right = gradient

            def part(rows: slice) -> tuple[Array, Array | None]:
                body, image = pulled_back(np, U[rows], left[rows], right, Z)
                return body.left, image

            pulled, image = summed(panels, part)
            body = BodyFactors(pulled, right)
        else:
            body = gradient
            if Z is not None:
                panels.total = 2 * n
                (image,) = summed(panels, lambda rows: (gram_product(np, U[rows], Z),))
        rotation = tangent_rotation(np, body, eta, k, key, update)
    return _rewritten(unitary, healed(np, U, rotation, Z, image), panels)


def rotate(
    unitary: Array,
    rotation: LowRankRotation,
    /,
    *,
    panel_bytes: int = _PANEL_BYTES,
    progress: Progress | None = None,
) -> Array:
    """Multiply a matrix in a file from the right by a rotation, in place, as :func:`lowrank_unitary.rotate`.

    Parameters
    ----------
    unitary, panel_bytes, progress : as for :func:`unitary_step`
    rotation : LowRankRotation
        left and right of shape (n, w).

    Returns
    -------
    numpy.memmap, shape (n, n)
        `unitary` itself.

    Notes
    -----
    One read and one write, and the journal of :func:`unitary_step`. For steps of other kinds: all that makes
    a rotation, such as :func:`lowrank_unitary.tangent_sketch` and :func:`lowrank_unitary.transport_rotation`,
    takes memory maps as they are.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary import on_disk
    >>> folder = tempfile.TemporaryDirectory()
    >>> np.save(folder.name + "/U.npy", np.eye(30))
    >>> U = np.load(folder.name + "/U.npy", mmap_mode="r+")
    >>> c, b = np.random.default_rng(0).standard_normal((2, 30, 1))
    >>> rotation = lu.transport_rotation(lu.BodyFactors(c, b))
    >>> U = on_disk.rotate(U, rotation)
    >>> np.allclose(U, rotation.dense())
    True
    >>> del U
    >>> folder.cleanup()
    """
    left, right = checked_rotation(rotation)
    n = _checked_file(unitary)
    validate.namespace_of(unitary=unitary, left=left, right=right)
    validate.factor_pair("rotation.left", left, "rotation.right", right, n)
    if validate.batches(left=left, right=right):
        raise ValueError(f"rotation must be of one matrix, got factors of shape {left.shape}.")
    validate.same_dtype(np, "unitary", unitary, left=left, right=right)
    return _rewritten(unitary, rotation, Panels.of(np.asarray(unitary), panel_bytes, progress))


def resume(path: Any, /, *, progress: Progress | None = None) -> Array:
    """Move the rest of a matrix whose step was interrupted.

    Parameters
    ----------
    path : str or path
        The file of the matrix; beside it is its journal.
    progress : callable, optional
        As for :func:`unitary_step`, of the last traversal alone.

    Returns
    -------
    numpy.memmap, shape (n, n)
        The moved matrix.

    Raises
    ------
    FileNotFoundError
        Where there is no journal: no step has begun to write, or it has ended.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import lowrank_unitary as lu
    >>> from lowrank_unitary import on_disk
    >>> def stop(done, total):
    ...     raise KeyboardInterrupt
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = folder.name + "/U.npy"
    >>> np.save(path, np.eye(30))
    >>> c, b = np.random.default_rng(0).standard_normal((2, 30, 1))
    >>> rotation = lu.transport_rotation(lu.BodyFactors(c, b))
    >>> try:
    ...     on_disk.rotate(np.load(path, mmap_mode="r+"), rotation, panel_bytes=1000, progress=stop)
    ... except KeyboardInterrupt:
    ...     U = on_disk.resume(path)
    >>> np.allclose(U, rotation.dense())
    True
    >>> del U
    >>> folder.cleanup()
    """
    path = os.path.abspath(os.fsdecode(path))
    journal = Journal.read(path)
    n, dtype = len(journal.left), journal.rows.dtype
    if os.path.getsize(path) < journal.offset + n * n * dtype.itemsize:
        raise ValueError(
            f"path must be the file that was being moved, but {path} is too short for that: if it has been "
            f"replaced since, delete {journal_of(path)}."
        )
    unitary = np.memmap(path, dtype, "r+", int(journal.offset), (n, n))
    journal.put(unitary)
    rotation, height = LowRankRotation(journal.left, journal.right), len(journal.rows)
    done = int(journal.start) + height
    # Its panel would stay in memory beside the next one.
    del journal
    return _rewritten(unitary, rotation, Panels(n, height, progress, total=n, done=done), done)


def _checked_file(unitary: Array) -> int:
    """The size n of a square matrix that is all of a mapped array and may be rewritten, or an error."""
    how = 'numpy.load(path, mmap_mode="r+")'
    if not isinstance(unitary, np.memmap):
        kind = type(unitary).__name__
        raise TypeError(f"unitary must be a numpy.memmap, got {kind}: open its file by {how}.")
    validate.namespace_of(unitary=unitary)
    n = validate.square("unitary", unitary)
    if unitary.mode not in ("r+", "w+"):
        raise ValueError(
            f"unitary must be a map that writes to its file, got one of mode {unitary.mode!r}: open it by "
            f"{how}."
        )
    # Of a part of a map, numpy does not say where in the file it is.
    if not isinstance(unitary.base, mmap.mmap) or unitary.ndim > 2 or unitary.filename is None:
        raise ValueError(
            f"unitary must be all of one mapped matrix, got a part or a stack of shape {unitary.shape}: map "
            f"the matrix alone, with numpy.memmap(path, dtype, 'r+', offset, (n, n))."
        )
    if not unitary.flags.carray:
        raise ValueError(
            "unitary must be row-major, at an offset that is a multiple of its item size: write it to "
            "another file by numpy.save(path, numpy.ascontiguousarray(unitary))."
        )
    if os.path.exists(journal_of(unitary.filename)):
        raise FileExistsError(
            f"unitary must be whole, but {journal_of(unitary.filename)} holds a step that was interrupted: "
            f"call lowrank_unitary.on_disk.resume({str(unitary.filename)!r}) first."
        )
    return n


def _rewritten(unitary: Array, rotation: LowRankRotation, panels: Panels, first: int = 0) -> Array:
    """U times a rotation, from a row on; no row is written that is not in the journal."""
    left, right = (np.array(x, thin_dtype(np, unitary.dtype)) for x in rotation)
    for rows in panels(first):
        _rewrite(unitary, left, right, rows)
    Journal.remove(unitary.filename)
    return unitary


def _rewrite(unitary: Array, left: Array, right: Array, rows: slice) -> None:
    """One panel; a function of its own, so that its memory is free before the next."""
    moved = rotate_rows(np, np.asarray(unitary[rows]), left, right)
    journal = Journal(left, right, moved, rows.start, unitary.offset)
    journal.write(unitary.filename)
    journal.put(unitary)

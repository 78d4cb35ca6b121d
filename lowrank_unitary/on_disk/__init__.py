"""Matrices in files, larger than memory: every traversal by panels of rows, the last one with a journal.

U, G ─sums over panels→ body factors, Uᴴ(U Z) ─core→ rotation ─panel to the journal, then to the file→ new U
"""

from .steps import resume, rotate, unitary_step

__all__ = ["resume", "rotate", "unitary_step"]

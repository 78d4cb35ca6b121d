"""Convolutions on a torus: signals, and a unitary matrix for every frequency, in; signals and spectra out."""

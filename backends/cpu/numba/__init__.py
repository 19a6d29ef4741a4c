"""Formulas as loops that Numba compiles, where it is installed."""

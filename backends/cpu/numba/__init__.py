"""Formulas as loops compiled by Numba, if it is installed."""

"""Elementwise formulas: written once as ordinary Python, traced, and compiled for every backend."""

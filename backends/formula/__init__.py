"""Elementwise formulas: written once in ordinary Python, traced, and compiled for each backend."""

"""The decorator for formulas that users write; `formula/tracing.py` says how they are traced."""

from gpunn.backends.formula.tracing import elementwise

__all__ = ["elementwise"]

"""The decorator for formulas of one's own; how they are traced stands in `formula/tracing.py`."""

from gpunn.backends.formula.tracing import elementwise

__all__ = ["elementwise"]

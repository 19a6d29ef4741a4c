"""Tables and built-in data: `read` makes tables, `Preprocessing` turns them into numbers, the same at prediction."""

from gpunn.data.builtin import BUILT_IN, digits, friedman, moons, spirals
from gpunn.data.predictions import Predictions, evaluate, predict
from gpunn.data.preprocessing import Preprocessing
from gpunn.data.reading import read
from gpunn.data.table import Column, Table

__all__ = [
    "BUILT_IN", "Answers", "Column", "Predictions", "Preprocessing", "Table", "digits", "evaluate", "friedman", "moons",
    "predict", "read", "spirals",
]  # fmt: skip

Answers = Predictions  # its first name, which programs may still use

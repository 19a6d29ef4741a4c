"""Tables and built-in data: `read` what there is, and `Preprocessing` turns it into numbers, the same at prediction."""

from gpunn.data.answers import Answers, evaluate, predict
from gpunn.data.builtin import BUILT_IN, digits, friedman, moons, spirals
from gpunn.data.preprocessing import Preprocessing
from gpunn.data.reading import read
from gpunn.data.table import Column, Table

__all__ = [
    "BUILT_IN", "Answers", "Column", "Preprocessing", "Table", "digits", "evaluate", "friedman", "moons", "predict",
    "read", "spirals",
]  # fmt: skip

"""The CUDA kernels written by hand, for what an elementwise formula cannot say; compiled when first used."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

BLOCK = 256  # threads of every block, as in common.cu
# What the texts call the types that they are compiled for; everything else keeps NumPy's name.
C_TYPES = {"float32": "float", "float64": "double"}
HALVES = ("float16", "bfloat16")  # stored so, computed in float; NumPy has the second from ml_dtypes
Types = tuple[tuple[str, str], ...]  # such as (("T", "float32"), ("ACC", "float32"))


@functools.cache
def _text(name: str) -> str:
    return resources.files(__name__).joinpath(f"{name}.cu").read_text(encoding="utf-8")


def kernel_source(name: str, types: Types) -> str:
    """`<name>.cu` after what all texts share and the typedefs that give it its types."""
    typedefs = "".join(f"typedef {C_TYPES.get(dtype, dtype)} {symbol};\n" for symbol, dtype in types)
    return f"{_text('common')}\n{typedefs}\n{_text(name)}"


class Kernels:
    """Compiled kernels by file, name and types; one module for each file and set of types."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._modules: dict[tuple[str, Types], Any] = {}
        self._functions: dict[tuple[str, str, Types], Any] = {}

    def get(self, file: str, name: str, types: Types) -> Any:
        """Kernel `name` of `<file>.cu` for these types."""
        key = (file, name, types)
        if key not in self._functions:
            if (file, types) not in self._modules:
                self._modules[file, types] = self._cupy.RawModule(code=kernel_source(file, types))
            self._functions[key] = self._modules[file, types].get_function(name)
        return self._functions[key]

"""The CUDA kernels written by hand, for operations that are not elementwise; each is compiled at its first use."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

BLOCK = 256  # threads of every block, as in common.cu
C_FLOATS = {"float32": "float", "float64": "double"}  # names in C; `common.cu` defines the other types by NumPy's names
HALVES = ("float16", "bfloat16")  # stored in these, computed in float; ml_dtypes adds the second to NumPy
Types = tuple[tuple[str, str], ...]  # such as (("T", "float32"), ("ACC", "float32"))


@functools.cache
def _file(name: str) -> str:
    return resources.files(__name__).joinpath(f"{name}.cu").read_text(encoding="utf-8")


def kernel_source(name: str, types: Types) -> str:
    """The source of a module: `common.cu`, the typedefs of its types, and `<name>.cu`."""
    typedefs = "".join(f"typedef {C_FLOATS.get(dtype, dtype)} {symbol};\n" for symbol, dtype in types)
    return f"{_file('common')}\n{typedefs}\n{_file(name)}"


class Kernels:
    """Compiled kernels by file, name and types; each file is compiled once for each set of types."""

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

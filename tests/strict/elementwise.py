"""`ElementwiseKernel`: CuPy's rules for parameters, types and broadcasting, and one compiled loop for each of them."""

import ctypes
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.strict.array import DeviceArray, is_half
from tests.strict.compiler import compile_library
from tests.strict.creation import unwrap
from tests.strict.machine import Machine

C_TYPES = {
    "float64": "double", "float32": "float", "int64": "long long", "int32": "int", "int16": "short",
    "int8": "signed char", "uint64": "unsigned long long", "uint32": "unsigned int", "uint16": "unsigned short",
    "uint8": "unsigned char", "bool": "bool", "float16": "float16", "bfloat16": "bfloat16",
}  # fmt: skip
# What CuPy's own headers define for such a kernel; INFINITY, `n` and uint32_t are not among it.
HEADER = """
#define CUDART_INF_F __builtin_inff()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_INF __builtin_inf()
#define CUDART_NAN __builtin_nan("")
#define M_PI 3.14159265358979323846
struct shim_index { long long n, k; long long size() const { return n; } long long get() const { return k; } };
"""


def c_type(dtype: np.dtype) -> str:
    """The C name of an element type."""
    if dtype.name not in C_TYPES:
        raise NotImplementedError(f"the stand-in compiles no {dtype} kernels")
    return C_TYPES[dtype.name]


@dataclass(frozen=True)
class Parameter:
    """One entry of a parameter list: `float32 x`, `T y`, `raw T z`."""

    kind: str
    name: str
    raw: bool

    @property
    def dtype(self) -> np.dtype | None:
        """The fixed type, or None for a type variable, which is one letter."""
        return None if len(self.kind) == 1 else np.dtype(self.kind)


def parse(text: str) -> list[Parameter]:
    """Read a parameter list."""
    result = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        words = part.split()
        if len(words) < 2:
            raise Exception(f"Syntax error: {part}")
        if set(words[:-2]) - {"raw"}:
            raise Exception(f'Unknown keyword "{words[0]}"')
        result.append(Parameter(words[-2], words[-1], "raw" in words[:-2]))
    return result


def broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The common shape, or CuPy's error."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        text = " ".join(map(str, shapes))
        raise ValueError(f"operands could not be broadcast together with shapes {text}") from None


class ElementwiseKernel:
    """As `cupy.ElementwiseKernel`."""

    def __init__(
        self, machine: Machine, array: type[DeviceArray], in_params: str, out_params: str, operation: str,
        name: str = "kernel", reduce_dims: bool = True, preamble: str = "", no_return: bool = False,
        return_tuple: bool = False, *, options: tuple[str, ...] = (), loop_prep: str = "", after_loop: str = "",
    ) -> None:  # fmt: skip
        if not re.fullmatch(r"[a-zA-Z_]\w*", name):
            raise ValueError(f'Invalid kernel name: "{name}"')
        self.machine, self.array, self.name = machine, array, name
        self.inputs, self.outputs = parse(in_params), parse(out_params)
        if "i" in (p.name for p in self.inputs + self.outputs):
            raise ValueError("Can not use 'i' as a parameter name")
        self.operation, self.preamble, self.options = operation, preamble, options
        self.loop_prep, self.after_loop = loop_prep, after_loop
        self.no_return, self.return_tuple = no_return, return_tuple
        self._compiled: dict[Any, Any] = {}

    def __call__(self, *args: Any, size: int = -1, block_size: int = 128) -> Any:
        """Run over the broadcast of all arrays; outputs are made where they are not given."""
        nin, nout = len(self.inputs), len(self.outputs)
        if len(args) not in (nin, nin + nout):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {nin} or {nin + nout} "
                f"(with outputs), but given {len(args)}."
            )
        hosts = [unwrap(x) for x in args]
        parameters = (self.inputs + self.outputs)[: len(args)]
        looped = [h for h, p in zip(hosts, parameters, strict=True) if isinstance(h, np.ndarray) and not p.raw]
        if size != -1 and looped:
            raise ValueError("Specified 'size' can be used only if all of the ndarray are 'raw'.")
        if size == -1 and not looped:
            raise ValueError("Loop size is undecided.")
        shape = (size,) if size != -1 else broadcast([h.shape for h in looped])
        types = self._types(hosts)
        outputs = list(args[nin:])
        if not outputs:
            if any(p.raw for p in self.outputs) and size == -1:
                raise ValueError("Output array size is Undecided")
            outputs = [self.array(shape, t) for t in types[nin:]]
        for p, out in zip(self.outputs, outputs, strict=True):
            if not isinstance(out, DeviceArray):
                raise TypeError("Output arguments type must be cupy.ndarray")
            if not p.raw and out.shape != shape:
                raise ValueError("Out shape is mismatched")
        if 0 not in shape:
            self._issue([*hosts[:nin], *(out.host for out in outputs)], types, shape)
        if self.no_return:
            return None
        return outputs[0] if nout == 1 and not self.return_tuple else tuple(outputs)

    def _types(self, hosts: list[Any]) -> list[np.dtype]:
        """The type of each parameter; outputs bind type variables first, then inputs; scalars follow."""
        bound: dict[str, np.dtype] = {}
        nin = len(self.inputs)
        given = [*zip(self.outputs, hosts[nin:], strict=False), *zip(self.inputs, hosts[:nin], strict=True)]
        for p, h in given:
            if not isinstance(h, np.ndarray):
                continue
            wanted = p.dtype if p.dtype is not None else bound.setdefault(p.kind, h.dtype)
            if wanted != h.dtype:
                raise TypeError(f"Type is mismatched. {p.name} {h.dtype} {wanted}")
        return [p.dtype if p.dtype is not None else bound[p.kind] for p in self.inputs + self.outputs]

    def _issue(self, hosts: list[Any], types: list[np.dtype], shape: tuple[int, ...]) -> None:
        parameters = self.inputs + self.outputs
        looped = [h for h, p in zip(hosts, parameters, strict=True) if isinstance(h, np.ndarray) and not p.raw]
        if all(h.flags.c_contiguous and h.shape == shape for h in looped):
            hosts = [
                h.reshape(-1) if isinstance(h, np.ndarray) and not p.raw else h
                for h, p in zip(hosts, parameters, strict=True)
            ]
            shape = (math.prod(shape),)  # One flat loop, where the layout allows it.
        arrays, strides = [], []
        for h, p, t in zip(hosts, parameters, types, strict=True):
            if not isinstance(h, np.ndarray):
                h = np.array(h, t)  # Frozen now, as a scalar is at a launch.
            elif p.raw and not h.flags.c_contiguous:
                raise NotImplementedError("the stand-in takes only contiguous raw arrays")
            arrays.append(h)
            strides += [0] * len(shape) if p.raw else list(np.broadcast_to(h, shape).strides)
        scalar = [not isinstance(h, np.ndarray) for h in hosts]
        key = (*types, *scalar)
        if key not in self._compiled:
            self._compiled[key] = compile_library(self._source(types, scalar), self.options).shim_elementwise
        run = self._compiled[key]
        pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        extents = (ctypes.c_longlong * max(1, len(shape)))(*shape)
        steps = (ctypes.c_longlong * max(1, len(strides)))(*strides)

        def work() -> None:
            # Naming the arrays here keeps their memory alive for as long as the work may run.
            run(pointers, ctypes.c_int(len(shape)), extents, steps, ctypes.c_int(len(arrays)))

        self.machine.issue(work)

    def _source(self, types: list[np.dtype], scalar: list[bool]) -> str:
        parameters = self.inputs + self.outputs
        typedefs = {p.kind: c_type(t) for p, t in zip(parameters, types, strict=True) if p.dtype is None}
        outside, inside = [], []
        for k, (p, t) in enumerate(zip(parameters, types, strict=True)):
            kind = ("const " if k < len(self.inputs) else "") + c_type(t)
            if p.raw or scalar[k]:
                outside.append(f"{kind} {'*' if p.raw and not scalar[k] else '&'}{p.name} = "
                               f"{'' if p.raw and not scalar[k] else '*'}({kind} *)shim_p[{k}];")  # fmt: skip
            else:
                inside.append(f"{kind} &{p.name} = *({kind} *)((char *)shim_p[{k}] + shim_offset[{k}]);")
        names = "\n".join(f"typedef {c} {name};" for name, c in sorted(typedefs.items()))
        halves = '#include "halves.h"' if any(is_half(t) for t in types) else ""
        # `continue` and `return` both end one element, as they do in a grid that covers all of them.
        return f"""{HEADER}{halves}
{names}
#line 1 "preamble"
{self.preamble}
extern "C" void shim_elementwise(void **shim_p, int shim_nd, const long long *shim_shape, const long long *shim_step,
                                 int shim_count) {{
    shim_index _ind = {{1, 0}};
    for (int d = 0; d < shim_nd; ++d) _ind.n *= shim_shape[d];
    {" ".join(outside)}
    {self.loop_prep};
    auto shim_element = [&](ptrdiff_t i, const long long *shim_offset) {{
        {" ".join(inside)}
        for (bool shim_once = true; shim_once; shim_once = false) {{
#line 1 "{self.name}"
            {self.operation};
        }}
    }};
    for (long long i = 0; i < _ind.n; ++i) {{
        long long shim_offset[{max(1, len(parameters))}] = {{}};
        long long rest = i;
        for (int d = shim_nd - 1; d >= 0; --d) {{
            long long at = rest % shim_shape[d];
            rest /= shim_shape[d];
            for (int k = 0; k < shim_count; ++k) shim_offset[k] += at * shim_step[k * shim_nd + d];
        }}
        _ind.k = i;
        shim_element(i, shim_offset);
    }}
    {self.after_loop};
}}
"""

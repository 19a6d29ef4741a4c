"""Which names of `cupy` the stand-in offers, with the signatures of CuPy 14.

A test holds them against the installed package, so that nothing here is wishful.
"""

from collections.abc import Callable
from typing import Any


def _words(text: str) -> list[str]:
    return text.split()


UFUNCS = _words("""add subtract multiply divide true_divide floor_divide remainder mod power negative positive absolute
fabs sign exp exp2 expm1 log log2 log10 log1p sqrt square cbrt reciprocal sin cos tan arcsin arccos
arctan arctan2 sinh cosh tanh arcsinh arccosh arctanh maximum minimum fmax fmin greater
greater_equal less less_equal equal not_equal logical_and logical_or logical_xor logical_not
bitwise_and bitwise_or bitwise_xor invert left_shift right_shift isnan isinf isfinite signbit
copysign ldexp floor ceil trunc rint hypot logaddexp logaddexp2 fmod""")

CONSTANTS = _words("""float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool_ newaxis inf nan pi
e dtype finfo iinfo generic floating integer number can_cast promote_types issubdtype""")

# A function of one array is a reduction or a copy (new memory), a view where NumPy gives one, or waits for the device.
Signature = Callable[..., Any]
COMPUTED: dict[str, Signature] = {
    "sum": lambda a, axis=None, dtype=None, out=None, keepdims=False: None,
    "prod": lambda a, axis=None, dtype=None, out=None, keepdims=False: None,
    "mean": lambda a, axis=None, dtype=None, out=None, keepdims=False: None,
    "var": lambda a, axis=None, dtype=None, out=None, ddof=0, keepdims=False: None,
    "std": lambda a, axis=None, dtype=None, out=None, ddof=0, keepdims=False: None,
    "max": lambda a, axis=None, out=None, keepdims=False: None,
    "min": lambda a, axis=None, out=None, keepdims=False: None,
    "amax": lambda a, axis=None, out=None, keepdims=False: None,
    "amin": lambda a, axis=None, out=None, keepdims=False: None,
    "argmax": lambda a, axis=None, dtype=None, out=None, keepdims=False: None,
    "argmin": lambda a, axis=None, dtype=None, out=None, keepdims=False: None,
    "any": lambda a, axis=None, out=None, keepdims=False: None,
    "all": lambda a, axis=None, out=None, keepdims=False: None,
    "count_nonzero": lambda a, axis=None: None,
    "cumsum": lambda a, axis=None, dtype=None, out=None: None,
    "clip": lambda a, a_min, a_max, out=None: None,
    "tril": lambda m, k=0: None,
    "triu": lambda m, k=0: None,
    "tile": lambda A, reps: None,
    "roll": lambda a, shift, axis=None: None,
    "copy": lambda a, order="K": None,
    "nan_to_num": lambda x, copy=True, nan=0.0, posinf=None, neginf=None: None,
    "round": lambda a, decimals=0, out=None: None,
}
ADDING = ("sum", "prod", "mean", "var", "std")  # of half precision: in float, rounded once
VIEWS: dict[str, Signature] = {
    "reshape": lambda a, newshape, order="C": None,
    "ravel": lambda a, order="C": None,
    "transpose": lambda a, axes=None: None,
    "swapaxes": lambda a, axis1, axis2: None,
    "moveaxis": lambda a, source, destination: None,
    "expand_dims": lambda a, axis: None,
    "squeeze": lambda a, axis=None: None,
    "broadcast_to": lambda array, shape: None,
    "flip": lambda a, axis=None: None,
    "diagonal": lambda a, offset=0, axis1=0, axis2=1: None,
}
LIBRARY: dict[str, Signature] = {
    "dot": lambda a, b, out=None: None,
    "tensordot": lambda a, b, axes=2: None,
    "inner": lambda a, b: None,
    "outer": lambda a, b, out=None: None,
    "vdot": lambda a, b: None,
    "matmul": lambda *args, out=None: None,
    "einsum": lambda *operands, **kwargs: None,
}
SORTS: dict[str, Signature] = {
    "sort": lambda a, axis=-1, kind=None: None,
    "argsort": lambda a, axis=-1, kind=None: None,
}
WAITING: dict[str, Signature] = {
    "nonzero": lambda a: None,
    "flatnonzero": lambda a: None,
    "argwhere": lambda a: None,
    "unique": lambda ar: None,
    "bincount": lambda x, weights=None, minlength=None: None,
}
CREATED: dict[str, Signature] = {
    "zeros": lambda shape, dtype=float, order="C": None,
    "ones": lambda shape, dtype=float, order="C": None,
    "full": lambda shape, fill_value, dtype=None, order="C": None,
    "eye": lambda N, M=None, k=0, dtype=float, order="C": None,
    "arange": lambda start, stop=None, step=1, dtype=None: None,
    "linspace": lambda start, stop, num=50: None,
}
LIKE: dict[str, Signature] = {
    "zeros_like": lambda a, dtype=None, order="K": None,
    "ones_like": lambda a, dtype=None, order="K": None,
    "full_like": lambda a, fill_value, dtype=None, order="K": None,
}
# Methods that are the function of the same name, called with the array first.
METHODS = _words("""sum prod mean var std max min any all cumsum argsort ravel swapaxes squeeze diagonal dot take round
nonzero""")

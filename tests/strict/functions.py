"""The functions of the stand-in: NumPy's, behind CuPy's refusals, costs and capture."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.strict import names
from tests.strict.array import DeviceArray, garbage, is_half
from tests.strict.creation import Creation, unwrap
from tests.strict.machine import Machine

Function = Callable[..., Any]


def _check_out(out: Any, result: np.ndarray, casting: Any) -> None:
    if not isinstance(out, DeviceArray):
        raise TypeError("Output arguments type must be cupy.ndarray")
    if out.shape != result.shape:
        raise ValueError("Out shape is mismatched")
    if not np.can_cast(result.dtype, out.dtype, casting):
        raise TypeError(
            f"Cannot cast output operand from {result.dtype!r} to {out.dtype!r} with casting rule {casting!r}"
        )


class Functions(Creation):
    """All functions of one machine, in `table`."""

    def __init__(self, machine: Machine, array: type[DeviceArray]) -> None:
        super().__init__(machine, array)
        self.table: dict[str, Any] = {"compute": self.compute, "unwrap": unwrap}
        for name in names.UFUNCS:
            self.table[name] = self.ufunc(name)
        self.table["abs"] = self.table["absolute"]
        makers = (
            (names.COMPUTED, self._computed),
            (names.LIKE, self._computed),
            (names.CREATED, self._computed),
            (names.SORTS, self._sort),
            (names.LIBRARY, self._library),
            (names.WAITING, self._waiting),
            (names.VIEWS, self._view),
        )
        for table, maker in makers:
            for name, signature in table.items():
                self.table[name] = bind(name, signature, maker)
        for own in (
            self.where, self.take, self.copyto, self.concatenate, self.stack, self.empty, self.empty_like,
            self.array_, self.asarray, self.from_dlpack, self.ascontiguousarray, self.asnumpy, self.result_type,
            self.may_share_memory, self.iscomplexobj, self.get_array_module, self.fuse,
        ):  # fmt: skip
            self.table[own.__name__.rstrip("_")] = own

    def compute(self, work: Function, out: Any = None, casting: str = "unsafe") -> Any:
        """Issue work that gives one array; into `out`, or into new memory."""
        with np.errstate(all="ignore"):
            result = np.asarray(work())
        if not result.flags.owndata:
            result = result.copy()
        if out is None:
            out = self.array.new(garbage(result) if self.machine.capturing else result)
        else:
            _check_out(out, result, casting)
        if not self.machine.capturing:
            np.copyto(out.host, result, casting="unsafe")
            self.machine.issue(lambda: None)
            return out
        self.machine.issue(lambda: np.copyto(out.host, work(), casting="unsafe"))
        return out

    def ufunc(self, name: str) -> Function:
        """An elementwise function: `out`, `dtype`, `casting`, and nothing else."""
        function: np.ufunc = getattr(np, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            out, casting = kwargs.pop("out", None), kwargs.pop("casting", "same_kind")
            options = {"dtype": kwargs.pop("dtype")} if kwargs.get("dtype") is not None else {}
            kwargs.pop("dtype", None)
            if kwargs:
                raise TypeError(f"Wrong arguments {kwargs}")
            if not function.nin <= len(args) <= function.nin + 1:
                raise TypeError(
                    f"Wrong number of arguments for 'cupy_{name}'. It must be either {function.nin} or "
                    f"{function.nin + 1} (with outputs), but given {len(args)}."
                )
            if len(args) > function.nin:
                if out is not None:
                    raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
                out = args[-1]
            if isinstance(out, tuple):
                (out,) = out
            inputs = [unwrap(x) for x in args[: function.nin]]
            if isinstance(out, DeviceArray):
                self._copy_overlapping(args[: function.nin], out)
            return self.compute(lambda: function(*inputs, **options, casting=casting), out, casting)

        def at(a: Any, indices: Any, b: Any = None) -> None:
            target, key, value = unwrap(a), unwrap(indices), unwrap(b)
            self.machine.issue(lambda: function.at(target, key, value))

        call.__name__ = name
        if name in ("add", "subtract", "maximum", "minimum"):
            call.at = at  # type: ignore[attr-defined]
        return call

    def _copy_overlapping(self, inputs: tuple[Any, ...], out: DeviceArray) -> None:
        # CuPy copies an input that is another view of the output's memory.
        for x in inputs:
            if isinstance(x, DeviceArray) and x is not out and np.may_share_memory(x.host, out.host):
                self.machine.counters.allocations += 1
                self.machine.counters.launches += 1

    def _computed(self, name: str, given: dict[str, Any]) -> Any:
        out = given.pop("out", None)
        if name == "arange" and given["stop"] is None:
            given["start"], given["stop"] = 0, given["start"]
        if name.startswith("arg") and "dtype" in given:
            given.pop("dtype")
        self._reads_array(name, given)
        function = getattr(np, name)
        source = given.get("a")
        if name in names.ADDING and isinstance(source, np.ndarray) and is_half(source.dtype) and not given["dtype"]:
            given["dtype"] = np.float32
            return self.compute(lambda: function(**given).astype(source.dtype), out)
        return self.compute(lambda: function(**given), out)

    def _reads_array(self, name: str, given: dict[str, Any]) -> None:
        """Unwrap the array arguments in place; scalars and shapes stay."""
        for key, value in given.items():
            if isinstance(value, DeviceArray):
                if key == "shape" or key == "dtype":
                    raise TypeError(f"Unsupported type {type(value)}")
                given[key] = value.host
            elif key in ("a", "x", "m", "A", "ar", "array") or isinstance(value, np.ndarray):
                raise TypeError(f"Unsupported type {type(value)}")

    def _view(self, name: str, given: dict[str, Any]) -> Any:
        key = "array" if "array" in given else "a"
        if not isinstance(given[key], DeviceArray):
            raise TypeError(f"Unsupported type {type(given[key])}")
        source: DeviceArray = given.pop(key)
        host = source.host
        if name == "reshape":
            given["shape"] = given.pop("newshape")
        function = getattr(np, name)
        result = function(host, **given)
        if np.may_share_memory(result, host) or not host.size:
            return source.view_of_host(result)
        return self.compute(lambda: function(host, **given))

    def _sort(self, name: str, given: dict[str, Any]) -> Any:
        # Thrust allocates and waits, which no capture allows.
        if self.machine.capturing:
            self.machine.invalidate()
        if is_half(given["a"].dtype) and given["a"].dtype.kind == "V":
            raise NotImplementedError(f"Sorting arrays with dtype '{given['a'].dtype}' is not supported")
        if given.pop("kind") not in (None, "stable"):
            raise ValueError("sorting algorithm must be None or 'stable'")
        return self._computed(name, given | {"kind": "stable"})

    def _library(self, name: str, given: dict[str, Any]) -> Any:
        operands = given.pop("args", None) or given.pop("operands", None) or (given.pop("a"), given.pop("b"))
        inputs = [x if isinstance(x, str) else unwrap(x) for x in operands]
        self.machine.refuse_library("cuBLAS")
        out = given.pop("out", None)
        given.update(given.pop("kwargs", {}))
        function = getattr(np, name)
        if isinstance(out, DeviceArray) and name == "dot":
            result = function(*inputs)
            if out.size != result.size:
                raise ValueError("Output array has an invalid size")
            if not out.flags.c_contiguous:
                raise ValueError("Output array must be C-contiguous")
            if out.dtype != result.dtype:
                raise ValueError(f"Output array has dtype {out.dtype}, expected {result.dtype}")
        elif isinstance(out, DeviceArray) and not out.flags.c_contiguous:
            self.machine.counters.allocations += 1  # CuPy multiplies into a temporary and copies it.
            self.machine.counters.launches += 1
        return self.compute(lambda: function(*inputs, **given), out, "same_kind")

    def _waiting(self, name: str, given: dict[str, Any]) -> Any:
        self._reads_array(name, given)
        if given.get("minlength", 0) is None:
            given["minlength"] = 0
        self.machine.transfer("D2H", wait=True)
        result = getattr(np, name)(**given)
        if isinstance(result, tuple):
            return tuple(self.compute(lambda part=part: part) for part in result)
        return self.compute(lambda: result)

    def where(self, condition: Any, x: Any = None, y: Any = None) -> Any:
        """Choose elementwise; with one argument, `nonzero`."""
        if x is None and y is None:
            return self.table["nonzero"](condition)
        if x is None or y is None:
            raise ValueError("Must provide both 'x' and 'y' or neither.")
        c, a, b = unwrap(condition), unwrap(x), unwrap(y)
        return self.compute(lambda: np.where(c, a, b))

    def take(self, a: Any, indices: Any, axis: int | None = None, out: Any = None) -> Any:
        """Gather along an axis; indices out of range wrap around silently."""
        source, index = unwrap(a), unwrap(indices)
        return self.compute(lambda: np.take(source, index, axis=axis, mode="wrap"), out)

    def copyto(self, dst: Any, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
        """Copy on the device."""
        target, source, mask = unwrap(dst), unwrap(src), True if where is None else unwrap(where)
        if isinstance(source, np.ndarray) and not np.can_cast(source.dtype, target.dtype, casting):
            raise TypeError(f"Cannot cast {source.dtype!r} to {target.dtype!r} in {casting} casting mode")
        np.broadcast_to(source, target.shape)
        self.machine.issue(lambda: np.copyto(target, source, casting="unsafe", where=mask))

    def concatenate(
        self, tup: Any, axis: int | None = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
    ) -> Any:
        """Join along an axis."""
        if not all(isinstance(x, DeviceArray) for x in tup):
            raise TypeError("Only cupy arrays can be concatenated")
        parts = [x.host for x in tup]
        return self.compute(lambda: np.concatenate(parts, axis, dtype=dtype, casting=casting), out)

    def stack(self, tup: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
        """Join along a new axis."""
        parts = [unwrap(x) for x in tup]
        return self.compute(lambda: np.stack(parts, axis, dtype=dtype, casting=casting), out)

    def result_type(self, *arrays_and_dtypes: Any) -> np.dtype:
        """The promoted type; reads no data."""
        return np.result_type(*(x.dtype if isinstance(x, DeviceArray) else x for x in arrays_and_dtypes))

    def iscomplexobj(self, x: Any) -> bool:
        """Whether the type is complex; reads no data."""
        return unwrap(x).dtype.kind == "c" if not isinstance(x, (bool, int, float, complex)) else isinstance(x, complex)

    def may_share_memory(self, a: Any, b: Any, max_work: Any = None) -> bool:
        """Whether the bounds of two arrays overlap."""
        return np.may_share_memory(unwrap(a), unwrap(b))

    def get_array_module(self, *args: Any) -> Any:
        """The module for these arguments."""
        return self.table["module"] if any(isinstance(x, DeviceArray) for x in args) else np

    def fuse(self, *args: Any, **kwargs: Any) -> Any:
        """One kernel for an elementwise function: one launch, and no memory but that of the results."""

        def decorate(function: Function) -> Function:
            def call(*inputs: Any) -> Any:
                before = self.machine.counters.allocations
                with self.machine.fused():
                    result = function(*inputs)
                results = result if isinstance(result, tuple) else (result,)
                self.machine.counters.allocations = before + sum(isinstance(r, DeviceArray) for r in results)
                return result

            return call

        return decorate(args[0]) if args and callable(args[0]) else decorate


def bind(name: str, signature: Function, body: Callable[[str, dict[str, Any]], Any]) -> Function:
    """A function with CuPy's signature and a body that gets its arguments by name."""
    parameters = inspect.signature(signature)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return body(name, dict(bound.arguments))

    call.__name__ = name
    call.__signature__ = parameters  # type: ignore[attr-defined]
    return call

"""The stand-in's arrays: NumPy memory behind the manners of `cupy.ndarray`."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from tests.strict.machine import Machine

IMPLICIT = (
    "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
)
Function = Callable[..., Any]
HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def _same(a: np.ndarray, b: Any) -> bool:
    return isinstance(b, np.ndarray) and a.__array_interface__ == b.__array_interface__


def is_half(dtype: np.dtype) -> bool:
    """Whether CuPy computes and adds such numbers in float."""
    return dtype in HALVES


def garbage(host: np.ndarray) -> np.ndarray:
    """Fill with what uninitialised memory may hold: NaN, or a number that is no sensible index."""
    host[...] = np.nan if host.dtype.kind in "fc" or is_half(host.dtype) else (host.dtype.kind == "b" or 0x55)
    return host


class MemoryPointer:
    """As `cupy.cuda.MemoryPointer`: an address, and what keeps it alive."""

    def __init__(self, owner: np.ndarray, ptr: int, device_id: int) -> None:
        self.owner, self.ptr, self.device_id = owner, ptr, device_id

    def __add__(self, offset: int) -> "MemoryPointer":
        return MemoryPointer(self.owner, self.ptr + offset, self.device_id)


class DeviceArray:
    """An array whose numbers lie in host memory, `host`, and are reached as those of a device array are.

    `make_cupy` makes one subclass for each machine, so that counters do not mix.
    """

    machine: Machine
    functions: dict[str, Any]
    astype: Function
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: Any = "C"
    ) -> None:
        if memptr is None:
            self.host = garbage(np.empty(shape, dtype, order=order))
            self._own()
            return
        self.number = memptr.device_id
        owner, start = memptr.owner, memptr.ptr - memptr.owner.ctypes.data
        flat = owner.reshape(-1, order="A").view(np.uint8)
        self.host = np.ndarray(shape, dtype, buffer=flat, offset=start, strides=strides, order=order)

    def view_of_host(self, host: np.ndarray) -> "DeviceArray":
        """Wrap a view of this array's memory."""
        view = type(self).__new__(type(self))
        view.host, view.number = host, self.number
        return view

    @classmethod
    def new(cls, host: np.ndarray) -> "DeviceArray":
        """Wrap fresh memory: an allocation."""
        self = cls.__new__(cls)
        self.host = np.asarray(host)
        self._own()
        return self

    def _own(self) -> None:
        self.number = self.machine.device
        nbytes = self.host.nbytes
        self.machine.allocate(nbytes)
        owner = self.host if self.host.base is None else self.host.base
        weakref.finalize(owner, self.machine.release, nbytes).atexit = False

    # ---- what it is
    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    flags = property(lambda self: self.host.flags)
    T = property(lambda self: self.view_of_host(self.host.T))
    mT = property(lambda self: self.view_of_host(self.host.mT))
    device = property(lambda self: self.functions["Device"](self.number))
    data = property(lambda self: MemoryPointer(self._owner(), self.host.ctypes.data, self.number))

    @property
    def base(self) -> Any:
        """Not None for a view."""
        return self.host.base

    def _owner(self) -> np.ndarray:
        owner = self.host
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        return owner

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self.host.flags.c_contiguous else self.host.strides
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "data": (self.host.ctypes.data, False),
            "strides": strides,
            "stream": self.machine.current.ptr or 1,
            "version": 3,
        }

    # ---- what it refuses
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(IMPLICIT)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(IMPLICIT)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # `np.float32(2) * a` comes this way and is allowed.
        for x in inputs:
            if isinstance(x, np.ndarray):
                raise TypeError(f"Unsupported type {type(x)}")
        if method == "__call__" and not kwargs and any(isinstance(x, np.generic) for x in inputs):
            return self.functions[ufunc.__name__](*inputs)
        raise TypeError(IMPLICIT)

    # ---- to the host
    def get(self, stream: Any = None, order: Any = "C", out: np.ndarray | None = None, blocking: bool = True) -> Any:
        """Copy to the host, and wait."""
        self.machine.transfer("D2H", wait=blocking)
        if out is None:
            return np.array(self.host, order=order)
        if out.dtype != self.dtype or out.shape != self.shape:
            raise ValueError(
                f"Shape or dtype mismatch: got {out.shape} {out.dtype}, expected {self.shape} {self.dtype}"
            )
        out[...] = self.host
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        """Copy from the host."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        self.machine.transfer("H2D", wait=False, stream=stream)
        self.host[...] = arr

    def item(self) -> Any:
        """The one value; a transfer and a wait."""
        return self.get().item()

    def tolist(self) -> Any:
        """The values as lists; a transfer and a wait."""
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return int(self.shape[0])

    def __iter__(self) -> Iterator["DeviceArray"]:
        return (self[k] for k in range(len(self)))

    # ---- indexing
    def _key(self, key: Any) -> tuple[Any, bool, bool]:
        """The key in NumPy's terms, whether it gathers, and whether it is a mask."""
        gathers = masks = False
        items = []
        for k in key if isinstance(key, tuple) else (key,):
            if isinstance(k, DeviceArray):
                gathers, masks = True, masks or k.dtype == bool
                k = k.host
            elif isinstance(k, np.ndarray):
                raise TypeError(f"Unsupported type {type(k)}")
            elif isinstance(k, list):
                raise IndexError("Only integers, slices, Ellipsis, newaxis and cupy.ndarray are valid indices")
            items.append(k)
        return tuple(items), gathers, masks

    def _wrapped(self, key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Out-of-range integer arrays wrap around, as CuPy's do."""
        if any(k is None or k is Ellipsis for k in key):
            return key
        return tuple(
            k % n if isinstance(k, np.ndarray) and k.dtype != bool else k for k, n in zip(key, self.shape, strict=False)
        )

    def __getitem__(self, key: Any) -> "DeviceArray":
        found, gathers, masks = self._key(key)
        if not gathers:
            part = self.host[found]
            return self.view_of_host(part if isinstance(part, np.ndarray) else self.host[(*found, ...)])
        if masks:
            self.machine.transfer("D2H", wait=True)
        result: DeviceArray = self.functions["compute"](lambda: self.host[self._wrapped(found)])
        return result

    def __setitem__(self, key: Any, value: Any) -> None:
        found, gathers, _ = self._key(key)
        if isinstance(value, np.ndarray):
            if value.shape != ():
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            value = value[()]
        source = self.functions["unwrap"](value)
        if isinstance(source, np.ndarray) and not gathers and _same(source, self.host[found]):
            return  # `x[k] += y` ends with x[k] = x[k].
        # A transpose here fails now and not at a replay where shapes do not fit.
        np.broadcast_to(source, np.shape(self.host[self._wrapped(found)]) if gathers else self.host[found].shape)
        if isinstance(source, np.ndarray) and not gathers and source.ndim == 0 and self.host[found].ndim == 0:
            found = (*found, ...)

        def work() -> None:
            self.host[self._wrapped(found)] = source

        self.machine.issue(work)

    def fill(self, value: Any) -> None:
        """Set every element to a scalar."""
        self[...] = value

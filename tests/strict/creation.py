"""Where the stand-in's arrays come from: fresh memory, the host, or other arrays."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.strict.array import DeviceArray, garbage, is_half
from tests.strict.machine import Machine

SCALARS = (bool, int, float, complex, np.generic)


def unwrap(x: Any) -> Any:
    """The host memory of a device array, or a scalar; everything else is refused in CuPy's words."""
    if isinstance(x, DeviceArray):
        return x.host
    if isinstance(x, SCALARS):
        return x
    raise TypeError(f"Unsupported type {type(x)}")


class Creation:
    """The functions that make arrays on one machine."""

    def __init__(self, machine: Machine, array: type[DeviceArray]) -> None:
        self.machine, self.array = machine, array

    def empty(self, shape: Any, dtype: Any = float, order: Any = "C") -> Any:
        """New memory with nothing sensible in it."""
        return self.array.new(garbage(np.empty(shape, dtype, order)))

    def empty_like(
        self, prototype: Any, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None
    ) -> Any:
        """New memory like that of another device array."""
        return self.array.new(garbage(np.empty_like(unwrap(prototype), dtype, order, shape=shape)))

    def array_(
        self, obj: Any, dtype: Any = None, copy: Any = True, order: Any = "K", subok: bool = False, ndmin: int = 0
    ) -> Any:
        """Copy to the device from anything."""
        if isinstance(obj, DeviceArray):
            return obj.astype(dtype or obj.dtype, order=order, copy=copy)
        if hasattr(obj, "__cuda_array_interface__"):
            return self._foreign(obj)
        if isinstance(obj, (list, tuple)) and any(isinstance(x, DeviceArray) for x in obj):
            return self.array.functions["stack"](obj, dtype=dtype, casting="unsafe")
        host = np.array(obj, dtype, order=order, ndmin=ndmin)
        if host.dtype.kind not in "biufc" and not is_half(host.dtype):
            raise ValueError(f"Unsupported dtype {host.dtype}")
        self.machine.transfer("H2D", wait=False)
        return self.array.new(host)

    def _borrowed(self, host: np.ndarray, number: int) -> Any:
        """Memory that another library took on a device: neither an allocation nor a transfer."""
        array = self.array.__new__(self.array)
        array.host, array.number = host, number
        return array

    def _foreign(self, obj: Any) -> Any:
        """The memory of another library, as it lies; waits for the stream that its interface names."""
        interface = dict(obj.__cuda_array_interface__)
        if interface.pop("mask", None) is not None:
            raise ValueError("CuPy currently does not support masked arrays.")
        if interface.pop("stream", None) is not None:
            self.machine.wait()
        interface["data"] = (interface["data"][0], False)
        memory = SimpleNamespace(__array_interface__=interface, owner=obj)
        return self._borrowed(np.asarray(memory), self.machine.homes.get(interface["data"][0], 0))

    def from_dlpack(self, array: Any, *, device: Any = None, copy: Any = None) -> Any:
        """The memory of another library, once that library's work on it is before the current stream."""
        if device is not None:
            raise NotImplementedError("from_dlpack() does not support device yet.")
        kind, number = array.__dlpack_device__()
        if kind == 1:
            raise TypeError(
                "CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))` instead."
            )
        if kind not in (2, 13):
            raise TypeError(f"Unsupported array type: {kind}")
        capsule = array.__dlpack__(stream=self.machine.current.ptr or 1, max_version=(1, 0), copy=copy)
        holder = SimpleNamespace(__dlpack__=lambda **_: capsule, __dlpack_device__=lambda: (1, 0))
        return self._borrowed(np.from_dlpack(holder), number)

    def asarray(self, a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Any:
        """A device array, the same one where it is one already."""
        return self.array_(a, dtype, copy=bool(copy), order=order or "K")

    def ascontiguousarray(self, a: Any, dtype: Any = None) -> Any:
        """A C-contiguous array, the same one where it is that already."""
        if isinstance(a, DeviceArray):
            return a.astype(dtype or a.dtype, order="C", copy=False)
        return self.array_(a, dtype, order="C")

    def asnumpy(self, a: Any, stream: Any = None, order: Any = "C", out: Any = None, *, blocking: bool = True) -> Any:
        """To the host."""
        return a.get(stream, order, out, blocking) if isinstance(a, DeviceArray) else np.asarray(a, order=order)

"""`make_cupy()`: an object that stands in for the `cupy` module on a machine without a GPU."""

from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np

from tests.strict import names
from tests.strict.array import DeviceArray, MemoryPointer
from tests.strict.compiler import CompileException, have_gxx
from tests.strict.elementwise import ElementwiseKernel
from tests.strict.functions import Functions
from tests.strict.kernels import RawKernel, RawModule
from tests.strict.machine import CUDARuntimeError, Event, Graph, Machine, OutOfMemoryError, Stream
from tests.strict.methods import attach

__all__ = ["CUDARuntimeError", "CompileException", "OutOfMemoryError", "have_gxx", "make_cupy"]
CUDA_VERSION = 13000
PROPERTIES = {
    "name": b"NVIDIA stand-in", "major": 9, "minor": 0, "warpSize": 32, "multiProcessorCount": 132,
    "maxThreadsPerBlock": 1024, "sharedMemPerBlock": 48 * 1024, "regsPerBlock": 65536, "clockRate": 1980000,
}  # fmt: skip


class StandIn(SimpleNamespace):
    """A namespace that reports a missing name as the module would.

    Beside CuPy's names it has `counters`, `machine`, and `fiber_order`: whether the threads and blocks of a kernel run
    "forward" or in "reverse", which no correct kernel can tell.
    """

    @property
    def fiber_order(self) -> str:
        """The order of the threads."""
        order: str = self.machine.fiber_order
        return order

    @fiber_order.setter
    def fiber_order(self, order: str) -> None:
        if order not in ("forward", "reverse"):
            raise ValueError(f"fiber_order must be 'forward' or 'reverse', got {order!r}")
        self.machine.fiber_order = order

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")


class Device:
    """As `cupy.cuda.Device`; memory belongs to the one machine, whatever the number."""

    def __init__(self, machine: Machine, device: int | None = None) -> None:
        self.machine = machine
        self.id = machine.device if device is None else int(device)
        if not 0 <= self.id < machine.devices:
            raise CUDARuntimeError("cudaErrorInvalidDevice")
        self._previous: list[int] = []

    def __enter__(self) -> Self:
        self._previous.append(self.machine.device)
        self.machine.device = self.id
        return self

    def __exit__(self, *error: object) -> None:
        self.machine.device = self._previous.pop()

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    compute_capability = "90"
    attributes: ClassVar[dict[str, int]] = {"MultiProcessorCount": 132, "MaxThreadsPerBlock": 1024, "WarpSize": 32}

    def use(self) -> "Device":
        """Make this the current device."""
        self.machine.device = self.id
        return self

    def synchronize(self) -> None:
        """Wait for all work of the device."""
        self.machine.wait()

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        return self.machine.memory - self.machine.live_bytes, self.machine.memory


class MemoryPool:
    """As `cupy.cuda.MemoryPool`; it holds on to no more freed memory than a test says in `held`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.held = self.limit = 0

    def get_limit(self) -> int:
        """Bytes that may be taken from the device; 0 if there is no limit."""
        return self.limit

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """Take no more than this."""
        self.limit = int(self.machine.memory * fraction) if size is None and fraction is not None else int(size or 0)

    def used_bytes(self) -> int:
        """Bytes of live arrays."""
        return self.machine.live_bytes

    def total_bytes(self) -> int:
        """Bytes taken from the device."""
        return self.machine.live_bytes

    def free_bytes(self) -> int:
        """Bytes kept for later."""
        return self.held

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give back what is free."""
        self.held = 0


class PinnedMemory(bytearray):
    """Page-locked host memory: a buffer with an address, as `cupy.cuda.alloc_pinned_memory` gives."""

    @property
    def ptr(self) -> int:
        """The address."""
        return np.frombuffer(self, np.uint8).ctypes.data


def _runtime(machine: Machine) -> SimpleNamespace:
    return SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: machine.devices,
        getDevice=lambda: machine.device,
        driverGetVersion=lambda: CUDA_VERSION,
        runtimeGetVersion=lambda: CUDA_VERSION,
        getDeviceProperties=lambda device: {**PROPERTIES, "totalGlobalMem": machine.memory},
        memGetInfo=lambda: Device(machine).mem_info,
        deviceSynchronize=machine.wait,
        streamCaptureModeGlobal=0,
        streamCaptureModeThreadLocal=1,
        streamCaptureModeRelaxed=2,
    )


def make_cupy(*, devices: int = 1, memory: int = 1 << 36) -> Any:
    """A fresh stand-in with its own counters; `devices` GPUs, `memory` bytes before it is out of memory."""
    machine = Machine(devices, memory)
    array: type[DeviceArray] = type("ndarray", (DeviceArray,), {"machine": machine})
    attach(array)
    functions = Functions(machine, array)
    array.functions = functions.table
    device = partial(Device, machine)

    class MachineStream(Stream):
        """`Stream(non_blocking=...)` on this machine."""

        null = machine.null

        def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
            super().__init__(machine, null, non_blocking)

    cp = StandIn(**{name: getattr(np, name) for name in names.CONSTANTS})
    vars(cp).update({k: v for k, v in functions.table.items() if k not in ("compute", "unwrap")})
    cp.ndarray = array
    cp.ElementwiseKernel = partial(ElementwiseKernel, machine, array)
    cp.RawModule = partial(RawModule, machine)
    cp.RawKernel = partial(RawKernel, machine)
    pool = MemoryPool(machine)
    cp.get_default_memory_pool = lambda: pool
    cp.cuda = SimpleNamespace(
        Stream=MachineStream,
        Event=partial(Event, machine),
        Graph=Graph,
        Device=device,
        MemoryPointer=MemoryPointer,
        get_current_stream=lambda: machine.current,
        get_device_id=lambda: machine.device,
        get_elapsed_time=lambda start, end: 0.0,
        is_available=lambda: machine.devices > 0,
        alloc_pinned_memory=PinnedMemory,
        using_allocator=machine.using_allocator,
        runtime=_runtime(machine),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError, MemoryPointer=MemoryPointer),
        compiler=SimpleNamespace(CompileException=CompileException),
    )
    functions.table |= {"module": cp, "Device": device}
    # Not CuPy's: what tests read and set.
    cp.counters = machine.counters
    cp.machine = machine
    cp.__name__, cp.__version__ = "cupy", "14.2.0"
    return cp

"""All errors that gpunn raises on purpose: where, what was expected, what it got, and how to fix it."""

from __future__ import annotations

from typing import Any


class GpunnError(Exception):
    """`where: expected ..., got ...; fix`, each part also an attribute."""

    def __init__(self, where: str, *, expected: str, got: str, fix: str) -> None:
        self.where, self.expected, self.got, self.fix = where, expected, got, fix
        super().__init__(printable(f"{where}: expected {expected}, got {got}; {fix}"))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickling needs this, because the arguments are keyword-only."""
        return _rebuild, (type(self), self.where, self.expected, self.got, self.fix)


def _rebuild(kind: type[GpunnError], where: str, expected: str, got: str, fix: str) -> GpunnError:
    return kind(where, expected=expected, got=got, fix=fix)


class ConfigurationError(GpunnError, ValueError):
    """A layer, loss, network or option that makes no sense, found before any array exists."""


class ShapeError(GpunnError, ValueError):
    """An array of the wrong rank, width or length."""


class DataError(GpunnError, ValueError):
    """Values that a network cannot be trained on: NaN, infinity, labels out of range, an empty batch."""


class ArrayTypeError(GpunnError, TypeError):
    """An array of the wrong dtype, or on the wrong device."""


class DeviceError(GpunnError, RuntimeError):
    """The device that was asked for cannot be used."""


class DeviceMemoryError(DeviceError, MemoryError):
    """More memory is needed than the device has free."""


class DeviceLostError(DeviceError):
    """The device stopped working, and everything in its memory is lost."""


class ConcurrencyError(GpunnError, RuntimeError):
    """Two uses of one network at the same time that would disturb each other."""


class MissingExtraError(GpunnError, ImportError):
    """A feature that needs an optional library, an extra of gpunn."""


class CheckpointError(GpunnError, ValueError):
    """A file that cannot be written, or is not the checkpoint it should be."""


def brief(error: BaseException) -> str:
    """Class and message of an error of another library, cut off if long."""
    return f"{type(error).__name__}: {error}"[:200]


def printable(text: str) -> str:
    """The text as one line that cannot control a terminal: line breaks and the like are escaped as in `repr`.

    Names in data may hold terminal commands, marks that reverse the order of letters, and characters without width.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def readable(size: float) -> str:
    """A number of bytes in B, KiB, MiB or GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def to_host_call(value: Any) -> str:
    """The call that brings this library's array to the host, for messages."""
    calls = {"torch": "x.cpu()", "jax": "jax.device_get(x)", "cudf": "x.to_numpy()", "numba": "x.copy_to_host()"}
    return calls.get(type(value).__module__.split(".")[0].removesuffix("lib"), "x.get()")

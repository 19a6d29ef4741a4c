"""Every error gpunn raises on purpose: where it happened, what was expected, what came, what to do."""

from __future__ import annotations

from typing import Any


class GpunnError(Exception):
    """`where: expected ..., got ...; fix`, each part also an attribute."""

    def __init__(self, where: str, *, expected: str, got: str, fix: str) -> None:
        self.where, self.expected, self.got, self.fix = where, expected, got, fix
        super().__init__(printable(f"{where}: expected {expected}, got {got}; {fix}"))

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword-only arguments need help to cross a process boundary."""
        return _rebuild, (type(self), self.where, self.expected, self.got, self.fix)


def _rebuild(kind: type[GpunnError], where: str, expected: str, got: str, fix: str) -> GpunnError:
    return kind(where, expected=expected, got=got, fix=fix)


class ConfigurationError(GpunnError, ValueError):
    """A layer, loss, network or option that makes no sense, found before any array exists."""


class ShapeError(GpunnError, ValueError):
    """An array of the wrong rank, width or length."""


class DataError(GpunnError, ValueError):
    """Values that cannot be trained on: NaN, infinity, labels out of range, an empty batch."""


class ArrayTypeError(GpunnError, TypeError):
    """An array of the wrong dtype, or one that lives on the wrong device."""


class DeviceError(GpunnError, RuntimeError):
    """The device that was asked for cannot be used."""


class DeviceMemoryError(DeviceError, MemoryError):
    """More memory is needed than the device has free."""


class DeviceLostError(DeviceError):
    """The device stopped answering, and all that lay on it is gone."""


class ConcurrencyError(GpunnError, RuntimeError):
    """Two uses of one network at the same time of which one would spoil the other."""


class MissingExtraError(GpunnError, ImportError):
    """Something that needs a library which gpunn installs only on request."""


class CheckpointError(GpunnError, ValueError):
    """A file that cannot be written, or is not the checkpoint it should be."""


def brief(error: BaseException) -> str:
    """The kind of an error that is none of ours, and what it says, cut where it is long."""
    return f"{type(error).__name__}: {error}"[:200]


def printable(text: str) -> str:
    """One line without effects on a terminal: what `repr` escapes, such as line breaks, is escaped here too.

    Names in data may hold commands to the terminal, marks that reverse the order of letters, and signs of no width.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def readable(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def to_host_call(value: Any) -> str:
    """How users of its library bring an array to the host."""
    calls = {"torch": "x.cpu()", "jax": "jax.device_get(x)", "cudf": "x.to_numpy()", "numba": "x.copy_to_host()"}
    return calls.get(type(value).__module__.split(".")[0].removesuffix("lib"), "x.get()")

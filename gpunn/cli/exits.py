"""The exit codes of `gpunn`."""

from __future__ import annotations

from gpunn import starting
from gpunn.errors import CheckpointError, ConfigurationError, DeviceError, GpunnError, MissingExtraError
from gpunn.training.signals import EXIT_ON_TERMINATION

FAILURE, USAGE, DATA, FILE, DEVICE, MISSING, INTERRUPTED = 1, 2, 3, 4, 5, 6, starting.INTERRUPTED

EXITS = {
    0: "done",
    FAILURE: "failed: doctor found a fault, or the loss became infinite or NaN",
    USAGE: "options that are unknown or make no sense",
    DATA: "data that cannot be read, trained on or predicted from",
    FILE: "a run or model that cannot be read or written",
    DEVICE: "a device that cannot be used, or has too little memory",
    MISSING: "an optional library is missing",
    INTERRUPTED: "interrupted by Ctrl-C; train keeps the best weights",
    EXIT_ON_TERMINATION: "ended by SIGTERM; train has written a checkpoint",
}
CODES: tuple[tuple[type[GpunnError], int], ...] = (
    (ConfigurationError, USAGE),
    (CheckpointError, FILE),
    (DeviceError, DEVICE),
    (MissingExtraError, MISSING),
)


def exit_code(error: GpunnError) -> int:
    """The exit code for an error; the errors that are not listed are about data."""
    return next((code for kind, code in CODES if isinstance(error, kind)), DATA)

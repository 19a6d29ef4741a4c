"""The numbers that `gpunn` ends with."""

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
KINDS: tuple[tuple[type[GpunnError], int], ...] = (
    (ConfigurationError, USAGE),
    (CheckpointError, FILE),
    (DeviceError, DEVICE),
    (MissingExtraError, MISSING),
)


def exit_code(error: GpunnError) -> int:
    """That of an error's kind; what is left is about data."""
    return next((code for kind, code in KINDS if isinstance(error, kind)), DATA)

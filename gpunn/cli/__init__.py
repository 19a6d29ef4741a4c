"""The command `gpunn`: training, evaluation and prediction on tables from a terminal."""

from gpunn.starting import INTERRUPTED

try:
    from gpunn.cli.command import gpunn, main
except KeyboardInterrupt:  # while libraries are loaded
    raise SystemExit(INTERRUPTED) from None

__all__ = ["gpunn", "main"]

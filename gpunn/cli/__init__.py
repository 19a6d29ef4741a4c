"""The command `gpunn`: training, evaluation and prediction on tables from a terminal."""

from gpunn.cli.command import gpunn, main

__all__ = ["gpunn", "main"]

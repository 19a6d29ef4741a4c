"""`gpunn doctor`."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

import gpunn as gn
from gpunn.cli.checks import FAULT, OK, WARNING, blas, extras, machine, python
from gpunn.cli.exits import FAILURE
from gpunn.cli.gpu_checks import gpus
from gpunn.cli.machine import blas_libraries
from gpunn.cli.output import json_option, print_document, print_table, say


@click.command("doctor")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Look at Python, NumPy, BLAS, CUDA and memory, and say what to install.

    Ends with 1 if something is wrong, and with 0 if nothing is, or something could merely be better.

    \b
    Example:
      gpunn doctor
    """
    checks = [*python(), *machine(), *blas(blas_libraries(), os.environ), *extras(), *gpus()]
    counts = {status: sum(check.status == status for check in checks) for status in (FAULT, WARNING)}
    if as_json:
        found = [asdict(check) for check in checks]
        print_document({"ok": not counts[FAULT], "version": gn.__version__, "checks": found})
    else:
        print_table(([check.name, check.status, check.found] for check in checks), header=("", "", "found"))
        say()
        for check in checks:
            if check.status != OK and check.fix:
                say(f"{check.name} ({check.status}): {check.fix}")
        say(", ".join(f"{counts[kind]} {kind.lower()}{'s' * (counts[kind] != 1)}" for kind in (FAULT, WARNING)))
    context.exit(FAILURE if counts[FAULT] else 0)

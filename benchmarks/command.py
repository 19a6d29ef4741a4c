"""The command line: which questions, on which device; results as tables, JSON and plots."""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import click

# In the order they run; what a GPU is asked when nothing is named fits into eight minutes.
QUESTIONS = (
    "step", "profile", "products", "digits", "accuracy", "epoch", "batching", "update", "estimators", "populations",
    "requests", "layers", "scaling", "busy", "passes", "memory", "mapped", "install",
)  # fmt: skip
ON_CUDA = ("step", "products", "digits")
STEP_MINUTES = 5.0

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NPROC")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("questions", nargs=-1, type=click.Choice(QUESTIONS))
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True)
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of every library; their own choice unless given."
)
@click.option(
    "--quick", is_flag=True, help="Small cases and few repetitions: shows that everything runs, not how fast."
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Store the results here.")
@click.option(
    "--plot", "plots", type=click.Path(file_okay=False, path_type=Path), help="Draw the results as PNGs here."
)
@click.option("--gibibytes", type=float, help="Of `mapped`: the size of its file; 4 unless given, little with --quick.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False),
    help="Of `mapped` and `install`: where they write for a while.",
)
@click.option(
    "--table",
    type=click.Path(exists=True, dir_okay=False),
    help="Of `busy`: a table to train on as well, whose last column is the target.",
)
def main(
    questions: tuple[str, ...],
    device: str,
    threads: int | None,
    quick: bool,
    json_file: Path | None,
    plots: Path | None,
    gibibytes: float | None,
    folder: str | None,
    table: str | None,
) -> None:
    """Answer QUESTIONS, or all that suit the device. Ends with 1 if a competitor failed or disagreed."""
    prepare_environment(threads)
    from benchmarks import machine, report
    from benchmarks.harness import Setting

    description = machine.describe(device, threads)
    for warning in description["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    asked = questions or (ON_CUDA if device == "cuda" else QUESTIONS)
    setting = Setting(
        device=device, quick=quick, selection=device == "cuda" and not questions, gibibytes=gibibytes, folder=folder,
        table=table,
    )  # fmt: skip
    rows: list[Any] = []
    for question in asked:
        if question == "step" and setting.selection:
            setting.deadline = time.monotonic() + 60 * STEP_MINUTES
        rows += import_module(f"benchmarks.{question}").run(setting)
        if json_file is not None:  # after every question, so that a later one that is stopped costs nothing
            report.write_json(json_file, description, rows, quick=quick)
    if plots is not None:
        report.plot(plots, rows)
    report.show(description, rows)
    sys.exit(1 if any(row.fault for row in rows) else 0)


def prepare_environment(threads: int | None) -> None:
    """What libraries read when they are loaded; those that are loaded already are told themselves."""
    os.environ["GPUNN_JIT"] = "0"  # gpunn with loops competes under a name of its own
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of the GPU's memory
    if threads is None:
        return
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def alone(question: str) -> None:
    """`python -m benchmarks.<question>`."""
    main([question, *sys.argv[1:]], prog_name=f"python -m benchmarks.{question}")

"""Options that several sub-commands have."""

from __future__ import annotations

import click

device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N", help="auto takes a GPU if it can."
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "tf32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="The last three on a GPU only.",
)

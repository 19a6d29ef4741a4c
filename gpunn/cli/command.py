"""The command `gpunn` itself: its sub-commands, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EPIPE
from types import FrameType
from typing import Any

import click

import gpunn as gn
from gpunn import starting
from gpunn.cli import benchmark, doctor, evaluate, inspect, predict, train
from gpunn.cli.exits import EXITS, FILE, INTERRUPTED, exit_code
from gpunn.cli.output import error_document, escape_unencodable, print_document, say
from gpunn.errors import CheckpointError, ConfigurationError, DeviceMemoryError, GpunnError, printable
from gpunn.training.signals import EXIT_ON_TERMINATION


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt here; before and after, when there is nothing to say, it ends the process."""
    before = signal.getsignal(signal.SIGINT)
    if before is not starting.end:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, starting.end)


class Commands(click.Group):
    """Sub-commands; their errors are one line on stderr, and with --json also a document on stdout."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """The context of a call; help and version are printed here, which may fail."""
        try:
            return super().make_context(*arguments, **options)
        except OSError as error:
            if error.errno == EPIPE:
                raise
            _give_up_stdout()
            say(f"gpunn: {_unwritten(error)}", error=True)
            raise click.exceptions.Exit(FILE) from None

    def invoke(self, context: click.Context) -> Any:
        try:
            with _interruptible():
                return super().invoke(context)
        except GpunnError as error:
            self._end(context, error)
        except MemoryError as error:
            self._end(context, _out_of_memory(error))
        except click.UsageError as error:  # click prints it
            if self._wants_json(context):
                print_document(error_document(_usage(error)))
            raise click.UsageError(printable(error.format_message()), error.ctx) from None
        except OSError as error:
            if error.errno == EPIPE:  # the reader of the results has ended, and click ends quietly
                raise
            if error.filename is None:
                _give_up_stdout()
            self._end(context, _unwritten(error))
        except KeyboardInterrupt as error:
            self._stop(context, "interrupted", str(error), INTERRUPTED)
        except SystemExit as error:  # raised by `_terminate`
            if error.code != EXIT_ON_TERMINATION:
                raise
            self._stop(context, "terminated", "", EXIT_ON_TERMINATION)

    def _stop(self, context: click.Context, status: str, message: str, code: int) -> None:
        """End because of a signal, without a result."""
        say(f"gpunn: {message or status}", error=True)
        if self._wants_json(context):
            print_document({"status": status})
        context.exit(code)

    def _end(self, context: click.Context, error: GpunnError) -> None:
        say(f"gpunn: {error}", error=True)
        if self._wants_json(context):
            with suppress(OSError):  # the error may be stdout's
                print_document(error_document(error))
        context.exit(exit_code(error))

    def _wants_json(self, context: click.Context) -> bool:
        """Whether the sub-command was given --json; its own context is gone by now."""
        return "--json" in context.meta.get("gpunn.arguments", ())

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        context.meta["gpunn.arguments"] = tuple(arguments)
        return super().resolve_command(context, arguments)


def _usage(error: click.UsageError) -> GpunnError:
    """An error of click with the four parts of ours."""
    path = error.ctx.command_path if error.ctx else "gpunn"
    return ConfigurationError(
        path, expected="options and arguments that it has", got=error.format_message(), fix=f"see {path} --help"
    )


def _give_up_stdout() -> None:
    """Drop what could not be written: Python would try to write it again when it ends, and report a second error."""
    with suppress(OSError, ValueError, AttributeError):  # there is no stdout, or it is not a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _unwritten(error: OSError) -> GpunnError:
    """The error for a write that failed, mostly because the disk behind stdout or a file is full."""
    return CheckpointError(
        "stdout" if error.filename is None else str(error.filename),
        expected="to write results", got=error.strerror or str(error), fix="free space, or write elsewhere",
    )  # fmt: skip


def _out_of_memory(error: MemoryError) -> GpunnError:
    return DeviceMemoryError(
        "memory",
        expected="room for the data and the network",
        got=str(error) or type(error).__name__,
        fix="give part of the data, use a smaller network, or raise the limit (ulimit -v)",
    )


def _table(codes: dict[int, str]) -> str:
    return "\n".join(f"  {code:<5}{meaning}" for code, meaning in codes.items())


@click.group(cls=Commands, epilog=f"\b\nExit codes:\n{_table(EXITS)}")
@click.version_option(gn.__version__, prog_name="gpunn")
def gpunn() -> None:
    """Neural networks on tables: train, evaluate, predict.

    Results go to stdout, progress and complaints to stderr.

    \b
    Example:
      gpunn train digits
    """


for module in (train, evaluate, predict, inspect, doctor, benchmark):
    gpunn.add_command(module.command)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_ON_TERMINATION)


def main() -> None:
    """What the installed script runs.

    It handles SIGTERM, because the first process of a container ignores a SIGTERM without a handler.
    """
    escape_unencodable()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    sys.exit(gpunn(prog_name="gpunn"))

"""`gpunn` itself: its sub-commands, and how it ends."""

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
from gpunn.cli.output import error_document, escape_what_cannot_be_shown, print_document, say
from gpunn.errors import CheckpointError, ConfigurationError, DeviceMemoryError, GpunnError, printable
from gpunn.training.signals import EXIT_ON_TERMINATION


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises a KeyboardInterrupt, where before and after it ends the process: there is nothing to tell then."""
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
    """Sub-commands whose errors are one line on stderr, and a document on stdout where one was asked for."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """The context of a call, unless all it asks for is help or the version, which is printed here."""
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
        except click.UsageError as error:  # which click tells people
            if self._wants_json(context):
                print_document(error_document(_usage(error)))
            raise click.UsageError(printable(error.format_message()), error.ctx) from None
        except OSError as error:
            if error.errno == EPIPE:  # whoever read the results has gone, and click ends quietly
                raise
            if error.filename is None:
                _give_up_stdout()
            self._end(context, _unwritten(error))
        except KeyboardInterrupt as error:
            self._stop(context, "interrupted", str(error), INTERRUPTED)
        except SystemExit as error:  # of the handler below
            if error.code != EXIT_ON_TERMINATION:
                raise
            self._stop(context, "terminated", "", EXIT_ON_TERMINATION)

    def _stop(self, context: click.Context, status: str, told: str, code: int) -> None:
        """By a signal, before there was a result."""
        say(f"gpunn: {told or status}", error=True)
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
    """click's complaint in four parts."""
    path = error.ctx.command_path if error.ctx else "gpunn"
    return ConfigurationError(
        path, expected="options and arguments that it has", got=error.format_message(), fix=f"see {path} --help"
    )


def _give_up_stdout() -> None:
    """What could not be written still waits: Python would try again at its end, and say once more that it failed."""
    with suppress(OSError, ValueError, AttributeError):  # there is none, or one that is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _unwritten(error: OSError) -> GpunnError:
    """A full disk, mostly, behind stdout or a file that is not written whole."""
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

    The first process of a container is not ended by a SIGTERM that it has no handler for.
    """
    escape_what_cannot_be_shown()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    sys.exit(gpunn(prog_name="gpunn"))

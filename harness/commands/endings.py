"""How a command ends: every way in which it may end has an exit code, and none is Python's own."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from harness.commands.exits import COULD_NOT_RUN, INTERRUPTED


class Unread(Exception):
    """Nobody reads the output any more."""


class Commands(click.Group):
    """A group of commands that end with the codes of `harness.commands.exits`, whatever happens in them.

    A verdict and a wrong command line have the codes that the command gives. An interrupt is `INTERRUPTED`. An output
    that cannot be written, and any other error, is `COULD_NOT_RUN`: a crash is no verdict. What the terminal's encoding
    lacks is written as an escape sequence.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a command. As a program (`standalone_mode`) exit with its code; otherwise raise what it raises."""
        asked = {**extra, "standalone_mode": False}
        if not extra.get("standalone_mode", True):
            return super().main(args, *rest, **asked)
        with ended():
            code = super().main(args, *rest, **asked)
            _flush()
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command. A reader that is gone is an error like any other: click itself would exit with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise Unread(str(error)) from error


@contextmanager
def ended() -> Iterator[None]:
    """Turn whatever a block raises into an exit with its code."""
    _escape_what_the_encoding_lacks()
    try:
        try:
            yield
        except SystemExit:
            _flush()
            raise
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end("interrupted", INTERRUPTED)
    except Unread as error:
        _end(f"cannot write the output: {error}", COULD_NOT_RUN)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EFBIG, errno.EDQUOT):
            _end(traceback.format_exc().rstrip(), COULD_NOT_RUN)
        _end(f"cannot write the output: {error}", COULD_NOT_RUN)
    except Exception:  # noqa: BLE001 - a crash of any kind is no verdict
        _end(traceback.format_exc().rstrip(), COULD_NOT_RUN)


def _flush() -> None:
    """Write what is buffered while an error still has a code: at the end of the process it would be 120."""
    sys.stdout.flush()
    sys.stderr.flush()


def _end(words: str, code: int) -> None:
    """Say why the command ends, and exit. What cannot be written now is not tried again at the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _forget(stream)
    try:
        sys.stderr.write(words + "\n")
        sys.stderr.flush()
    except OSError:
        _forget(sys.stderr)
    sys.exit(code)


def _forget(stream: Any) -> None:
    """Let what is buffered for a file go nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, io.UnsupportedOperation):  # a stream without a file, as in a test, has nothing to fail later
        return


def _escape_what_the_encoding_lacks() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")

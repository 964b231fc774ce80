"""`python -m harness`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from harness import completion
from harness.commands.exits import COULD_NOT_RUN, INTERRUPTED, USAGE
from harness.extras import COMMAND, needed

__all__ = ["main"]


@contextmanager
def starting() -> Iterator[None]:
    """Say on a terminal that the command starts, as the import of torch takes seconds; erase the line afterwards."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    with suppress(OSError):  # a terminal that is gone says nothing of the command
        sys.stderr.write("starting ...\r")
        sys.stderr.flush()
    try:
        yield
    finally:
        with suppress(OSError):
            sys.stderr.write("\x1b[K")
            sys.stderr.flush()


if __name__ == "__main__" and completion.asked():
    completion.answer()

try:
    with starting():
        from harness.cli import main
except ModuleNotFoundError as error:
    missing = needed("the command harness", COMMAND, error)
    if not missing:
        traceback.print_exc()
        sys.exit(COULD_NOT_RUN)
    sys.stderr.write(f"{missing}; a checkout has its own Python: .venv/bin/python, which `make run` sets up\n")
    sys.exit(USAGE)
except Exception:  # noqa: BLE001 - a revision that cannot be imported is one `git bisect run` must skip, not blame
    traceback.print_exc()
    sys.exit(COULD_NOT_RUN)
except KeyboardInterrupt:
    sys.exit(INTERRUPTED)

if __name__ == "__main__":
    main(prog_name="python -m harness")

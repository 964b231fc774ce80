"""The console script `harness`."""

from __future__ import annotations

import os
import sys

from harness import checkout, completion


def main() -> None:
    """Run the package of the checkout around the working folder, as `python -m harness` does; else the installed one.

    The process is replaced by one that imports that package, before anything that takes long is imported here.
    """
    found = checkout.around()
    if found is not None and checkout.has_package(found) and found != checkout.PACKAGE.parent:
        path = os.pathsep.join(filter(None, [str(found), os.environ.get("PYTHONPATH", "")]))
        # Without -P the working folder would come first, whose modules may have names of the standard library's.
        command = [sys.executable, "-P", "-m", checkout.PACKAGE.name, *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})
    if completion.asked():
        completion.answer()
    from harness.__main__ import main as run  # noqa: PLC0415 - imports torch, which the other process does anyhow

    run(prog_name="harness")

"""`python -m harness`."""

from __future__ import annotations

import sys
import traceback

from harness import completion
from harness.commands.exits import COULD_NOT_RUN, INTERRUPTED, USAGE
from harness.extras import COMMAND, needed

__all__ = ["main"]

if __name__ == "__main__" and completion.asked():
    completion.answer()

try:
    from harness.cli import main
except ModuleNotFoundError as error:
    missing = needed("the command harness", COMMAND, error)
    if not missing:
        traceback.print_exc()
        sys.exit(COULD_NOT_RUN)
    sys.stderr.write(f"{missing}\n")
    sys.exit(USAGE)
except Exception:  # noqa: BLE001 - a revision that cannot be imported is one `git bisect run` must skip, not blame
    traceback.print_exc()
    sys.exit(COULD_NOT_RUN)
except KeyboardInterrupt:
    sys.exit(INTERRUPTED)

if __name__ == "__main__":
    main(prog_name="python -m harness")

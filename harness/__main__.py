"""`python -m harness`."""

from __future__ import annotations

import sys
import traceback

COULD_NOT_RUN = 125

try:
    from harness.cli import main
except Exception:  # noqa: BLE001 - a revision that cannot be imported is one `git bisect run` must skip, not blame
    traceback.print_exc()
    sys.exit(COULD_NOT_RUN)

if __name__ == "__main__":
    main(prog_name="python -m harness")

"""Exit codes of the commands."""

from __future__ import annotations

PASSED = 0
DIFFERS = 1
"""A check failed: a verdict, a cost, an output or a time."""
USAGE = 2
"""A wrong command line, or a refusal: to bless, to record, to take a file."""
INCONCLUSIVE = 3
"""`compare` cannot decide."""
COULD_NOT_RUN = 125
"""No verdict: nothing could be compared, an error, an output that cannot be written. `git bisect run` skips a revision
at this code, where 1 reads as bad."""
INTERRUPTED = 130
"""An interrupt from the keyboard."""

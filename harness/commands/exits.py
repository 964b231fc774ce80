"""Exit codes of the commands."""

from __future__ import annotations

PASSED = 0
DIFFERS = 1
"""A check failed: a verdict, a cost, an output or a time."""
USAGE = 2
"""A wrong command line, or a refusal to bless."""
INCONCLUSIVE = 2
"""`compare` cannot decide."""
COULD_NOT_RUN = 125
"""Nothing could be compared. `git bisect run` skips a revision at this code, where 1 reads as bad."""

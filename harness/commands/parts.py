"""Parts of one command that do not hide each other: where one cannot run, the others still give their verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.commands.common import could_not_run
from harness.commands.exits import COULD_NOT_RUN


@dataclass
class Parts:
    """The parts of a command.

    Attributes:
        what: the verb of the messages, such as `check`.
        several: True: a part that cannot run is kept in `failed`. False: the command ends there.
        known: errors that are printed in one line; any other one is printed with its traceback.
        failed: why, by the name of each part that could not run.
    """

    what: str
    several: bool
    known: tuple[type[Exception], ...] = ()
    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def isolated(self, part: str) -> Iterator[None]:
        """Run a part in a `with` block. An error is printed, and ends the command only where this is the one part."""
        try:
            with could_not_run(f"{self.what} {part}" if self.several else self.what, *self.known):
                yield
        except SystemExit as ended:
            if not self.several or ended.code != COULD_NOT_RUN:
                raise
            error = ended.__context__
            self.failed[part] = f"{type(error).__name__}: {error}"

"""What one `check` found out: the captures, the switches, or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.parity import platform
from harness.parity.captures import Report
from harness.parity.switches import SwitchResult


@dataclass(frozen=True)
class Checked:
    """A whole check.

    Attributes:
        captures: of the battery against its captures; None where that was not asked for.
        switches: of every switch in lockstep; empty where that was not asked for.
    """

    captures: Report | None
    switches: tuple[SwitchResult, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether something was compared and every verdict passes."""
        parts = [] if self.captures is None else [self.captures.passes]
        parts += [result.verdict.passes for result in self.switches]
        return bool(parts) and all(parts)

    def summary(self) -> list[str]:
        """A line for each of the two."""
        lines = [summary_of(self.switches)] if self.switches else []
        return lines + ([] if self.captures is None else [self.captures.summary()])

    def document(self) -> dict[str, Any]:
        """The check as plain JSON values."""
        found = {"scenarios": [], "costs": []} if self.captures is None else self.captures.document()
        where = found.get("platform", {"name": platform.name(), "fingerprint": platform.fingerprint()})
        verdicts = Counter(str(result.verdict) for result in self.switches)
        verdicts += Counter() if self.captures is None else Counter(str(r.verdict) for r in self.captures.results)
        summary = {"passes": self.passes, "verdicts": dict(verdicts), "text": "; ".join(self.summary())}
        switches = [asdict(result) for result in self.switches]
        return {**found, "switches": switches, "platform": where, "summary": summary}


def summary_of(results: Sequence[SwitchResult]) -> str:
    """The switches' verdicts counted, in one line."""
    counts = Counter(result.verdict for result in results)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    idle = sum(not result.acted for result in results)
    return f"{len(results)} comparisons of a switch on and off: {counted} (in {idle} it had nothing to do)"

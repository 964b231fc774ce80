"""Report of one `check`: results of the captures, the blessed traces, the switches and the costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.parity.baselines import platform
from harness.parity.baselines.captures import Report
from harness.parity.baselines.verdicts import Verdict
from harness.parity.proofs.float64 import EngineReport
from harness.parity.proofs.switches import SwitchResult
from harness.parity.traces import blessed
from harness.parity.traces.blessed import TraceResult
from harness.rails.costs.rails import CostReport


@dataclass(frozen=True)
class CheckReport:
    """Report of a whole check.

    Attributes:
        captures: report of the battery against its captures, or on a compiled decoder; None if not asked for.
        switches: results of the switches in lockstep; empty if not asked for.
        costs: report of the cost rails; None if not asked for.
        device: device of the captures and the switches.
        failed: why, by the name of each part that was asked for and could not run.
        traces: results of the blessed traces; empty if there are none or they were not asked for.
    """

    captures: Report | EngineReport | None
    switches: tuple[SwitchResult, ...] = ()
    costs: CostReport | None = None
    device: str = "cpu"
    failed: Mapping[str, str] = field(default_factory=dict)
    traces: tuple[TraceResult, ...] = ()

    @property
    def compared(self) -> bool:
        """Say whether anything was compared.

        Not compared are ungated costs, scenarios outside a profile, traces that cannot be replayed here, and switches
        of which none acted: there equal results prove nothing.
        """
        played = self.captures is not None and self.captures.compared
        switched = any(result.acted or not result.verdict.passes for result in self._switched)
        return played or switched or bool(self._replayed) or (self.costs is not None and self.costs.gated)

    @property
    def passes(self) -> bool:
        """Say whether something was compared and every verdict passes; costs that are not gated have no verdict."""
        return self.compared and not self.failed and not self.differs

    @property
    def differs(self) -> bool:
        """Say whether a verdict of what was compared does not pass, whatever else could not run."""
        parts = [] if self.captures is None or not self.captures.compared else [self.captures.passes]
        parts += [result.verdict.passes for result in self._switched]
        parts += [result.verdict.passes for result in self._replayed]
        parts += [self.costs.passes] if self.costs is not None and self.costs.gated else []
        return self.compared and not all(parts)

    @property
    def _switched(self) -> list[SwitchResult]:
        return [result for result in self.switches if result.verdict is not Verdict.OUTSIDE_PROFILE]

    @property
    def _replayed(self) -> list[TraceResult]:
        return [result for result in self.traces if result.compared]

    def summary(self) -> list[str]:
        """Summarize costs, switches, traces and captures in one line each, then what could not run."""
        lines = [] if self.costs is None else [self.costs.summary()]
        lines += [summary_of(self.switches)] if self.switches else []
        lines += [blessed.summary_of(self.traces)] if self.traces else []
        lines += [] if self.captures is None else [self.captures.summary()]
        return lines + [f"{part}: could not run" for part in self.failed]

    def document(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        found: dict[str, Any] = {"scenarios": []} if self.captures is None else self.captures.document()
        with platform.one_thread():  # as everything that was compared
            where = found.get("platform") or {
                "name": platform.name(self.device),
                "fingerprint": platform.of_captures(self.device),
            }
        told: list[SwitchResult | TraceResult] = [*self.switches, *self.traces]
        verdicts = Counter(str(result.verdict) for result in told)
        verdicts += Counter(() if self.captures is None else [str(r.verdict) for r in self.captures.results])
        summary = {"passes": self.passes, "verdicts": dict(verdicts), "text": "; ".join(self.summary())}
        switches = [asdict(result) for result in self.switches]
        costs = [] if self.costs is None else self.costs.document()
        failed = dict(self.failed)
        traces = {"traces": [each.document() for each in self.traces]} if self.traces else {}
        return {
            **found,
            **traces,
            "switches": switches,
            "costs": costs,
            "failed": failed,
            "platform": where,
            "summary": summary,
        }


def summary_of(results: Sequence[SwitchResult]) -> str:
    """Count the verdicts of the switches in one line."""
    counts = Counter(result.verdict for result in results)
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    idle = sum(not result.acted for result in results)
    return f"{len(results)} comparisons of a switch on and off: {counted} (in {idle} the switch did not act)"

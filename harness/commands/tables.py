"""Tables of `check`, `bench` and `probe` for a person to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from harness.commands.check_report import CheckReport
from harness.files.refused import shown
from harness.parity.baselines import contract
from harness.parity.baselines.captures import Report
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.proofs.float64 import EngineReport
from harness.parity.proofs.switches import EVERY, SwitchResult
from harness.parity.spread import spread
from harness.parity.traces.blessed import TraceResult
from harness.rails.bench import ablation, throughput
from harness.rails.bench.recorded import Recorded
from harness.rails.bench.steady import Steady
from harness.rails.compare.statistics import CONFIDENCE
from harness.rails.costs import rails as costs
from harness.rails.costs.counts import replacement

COUNTS = 10
"""The most rows of counts that differ."""
_PASSES = "green"
_COLORS = {
    Verdict.EXACT: _PASSES,
    Verdict.TOLERANCE: _PASSES,
    Verdict.NOT_GATED: "yellow",
    Verdict.OUTSIDE_PROFILE: "yellow",
}


def check_tables(found: CheckReport) -> Iterator[Table]:
    """A table for each of costs, switches, blessed traces and scenarios that were checked."""
    if found.costs is not None and found.costs.wrong():
        yield _cost_table(found.costs)
    if found.switches:
        yield _switch_table(found.switches)
    if found.traces:
        yield _trace_table(found.traces)
    if found.captures is not None:
        yield _scenario_table(found.captures)


def _cost_table(report: costs.CostReport) -> Table:
    """A row for each count that differs, at most `COUNTS`, with what would stand in the file instead."""
    table = Table("rail", "blessed", "now", f"in {report.file.parent.name}/{report.file.name}")
    wrong = report.wrong()
    for index in sorted(spread([(row.rail, row.name) for row in wrong], COUNTS)):
        row = wrong[index]
        cells = (row.rail, f"{row.name}: {row.blessed}", str(row.now), replacement(row))
        table.add_row(*(Text(shown(cell), overflow="fold") for cell in cells))
    if len(wrong) > COUNTS:
        table.add_row(f"and {len(wrong) - COUNTS} more", "", "", "--json FILE has all")
    return table


def _switch_table(results: Sequence[SwitchResult]) -> Table:
    """A row for each switch, executor and decoder; the comparisons that did not pass are counted."""
    table = Table("switch", "executor", "decoder", "played", "acted", "verdict")
    groups: dict[tuple[str, str, str], list[SwitchResult]] = {}
    for result in results:
        groups.setdefault((result.switch, result.executor, result.decoder), []).append(result)
    for key, group in groups.items():
        outside = [result for result in group if result.verdict is Verdict.OUTSIDE_PROFILE]
        wrong = [result for result in group if not result.verdict.passes and result not in outside]
        verdict = Text(_counted(wrong), style="red") if wrong else Text("exact", style=_PASSES)
        if len(outside) == len(group):
            verdict = Text(str(Verdict.OUTSIDE_PROFILE), style=_COLORS[Verdict.OUTSIDE_PROFILE])
        acted = sum(result.acted for result in group)
        table.add_row(*key, str(sum(r.scenario != EVERY for r in group) - len(outside)), str(acted), verdict)
    return table


def _counted(wrong: Sequence[SwitchResult]) -> str:
    """The verdicts with their numbers, such as `3 moved`; one about every scenario has no number."""
    counts = Counter(result.verdict for result in wrong if result.scenario != EVERY)
    of_all = dict.fromkeys(str(result.verdict) for result in wrong if result.scenario == EVERY)
    return ", ".join([*(f"{count} {verdict}" for verdict, count in counts.items()), *of_all])


def benched(
    measured: throughput.Measured,
    savings: Sequence[ablation.Saving],
    steady: Steady | None = None,
    recording: Recorded | None = None,
) -> Iterator[Table]:
    """The figures, then what a steady tick costs beside its decoder, what each switch saves, what a recording costs."""
    m, load = measured, measured.load
    guided = "" if load.cfg is None else f", {load.cfg} guidance {load.guidance_scale:g}"
    corrected = ", wavelet correction" if load.dcw else ""
    program = load.executor if load.engine is None else f"{load.executor} {Path(load.engine).name}"
    subject = f"{load.decoder}, {load.dtype}, {program}, {load.device}: T {load.frames}, depth {load.depth}"
    table = Table("", "median", "p95", "p99", title=f"{subject}, {load.steps} steps{guided}{corrected}")
    for name, times in (("ms a tick", m.tick), ("ms until tick() returned", m.host)):
        table.add_row(name, *(f"{value:.3f}" for value in (times.median, times.p95, times.p99)))
    forms = ", ".join(f"{form} {ms:.3f}" for form, ms in m.bare.forms.items())
    yield table
    facts = Table("", Column("", overflow="fold"), show_header=False)
    for name, words in (
        (f"bare decoder, {m.bare.rows} rows, ms", forms),
        ("beyond it, ms a tick", ", ".join(f"{form} {ms:.3f}" for form, ms in m.beyond.items())),
        ("overhead", f"{m.overhead_ms:.3f} ms, {m.overhead_ratio:.1%} of the {m.bare.fastest} decoder"),
        ("decoder runs and rows a tick", f"{m.runs:.2f} and {m.rows:.2f}"),
        ("latents a second", f"{m.latents_per_second:.3f}"),
        ("audio x realtime", f"{m.realtime:.1f}"),
        ("dropped requests", str(m.dropped)),
        ("control to a latent it touched", f"{m.control.touched_ticks:.1f} ticks, {m.control.touched_ms:.1f} ms"),
        ("control to one wholly under it", f"{m.control.whole_ticks:.1f} ticks, {m.control.whole_ms:.1f} ms"),
    ):
        facts.add_row(name, words)
    yield facts
    if steady is not None:
        yield _steady_table(steady)
    if savings:
        yield from _saving_tables(savings)
    if recording is not None:
        yield _recording_table(recording)


def _recording_table(recording: Recorded) -> Table:
    """A row for each figure of a stream that is recorded in turn with one that is not."""
    table = Table("medians", "not recorded", "recorded", "more")
    for name, plain, ms in (
        ("ms a tick", recording.plain_ms, recording.recorded_ms),
        ("ms until tick() returned", recording.plain_host_ms, recording.recorded_host_ms),
    ):
        table.add_row(name, f"{plain:.3f}", f"{ms:.3f}", f"{ms - plain:.3f}")
    table.add_row("bytes a tick", "", f"{recording.bytes_a_tick:.0f}", "")
    table.add_row("latents", "", "the same bits" if recording.same else "OTHER BITS", "")
    return table


def _steady_table(steady: Steady) -> Table:
    """A row for each figure of a steady ring."""
    table = Table("steady ring", "")
    table.add_row("tick / bare decoder", f"{steady.ratio:.4f}, 95 % interval {steady.low:.4f} to {steady.high:.4f}")
    table.add_row("tick, bare decoder, ms", f"{steady.tick_ms:.3f}, {steady.bare_ms:.3f}")
    admitting = f"{steady.host_admitting_ms:.2f} where a request enters or leaves"
    table.add_row("host ms a tick", f"{steady.host_ms:.2f}, {admitting}")
    calls = ", ".join(f"{name} {count:g}" for name, count in steady.by_call.items())
    table.add_row("launches a tick", "none: no GPU" if steady.launches is None else f"{steady.launches:g} ({calls})")
    return table


def _saving_tables(savings: Sequence[ablation.Saving]) -> Iterator[Table]:
    """Two tables of savings, of a tick and of its host part, with a mark where a saving is no figure."""
    interval = f"{CONFIDENCE:.0%} interval"
    for title in ("ms a tick", "host ms"):
        saved = Table("switched off", title, "saved", interval, "")
        for s in savings:
            of_tick = (s.tick_ms, s.saved_tick_ms, s.tick_interval, s.tick)
            of_host = (s.host_ms, s.saved_host_ms, s.host_interval, s.host)
            ms, less, (low, high), says = of_tick if title == "ms a tick" else of_host
            mark = "" if says is ablation.Says.BEYOND else str(says)
            saved.add_row(s.switch, f"{ms:.3f}", f"{less:.3f}", f"{low:.3f} to {high:.3f}", Text(mark, style="yellow"))
        yield saved


def probed(found: contract.Findings) -> Table:
    """A row for each subject: what does not hold, and at which numbers of rows."""
    table = Table(Column("subject", no_wrap=True), "does not hold", Column("contract", no_wrap=True))
    for finding in found.findings:
        fails = [f"{name} at {contract.ranges(rows)} rows" for name, rows in finding.fails.items() if rows]
        style = {contract.Standing.KEPT: "green", contract.Standing.LOST: "red"}.get(finding.standing, "yellow")
        words = "; ".join(fails) or "everything holds"
        table.add_row(Text(shown(finding.subject)), Text(shown(words)), Text(finding.standing, style=style))
        if finding.detail:
            table.add_row("", Text(shown(f"{finding.standing}: {finding.detail}"), style=style, overflow="fold"), "")
    return table


def _trace_table(results: Sequence[TraceResult]) -> Table:
    """A row for each blessed trace."""
    table = Table("trace", "verdict", "detail")
    for result in results:
        verdict = Text(str(result.verdict), style=_COLORS.get(result.verdict, "red"))
        table.add_row(Text(shown(result.name)), verdict, Text(shown(result.detail), overflow="fold"))
    return table


def _scenario_table(report: Report | EngineReport) -> Table:
    """A row for each scenario, with the platform of its capture where that is not the same for all."""
    several = isinstance(report, Report) and len(report.compared_with) > 1
    table = Table("scenario", "verdict", *(["compared with"] if several else []), "detail")
    for result in report.results:
        # Text, because a detail may hold brackets that rich would read as markup.
        verdict = Text(str(result.verdict), style=_COLORS.get(result.verdict, "red"))
        whose = [Text(result.compared_with or "")] if several and isinstance(result, Result) else []
        # One line a scenario: the whole detail is for `details`.
        detail = Text(shown(result.detail).partition("\n")[0], overflow="ellipsis", no_wrap=True)
        table.add_row(Text(shown(result.name)), verdict, *whose, detail)
    return table

"""Everything that a check did not compare, in words: equal results say nothing of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.parity.baselines.verdicts import Verdict
from harness.parity.proofs.switches import EVERY
from harness.registry import ExecutorKind
from harness.report.differences import Difference

NAMED = 12
"""The most names in one sentence."""


def not_compared(document: Mapping[str, Any], found: Sequence[Difference]) -> list[str]:
    """List what was not compared, a sentence each.

    Args:
        document: the document of the check; see `--json`.
        found: the differences.
    """
    return [*_parts(document), *_scenarios(document), *_traces(document), *_switches(document), *_evidence(found)]


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    """The parts of a check that did not run."""
    failed = document["failed"]
    asked = {
        "captures": ("scenarios", "python -m harness check"),
        "switches": ("switches", "python -m harness check --switches"),
        "costs": ("costs", "python -m harness check --costs"),
    }
    for part, (key, command) in asked.items():
        if part in failed:
            yield f"{part}: could not run: {failed[part]}"
        elif not document[key]:
            yield f"{part}: not asked for; {command} compares them"
    if "traces" in failed:
        yield f"traces: could not run: {failed['traces']}"
    engine = document.get("engine")
    if engine and (engine["decoder"] is not None or engine["device"] != "cpu"):
        yield "captures: of the compiled decoder's scenarios on this decoder and device there are none to compare with"
    ungated = sum(row["verdict"] == "not_gated" for row in document["costs"])
    if ungated:
        yield f"costs: {ungated} counts are not gated, because none are blessed for this version of torch"


def _scenarios(document: Mapping[str, Any]) -> Iterator[str]:
    """The scenarios without a comparison, or with one within a bound alone."""
    for verdict, words in (
        ("not_gated", "not gated, nothing was played"),
        ("outside_profile", "outside the profile of the compiled decoder"),
        ("tolerance", "compared within a bound, not byte for byte"),
    ):
        names = [result["name"] for result in document["scenarios"] if str(result["verdict"]) == verdict]
        if names:
            yield f"{len(names)} scenarios {words}: {_listed(names)}"
    elsewhere = document["platform"].get("elsewhere")
    if elsewhere:
        yield f"captures: they are of another GPU, which differs in {_listed(elsewhere)}"


def _traces(document: Mapping[str, Any]) -> Iterator[str]:
    """The blessed traces that were not replayed."""
    for result in document.get("traces", ()):
        if result["values"] is None and str(result["verdict"]) != "moved":
            yield f"trace {result['name']}: {result['detail']}"


def _switches(document: Mapping[str, Any]) -> Iterator[str]:
    """The comparisons of switches that prove nothing, and the executors and decoders without any."""
    results = [result for result in document["switches"] if result["scenario"] != EVERY]
    idle = sum(str(result["verdict"]) == Verdict.EXACT and not result["acted"] for result in results)
    if idle:
        yield f"{idle} of {len(results)} comparisons of a switch: the switch did not act, so equal bits prove nothing"
    outside = sum(str(result["verdict"]) == "outside_profile" for result in results)
    if outside:
        yield f"{outside} comparisons of a switch: outside the profile of the compiled decoder"
    if results:
        missing = [str(kind) for kind in ExecutorKind if str(kind) not in {str(r["executor"]) for r in results}]
        if missing:
            yield f"switches on executors of the kinds {_listed(missing)}: no comparison in this check"
        decoders = list(dict.fromkeys(f"{r['decoder']} in {r['dtype']} on {r['device']}" for r in results))
        yield f"switches with any decoder but {_listed(decoders)}: no comparison in this check"


def _evidence(found: Sequence[Difference]) -> Iterator[str]:
    """The differences that have words alone."""
    reasons: dict[str, int] = {}
    for each in found:
        if each.evidence is None:
            reasons[each.why] = reasons.get(each.why, 0) + 1
    for why, count in reasons.items():
        yield f"evidence of {count} verdicts: {why}"
    silent = sum(each.evidence is not None and each.evidence.first is None for each in found)
    if silent:
        yield f"evidence of {silent} verdicts: played again, no difference showed; it depends on more than the script"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")

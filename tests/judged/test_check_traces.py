"""`check` with blessed traces: each verdict and exit code, and the nearest case that must not give it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.parity.baselines.verdicts import Verdict
from tests.judged.conftest import Made, report
from tests.judged.rows import Gives, Row, both, nothing
from tests.parity.traces.kept import put, sealed
from tests.parity.traces.plain import counted
from tests.parity.traces.rings import recorded
from tests.parity.traces.test_reading import changed

EXACT, MOVED = Gives(Verdict.EXACT, 0), Gives(Verdict.MOVED, 1)
MISSING, ORPHAN, CORRUPT = (Gives(v, 1) for v in (Verdict.MISSING, Verdict.ORPHAN, Verdict.CORRUPT))
NOT_GATED, ALONE = Gives(Verdict.NOT_GATED, 0), Gives(Verdict.NOT_GATED, 125)


class Traced:
    """A checkout with captures and a blessed trace."""

    def __init__(self, made: Made) -> None:
        self.made, self.options = made, list[str]()
        self.path = put(made.captures, recorded(made.root / "a"))

    def blessed(self, source: Path) -> None:
        put(self.made.captures, source)

    def json(self) -> tuple[dict[str, Any], int]:
        file = self.made.root / "r.json"
        code = self.made.invoke("check", "--json", str(file), *self.options).exit_code
        return report(file), code

    def said(self) -> Gives:
        """The one verdict of traces beside `exact`, and the exit code."""
        document, code = self.json()
        found = {each["verdict"] for each in document["traces"]}
        (verdict,) = (found - {Verdict.EXACT}) or found
        return Gives(verdict, code)


@pytest.fixture(name="traced")
def _traced(made: Made) -> Traced:
    return Traced(made)


def document(number: int, change: Callable[[Any], Any]) -> Callable[[Traced], None]:
    """Another document in a record of the trace, blessed as it is."""

    def act(traced: Traced) -> None:
        changed(traced.path, number, change)
        sealed(traced.path.parent)

    return act


def other_digest(event: Any) -> Any:
    return {**event, "made": [[name, what[:-1] + "x"] for name, what in event["made"]]}


def other_bytes(traced: Traced) -> None:
    traced.path.write_bytes(traced.path.read_bytes() + b"x")


def of_a_ring(traced: Traced) -> None:
    traced.blessed(counted(traced.made.root / "ring"))


def without_captures(traced: Traced) -> None:
    of_a_ring(traced)
    for file in traced.made.own.iterdir():
        file.unlink()


def hinted(decoder: str) -> Callable[[Traced], None]:
    return document(0, lambda d: {**d, "hints": {"decoder": decoder}})


ROWS = [
    Row("a digest was made otherwise", document(-2, other_digest), MOVED, "all are made again", nothing, EXACT),
    Row("recorded with another decoder", hinted("tiny"), MOVED, "with the one it names", hinted("affine"), EXACT),
    Row("a decoder that is no preset", hinted("mine"), NOT_GATED, "one with other bits", hinted("tiny"), MOVED),
    Row("recorded elsewhere", document(0, lambda d: {**d, "fingerprint": {"torch": "0.1"}}), NOT_GATED,
        "with another version of the harness", document(0, lambda d: {**d, "harness": "0.0.1"}), EXACT),
    Row("a trace of another ring", of_a_ring, NOT_GATED, "and nothing else to compare", without_captures, ALONE),
    Row("its file is gone", lambda traced: traced.path.unlink(), MISSING,
        "the trace that was recorded is gone", lambda traced: (traced.made.root / "a").unlink(), EXACT),
    Row("its file has other bytes", other_bytes, CORRUPT, "they were blessed so",
        lambda traced: sealed(traced.path.parent), EXACT),
    Row("a file beside it", lambda traced: traced.path.with_name("b.trace").write_bytes(b""), ORPHAN,
        "beside its folder", lambda traced: traced.path.parent.with_name("b.trace").write_bytes(b""), EXACT),
]  # fmt: skip


@both(ROWS)
def test_a_cause_gives_its_verdict_and_its_neighbour_does_not(
    act: Callable[[Traced], Any], gives: Gives, traced: Traced
) -> None:
    act(traced)
    assert traced.said() == gives


def test_each_trace_is_a_row_of_the_table_and_of_the_report_and_is_counted(traced: Traced) -> None:
    traced.blessed(counted(traced.made.root / "ring"))
    put(traced.made.captures, traced.made.root / "a", "early")
    result = traced.made.invoke("check")
    assert "2 blessed traces: 1 exact, 1 not_gated (not compared: night)" in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1].startswith("2 scenarios: 2 exact")
    assert "│ early │ exact     │ 17 events, 6 ticks: all 19 values the same" in result.stdout
    document, _ = traced.json()
    assert [each["name"] for each in document["traces"]] == ["early", "night"]
    assert document["summary"]["verdicts"] == {"exact": 3, "not_gated": 1}
    assert "1 not_gated (not compared: night)" in document["summary"]["text"]


def test_the_page_has_a_cell_for_each_trace_and_says_what_was_not_compared(traced: Traced) -> None:
    document(-2, other_digest)(traced)
    put(traced.made.captures, counted(traced.made.root / "ring"), "ring")
    page = traced.made.root / "r.html"
    assert traced.made.invoke("check", "--html", str(page)).exit_code == 1
    text = page.read_text()
    assert "<tr><th>trace night</th>" in text and "<tr><th>trace ring</th>" in text
    assert "<li>trace ring: a trace of a ring of your own" in text
    assert 'trace night: traces: <b class="x">moved</b>' in text
    assert f"python -m harness replay {traced.path}" in text


def test_scenarios_that_are_named_are_checked_without_the_traces(traced: Traced) -> None:
    traced.path.unlink()
    assert traced.made.invoke("check", "alpha").exit_code == 0
    assert traced.made.invoke("check").exit_code == 1


def test_without_a_blessed_trace_nothing_speaks_of_traces(made: Made) -> None:
    files = made.root / "r.json", made.root / "r.html"
    result = made.invoke("check", "--json", str(files[0]), "--html", str(files[1]))
    assert "trace" not in result.stdout
    assert "traces" not in json.loads(files[0].read_text())
    page = files[1].read_text()
    assert "trace " not in page and "traces<" not in page and "traces:" not in page


def test_a_crash_in_a_trace_hides_no_verdict_of_the_captures(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("engine broke")

    monkeypatch.setattr("harness.registry.executor", broken)
    result = traced.made.invoke("check")
    assert (result.exit_code, "traces: could not run" in result.stdout) == (125, True)
    assert "2 scenarios: 2 exact" in result.stdout
    traced.made.nudge(1)
    assert traced.made.invoke("check").exit_code == 1

"""The judgement of a whole check, and what `check` and `bless` print, made up of results that nothing played."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Ran

from harness.cli import main
from harness.commands import bless as bless_module
from harness.commands import check as check_module
from harness.commands.advice import advised
from harness.commands.check_report import CheckReport, summary_of
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import Battery, Blessed, ReplayFailed
from harness.parity.baselines.captures import Report
from harness.parity.baselines.changes import Change
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.proofs.float64 import Engine, EngineReport, OnEngine
from harness.parity.proofs.switches import SwitchResult
from harness.rails.costs.counts import Row
from harness.rails.costs.rails import CostReport
from harness.registry import ExecutorKind

V = Verdict
SWITCHED = [(V.EXACT, True), (V.EXACT, False), (V.MOVED, True), (V.MOVED, False), (V.NOT_GATED, False),
            (V.OUTSIDE_PROFILE, False)]  # fmt: skip


def switched(verdict: Verdict, acted: bool) -> SwitchResult:
    return SwitchResult("fused_cfg", "s", ExecutorKind.EAGER, "affine", "float32", "cpu", verdict, acted)


def captured(verdict: Verdict | None) -> Report | None:
    return None if verdict is None else Report((Result("s", verdict),), "here", {"here": ()})


def costs(state: str) -> CostReport | None:
    rows = (Row("plain/1", "ticks", 8, 9 if state == "moved" else 8),)
    return None if state == "none" else CostReport(rows, Path("costs.json"), "2.0", gated=state != "not gated")


@pytest.mark.parametrize("state", ["none", "exact", "moved", "not gated"])
@pytest.mark.parametrize("of_captures", [None, V.EXACT, V.TOLERANCE, V.MOVED, V.MISSING])
def test_a_check_passes_where_something_was_compared_and_nothing_failed(
    of_captures: Verdict | None, state: str
) -> None:
    """Asked of every pair of results of switches; what is said here of each part is said nowhere else."""
    for pair in [(), *((each,) for each in SWITCHED), *combinations_with_replacement(SWITCHED, 2)]:
        for order in (pair, pair[::-1]):
            report = CheckReport(captured(of_captures), tuple(switched(*each) for each in order), costs(state))
            acted = any(a and v is not V.OUTSIDE_PROFILE for v, a in pair)
            failed = any(v in (V.MOVED, V.NOT_GATED) for v, _ in pair)
            compared = of_captures is not None or acted or failed or state in ("exact", "moved")
            wrong = of_captures in (V.MOVED, V.MISSING) or failed or state == "moved"
            assert (report.compared, report.passes) == (compared, compared and not wrong), (order, state)


@pytest.mark.parametrize(
    ("first", "second"), list(product([V.EXACT, V.TOLERANCE, V.MOVED, V.OUTSIDE_PROFILE], repeat=2))
)
def test_scenarios_outside_a_compiled_decoder_s_profile_neither_pass_nor_fail(first: Verdict, second: Verdict) -> None:
    found = EngineReport((OnEngine("a", first), OnEngine("b", second)), Engine(ExecutorKind.ONNX), "here")
    compared = {first, second} != {V.OUTSIDE_PROFILE}
    report = CheckReport(found)
    assert (report.compared, report.passes) == (compared, compared and V.MOVED not in (first, second))
    beside = CheckReport(found, (switched(V.EXACT, True),))
    assert (beside.compared, beside.passes) == (True, V.MOVED not in (first, second))


def test_the_verdicts_of_switches_are_counted_in_one_line_and_those_that_did_not_act() -> None:
    found = [switched(*each) for each in (SWITCHED[5], SWITCHED[0], SWITCHED[2], SWITCHED[1], SWITCHED[4], SWITCHED[0])]
    said = "6 comparisons of a switch on and off: 3 exact, 1 moved, 1 not_gated, 1 outside_profile"
    assert summary_of(found) == f"{said} (in 3 the switch did not act)"


def test_the_document_has_every_part_as_it_is() -> None:
    switches = (switched(V.MOVED, True), switched(V.EXACT, False))
    found = CheckReport(captured(V.TOLERANCE), switches, costs("moved"))
    document = json.loads(json.dumps(found.document()))
    of_switch = {"switch": "fused_cfg", "scenario": "s", "executor": "eager", "decoder": "affine", "dtype": "float32",
                 "device": "cpu", "detail": ""}  # fmt: skip
    assert document == {
        "scenarios": [{"name": "s", "verdict": "tolerance", "max_abs": None, "bound": None, "detail": "",
                       "compared_with": None}],
        "platform": {"name": "here", "compared_with": {"here": []}, "blessed_here": True, "elsewhere": [],
                     "fingerprint": {}},
        "switches": [{**of_switch, "verdict": "moved", "acted": True},
                     {**of_switch, "verdict": "exact", "acted": False}],
        "costs": [{"rail": "plain/1", "name": "ticks", "blessed": 8, "now": 9, "verdict": "moved"}],
        "failed": {},
        "summary": {"passes": False, "verdicts": {"moved": 1, "exact": 1, "tolerance": 1},
                    "text": "1 cost rails, 1 counts: different: ticks in 1; 2 comparisons of a switch on and off: "
                            "1 exact, 1 moved (in 1 the switch did not act); 1 scenario: 1 tolerance (here, "
                            "the platform that blessed them)"},
    }  # fmt: skip


# The commands.

SCENARIOS: Any = {name: SimpleNamespace(name=name) for name in ("alpha", "beta")}


def invoke(*words: str) -> Ran:
    unused: Any = None
    return CliRunner().invoke(main, list(words), obj=Battery(SCENARIOS, unused, unused, unused))


@pytest.mark.parametrize(("verdict", "code"), [(V.EXACT, 0), (V.TOLERANCE, 0), (V.MOVED, 1), (V.ORPHAN, 1)])
def test_check_prints_its_last_lines_and_writes_the_same(
    verdict: Verdict, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = captured(verdict)
    monkeypatch.setattr(check_module, "check", lambda *_: report)
    result = invoke("check", "--json", str(tmp_path / "my report.json"))
    said = f"1 scenario: 1 {verdict} (here, the platform that blessed them)"
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (code, said)
    assert json.loads((tmp_path / "my report.json").read_text()) == CheckReport(report).document()


@pytest.mark.parametrize(("error", "said"), [
    (store.NoCaptures("x: no captures"), f"cannot check: {advised(store.NoCaptures('x: no captures'))}\n"),
    (store.ManifestAltered("x: altered"), f"cannot check: {advised(store.ManifestAltered('x: altered'))}\n"),
    (platform.NoReferencePlatform("x"), f"cannot check: {advised(platform.NoReferencePlatform('x'))}\n"),
])  # fmt: skip
def test_what_keeps_a_check_from_comparing_is_said_in_one_line_and_no_report_is_written(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(check_module, "check", broken)
    result = invoke("check", "--json", str(tmp_path / "r.json"))
    assert (result.exit_code, result.stderr, result.stdout) == (125, said, "")
    assert not (tmp_path / "r.json").exists()


BLESSED = Blessed(Path("x"), (Change("alpha", "moved", 0.25, (1.0, 2.0)),), 1)


def test_bless_gets_every_option_and_prints_and_writes_what_it_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(bless_module, "bless", lambda *given: (asked.append(given), BLESSED)[1])
    words = ["--reason", "my why", "--captures", str(tmp_path), "--json", str(tmp_path / "b.json")]
    result = invoke("bless", *words, "--only", "beta", "--only", "alpha")
    assert (result.exit_code, result.stdout) == (0, f"{BLESSED.summary()}\n")
    ((reason, battery, captures, names),) = asked
    assert (reason, list(battery.scenarios), captures, list(names)) == (
        "my why", ["alpha", "beta"], tmp_path, ["beta", "alpha"],
    )  # fmt: skip
    change = {"name": "alpha", "what": "moved", "max_abs": 0.25, "k": [1.0, 2.0]}
    assert json.loads((tmp_path / "b.json").read_text()) == {"changes": [change], "identical": 1}


@pytest.mark.parametrize(
    "error", [BlessRefused("no\nmore"), ReplayFailed("no\nmore"), store.ManifestAltered("no\nmore")]
)
@pytest.mark.parametrize("part", [(), ("--costs",)])
def test_what_bless_refuses_is_said_with_exit_code_2_and_nothing_is_written(
    error: Exception, part: Sequence[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(bless_module, "bless", refused)
    monkeypatch.setattr(bless_module.costs, "bless", refused)
    result = invoke("bless", *part, "--json", str(tmp_path / "b.json"))
    assert (result.exit_code, result.stderr, result.stdout) == (2, f"refused: {advised(error)}\n", "")
    assert not (tmp_path / "b.json").exists()


def counts(*now: int) -> Callable[[Any, Any], CostReport]:
    rows = tuple(Row("plain/1", name, 8, count) for name, count in zip(("ticks", "copies", "runs"), now, strict=True))
    return lambda *_: CostReport(rows, Path("costs.json"), "2.0", gated=True)


@pytest.mark.parametrize(("now", "lines"), [
    ((8, 8, 8), ["all as blessed, nothing written"]),
    ((9, 8, 8), ["plain/1: ticks 8 -> 9", "1 of 3 counts written"]),
    ((9, 8, 7), ["plain/1: ticks 8 -> 9", "plain/1: runs 8 -> 7", "2 of 3 counts written"]),
])  # fmt: skip
def test_bless_prints_every_count_that_it_changed_and_writes_all_of_them(
    now: tuple[int, ...], lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bless_module.costs, "bless", counts(*now))
    result = invoke("bless", "--costs", "--reason", "why", "--json", str(tmp_path / "b.json"))
    assert (result.exit_code, result.stdout.splitlines()) == (0, lines)
    written = json.loads((tmp_path / "b.json").read_text())
    assert written == {"costs": counts(*now)(None, None).document()}


@pytest.mark.parametrize(("words", "said"), [
    (("--costs", "--only", "alpha"), "--costs blesses every rail: --only goes with captures"),
    (("--only", "alph"), "alph"),
])  # fmt: skip
def test_a_wrong_command_line_of_bless_blesses_nothing(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bless_module, "bless", lambda *_: pytest.fail("blessed"))
    monkeypatch.setattr(bless_module.costs, "bless", lambda *_: pytest.fail("blessed"))
    result = invoke("bless", "--reason", "why", *words)
    assert result.exit_code == 2 and said in " ".join(result.stderr.split())


def test_a_switch_that_acts_on_none_of_the_chosen_executors_is_named_with_them() -> None:
    words = ["--switch", "joined_stream", "--executor", "eager", "--executor", "static"]
    result = invoke("check", "--switches", *words)
    assert result.exit_code == 2
    assert "joined_stream does not act on eager, static" in " ".join(result.stderr.split())

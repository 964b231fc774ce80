"""`pytest --harness-html`: a page with the verdicts of a run, where differences are, and what was not compared."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest

from harness.report.tests_page import LISTED, WORDS, Row, page

EMPTY: dict[str, list[str]] = {
    name: []
    for name in ("exact", "tolerance", "timed", "not_gated", "rewritten", "blessed", "asked", "left_out", "failed")
}

RINGS = """
import torch, pytest

class Ring:
    def __init__(self, wrong=False):
        self.wrong, self.ticks, self.x = wrong, 0, torch.zeros(3)
    def step(self, event):
        self.x = self.x + event
        self.tell("step", 0, "x", self.x)
        self.tell("guidance", 1, "v", self.x + (self.wrong and self.ticks == 2))
        self.ticks += 1
        return {"x": self.x}
    def state(self):
        return {"x": self.x}
    def observe(self, callback):
        self.tell = callback or (lambda *_: None)

def test_right(lockstep):
    lockstep(Ring(), Ring(), [1.0] * 4)

def test_wrong(lockstep):
    lockstep(Ring(), Ring(wrong=True), [1.0] * 4)

def test_not_here(blessed):
    pytest.skip("<b>no such</b> machine")

def test_other():
    assert True
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_a_difference_is_on_the_page_with_its_tick_slot_and_stage(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_rings=RINGS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--harness-html", "out/report.html", *workers)
    assert result.ret == 1
    text = (pytester.path / "out/report.html").read_text()
    assert "First difference: event 2, tick 2, slot 1, stage guidance" in text
    assert "plain and fast differ at event 2" in text and "pytest test_rings.py::test_wrong" in text
    assert "tests with the harness&#39;s fixtures" in text or "tests with the harness's fixtures" in text
    assert "1 passed, 1 failed, 1 skipped" in text or {"1 passed", "1 failed", "1 skipped"} <= set(
        re.findall(r"\d \w+", text)
    )
    assert "<li>test_rings.py::test_not_here: skipped: &lt;b&gt;no such&lt;/b&gt; machine</li>" in text
    assert "Does not pass" in text and "1 lockstep" in text
    result.stdout.fnmatch_lines(["harness: report written to *report.html"])


def test_a_run_without_the_option_writes_nothing_and_a_run_that_passes_says_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_rings=RINGS.replace("wrong=True", "wrong=False"))
    assert pytester.runpytest_subprocess("-p", "no:cacheprovider").ret == 0
    assert list(pytester.path.rglob("*.html")) == []
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--harness-html", "report.html")
    assert "<b>Passes</b>" in (pytester.path / "report.html").read_text()


def test_a_page_without_its_packages_is_refused_before_a_test_runs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(test_rings=RINGS)
    pytester.makeconftest("import sys\nfrom harness.report import needs\nneeds.PACKAGES['nowhere'] = 'Nowhere'\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--harness-html", "report.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--harness-html: a report needs Nowhere: pip install 'stream-harness[[]report]'*"])


SWITCH = """
import torch
from harness.parity.script import Drain, Script, Submit

def test_switch(lockstep, monkeypatch):
    add = torch._foreach_add
    monkeypatch.setattr(torch, "_foreach_add", lambda a, b: [x + 1 for x in add(a, b)])
    lockstep.switch("integrator", script=Script((Submit(1), Drain())))

def test_other(lockstep):
    lockstep(lambda event: torch.ones(1), lambda event: torch.zeros(1), [1])
"""


@pytest.mark.engine
def test_how_a_failure_is_seen_again_stands_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_engine=SWITCH)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--harness-html", "report.html")
    text = (pytester.path / "report.html").read_text()
    described = re.findall(r"<details.*?</details>", text, re.DOTALL)
    switch, other = sorted(described, key=lambda each: "::test_other" in each)
    assert switch.count("repro:") == 1 and "See it again" not in switch
    assert other.count("See it again") == 1 and "<pre>pytest test_engine.py::test_other</pre>" in other


def test_everything_that_comes_from_a_test_is_escaped_and_nothing_is_fetched() -> None:
    evil = "<script>alert(1)</script>"
    ledger = {**EMPTY, "exact": [f"{evil}: x"], "tolerance": [evil], "timed": [evil], "not_gated": [evil]}
    test = Row(evil, "failed", ("lockstep",), {"tick": 1, "stage": evil}, evil)
    text = page([test], ledger, [evil], passes=False, made=evil)
    assert "<script" not in text and text.count("&lt;script&gt;") >= 8
    assert "http:" not in text and "https:" not in text


def test_a_page_of_many_tests_stays_small_and_says_what_it_leaves_out() -> None:
    tests = [
        Row(f"tests/test_a.py::test_{n}", "failed", ("blessed",), {}, "x" * 50_000 + "the end") for n in range(500)
    ]
    text = page(tests, EMPTY, passes=False)
    assert len(text.encode()) < 5_000_000
    assert f"{500 - LISTED} more failed tests are not described here" in text
    assert text.count("the end") == LISTED and "x" * (WORDS + 1) not in text
    assert text.count("<tr><th>") == 501


def test_failed_tests_without_a_fixture_are_named_and_others_are_not() -> None:
    rows = [Row("test_a.py::test_<one>", "failed"), Row("test_a.py::test_two", "passed")]
    text = page(rows, EMPTY, passes=False)
    assert "failed without a fixture of the harness: test_a.py::test_&lt;one&gt;</p>" in text
    assert "no test used a fixture of the harness" in text and "test_two" not in text
    assert "other tests: 1 failed, 1 passed" in text
    many = page([Row(f"test_a.py::test_{n}", "failed") for n in range(LISTED + 3)], EMPTY, passes=False)
    assert f"test_{LISTED - 1} and 3 more</p>" in many
    assert "failed without" not in page(rows[1:], EMPTY, passes=True)


def test_the_page_of_a_check_has_the_same_style(tmp_path: Path) -> None:
    text = page([], EMPTY, passes=True)
    assert "prefers-color-scheme:dark" in text and "max-width:1180px" in text


def test_a_difference_at_tick_0_of_slot_0_has_its_place() -> None:
    test = Row("a.py::test", "failed", ("lockstep",), {"event": 0, "tick": 0, "slot": 0, "stage": None}, "words")
    text = page([test], EMPTY, passes=False)
    assert "First difference: event 0, tick 0, slot 0</p>" in text and "<td>event 0, tick 0, slot 0</td>" in text


def test_the_command_of_a_test_with_parameters_is_one_word_for_a_shell() -> None:
    text = page([Row("a.py::test[x y-$HOME]", "failed", ("lockstep",))], EMPTY, passes=False)
    (again,) = re.findall(r"See it again</h3>\n<pre>(.*)</pre>", text)
    assert shlex.split(html.unescape(again)) == ["pytest", "a.py::test[x y-$HOME]"]


ENDS = """
import pytest, torch

@pytest.fixture
def closing():
    yield
    raise RuntimeError("the end broke too")

def test_wrong(closing, lockstep):
    lockstep(lambda event: torch.ones(1), lambda event: torch.zeros(1), [1])

def test_stopped(lockstep):
    raise KeyboardInterrupt
"""


def test_the_page_of_an_interrupted_run_does_not_pass_and_an_error_at_a_test_s_end_hides_no_difference(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_ends=ENDS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--harness-html", "report.html")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    text = (pytester.path / "report.html").read_text()
    assert "<b>Does not pass</b>" in text and "First difference: event 0</p>" in text
    assert "plain and fast differ at event 0" in text


def test_the_page_of_a_run_that_was_stopped_before_a_test_failed_does_not_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_stopped(lockstep):\n    raise KeyboardInterrupt\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--harness-html", "report.html")
    assert "<b>Does not pass</b>" in (pytester.path / "report.html").read_text()


def test_what_was_left_out_stands_on_the_page_with_what_was_not_gated_skipped_and_not_asked_for() -> None:
    ledger = {**EMPTY, "not_gated": ["x: no capture"] * 2, "left_out": ["tests were deselected"] * 2}
    tests = [Row("a.py::skipped", "skipped", ("blessed",), words="no GPU"), Row("b.py::other", "failed")]
    text = page(tests, ledger, ["captures/old"], passes=False)
    lines = text.split('<h2 id="open">')[1].split("</ul>")[0]
    assert re.findall(r"<li>(.*)</li>", lines) == [
        "x: no capture",
        "a.py::skipped: skipped: no GPU",
        "captures/old: blessed, and no test asked for it",
        "perhaps other tests: tests were deselected",
    ]
    assert "other tests: 1 failed" in text and '<td class="w">skipped</td>' in text


def test_tolerances_times_and_blessings_stand_under_their_own_titles() -> None:
    ledger = {**EMPTY, "tolerance": ["near"], "timed": ["fast"], "rewritten": ["new"]}
    found = re.findall(r"<h2>(.*)</h2>\n<ul>\n<li>(.*)</li>", page([], ledger, passes=True))
    assert found == [
        ("Within a bound, not byte for byte", "near"),
        ("Times within their limit", "fast"),
        ("Blessed in this run", "new"),
    ]

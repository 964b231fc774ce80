"""The plugin in a project that has an engine of its own: what passes, what is red, and what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import harness.plugin
from harness.engine import atomic
from harness.parity.baselines import blessed, platform, store
from harness.plugin.ledger import LEDGER, Ledger
from harness.rails.costs import block
from harness.rails.costs import counts as costs
from tests.git import commit

# Traced, these take over twice as long, most of it in pytest's own code.
pytestmark = pytest.mark.no_cover

LOADED = ("-p", "harness.plugin")
"""How an inner run gets the plugin: no run loads what is installed, so it does not matter whether this is."""

ENGINE = """
    import torch

    class Ring:
        def __init__(self, gain=0.5):
            self.gain, self.x, self.ticks = gain, torch.arange(1.0, 5.0), 0

        def tick(self):
            self.x, self.ticks = self.x * self.gain + 1, self.ticks + 1
            return {"slots": [{"x": self.x}, None], "ticks": torch.tensor(self.ticks)}

        def __call__(self, event):
            self.x = self.x + event
            return self.tick()

    def tree():
        return Ring().tick()
"""
BLESSED = "def test_tree(blessed): blessed('tree', tree)\n"
RAIL = textwrap.dedent("""
    def test_rail(cost_rail):
        ring = Ring()
        with cost_rail("tick"):
            ring.tick()
""")


class Outside:
    """A project with an engine of its own, in a git checkout."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester, self.root, self.captures = pytester, pytester.path, pytester.path / "captures"
        self.own = self.captures / platform.name()
        self.write("pyproject.toml", '[tool.pytest.ini_options]\ntestpaths = ["tests"]\npythonpath = ["."]\n')
        self.write("engine.py", ENGINE)
        subprocess.run(["git", "init", "-q"], cwd=self.root, check=True)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(textwrap.dedent(text))

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text
        (self.root / path).write_text(text.replace(old, new))

    def tests(self, text: str, path: str = "tests/test_outside.py") -> None:
        self.write(path, "from engine import *\n" + textwrap.dedent(text))

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess(*LOADED, "-p", "no:cacheprovider", *arguments)

    def bless(self, text: str = BLESSED) -> pytest.RunResult:
        """Bless what `text` asks for, and commit it."""
        self.tests(text)
        result = self.run("--harness-bless", "the first")
        commit(self.root)
        return result

    def entry(self, name: str = "tree") -> store.Entry:
        return store.read_manifest(self.own / "blessed" / name).scenarios[name]

    def elsewhere(self, name: str = "tree") -> None:
        """Make a capture one of another machine of this platform's name."""
        document = store.read_document(self.own / "blessed" / name / "manifest.json")
        document["fingerprint"]["cpu_name"] = "another"
        store.write_document(self.own / "blessed" / name / "manifest.json", document)


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What torch imports when it is first counted: an inner run would forget it, and the next import it again."""
    with block.Block():
        torch.zeros(1).item()


@pytest.fixture(name="outside")
def _outside(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Outside:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file may be written twice in one tick of its clock
    return Outside(pytester)


def green(result: pytest.RunResult, **outcomes: int) -> str:
    """What a run printed that is green."""
    result.assert_outcomes(**(outcomes or {"passed": 1}))
    assert result.ret == 0
    return result.stdout.str()


def red(result: pytest.RunResult, *said: str, **outcomes: int) -> str:
    """What a run printed that is red, and that says something."""
    result.assert_outcomes(**(outcomes or {"failed": 1}))
    assert result.ret == 1
    assert [words for words in said if words not in result.stdout.str()] == []
    return result.stdout.str()


# Captures.


def test_what_was_blessed_and_is_the_same_is_exact(outside: Outside) -> None:
    outside.bless()
    printed = green(outside.run())
    assert "exact: 1 capture\n" in printed
    assert f"harness: 1 test with its fixtures, captures in captures/{platform.name()}\n" in printed


def test_a_function_is_called_even_if_it_counts_as_false(outside: Outside) -> None:
    falsy = "class Falsy:\n    __call__ = staticmethod(tree)\n    __len__ = lambda self: 0\n"
    outside.bless()
    green(outside.run())
    outside.tests(f"{falsy}def test_tree(blessed): blessed('tree', Falsy())")
    green(outside.run())


def test_what_was_never_blessed_is_red_by_name_and_nothing_is_written(outside: Outside) -> None:
    outside.tests(BLESSED)
    file = outside.own / "blessed" / "tree" / "tree.safetensors"
    command = 'to bless it: pytest --harness-bless "why" tests/test_outside.py::test_tree'
    red(outside.run(), f"{file}: missing, tree was never blessed on", f"{command}\n")
    elsewhere = command.replace('"why"', '"why" --harness-captures golden')
    red(outside.run("--harness-captures", "golden"), "golden/", f"{elsewhere}\n")
    assert not outside.captures.exists()


def test_a_name_that_cannot_be_a_file_is_refused_by_the_rule_before_anything_is_made(outside: Outside) -> None:
    outside.tests("def test_tree(blessed): blessed('demon/plain', lambda: 1 / 0)")
    red(outside.run(), "name: got 'demon/plain', expected letters, digits, '_', '-' and '.'", "such as 'demon-plain'")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("x = t['slots'][0]['x']; x[2] = torch.nextafter(x[2], torch.tensor(9.0))", "[0]/x: bytes differ in 1 of 4"),
        ("t['slots'][0]['x'] = t['slots'][0]['x'].double()", "dtype differs, got torch.float64, blessed torch.float32"),
        ("t['slots'][0]['x'] = t['slots'][0]['x'][None]", "x: shape differs, got (1, 4), blessed (4,)"),
        ("t['slots'][1] = {'x': torch.ones(1)}", "slots[1]/x: unexpected, got torch.float32 tensor of shape [1]"),
        ("del t['ticks']", "ticks: missing"),
        ("t['slots'].pop()", "slots[1]: missing, blessed None"),
        ("t['slots'] = dict(enumerate(t['slots']))", "slots/0/x: unexpected"),
        ("t.clear()", "no tensor with an element"),
        ("t['n'] = 3", "n: unexpected, got int 3"),
        ("t['n'] = {3}", "n cannot be compared: expected a tensor, a NumPy array, a number or a text, got set"),
    ],
)  # fmt: skip
def test_any_difference_is_red_and_names_its_place(outside: Outside, change: str, said: str) -> None:
    outside.bless()
    outside.tests(f"def test_tree(blessed):\n    t = tree()\n    {change}\n    blessed('tree', t)")
    red(outside.run(), said)


@pytest.mark.parametrize(("keep", "said"), [
    ("digest", "x: bytes differ by their SHA-256, torch.float32 tensor of shape [4]; the capture keeps no bytes"),
    ("sample", "x: bytes differ in 4 of 4 elements, first at index [0]: got 2.5 (0x40200000), blessed 1.5"),
])  # fmt: skip
def test_the_caller_chooses_what_the_capture_keeps(outside: Outside, keep: str, said: str) -> None:
    outside.bless(f"def test_tree(blessed): blessed('tree', tree, keep={keep!r})")
    assert outside.entry().keep == keep
    green(outside.run())
    outside.edit("engine.py", "* self.gain + 1", "* self.gain + 2")
    red(outside.run(), said, "if that is meant: pytest --harness-bless")
    outside.tests(BLESSED)
    red(outside.run(), f"keep of tree: got 'all', expected '{keep}', as it was blessed")


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def reword(path: Path) -> None:
    path.write_text(path.read_text().replace("the first", "better"))


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("tree.safetensors", flip, "tree.safetensors: altered"),
        ("tree.safetensors", cut, "tree.safetensors: truncated"),
        ("tree.safetensors", Path.unlink, "tree.safetensors: missing"),
        ("manifest.json", reword, "manifest.json: altered"),
        ("manifest.json", Path.unlink, "manifest.json: missing"),
    ],
)
def test_a_capture_that_is_not_what_was_blessed_is_red_by_name(
    outside: Outside, file: str, spoil: Callable[[Path], Any], said: str
) -> None:
    outside.bless()
    spoil(outside.own / "blessed" / "tree" / file)
    red(outside.run(), said)


def test_a_manifest_of_another_capture_is_refused(outside: Outside) -> None:
    outside.bless()
    outside.tests("def test_tree(blessed): blessed('other', tree)")
    (outside.own / "blessed" / "tree").rename(outside.own / "blessed" / "other")
    red(outside.run(), "not the manifest of other")


def test_a_test_that_uses_a_fixture_runs_with_one_thread_and_the_others_do_not(outside: Outside) -> None:
    outside.tests("""
        def test_one(lockstep): assert torch.get_num_threads() == 1
        def test_two(): assert torch.get_num_threads() == 2
    """)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        green(outside.run(), passed=2)
    finally:
        torch.set_num_threads(before)


# Another machine and another platform.


def test_on_another_machine_the_same_bytes_are_exact(outside: Outside) -> None:
    outside.bless()
    outside.elsewhere()
    green(outside.run())


def test_on_another_machine_a_difference_without_a_tolerance_is_red_and_says_what_to_do(outside: Outside) -> None:
    outside.bless()
    outside.elsewhere()
    outside.edit("engine.py", "* self.gain + 1", "* self.gain + 1.000001")
    red(
        outside.run(),
        "this machine is not the one that blessed it (other cpu_name): it has no tolerance k",
        "of k away",
        "if that is meant: pytest --harness-bless",
    )


def test_a_tolerance_holds_on_another_machine_alone_and_is_reported(outside: Outside) -> None:
    outside.bless("def test_tree(blessed): blessed('tree', tree, k=16)")
    outside.edit("engine.py", "* self.gain + 1", "* self.gain + 1.000001")
    red(outside.run(), "slots[0]/x: bytes differ")
    outside.elsewhere()
    assert "within tolerance: capture tree: slots[0]/x: max |Δ|" in green(outside.run())
    outside.edit("engine.py", "1.000001", "1.0001")
    red(outside.run(), "beyond k = 16, slots[0]/x: max |Δ|")


def test_no_tolerance_lets_another_shape_or_a_nan_pass(outside: Outside) -> None:
    outside.bless("def test_tree(blessed): blessed('tree', tree, k=1e6)")
    outside.elsewhere()
    outside.edit("engine.py", '{"x": self.x}', '{"x": self.x / 0 * 0}')
    red(outside.run(), "beyond k = 1e+06", "NaN: got 4")


@pytest.mark.parametrize(("k", "said"), [("8", "got 8, expected 0.0, as it was blessed"), ("-1", "k: got -1"),
                                         ("float('inf')", "k: got inf"), ("float('nan')", "k: got nan")])  # fmt: skip
def test_a_tolerance_is_blessed_with_its_capture_and_finite(outside: Outside, k: str, said: str) -> None:
    outside.bless()
    outside.tests(f"def test_tree(blessed): blessed('tree', tree, k={k})")
    red(outside.run(), said)


def test_a_smaller_tolerance_than_was_blessed_is_another_one(outside: Outside) -> None:
    outside.bless("def test_tree(blessed): blessed('tree', tree, k=4)")
    outside.tests("def test_tree(blessed): blessed('tree', tree, k=2)")
    red(outside.run(), "got 2, expected 4.0, as it was blessed")


def test_captures_of_another_platform_are_compared_with_where_they_are_asked_for(outside: Outside) -> None:
    outside.bless()
    outside.own.rename(outside.captures / "board")
    red(outside.run(), f"never blessed on {platform.name()}, only on board")
    assert "captures in captures/board\n" in green(outside.run("--harness-platform", "board"))
    outside.edit("pyproject.toml", "[tool", '[tool.harness]\nreference-platform = "board"\n[tool')
    green(outside.run())


def test_a_platform_that_has_costs_alone_is_compared_with_the_captures_of_the_reference(outside: Outside) -> None:
    outside.bless(BLESSED + RAIL)
    (outside.captures / "board").mkdir()
    (outside.own / "blessed").rename(outside.captures / "board" / "blessed")
    outside.edit("pyproject.toml", "[tool", '[tool.harness]\nreference-platform = "board"\n[tool')
    green(outside.run(), passed=2)


WITH_SUM = BLESSED + "def test_sum(blessed): blessed('ticks', lambda: tree()['ticks'])\n"


@pytest.fixture(name="beside")
def _beside(outside: Outside) -> Outside:
    """A project whose reference platform has captures of `tree` and `ticks`; this platform has its own of `ticks`."""
    outside.bless(WITH_SUM)
    (outside.captures / "board").mkdir()
    shutil.copytree(outside.own / "blessed", outside.captures / "board" / "blessed")
    shutil.rmtree(outside.own / "blessed" / "tree")
    outside.edit("pyproject.toml", "[tool", '[tool.harness]\nreference-platform = "board"\n[tool')
    commit(outside.root)
    return outside


def test_a_tree_that_was_blessed_here_does_not_hide_the_reference_platforms_other_trees(beside: Outside) -> None:
    printed = green(beside.run(), passed=2)
    assert f"captures in captures/{platform.name()}, else captures/board\n" in printed
    beside.edit("engine.py", "* self.gain + 1", "* self.gain + 2")
    red(beside.run(), "tree is not identical", passed=1, failed=1)


@pytest.mark.parametrize("spoil", [flip, Path.unlink])
@pytest.mark.parametrize("file", ["ticks.safetensors", "manifest.json"])
def test_a_damaged_capture_of_this_platform_is_not_replaced_by_the_reference_platforms(
    beside: Outside, file: str, spoil: Callable[[Path], Any]
) -> None:
    spoil(beside.own / "blessed" / "ticks" / file)
    red(beside.run(), f"{file}: ", passed=1, failed=1)


def test_only_entries_that_are_compared_with_here_need_a_test(beside: Outside) -> None:
    beside.tests("def test_sum(blessed): blessed('ticks', lambda: tree()['ticks'])\n")
    printed = red(beside.run(), "captures/board/blessed/tree: blessed, but no test asked for it", passed=1)
    assert "board/blessed/ticks" not in printed


def test_a_tree_that_stands_in_is_asked_for_in_a_run_that_blesses_others(beside: Outside) -> None:
    beside.tests("def test_tree(blessed): blessed('tree', tree())\n" + WITH_SUM.splitlines()[1])
    assert "exact: 2 captures" in green(beside.run("--harness-bless", "why"), passed=2)


def test_trees_on_a_gpu_are_kept_for_that_gpu(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blessed, "device_of", lambda tree: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Board 1")
    monkeypatch.setattr(platform, "gpu_fingerprint", lambda device: {"gpu": "Board 1"})
    outside.bless()
    assert store.read_manifest(outside.captures / "cuda-board-1/blessed/tree").fingerprint == {"gpu": "Board 1"}
    green(outside.run())


def test_captures_may_be_in_another_folder(outside: Outside) -> None:
    outside.bless()
    outside.captures.rename(outside.root / "golden")
    green(outside.run("--harness-captures", "golden"))


def test_a_folder_of_captures_is_named_from_where_the_run_was_started(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.bless()
    outside.captures.rename(outside.root / "golden")
    monkeypatch.chdir(outside.root / "tests")
    green(outside.run("--harness-captures", "../golden"))


# Blessing.


def test_a_run_that_blessed_is_red_and_the_next_one_compares(outside: Outside) -> None:
    red(outside.bless(), "blessed: run again without --harness-bless (tree)", "tree new", 'drifted: "the first"')
    assert outside.entry().reason == "the first"
    green(outside.run())


def test_only_what_drifted_is_rewritten_and_new_is_printed_against_old(outside: Outside) -> None:
    outside.bless(BLESSED + "def test_sum(blessed): blessed('ticks', lambda: tree()['ticks'])")
    before = {path: path.stat().st_mtime_ns for path in outside.captures.rglob("*.*")}
    outside.edit("engine.py", "* self.gain + 1", "* self.gain + 1.25")
    printed = red(outside.run("--harness-bless", "a better gain"), passed=1, failed=1)
    assert "tree moved, max |Δ| 2.5e-1\n    slots[0]/x: bytes differ in 4 of 4" in printed
    assert {path.parent.name for path in before if path.stat().st_mtime_ns != before[path]} == {"tree"}
    assert (outside.entry("tree").reason, outside.entry("ticks").reason) == ("a better gain", "the first")
    commit(outside.root)
    assert "exact: 2 captures" in green(outside.run("--harness-bless", "again"), passed=2)


def test_a_test_that_asks_for_two_entries_blesses_both_at_once(outside: Outside) -> None:
    red(outside.bless("""
        def test_both(blessed, cost_rail):
            ring = Ring()
            with cost_rail("tick"):
                ring.tick()
            blessed("tree", tree)
    """), "--harness-bless (tick, tree)")  # fmt: skip
    green(outside.run())


def test_a_run_that_blesses_leaves_what_has_not_drifted_as_it_is(outside: Outside) -> None:
    outside.bless(BLESSED + RAIL)
    outside.tests("def test_tree(blessed): blessed('tree', tree())\n" + RAIL)
    assert "exact: 1 capture, 1 cost rail" in green(outside.run("--harness-bless", "why"), passed=2)


def test_a_repaired_capture_is_blessed_over_the_corrupt_one(outside: Outside) -> None:
    outside.bless()
    flip(outside.own / "blessed" / "tree" / "tree.safetensors")
    commit(outside.root)
    red(outside.run("--harness-bless", "repair"), "tree restored, its file was corrupt")
    green(outside.run())


def test_of_many_differences_the_first_are_printed(outside: Outside) -> None:
    many = "def test_tree(blessed): blessed('tree', lambda: {'x%d' % i: torch.tensor(VALUE) for i in range(30)})"
    outside.bless(many.replace("VALUE", "1.0"))
    outside.tests(many.replace("VALUE", "2.0"))
    printed = red(outside.run("--harness-bless", "why"), "    and 10 more")
    assert printed.count("    x") == 20


def test_another_tolerance_is_blessed_by_itself(outside: Outside) -> None:
    outside.bless()
    red(outside.bless("def test_tree(blessed): blessed('tree', tree, k=8)"), "tree, k 0 -> 8")
    assert outside.entry().k == 8


REFUSALS = [
    ({"CI": "true"}, "why", "CI is set"),
    ({}, "", "no reason given"),
    ({}, "tests/test_outside.py::test_tree", "is a path, not a reason"),
    ({"GIT_DIR": "nowhere"}, "why", "is in no git checkout"),
]


@pytest.mark.parametrize(("variables", "reason", "said"), REFUSALS)
def test_blessing_is_refused_before_any_test_runs(
    outside: Outside, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str, said: str
) -> None:
    outside.tests(BLESSED)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = outside.run("--harness-bless", reason)
    assert result.ret == pytest.ExitCode.USAGE_ERROR and said in result.stderr.str()
    assert not outside.captures.exists()


def test_blessing_is_refused_over_uncommitted_captures(outside: Outside) -> None:
    outside.bless()
    (outside.own / "blessed" / "new").touch()
    result = outside.run("--harness-bless", "why")
    assert result.ret == pytest.ExitCode.USAGE_ERROR and "has uncommitted changes" in result.stderr.str()


def test_blessing_is_refused_while_another_process_blesses(outside: Outside) -> None:
    outside.bless()
    with atomic.locked(outside.root):
        result = outside.run("--harness-bless", "why")
        assert result.ret == pytest.ExitCode.USAGE_ERROR and "being written by another process" in result.stderr.str()
        green(outside.run(), passed=1)
    green(outside.run("--harness-bless", "why"), passed=1)


def test_no_other_process_blesses_until_the_run_that_blesses_has_ended(outside: Outside) -> None:
    outside.tests("""
        from pathlib import Path
        import pytest
        from harness.engine import atomic

        def test_another(pytestconfig):
            with pytest.raises(BlockingIOError), atomic.locked(pytestconfig.rootpath):
                pass
    """)
    green(outside.run("--harness-bless", "why"), passed=1)
    with atomic.locked(outside.root):
        pass


def test_blessing_is_refused_in_several_processes(outside: Outside) -> None:
    outside.write("conftest.py", "def pytest_addoption(parser): parser.addoption('-N', dest='numprocesses', type=int)")
    outside.tests(BLESSED)
    result = outside.run("--harness-bless", "why", "-N", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR and "several processes" in result.stderr.str()


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("r = Ring()\n    blessed('tree', r.tick)", "tree is not reproducible, called again it differs: slots[0]/x"),
        ("blessed('tree', lambda: torch.tensor([0.0]) / 0)", "(root) holds a NaN"),
        ("blessed('tree', tree())", "to bless it, give the function that makes it"),
        ("blessed('tree', lambda: torch.ones(2, dtype=torch.complex128))", "the file format cannot keep it"),
        ("blessed('tree', lambda: {'__metadata__': torch.ones(2)})", "the file format cannot keep it"),
        ("blessed('a/b', tree)", "got 'a/b', expected letters"),
        ("blessed('tree', dict)", "no tensor with an element"),
    ],
)
def test_what_cannot_be_blessed_is_refused_and_nothing_is_written(outside: Outside, test: str, said: str) -> None:
    red(outside.bless(f"def test_tree(blessed):\n    {test}"), said)
    assert not outside.captures.exists()


def test_a_tree_is_made_three_times_before_it_is_blessed(outside: Outside) -> None:
    third = "def test_tree(blessed): gains = iter([0.5, 0.5, 0.75]); blessed('tree', lambda: Ring(next(gains)).tick())"
    red(outside.bless(third), "tree is not reproducible, called again it differs")


def test_captures_of_another_platform_are_not_blessed_here(outside: Outside) -> None:
    outside.tests(BLESSED + RAIL)
    red(outside.run("--harness-platform", "board", "--harness-bless", "why"), "cannot be blessed on", failed=2)
    assert not outside.captures.exists()


def test_two_tests_may_ask_for_one_capture_and_must_agree_on_it(outside: Outside) -> None:
    outside.bless(BLESSED + "def test_gain(blessed): blessed('tree', lambda: Ring(0.75).tick())")
    printed = red(outside.run("--harness-bless", "again"), failed=1, passed=1)
    assert "tree is not identical" in printed


SWALLOWED = """
    def test_tree(blessed):
        try:
            blessed('tree', tree)
        except BaseException:
            pass
"""
AGAIN = """
    from _pytest.runner import runtestprotocol

    def pytest_runtest_protocol(item, nextitem):
        for last in (False, True):
            item._initrequest()
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            if last or all(report.passed for report in reports):
                break
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        return True
"""


def test_a_test_cannot_swallow_that_it_blessed(outside: Outside) -> None:
    red(outside.bless(SWALLOWED), "blessed: run again")


def test_a_run_that_blessed_is_red_where_its_test_was_expected_to_fail(outside: Outside) -> None:
    red(outside.bless("import pytest\n@pytest.mark.xfail\n" + BLESSED), "blessed: 1, run again", xfailed=1)


def test_a_test_that_blessed_does_not_pass_when_it_is_tried_again(outside: Outside) -> None:
    outside.write("conftest.py", AGAIN)
    red(outside.bless(), "blessed: 1, run again")


def test_a_test_that_failed_does_not_pass_when_it_is_tried_again(outside: Outside) -> None:
    outside.bless()
    outside.write("conftest.py", AGAIN)
    outside.tests("tries = iter([1, 0])\ndef test_tree(blessed): blessed('tree', Ring(0.5 + next(tries)).tick)")
    red(outside.run(), "the test failed before in this run")


# Lockstep.


def test_engines_that_agree_after_every_event_pass(outside: Outside) -> None:
    outside.tests("""
        from operator import methodcaller

        def test_called(lockstep):
            assert lockstep(Ring(), Ring(), [1.0, 2.0]).events == 2

        def test_calling(lockstep):
            lockstep(Ring(), Ring(), [methodcaller("tick")] * 3)
    """)
    printed = green(outside.run("-v"), passed=2)
    assert "exact: 2 lockstep\n" in printed
    assert "lockstep: tests/test_outside.py::test_called, 4 tensors after 2 events" in printed


def test_engines_that_part_are_red_and_event_path_and_distance_are_named(outside: Outside) -> None:
    outside.tests("""
        def late(event):
            tree = ring(event)
            if event == 3.5:
                tree["slots"][0]["x"][1] += 0.25
            return tree

        ring = Ring()
        def test_lockstep(lockstep): lockstep(Ring(), late, [1.0, 2.0, 3.5, 4.0])
    """)
    red(outside.run(), "differ at event 2, 3.5:", "slots[0]/x: bytes differ in 1 of 4 elements", "max |Δ| 0.25")


def test_engines_that_return_nothing_are_red(outside: Outside) -> None:
    outside.tests("def test_lockstep(lockstep): lockstep(Ring(), lambda event: {}, [])")
    red(outside.run(), "none of 0 events made the engines return a tensor")


SWITCH = """
    from harness.engine.decoders import AffineDecoder
    from harness.engine.executors import EagerExecutor, StaticExecutor
    from harness.parity.battery.scripts import Drain, Guided, Script, Submit

    script = Script((Submit(1, guided=Guided()), Submit(2), Drain()))
    affine = AffineDecoder(8)

    def leaky(**inputs):
        return affine(**inputs) + 1e-3 * len(inputs["hidden_states"])
"""


def switch(outside: Outside, call: str, *arguments: str) -> pytest.RunResult:
    outside.tests(textwrap.dedent(SWITCH) + f"def test_switch(lockstep):\n    lockstep.switch({call})")
    return outside.run("-v", *arguments)


@pytest.mark.engine
def test_a_switch_is_compared_on_every_executor_that_is_asked_for(outside: Outside) -> None:
    kinds = ("--harness-executor", "eager", "--harness-executor", "static")
    printed = green(switch(outside, "'fused_cfg', script=script, decoder=affine", *kinds))
    assert printed.count("test_switch, fused_cfg on and off, ") == 2


@pytest.mark.engine
def test_a_switch_that_changes_what_a_decoder_of_ones_own_makes_is_red(outside: Outside) -> None:
    red(switch(outside, "'fused_cfg', script=script, decoder=leaky"), "fused_cfg on and off differ at tick 0, slot 0")


@pytest.mark.engine
def test_a_switch_is_compared_on_executors_of_ones_own(outside: Outside) -> None:
    green(switch(outside, "'fused_cfg', script=script, executor=lambda: StaticExecutor(affine)"))
    red(switch(outside, "'fused_cfg', script=script, executor=lambda: EagerExecutor(leaky)"), "differ at tick 0")
    outside.edit("tests/test_outside.py", "executor=lambda: EagerExecutor(leaky)", "executor=lambda: made")
    outside.edit("tests/test_outside.py", "def test", "made = EagerExecutor(affine)\ndef test")
    red(outside.run(), "one executor for both pipelines")


@pytest.mark.engine
def test_a_switch_with_nothing_to_do_is_red(outside: Outside) -> None:
    red(switch(outside, "'fused_cfg', script=Script((Submit(1), Drain()))"), "fused_cfg did not act")


@pytest.mark.engine
def test_a_switch_that_no_chosen_executor_can_show_is_not_gated(outside: Outside) -> None:
    printed = green(switch(outside, "'joined_stream', script=script", "-rs"), skipped=1)
    assert (
        "SKIPPED [1]" in printed and "not gated: joined_stream acts on executors with a stream of their own" in printed
    )
    assert "not gated: lockstep tests/test_outside.py::test_switch: joined_stream" in printed
    green(outside.run("--harness-executor", "deferred"))


# Cost rails.


def test_a_block_that_costs_what_was_blessed_passes(outside: Outside) -> None:
    red(outside.bless(RAIL), "blessed: run again without --harness-bless (tick)", "tick new")
    assert "exact: 1 cost rail\n" in green(outside.run())
    counts = store.read_document(outside.own / "costs" / "tick.json")["torch"][costs.version()]
    assert counts["operator aten::mul"] == 1 and counts["operators"] == sum(
        number for name, number in counts.items() if name.startswith("operator ")
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("* self.gain + 1", "* self.gain + 1 + 0", ["aten::add: blessed 1, now 2\n"]),
        ("* self.gain + 1", "+ 1", ["aten::mul: blessed 1, now None\n"]),
        ("* self.gain + 1", "* self.gain.__mul__(1) + self.x.tolist()[0]", ["host_reads: blessed 0, now 1"]),
        ("* self.gain + 1", "* self.gain + self.x.clone()", ["copies: blessed 0, now 1", "aten::clone: blessed None"]),
    ],
)  # fmt: skip
def test_more_and_less_are_red_alike_and_name_file_row_and_the_command_that_blesses(
    outside: Outside, old: str, new: str, said: list[str]
) -> None:
    outside.bless(RAIL)
    outside.edit("engine.py", old, new)
    (test,) = re.findall(r"def (test_\w+)", RAIL)
    command = f'if that is meant: pytest --harness-bless "why" tests/test_outside.py::{test}'
    red(outside.run(), "costs/tick.json for torch", *said, command)


def test_costs_are_blessed_anew_for_a_reason(outside: Outside) -> None:
    outside.bless(RAIL)
    outside.edit("engine.py", "* self.gain + 1", "* self.gain + 1 + 0")
    red(outside.run("--harness-bless", "one more"), "tick moved: ", "operators 3 -> 4", "operator aten::add 1 -> 2")
    green(outside.run())


def test_costs_of_another_torch_are_not_gated_and_never_look_like_a_pass(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.bless(RAIL + BLESSED)
    monkeypatch.setattr(block, "version", lambda: "3.0.0")
    printed = green(outside.run(), passed=1, skipped=1)
    assert (
        "not gated: cost rail tick: " in printed and f"has costs for torch {costs.version()}, this is 3.0.0" in printed
    )
    assert "exact: 1 capture\n" in printed


def test_a_rail_of_another_torch_does_not_hide_the_rest_of_its_test(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.bless(RAIL)
    monkeypatch.setattr(block, "version", lambda: "3.0.0")
    outside.tests(RAIL + "    assert 1 == 2\n")
    red(outside.run(), "assert 1 == 2")


def test_costs_are_kept_for_several_versions_of_torch(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    outside.bless(RAIL)
    with monkeypatch.context() as other:
        other.setattr(block, "version", lambda: "3.0.0")
        red(outside.run("--harness-bless", "another torch"), "tick new for torch 3.0.0")
        green(outside.run())
    green(outside.run())


def test_costs_of_another_platform_serve_where_this_one_has_none(outside: Outside) -> None:
    outside.bless(RAIL)
    outside.own.rename(outside.captures / "board")
    green(outside.run())
    red(outside.run("--harness-platform", "third"), "third/costs/tick.json: missing")
    outside.edit("engine.py", "* self.gain + 1", "* self.gain + 1 + 0")
    commit(outside.root)
    red(outside.run("--harness-bless", "one more"), "operators 3 -> 4")
    assert not outside.own.exists()
    green(outside.run())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("with cost_rail('other'): tree()", "other.json: missing, other was never blessed"),
        ("with cost_rail('tick'): pass", "tick: no operator ran inside the block"),
        ("with cost_rail('../tick'): tree()", "got '../tick', expected letters"),
        ("with cost_rail('tick'): raise KeyError('inside')", "KeyError: 'inside'"),
    ],
)
def test_a_rail_that_compares_nothing_is_red(outside: Outside, body: str, said: str) -> None:
    outside.bless(RAIL)
    outside.tests(f"def test_rail(cost_rail):\n    {body}")
    red(outside.run("-k", "rail"), said)


def test_a_rail_whose_file_was_edited_is_red_until_it_is_blessed(outside: Outside) -> None:
    outside.bless(RAIL)
    path = outside.own / "costs" / "tick.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reason": "better"}))
    red(outside.run(), "tick.json: altered, it does not match its own digest")
    store.write_document(path, {"torch": 1})
    red(outside.run(), "tick.json: altered, not of format 1")
    commit(outside.root)
    red(outside.run("--harness-bless", "repair"), "tick restored, its file was corrupt")


def test_a_rail_that_counts_otherwise_in_the_run_that_blesses_it_is_red(outside: Outside) -> None:
    red(outside.bless("""
        def test_rail(cost_rail):
            for extra in (0, 1):
                with cost_rail("tick"):
                    Ring().tick()
                    for _ in range(extra): tree()
    """), "tick: costs differ from those blessed")  # fmt: skip


# What no test asks for.

TWO = BLESSED + "def test_other(blessed): blessed('other', tree)\n" + RAIL


def test_a_blessed_entry_that_no_test_asks_for_is_red_by_name(outside: Outside) -> None:
    outside.bless(TWO)
    outside.tests(BLESSED)
    result = outside.run()
    printed = red(result, passed=1)
    for entry in ("blessed/other", "costs/tick.json"):
        assert f"{outside.own.relative_to(outside.root)}/{entry}: blessed, but no test asked for it" in printed
    assert "blessed/tree: blessed, but" not in printed


def test_all_tests_gone_is_red_too(outside: Outside) -> None:
    outside.bless(TWO)
    outside.tests("def test_nothing(): pass")
    red(outside.run(), "blessed/tree: blessed, but no test asked for it", passed=1)
    (outside.root / "tests" / "test_outside.py").unlink()
    red(outside.run(), "blessed/tree: blessed, but no test asked for it", passed=0)


def test_a_test_that_is_skipped_asks_for_nothing(outside: Outside) -> None:
    outside.bless()
    outside.tests("import pytest\n@pytest.mark.skip\n" + BLESSED)
    red(outside.run(), "blessed/tree: blessed, but no test asked for it", skipped=1)


@pytest.mark.parametrize("stray", ["blessed/stray.txt", "blessed/tree/old.safetensors", "costs/old.json"])
def test_a_stray_file_among_captures_is_red_by_name(outside: Outside, stray: str) -> None:
    outside.bless(BLESSED + RAIL)
    (outside.own / stray).touch()
    red(outside.run(), f"{stray}: blessed, but no test asked for it", passed=2)


@pytest.mark.parametrize(
    ("arguments", "why", "outcomes"),
    [
        (["-k", "tree"], "tests were deselected", {"passed": 1, "deselected": 2}),
        (
            ["tests/test_outside.py::test_tree"],
            "only tests/test_outside.py::test_tree was run, of tests",
            {"passed": 1},
        ),
        (["tests/test_more.py"], "only tests/test_more.py was run, of tests", {"passed": 1}),
        (["--ignore", "tests/test_outside.py"], "--ignore was given", {"passed": 1}),
        (["--ignore-glob", "*outside.py"], "--ignore_glob was given", {"passed": 1}),
    ],
)
def test_a_part_of_the_suite_is_not_held_to_all_entries_and_says_so(
    outside: Outside, arguments: list[str], why: str, outcomes: dict[str, int]
) -> None:
    outside.bless(TWO)
    if "-k" not in arguments:
        outside.tests("def test_more(): pass", "tests/test_more.py")
    printed = green(outside.run(*arguments), **outcomes)
    assert f"other blessed entries still have a test: {why}" in printed


def test_a_run_that_was_stopped_or_could_not_collect_is_not_held_to_all_entries(outside: Outside) -> None:
    outside.bless(TWO)
    outside.tests("def test_first(): assert False", "tests/test_a.py")
    assert "still have a test: the run was stopped" in red(outside.run("-x"))
    outside.write("tests/test_a.py", "import nowhere")
    outside.tests("def test_nothing(): pass")
    printed = red(outside.run("--continue-on-collection-errors"), passed=1, errors=1)
    assert "still have a test: a module could not be collected" in printed


@pytest.mark.parametrize("arguments", [["tests"], ["."], ["-k", "test"], ["-x"]])
def test_the_whole_suite_is_that_however_it_is_named(outside: Outside, arguments: list[str]) -> None:
    outside.bless(TWO)
    outside.tests(BLESSED)
    red(outside.run(*arguments), "blessed/other: blessed, but no test asked for it", passed=1)


def test_a_plugin_that_leaves_out_tests_without_a_word_is_noticed(outside: Outside) -> None:
    outside.bless(TWO)
    outside.write("conftest.py", "def pytest_collection_modifyitems(items): del items[1:]")
    assert "still have a test: tests were deselected" in green(outside.run())


def test_an_argument_is_the_whole_suite_only_where_testpaths_says_what_that_is(outside: Outside) -> None:
    outside.bless(TWO)
    outside.tests(BLESSED)
    outside.edit("pyproject.toml", 'testpaths = ["tests"]', "")
    assert "still have a test: only tests was run, of ." in green(outside.run("tests"))


def test_one_folder_of_several_is_a_part_of_the_suite(outside: Outside) -> None:
    outside.edit("pyproject.toml", '["tests"]', '["tests", "more"]')
    outside.bless(BLESSED)
    outside.tests(BLESSED, "more/test_more.py")
    outside.tests("def test_nothing(): pass")
    assert "still have a test: only tests was run, of tests more" in green(outside.run("tests"))
    green(outside.run("tests", "more"), passed=2)


def test_a_worker_hands_over_what_its_tests_asked_for(outside: Outside) -> None:
    """With pytest-xdist a run is one where it is reported; here two of its messages are replayed."""
    outside.bless(TWO)
    asked = [str(outside.own / entry) for entry in ("blessed/tree", "blessed/other")]
    outside.tests("def test_nothing(): pass")
    outside.write("conftest.py", f"""
        from types import SimpleNamespace
        import pytest
        from harness.plugin import pytest_testnodedown

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish(session):
            for asked in {[[each] for each in asked]!r}:
                output = {{"harness": {{"asked": asked, "exact": ["capture: x"]}}}}
                pytest_testnodedown(SimpleNamespace(config=session.config, workeroutput=output))
    """)  # fmt: skip
    printed = red(outside.run(), "costs/tick.json: blessed, but no test asked for it", passed=1)
    assert "blessed/tree" not in printed and "exact: 2 captures" in printed


def test_a_worker_that_died_makes_the_run_a_part_of_the_suite() -> None:
    ledger = Ledger()
    node = SimpleNamespace(config=SimpleNamespace(stash={LEDGER: ledger}))
    harness.plugin.pytest_testnodedown(node)
    assert ledger.left_out == ["a worker ended without its report"]


def test_a_worker_sends_its_ledger_and_judges_nothing() -> None:
    ledger = Ledger(asked=["a"])
    config = SimpleNamespace(stash={LEDGER: ledger}, workerinput={}, workeroutput={})
    harness.plugin.pytest_sessionfinish(SimpleNamespace(config=config))
    assert json.loads(json.dumps(config.workeroutput["harness"]))["asked"] == ["a"]


# In projects that do not use it.


def test_a_project_that_uses_no_fixture_sees_and_imports_nothing(outside: Outside) -> None:
    outside.write("tests/test_plain.py", "def test_plain(): pass")
    outside.write("conftest.py", """
        import sys
        def pytest_unconfigure():
            assert "torch" not in sys.modules
    """)  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(platform.ROOT)}
    command = [sys.executable, "-m", "pytest", *LOADED, "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=outside.root, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
    assert "harness" not in ran.stdout.replace("stream-harness", "")


@pytest.mark.engine
def test_an_option_without_a_test_that_uses_a_fixture_is_said_to_do_nothing(outside: Outside) -> None:
    outside.tests("def test_plain(): pass")
    assert "harness: no test uses its fixtures" in green(outside.run("--harness-executor", "eager"))


def test_the_folders_of_captures_have_the_fixtures_names() -> None:
    assert blessed.BLESSED == "blessed" and block.COSTS == "costs"


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["onnx", "turbo"])
def test_an_executor_that_runs_no_decoder_itself_cannot_be_chosen(outside: Outside, kind: str) -> None:
    outside.tests("def test_plain(): pass")
    ran = outside.run("--harness-executor", kind)
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines([f"*--harness-executor: got {kind}, expected one of eager, static, deferred*"])


# The README.

README = (platform.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_for_another_project_is_blessed_and_passes(outside: Outside) -> None:
    (outside.root / "engine.py").rename(outside.root / "my_engine.py")
    outside.edit("my_engine.py", "gain=0.5", "seed, gain=0.5")
    outside.edit("my_engine.py", "def tree", "class FastRing(Ring): pass\n\ndef tree")
    outside.write("tests/test_engine.py", re.findall(r"```python\n(.*?)```", README, re.DOTALL)[-1])
    red(outside.run("--harness-bless", "the first"), passed=1, failed=2)
    assert "exact: 1 capture, 1 lockstep, 1 cost rail" in green(outside.run(), passed=3)


def test_every_option_is_named_in_the_readme(outside: Outside) -> None:
    options = set(re.findall(r"--harness-[a-z]+", outside.run("--help").stdout.str()))
    assert options == set(re.findall(r"--harness-[a-z]+", README))

"""Two revisions compared, from the trees to the exit code, on trees that say what they are told to say."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.commands.compare import _exit_code
from harness.commands.exits import DIFFERS
from harness.parity.baselines import platform
from harness.rails.compare import revisions
from harness.rails.compare.paced import TURN
from harness.rails.compare.revisions import BENCH, Asked, Outputs, Process, by_turns, compare, draw
from harness.rails.compare.statistics import Side, TimeVerdict
from harness.rails.compare.worktrees import CannotCompare, Revision, Tree
from tests.rails.compare.fake_tree import CONTROL, PIPELINE, SAYS, commit, git, write

DIGESTS: dict[str, Any] = SAYS["digests"]  # type: ignore[assignment]
SHORT = ["--rounds", "2", "--most", "3", "--warmup", "2", "--ticks", "64"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where trees write down what they were asked."""
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def _fake_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of these tests imports torch, and none leaves a file elsewhere."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "control.py").write_text(CONTROL)
    monkeypatch.setattr(revisions, "CONTROL", tmp_path / "control.py")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))


Compare = Callable[..., tuple[Result, dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Compare two trees on the command line; the result, and the JSON where it wrote any."""
    monkeypatch.chdir(tmp_path)

    def call(*options: str, base: dict[str, Any] | None = None, head: dict[str, Any] | None = None) -> Any:
        write(tmp_path / "base", log, **(base or {}))
        write(tmp_path / "head", log, **{"name": "head", **(head or {})})
        return invoke("base", "head", *options)

    return call


def invoke(*words: str) -> tuple[Result, dict[str, Any]]:
    report = Path(tempfile.gettempdir()) / "report.json"
    result = CliRunner().invoke(main, ["compare", "--json", str(report), *SHORT[:4], *words, *SHORT[4:]])
    found = json.loads(report.read_text()) if report.exists() else {}
    report.unlink(missing_ok=True)
    return result, found


def asked_of(log: Path, name: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith(f"{name} ")]


# Verdicts and exit codes.


@pytest.mark.parametrize(("ms", "verdict", "code", "draws"), [
    ([10.0], "same", 0, 1),
    ([11.0], "slower", 1, 2),
    ([9.0], "faster", 0, 2),
    ([11.0, 11.0, 10.0], "inconclusive", 3, 2),
    ([9.0, 9.0, 10.0], "inconclusive", 3, 2),
])  # fmt: skip
def test_a_difference_must_recur_in_other_processes(
    run: Compare, log: Path, ms: list[float], verdict: str, code: int, draws: int
) -> None:
    result, report = run(head={"ms": ms})
    assert (result.exit_code, report["verdict"], len(report["draws"])) == (code, verdict, draws), result.output
    assert result.stdout.splitlines()[-1].startswith(f"{verdict}: ")
    assert (", in both of two draws;" in result.stdout) == (verdict in ("slower", "faster"))
    assert len(asked_of(log, "head bench")) == sum(len(each["rounds"]) for each in report["draws"])
    assert (code == 3) == ("did not recur in a second draw, which says same" in report["why"])


def test_what_was_measured_is_in_the_report(run: Compare) -> None:
    _, report = run(head={"ms": [11.0]})
    assert report["draws"][0]["ratio"]["value"] == pytest.approx(1.1, abs=1e-4)
    assert report["draws"][0]["control"]["value"] == 1.0
    assert report["draws"][0]["base"]["median"] == pytest.approx(10.0, abs=0.01)
    assert report["draws"][1]["rounds"][0]["head"]["p99"] >= 11.0
    assert report["draws"][1]["rounds"][0]["head"]["ticks"] == 64
    assert report["outputs"]["passes"] and report["outputs"]["same"] == 2
    assert report["platform"]["fingerprint"]
    assert report["base"] == {"asked": "base", "commit": None, "uncommitted": []}


def test_the_report_s_platform_has_the_one_thread_of_every_bench_whatever_the_caller_has(run: Compare) -> None:
    wanted = {"name": platform.name(), "fingerprint": platform.of_device("cpu")}
    with platform.threads(2):
        _, report = run()
    assert report["platform"] == wanted
    assert report["platform"]["fingerprint"]["threads"] == "1"


def test_a_contaminated_control_is_inconclusive_after_every_round_there_may_be(run: Compare) -> None:
    result, report = run(head={"ms": [11.0], "control": 1.1})
    assert (result.exit_code, report["verdict"], len(report["draws"][0]["rounds"])) == (3, "inconclusive", 3)
    assert "control" in result.stdout.splitlines()[-1]


def test_microseconds_are_the_same(run: Compare) -> None:
    result, _ = run(base={"ms": [0.100]}, head={"ms": [0.108]})
    assert result.exit_code == 0, result.output


def test_rounds_go_on_until_they_decide(run: Compare) -> None:
    _, report = run(head={"ms": [11.0, 9.0, 10.0]})
    assert len(report["draws"][0]["rounds"]) == 3


def test_there_are_never_fewer_rounds_at_most_than_before_the_first_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(_base: str, _head: str | None, asked: Asked, *_more: Any) -> Any:
        seen.append(asked)
        raise CannotCompare("seen")

    seen: list[Asked] = []
    monkeypatch.setattr(revisions, "compare", ask)
    CliRunner().invoke(main, ["compare", "--rounds", "5", "--most", "3", "base", "head"])
    assert [(asked.rounds, asked.most) for asked in seen] == [(5, 5)]


def test_a_busy_wait_in_the_tick_is_what_slows_it(tmp_path: Path, log: Path) -> None:
    folder = write(tmp_path / "one", log, busy_ms=2.0, ms=[0.0])
    tree = Tree(Revision("one"), folder)
    asked = Asked(("--warmup", "0", "--ticks", "32"), rounds=2, most=2, slowdown=0.5)
    (one, *_) = draw(tree, tree, asked).rounds
    base, head = (process.ticks for process in one)
    assert base == pytest.approx([2.0] * 32, abs=0.01)
    assert head == pytest.approx([3.0] * 32, abs=0.01)


# Outputs, before times.


@pytest.mark.parametrize(("says", "words", "passes"), [
    ({"digests": {**DIGESTS, "two": {"content": "zz", "ticks": ["1"]}}}, "outputs MOVED: two", False),
    ({"digests": {**DIGESTS, "one": {"content": "aa", "ticks": ["1", "3"]}}}, "outputs MOVED: one", False),
    ({"digests": {"one": DIGESTS["one"]}}, "outputs not compared, missing in B: two", False),
    ({"digests": {**DIGESTS, "new": DIGESTS["one"]}}, "outputs not compared, missing in A: new", True),
    ({"latents": "zz"}, f"outputs MOVED: {BENCH}", False),
    ({"digests": {}}, "outputs not compared, missing in B: one, two", False),
])  # fmt: skip
def test_what_moved_is_named_first_and_is_never_a_silent_0(
    run: Compare, says: dict[str, Any], words: str, passes: bool
) -> None:
    result, report = run(head=says)
    assert result.stdout.splitlines()[0] == words
    assert report["verdict"] == "same", "of the times"
    assert (report["outputs"]["passes"], result.exit_code) == (passes, 0 if passes else 1)


def test_moved_outputs_are_said_of_an_inconclusive_comparison_too(run: Compare) -> None:
    result, report = run(head={"latents": "zz", "control": 1.1})
    assert (result.exit_code, report["verdict"]) == (1, "inconclusive")


def test_only_what_differs_is_said_before_what_is_the_same() -> None:
    same = "outputs of 1 scenarios are byte for byte the same"
    assert Outputs((), (), (), 1).lines() == [same]
    assert Outputs(("a", "b"), ("c",), ("d",), 1).lines() == [
        "outputs MOVED: a, b",
        "outputs not compared, missing in B: c",
        "outputs not compared, missing in A: d",
        same,
    ]


def test_comparing_no_scenario_is_no_pass() -> None:
    assert not Outputs((), (), ("only head",), 0).passes


# What is driven.


def test_options_of_bench_reach_both_sides_as_they_are_and_after_the_own_ones(run: Compare, log: Path) -> None:
    result, report = run("--cfg", "self", "--switch", "fused_cfg=off", "--no-dcw", "--unknown-here=1")
    assert result.exit_code == 0, result.output
    passed = "--cfg self --switch fused_cfg=off --no-dcw --unknown-here=1 --warmup 2 --ticks 64"
    for name in ("base", "head"):
        (first, *_) = asked_of(log, f"{name} bench")
        assert f"bench --decoder affine --warmup 30 --ticks 600 {passed} --json " in first
    assert report["bench"] == passed.split()


def test_who_begins_alternates(run: Compare, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, judged = [], []
    take_turns, judge = revisions.take_turns, revisions.statistics.judge

    def spying(first: Any, second: Any, turns: int) -> None:
        began.append(str(first._child))
        take_turns(first, second, turns)

    def judging(rounds: Any) -> Any:
        judged.append([one.base_begins for one in rounds])
        return judge(rounds)

    monkeypatch.setattr(revisions, "take_turns", spying)
    monkeypatch.setattr(revisions.statistics, "judge", judging)
    run(head={"ms": [11.0, 9.0, 10.0]})
    assert [name.split()[-1] for name in began] == ["base", "head", "base"]
    assert judged == [[True, False], [True, False, True]]


@pytest.mark.parametrize("words", [
    (),
    ("base", "head", "third"),
    ("--calibrate", "base", "head"),
    ("--ticks", "200", "base"),
])  # fmt: skip
def test_revisions_stand_before_the_options_of_bench(words: tuple[str, ...]) -> None:
    result, _ = invoke(*words)
    assert result.exit_code == 2 and "expected BASE" in result.stderr


@pytest.mark.parametrize("name", ["--rounds", "--most"])
def test_one_round_decides_nothing_and_cannot_be_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisions, "compare", None)
    result = CliRunner().invoke(main, ["compare", name, "1", "base", "head"])
    assert result.exit_code == 2 and f"'{name}'" in result.stderr


# What cannot be compared.


@pytest.mark.parametrize("side", ["base", "head"])
@pytest.mark.parametrize("command", ["bench", "_digests"])
def test_a_tree_that_fails_exits_with_125_and_says_what_it_said(
    run: Compare, side: str, command: str, tmp_path: Path
) -> None:
    result, report = run(**{side: {"fails_at": command}})
    assert (result.exit_code, report) == (125, {})
    assert f"{command} of {side} exited with 1:\nthe decoder broke" in result.stderr
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(("options", "words"), [
    (["no-such-revision"], "'no-such-revision' is neither"),
    (["base", "--ticks=7"], "--ticks: expected at least 8"),
    (["base", "--ticks=many"], "expected whole numbers"),
    (["--calibrate", "base", "--device", "cuda"], "calibrate with --device cpu"),
])  # fmt: skip
def test_what_cannot_be_timed_exits_with_125(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "base", log)
    commit(folder, "first")
    monkeypatch.chdir(folder)
    words_of_it = [str(folder) if word == "base" else word for word in options]
    result = CliRunner().invoke(main, ["compare", *words_of_it])
    assert result.exit_code == 125 and words in result.stderr, result.output


def test_a_bench_that_does_not_tick_the_pipeline_is_not_believed(run: Compare) -> None:
    result, _ = run(head={"ticks_at_all": False})
    assert result.exit_code == 125
    assert "bench of head ended before its last turn" in result.stderr


def test_a_package_from_elsewhere_is_not_timed(tmp_path: Path, log: Path) -> None:
    folder = write(tmp_path / "one", log)
    (folder / "harness" / "__init__.py").write_text("__file__ = '/elsewhere/harness/__init__.py'")
    tree = Tree(Revision("one"), folder)
    with pytest.raises(CannotCompare, match="/elsewhere/harness/__init__.py was imported, which is not a file of"):
        draw(tree, tree, Asked(("--ticks", "32"), rounds=2))


def test_the_wait_is_taken_from_the_first_tick_of_a_turn() -> None:
    samples = [105.0, 6.0, 209.0, 10.0, 99.0]
    assert by_turns(samples, [100.0, 200.0, 1.0], 2).tolist() == [[5, 6], [9, 10]]
    with pytest.raises(ValueError, match="the wait for a turn exceeded its tick"):
        by_turns(samples, [100.0, 209.0, 1.0], 2)
    with pytest.raises(ValueError, match="reshape"):
        by_turns(samples[: 2 * TURN - 1], [100.0, 200.0, 1.0], 2)


# On a repository.


def test_a_run_of_bench_is_read_from_both_of_its_reports(tmp_path: Path) -> None:
    report = tmp_path / "a"
    samples = [3.0, 1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 4.0, 9.0]
    report.with_suffix(".bench").write_text(json.dumps({"samples": {"tick_ms": samples}, "outputs": "cc"}))
    report.write_text(json.dumps({"control_ms": [1.0, 2.0, 3.0, 4.0, 5.0], "waited_ms": [2.0, 2.0, 2.0, 2.0, 2.0]}))
    asked = Asked(("--warmup", "0", "--ticks", "9"))
    side = Side((1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0, 4.0))
    found = revisions._process(Tree(Revision("a"), tmp_path), asked, report)
    assert found == Process(side, (1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0), "cc")


@pytest.fixture
def repository(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit of a tree, one that is slower, and an edit that moves an output."""
    root = write(tmp_path / "repository", log)
    commit(root, "first")
    commit(write(root, log, name="head", ms=[11.0]), "slower")
    write(root, log, name="head", latents="zz")
    monkeypatch.chdir(root)
    return root


def test_without_head_the_working_tree_is_compared_and_named(repository: Path) -> None:
    result, report = invoke("HEAD~1")
    assert result.exit_code == 1 and f"outputs MOVED: {BENCH}" in result.stdout
    assert report["verdict"] == "same"
    assert report["head"] == {
        "asked": "the working tree",
        "commit": git(repository, "rev-parse", "HEAD"),
        "uncommitted": ["harness/says.json"],
    }


def test_a_revision_is_compared_as_committed(repository: Path) -> None:
    result, report = invoke("HEAD~1", "HEAD")
    assert (result.exit_code, report["verdict"], report["outputs"]["moved"]) == (1, "slower", [])
    assert report["head"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert git(repository, "worktree", "list").count("\n") == 0


def test_an_interrupt_leaves_neither_process_nor_worktree(repository: Path, log: Path) -> None:
    def interrupt(what: str) -> None:
        if what == "round 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare("HEAD~1", "HEAD", Asked(tuple(SHORT[4:])), repository, interrupt)
    assert git(repository, "worktree", "list").count("\n") == 0
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_a_sigterm_amid_a_bench_ends_its_process_too(repository: Path, log: Path, tmp_path: Path) -> None:
    """The bench hangs; the command that waits for it is told to end once the bench says its process id."""
    pid = tmp_path / "pid"
    # Whole or not at all, as several processes may write it.
    written = f"open({str(pid)!r} + str(os.getpid()), 'w').write(str(os.getpid()))"
    moved = f"os.replace({str(pid)!r} + str(os.getpid()), {str(pid)!r})"
    hangs = f"import os, time\n{written}\n{moved}\ntime.sleep(60)\n"
    (repository / "harness" / "engine" / "pipeline.py").write_text(hangs + PIPELINE)
    commit(repository, "hangs")

    def end() -> None:
        while not pid.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(SystemExit):
        compare("HEAD", "HEAD", Asked(), repository)
    assert git(repository, "worktree", "list").count("\n") == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# Calibration.


def test_calibration_names_the_smallest_slowdown_that_is_caught(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tried = []

    def timed(a: Tree, b: Tree, made: Outputs, asked: Asked, advance: object) -> Any:
        tried.append(asked.slowdown)
        caught = asked.slowdown >= 0.03
        one = draw(a, b, Asked(tuple(SHORT[4:]), 2, 2))
        verdict = TimeVerdict.SLOWER if caught else TimeVerdict.INCONCLUSIVE
        judged = revisions.replace(one.judged, verdict=verdict)
        draws = (revisions.Draw(one.rounds, judged),)
        return revisions.Comparison(a.revision, b.revision, asked, made, draws)

    monkeypatch.setattr(revisions, "_timed", timed)
    write(tmp_path / "base", log)
    result, report = invoke("--calibrate", "base")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1].endswith("was detected on this machine today: 3%")
    assert report["smallest_caught"] == 0.03
    assert tried == [0.05, 0.02, 0.03]
    assert [one["slowdown"] for one in report["tried"]] == [0.02, 0.03, 0.05]


def test_a_calibration_that_catches_nothing_says_so(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A tick of no time at all is not made slower by any share of it.
    write(tmp_path / "base", log)
    result, report = invoke("--calibrate", "base")
    assert (result.exit_code, report["smallest_caught"]) == (3, None)
    assert "no slowdown up to 12% was detected" in result.stdout


@pytest.mark.parametrize("passes", [(True, False), (False, True)])
def test_one_comparison_of_a_calibration_whose_outputs_moved_is_a_difference(passes: tuple[bool, bool]) -> None:
    tried: Any = {float(n): SimpleNamespace(outputs=SimpleNamespace(passes=each)) for n, each in enumerate(passes)}
    assert _exit_code(tried, calibrate=True) == DIFFERS

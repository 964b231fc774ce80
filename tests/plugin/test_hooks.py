"""What the plugin's hooks say and decide of a run that is made up, line by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.parity.baselines import platform
from harness.plugin import hooks
from harness.plugin.ledger import COLLECTED, LEDGER, NOTES, UNASKED, Ledger, Notes

pytestmark = pytest.mark.no_cover

ENDS = tuple(pytest.ExitCode)


def made_up(root: Path, ledger: Ledger | None = None, **options: Any) -> Any:
    """A run's configuration, with what the plugin reads of it."""
    given = {"bless": None, "captures": None, "platform": "", "executor": None, "strict": False, "html": None} | options
    option = SimpleNamespace(**{f"harness_{name}": value for name, value in given.items()})
    stash = pytest.Stash()
    stash[LEDGER], stash[COLLECTED] = ledger or Ledger(), 0
    return SimpleNamespace(
        option=option,
        rootpath=root,
        invocation_params=SimpleNamespace(dir=root),
        stash=stash,
        getoption=lambda name, default: getattr(option, name, default),
        get_verbosity=lambda: 0,
        add_cleanup=lambda _act: None,
    )


def test_of(config: Any, nodeid: str = "tests/test_a.py::test_a", notes: Notes | None = None) -> Any:
    """One test of a run; with notes it is one that used a fixture."""
    item = SimpleNamespace(config=config, nodeid=nodeid, name=nodeid.split("::")[-1], stash=pytest.Stash())
    if notes is not None:
        item.stash[NOTES] = notes
    return item


test_of.__test__ = False  # type: ignore[attr-defined]


def summary(config: Any) -> list[tuple[str, bool | None]]:
    """The lines that the hook prints, each with whether it is red; a section's title has no colour."""
    printed: list[tuple[str, bool | None]] = []
    reporter = SimpleNamespace(
        section=lambda title: printed.append((title, None)),
        write_line=lambda line, *, red: printed.append((line, red)),
    )
    hooks.pytest_terminal_summary(reporter, config)  # type: ignore[arg-type]
    return printed


# The summary.

FULL = Ledger(
    exact=["cost rail: t: x", "lockstep: b", "capture: a", "capture: b", "lockstep: a", "cost rail: u", "capture: c"],
    tolerance=["capture y: far", "capture x: near", "capture y: far"],
    timed=["time rail t: fast", "time rail s: faster"],
    not_gated=["cost rail u: why", "cost rail t: why", "cost rail u: why"],
    rewritten=["tree moved", "  x differs", "a new"],
    blessed=["/p/tree", "/p/a"],
    left_out=["tests were deselected", "the run was stopped", "tests were deselected"],
)


def test_a_summary_has_every_line_in_this_order_and_a_reason_to_fail_is_red(tmp_path: Path) -> None:
    config = made_up(tmp_path, FULL)
    config.stash[UNASKED] = ["captures/c", "captures/b", "captures/a"]
    whole = [
        ("harness", None),
        ("exact: 2 cost rails, 2 lockstep, 3 captures", False),
        ("within tolerance: capture y: far", False),
        ("within tolerance: capture x: near", False),
        ("within tolerance: capture y: far", False),
        ("within its limit: time rail t: fast", False),
        ("within its limit: time rail s: faster", False),
        ("not gated: cost rail u: why", False),
        ("not gated: cost rail t: why", False),
        ("blessed: 2, run again without --harness-bless", True),
        ("  tree moved", False),
        ("    x differs", False),
        ("  a new", False),
        (
            "not checked whether 3 other blessed entries still have a test: tests were deselected; the run was stopped",
            False,
        ),
    ]
    assert summary(config) == whole
    config.get_verbosity = lambda: 1
    assert summary(config) == whole[:2] + [(f"  {each}", False) for each in FULL.exact] + whole[2:]


def test_in_a_run_of_the_whole_suite_every_entry_without_a_test_has_a_red_line(tmp_path: Path) -> None:
    config = made_up(tmp_path, Ledger(exact=["capture: a", "cost rail: t", "lockstep: a"]))
    config.stash[UNASKED] = ["captures/c", "captures/b"]
    assert summary(config) == [
        ("harness", None),
        ("exact: 1 capture, 1 cost rail, 1 lockstep", False),
        ("captures/c: blessed, but no test asked for it: mend the test or remove the file", True),
        ("captures/b: blessed, but no test asked for it: mend the test or remove the file", True),
    ]


@pytest.mark.parametrize("ledger", [Ledger(), Ledger(left_out=["the run was stopped"], asked=["a"], failed=["a"])])
def test_where_nothing_is_to_be_said_not_even_the_title_is_printed(tmp_path: Path, ledger: Ledger) -> None:
    assert summary(made_up(tmp_path, ledger)) == []


# The verdict of a run.


def test_a_run_becomes_red_by_what_it_blessed_and_by_entries_without_a_test_where_all_tests_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for blessed, unasked, left, status in product(((), ("a",)), ([], ["b"]), ((), ("-k",)), ENDS):
        monkeypatch.setattr(hooks, "_unasked", lambda _config, unasked=unasked: unasked)
        monkeypatch.setattr(hooks, "left_out", lambda _session, left=left: iter(left))
        config = made_up(tmp_path, Ledger(blessed=list(blessed)))
        session = SimpleNamespace(config=config, exitstatus=status)
        hooks.pytest_sessionfinish(session)  # type: ignore[arg-type]
        assert (config.stash[UNASKED], config.stash[LEDGER].left_out) == (unasked, list(left))
        if session.exitstatus is not status:
            found[bool(blessed), bool(unasked), bool(left), status] = session.exitstatus
    becomes_red = [(True, unasked, left) for unasked, left in product((False, True), (False, True))]
    passed = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    expected = {(*run, status) for run, status in product([*becomes_red, (False, True, False)], passed)}
    assert found == dict.fromkeys(expected, pytest.ExitCode.TESTS_FAILED)


def test_what_a_worker_says_is_added_to_every_part_of_the_run_s_ledger_and_nothing_is_judged_there(
    tmp_path: Path,
) -> None:
    here = Ledger(**{each.name: ["of both", f"{each.name} here"] for each in fields(Ledger)})
    there = Ledger(**{each.name: ["of both", f"{each.name} there", "twice", "twice"] for each in fields(Ledger)})
    worker = made_up(tmp_path, there)
    worker.workerinput, worker.workeroutput = {}, {}
    hooks.pytest_sessionfinish(SimpleNamespace(config=worker, exitstatus=pytest.ExitCode.OK))  # type: ignore[arg-type]
    sent = json.loads(json.dumps(worker.workeroutput))
    assert sent == {"harness": asdict(there)}
    run = made_up(tmp_path, here)
    hooks.pytest_testnodedown(SimpleNamespace(config=run, workeroutput=sent))
    assert asdict(here) == {
        each.name: ["of both", f"{each.name} here", "of both", f"{each.name} there", "twice", "twice"]
        for each in fields(Ledger)
    }


@pytest.mark.parametrize("node", [{}, {"workeroutput": {}}, {"workeroutput": {"laws": {}}}])
def test_a_worker_that_says_nothing_of_its_ledger_may_have_left_out_tests(tmp_path: Path, node: dict[str, Any]) -> None:
    run = made_up(tmp_path)
    hooks.pytest_testnodedown(SimpleNamespace(config=run, **node))
    assert run.stash[LEDGER] == Ledger(left_out=["a worker ended without its report"])


@pytest.mark.parametrize(("collected", "kept", "errors", "said"), [
    (3, 3, 0, []),
    (3, 2, 0, ["tests were deselected"]),
    (3, 3, 1, ["a module could not be collected"]),
    (1, 0, 2, ["tests were deselected", "a module could not be collected"]),
    (0, 0, 0, []),
])  # fmt: skip
def test_every_collected_test_is_counted_and_one_that_is_gone_later_was_left_out(
    tmp_path: Path, collected: int, kept: int, errors: int, said: list[str]
) -> None:
    config = made_up(tmp_path)
    items = [test_of(config) for _ in range(collected)]
    for item in items:
        hooks.pytest_itemcollected(item)
    session = SimpleNamespace(config=config, items=items[:kept], testsfailed=errors)
    hooks.pytest_collection_finish(session)  # type: ignore[arg-type]
    assert config.stash[LEDGER] == Ledger(left_out=said)


# The verdict of a test.


def called(item: Any) -> Any:
    """What the hook around a test returns where the test returns `result`."""
    around = hooks.pytest_runtest_call(item)
    next(around)
    with pytest.raises(StopIteration) as stopped:
        around.send("result")
    return stopped.value.value


def test_a_test_that_noted_nothing_keeps_its_result(tmp_path: Path) -> None:
    config = made_up(tmp_path, Ledger(blessed=["a"], not_gated=["a"]))
    assert called(test_of(config)) == "result"
    assert called(test_of(config, notes=Notes())) == "result"


def test_a_test_that_blessed_fails_and_names_each_entry_once_also_where_another_was_not_gated(tmp_path: Path) -> None:
    item = test_of(made_up(tmp_path), notes=Notes(["b", "a", "b"], ["why"]))
    with pytest.raises(pytest.fail.Exception) as failed:
        called(item)
    assert failed.value.msg == "blessed: run again without --harness-bless (b, a)"


def test_a_test_that_was_not_gated_is_skipped_with_every_reason(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception) as skipped:
        called(test_of(made_up(tmp_path), notes=Notes([], ["rail b: old", "rail a: new"])))
    assert skipped.value.msg == "not gated: rail b: old; rail a: new"


def test_a_strict_run_fails_a_test_that_was_not_gated_with_every_reason(tmp_path: Path) -> None:
    # A skip that escapes would skip this very test.
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception)) as ended:
        called(test_of(made_up(tmp_path, strict=True), notes=Notes([], ["rail b: old", "rail a: new"])))
    words = "not gated: rail b: old; rail a: new (--harness-strict)"
    assert (type(ended.value), ended.value.msg) == (pytest.fail.Exception, words)


def test_what_a_test_raises_is_not_replaced_by_what_it_noted(tmp_path: Path) -> None:
    around = hooks.pytest_runtest_call(test_of(made_up(tmp_path), notes=Notes(["a"], ["why"])))
    next(around)
    with pytest.raises(KeyError, match="inside"):
        around.throw(KeyError("inside"))


def test_only_the_very_test_that_failed_fails_again_and_does_not_run(tmp_path: Path) -> None:
    config = made_up(tmp_path, Ledger(failed=["tests/test_a.py::test_a"]))
    for other in ("tests/test_b.py::test_a", "tests/test_a.py::test_a[1]", "tests/test_a.py", "test_a.py::test_a"):
        assert called(test_of(config, other)) == "result"
    with pytest.raises(pytest.fail.Exception) as failed:
        next(hooks.pytest_runtest_call(test_of(config)))
    assert failed.value.msg == "the test failed before in this run: a pass of a second try proves nothing"


def test_a_failure_in_any_part_of_a_test_with_a_fixture_is_remembered_and_a_skip_is_not(tmp_path: Path) -> None:
    def skip() -> None:
        pytest.skip("not gated")

    outcomes: dict[str, Callable[[], Any]] = {
        "passes": lambda: None,
        "skips": skip,
        "raises": lambda: 1 / 0,
        "fails": lambda: pytest.fail("no"),
        "expected": lambda: pytest.xfail("known"),
    }
    config, names = made_up(tmp_path), []
    for notes, when, outcome in product((None, Notes()), ("setup", "call", "teardown"), outcomes):
        names.append(f"{when} {outcome} {'with' if notes else 'without'}")
        item = test_of(config, names[-1], notes)
        hooks.pytest_runtest_makereport(item, pytest.CallInfo.from_call(outcomes[outcome], when))  # type: ignore[arg-type]
    red = ("raises", "fails", "expected")
    assert config.stash[LEDGER] == Ledger(
        failed=[each for each in names if each.split()[1:] in [[r, "with"] for r in red]]
    )


# The header.


def header(config: Any, *used: tuple[str, ...]) -> list[str]:
    """What is printed of tests that use these fixtures, beside one that can have none."""
    items = [SimpleNamespace(fixturenames=names) for names in used]
    return hooks.pytest_report_collectionfinish(config, [SimpleNamespace(), *items])  # type: ignore[list-item]


def test_the_header_counts_tests_with_any_of_the_fixtures_and_names_the_folder_also_before_it_is_there(
    tmp_path: Path,
) -> None:
    here = f"captures in captures/{platform.name()}"
    for name in ("blessed", "lockstep", "cost_rail"):
        assert header(made_up(tmp_path), ("tmp_path", name)) == [f"harness: 1 test with its fixtures, {here}"]
    both = [("blessed", "lockstep"), ("cost_rail",), ("tmp_path",), ()]
    assert header(made_up(tmp_path), *both) == [f"harness: 2 tests with its fixtures, {here}"]
    config = made_up(tmp_path, platform="board", bless="why it moved", captures=str(tmp_path.parent / "golden"))
    assert header(config, ("blessed",)) == [
        f"harness: 1 test with its fixtures, captures in {tmp_path.parent / 'golden' / 'board'}"
        ', blessing what drifted: "why it moved"'
    ]


@pytest.mark.parametrize(
    "given",
    [{"bless": "why"}, {"captures": "golden"}, {"platform": "a"}, {"executor": ["eager"]}, {"strict": True}],
)
def test_any_option_of_the_plugin_is_said_to_do_nothing_where_no_test_uses_it(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    assert header(made_up(tmp_path), ("tmp_path",)) == []
    assert header(made_up(tmp_path, **given), ("tmp_path",)) == ["harness: no test uses its fixtures"]


# Options.


@pytest.mark.engine
@pytest.mark.parametrize(("asked", "unknown"), [
    (["eager", "static", "deferred", "cuda_graph", "compiled_graph"], None),
    (["eager", "onnx"], "onnx"),
    (["turbo", "eager", "tensorrt"], "turbo, tensorrt"),
    (["Eager"], "Eager"),
])  # fmt: skip
def test_every_kind_that_is_asked_for_must_run_the_decoder_itself(
    tmp_path: Path, asked: list[str], unknown: str | None
) -> None:
    config = made_up(tmp_path, executor=asked)
    if unknown is None:
        hooks.pytest_configure(config)
        return
    with pytest.raises(pytest.UsageError) as refused:
        hooks.pytest_configure(config)
    known = "eager, static, deferred, cuda_graph, compiled_graph"
    assert str(refused.value) == f"--harness-executor: got {unknown}, expected one of {known}"


def test_a_run_starts_with_an_empty_ledger(tmp_path: Path) -> None:
    config = made_up(tmp_path, FULL)
    config.stash[COLLECTED] = 3
    hooks.pytest_configure(config)
    assert (config.stash[LEDGER], config.stash[COLLECTED]) == (Ledger(), 0)


# Entries without a test.


def files(folder: Path, *names: str) -> Iterator[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        yield folder / name


@pytest.mark.parametrize("where", ["captures", "../golden"])
@pytest.mark.parametrize("kind", ["blessed", "costs"])
def test_entries_of_either_kind_are_found_alone_and_named_from_the_project(
    tmp_path: Path, where: str, kind: str
) -> None:
    root = tmp_path / "project"
    captures = root / where
    one, two = files(captures / platform.name() / kind, "a", "b")
    config = made_up(root, captures=where)
    shown = [f"{where}/{platform.name()}/{kind}/{name}" for name in "ab"]
    assert hooks._unasked(config) == shown
    config.stash[LEDGER].asked.append(str(one))
    assert hooks._unasked(config) == shown[1:]
    config.stash[LEDGER].asked += ["b", str(two)]
    assert hooks._unasked(config) == []


def test_captures_of_both_kinds_are_held_to_have_tests_and_scenarios_are_not(tmp_path: Path) -> None:
    list(files(tmp_path / "captures" / platform.name(), "blessed/a", "costs/t.json", "scenarios/s.safetensors"))
    found = [f"captures/{platform.name()}/{each}" for each in ("blessed/a", "costs/t.json")]
    assert hooks._unasked(made_up(tmp_path)) == found
    assert hooks._unasked(made_up(tmp_path / "other")) == []

"""Hooks that pytest calls: options, verdicts of tests, the verdict of a run and its summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pytest

from harness.plugin import html
from harness.plugin.fixtures import FIXTURES
from harness.plugin.ledger import COLLECTED, FIRST_TRY, LEDGER, NOTES, UNASKED, Ledger, Notes
from harness.plugin.places import captures_of, engine_for, place_of, refuse_to_bless, shown
from harness.plugin.whole import left_out


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    group = parser.getgroup("harness", "proofs that no bit and no cost has moved (stream-harness)")
    group.addoption(
        "--harness-bless", metavar="REASON", help="Bless what drifted, for this reason. The run fails: run again."
    )
    group.addoption("--harness-captures", metavar="DIR", help="Folder of captures (default: captures in the rootdir).")
    group.addoption(
        "--harness-platform", metavar="NAME", default="", help="Compare with the captures of this platform."
    )
    group.addoption(
        "--harness-executor",
        action="append",
        metavar="KIND",
        help="Executor of lockstep.switch: eager (default), static or deferred; may be given several times.",
    )
    group.addoption("--harness-html", metavar="FILE", help="Write a report for a browser to this file.")
    group.addoption(
        "--harness-strict", action="store_true", help="Fail a test that is not gated, such as an undecided time rail."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the ledger; refuse to bless where blessing is not allowed, and refuse unknown executors."""
    config.stash[LEDGER] = Ledger()
    config.stash[COLLECTED] = 0
    html.register(config)
    if config.option.harness_bless is not None:
        refuse_to_bless(config)
    if config.option.harness_executor:
        _refuse_unknown_executors(config.option.harness_executor)


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Report the number of tests with the fixtures and the folder of captures, if the plugin is used."""
    used = sum(not set(FIXTURES).isdisjoint(getattr(item, "fixturenames", ())) for item in items)
    option = config.option
    if not used:
        given = option.harness_bless or option.harness_captures or option.harness_platform or option.harness_executor
        return ["harness: no test uses its fixtures"] if given or option.harness_strict else []
    mode = f', blessing what drifted: "{option.harness_bless}"' if option.harness_bless is not None else ""
    place = place_of(config)
    folders = [folder.parent for folder in place.folders("blessed") or [place.folder("blessed")]]
    where = ", else ".join(shown(config, folder) for folder in folders)
    return [f"harness: {used} test{'s'[: used != 1]} with its fixtures, captures in {where}{mode}"]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Count the collected tests."""
    item.config.stash[COLLECTED] += 1


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note that the run is not one of the whole suite, where tests were deselected or could not be collected."""
    ledger = session.config.stash[LEDGER]
    if len(session.items) < session.config.stash[COLLECTED]:
        ledger.left_out.append("tests were deselected")
    if session.testsfailed:
        ledger.left_out.append("a module could not be collected")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that blessed or that failed before in this run; skip a test that was not gated, or fail it too."""
    if item.nodeid in item.config.stash[LEDGER].failed:
        before = "the test failed before in this run: a pass of a second try proves nothing"
        pytest.fail(before + item.stash.get(FIRST_TRY, ""), pytrace=False)
    result = yield
    notes = item.stash.get(NOTES, Notes())
    if notes.blessed:
        what = ", ".join(dict.fromkeys(notes.blessed))
        pytest.fail(f"blessed: run again without --harness-bless ({what})", pytrace=False)
    if notes.not_gated:
        why = f"not gated: {'; '.join(notes.not_gated)}"
        if item.config.option.harness_strict:
            pytest.fail(f"{why} (--harness-strict)", pytrace=False)
        pytest.skip(why)
    return result


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Remember a failed test and what the first failure said, so that another try in the same run fails too."""
    # A set-up can fail before the fixture is made.
    ours = NOTES in item.stash or not set(FIXTURES).isdisjoint(getattr(item, "fixturenames", ()))
    if ours and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        item.config.stash[LEDGER].failed.append(item.nodeid)
        item.stash.setdefault(FIRST_TRY, f"\nThe first try, in its {call.when}: {call.excinfo.exconly()}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that blessed anything, and a whole run in which no test asked for some blessed entry."""
    config, ledger = session.config, session.config.stash[LEDGER]
    if hasattr(config, "workerinput"):
        config.workeroutput["harness"] = asdict(ledger)  # type: ignore[attr-defined]
        return
    ledger.left_out += left_out(session)
    config.stash[UNASKED] = _unasked(config)
    red = ledger.blessed or (config.stash[UNASKED] and not ledger.left_out)
    if red and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Merge the ledger of a pytest-xdist worker into the run's."""
    ledger: Ledger = node.config.stash[LEDGER]
    ended = getattr(node, "workeroutput", {})
    ledger.merge(ended.get("harness", {"left_out": ["a worker ended without its report"]}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the comparisons, what was not gated, what was blessed, and the entries that no test asked for."""
    lines = list(_summary(config))
    if lines:
        terminalreporter.section("harness")
    for line, red in lines:
        terminalreporter.write_line(line, red=red)


def _refuse_unknown_executors(asked: Sequence[str]) -> None:
    """Check the kinds of executor that the command line names.

    Raises:
        UsageError: an unknown kind, or one that runs a compiled decoder.
    """
    with engine_for("--harness-executor"):
        from harness.registry import ExecutorKind  # noqa: PLC0415 - imports torch

    known = [kind for kind in ExecutorKind if not kind.ahead_of_time]
    unknown = [kind for kind in asked if kind not in known]
    if unknown:
        raise pytest.UsageError(f"--harness-executor: got {', '.join(unknown)}, expected one of {', '.join(known)}")


def _summary(config: pytest.Config) -> Iterator[tuple[str, bool]]:
    """Yield the lines of the summary, each with True if the line is a reason to fail the run."""
    ledger = config.stash[LEDGER]
    counts = Counter(each.split(": ")[0] for each in ledger.exact)
    if counts:
        plural = {kind: "s" if count > 1 and kind != "lockstep" else "" for kind, count in counts.items()}
        yield "exact: " + ", ".join(f"{count} {kind}{plural[kind]}" for kind, count in counts.items()), False
    if config.get_verbosity() > 0:
        yield from ((f"  {each}", False) for each in ledger.exact)
    yield from ((f"within tolerance: {each}", False) for each in ledger.tolerance)
    yield from ((f"within its limit: {each}", False) for each in ledger.timed)
    yield from ((f"not gated: {each}", False) for each in dict.fromkeys(ledger.not_gated))
    if ledger.blessed:
        yield f"blessed: {len(ledger.blessed)}, run again without --harness-bless", True
        yield from ((f"  {each}", False) for each in ledger.rewritten)
    unasked = config.stash.get(UNASKED, [])
    if unasked and ledger.left_out:
        reasons = "; ".join(dict.fromkeys(ledger.left_out))
        yield f"not checked whether {len(unasked)} other blessed entries still have a test: {reasons}", False
    elif unasked:
        yield from (
            (f"{each}: blessed, but no test asked for it: mend the test or remove the file", True) for each in unasked
        )


def _unasked(config: pytest.Config) -> list[str]:
    """List the blessed entries that no test asked for, and stray files beside them."""
    captures = captures_of(config)
    if not any(next(captures.glob(f"*/{kind}/*"), None) for kind in ("blessed", "costs")):
        return []
    from harness.parity.baselines import blessed  # noqa: PLC0415 - imports torch
    from harness.rails.costs import block  # noqa: PLC0415 - imports torch

    asked = set(config.stash[LEDGER].asked)
    place = place_of(config)
    found = [*blessed.entries(place), *block.entries(place)]
    return [shown(config, path) for path in found if str(path) not in asked]

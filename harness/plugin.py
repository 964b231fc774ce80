"""A pytest plugin that lends the harness's proofs to projects with an engine of their own, as fixtures.

`blessed` holds trees of tensors against captures, `lockstep` two engines against each other, `cost_rail` the cost of a
block against blessed counts. Blessing is an explicit act, `--harness-bless "reason"`, and a run that blessed anything
is red: comparing with what one has just written proves nothing. So is a whole run in which no test asked for something
that is blessed; and a failure stays one however often its test is tried again.

Nothing here imports torch before a test uses a fixture, or blessed files or `--harness-bless` ask for it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.engine.decoders import Decoder
    from harness.engine.executors import Executor
    from harness.parity.events import Agreed
    from harness.parity.kept import Place, Rewritten
    from harness.parity.script import Script
    from harness.rails.block import Block
    from harness.rails.costs import Counts

FIXTURES = ("blessed", "lockstep", "cost_rail")
EXECUTORS = ("eager", "static", "deferred")
"""The values of `harness.parity.catalog.LIVE`, the kinds that run a decoder itself; that module imports torch."""

_OWN_STREAM = "joined_stream"  # the switch that acts only where an executor has a stream of its own


@dataclass
class Ledger:
    """What a run of tests compared and what it could not, in plain values that one process can send to another.

    Attributes:
        exact: what was compared and is the same to the bit, its kind before a colon.
        tolerance: what differs within its bound, on another machine than the one that blessed it.
        not_gated: what was not compared, and why.
        rewritten: what blessing changed, new against old.
        blessed: entries that were rewritten, as paths.
        asked: entries that tests asked for, as paths.
        left_out: why the run may have left out tests; empty where it was the whole suite.
        failed: the ids of tests that used a fixture and failed.
    """

    exact: list[str] = field(default_factory=list)
    tolerance: list[str] = field(default_factory=list)
    not_gated: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    blessed: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def merge(self, other: dict[str, list[str]]) -> None:
        """Add what another process's ledger holds."""
        for name, values in other.items():
            getattr(self, name).extend(values)


@dataclass
class Notes:
    """What one test is told at its end: what it blessed, and what it could not gate."""

    blessed: list[str] = field(default_factory=list)
    not_gated: list[str] = field(default_factory=list)


_LEDGER = pytest.StashKey[Ledger]()
_NOTES = pytest.StashKey[Notes]()
_UNASKED = pytest.StashKey[list[str]]()
_COLLECTED = pytest.StashKey[int]()


class _Fixture:
    """What the fixtures share: the run's ledger, the test's notes, and where captures are."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._options = request.config.option
        self._ledger = request.config.stash[_LEDGER]
        self._notes: Notes = request.node.stash.setdefault(_NOTES, Notes())
        self._place = _place(request.config)
        self._test: str = request.node.nodeid

    def _settle(self, entry: Path, bless: Callable[[str], Rewritten | None]) -> None:
        """Note that `entry` was asked for; where the run blesses, bless it the first time.

        A later test that asks for it again is compared with what the first one made of it.
        """
        __tracebackhide__ = True
        first = str(entry) not in self._ledger.asked
        self._ledger.asked.append(str(entry))
        if first and self._options.harness_bless is not None:
            written = bless(self._options.harness_bless)
            if written is not None:
                self._ledger.rewritten += written.lines()
                self._ledger.blessed.append(str(entry))

    def _passed(self, kind: str, entry: Path, name: str) -> None:
        """Note what was the same: nothing, where the run itself has written the other side."""
        if str(entry) in self._ledger.blessed:
            self._notes.blessed.append(name)
        else:
            self._ledger.exact.append(f"{kind}: {name}")


class Blessed(_Fixture):
    """Holds trees of tensors against captures."""

    def __call__(self, name: str, what: object, *, k: float = 0.0) -> None:
        """Pass where `what` is byte for byte what was blessed under `name`.

        Args:
            name: the capture's: letters, digits, `_`, `-`, `.`.
            what: a tree of tensors (mappings, sequences, dataclasses, None; tensors as leaves), or a function without
                arguments that makes one. Only what a function makes can be blessed, since it is called three times.
            k: tolerance on other machines than the one that blessed it, `max |Δ| <= k * eps * rms(capture)` for every
                tensor, with float32's eps; blessed with the capture. 0 is byte for byte everywhere.

        Raises:
            ParityError: it differs; the first differences are named.
            OutOfBound: it differs on another machine by more than `k` lets pass.
            CaptureMissing: it was never blessed on this platform, or its file is gone.
            CaptureCorrupt: its file or manifest is truncated or altered.
            NothingCompared: there is no tensor with an element.
            NotComparable: a leaf is no tensor, or one that has no bytes to compare.
            InvalidInput: a wrong name or `k`.
            BlessRefused: the run blesses, and this cannot be blessed.
        """
        __tracebackhide__ = True
        from harness.parity import kept  # noqa: PLC0415 - imports torch

        again = what if callable(what) else None
        tree = what if again is None else again()
        device = kept.device_of(tree)
        blessing = self._options.harness_bless is not None
        entry = (self._place.to_bless if blessing else self._place.folder)(kept.BLESSED, device) / name
        self._settle(entry, lambda reason: kept.bless(name, tree, again, self._place, reason, k))
        result = kept.check(name, tree, self._place, k)
        if result.verdict == "exact":
            self._passed("capture", entry, name)
        else:
            self._ledger.tolerance.append(f"capture {name}: {result.detail}, k = {k:g}, blessed on another machine")


class Lockstep(_Fixture):
    """Holds two engines against each other."""

    def __call__(self, plain: object, fast: object, events: Iterable[object]) -> Agreed:
        """Pass where `plain` and `fast`, fed the same events, return byte for byte the same after each of them.

        Args:
            plain: the engine that is right. An event that can be called is called with the engine, such as
                `operator.methodcaller("tick")`; the engine is called with any other.
            fast: the one that must be the same.
            events: what happens, in order. Neither engine may write to tensors in them.

        Returns:
            How many events and tensors were compared.

        Raises:
            EnginesParted: the first event after which they differ, and the path in the tree that does.
            NothingCompared: no event made them return a tensor with an element.
            NotComparable: they return something else than trees of tensors, as `blessed` takes them.
            InvalidInput: both are one object.
        """
        __tracebackhide__ = True
        from harness.parity import events as by_event  # noqa: PLC0415 - imports torch

        agreed = by_event.run(plain, fast, events)
        self._ledger.exact.append(f"lockstep: {self._test}, {agreed.tensors} tensors after {agreed.events} events")
        return agreed

    def switch(
        self,
        switch: str,
        *,
        script: Script,
        decoder: str | Decoder = "affine",
        executor: Callable[[], Executor] | None = None,
        **options: Any,
    ) -> None:
        """Pass where this project's pipeline makes the same bits with one of its switches on and off.

        Args:
            switch: a field of `harness.engine.Switches`.
            script: what happens, see `harness.parity.script`.
            decoder: a decoder, or a name that `harness.parity.catalog.decoder` knows.
            executor: makes an executor at every call; None is one of each kind that `--harness-executor` names.
            options: `others`, `max_rows`, `pin_rows`, `device`, as `harness.parity.lockstep.run` has them.

        Raises:
            Parted: the first tick, slot and stage that differ.
            NothingCompared: no tick made a tensor, or the switch had nothing to do.
            InvalidInput: no such switch, or the script asks for what is refused.
        """
        __tracebackhide__ = True
        from harness.parity import catalog  # noqa: PLC0415 - imports torch

        asked: Sequence[Any] = [executor] if executor is not None else self._options.harness_executor or EXECUTORS[:1]
        device = options.get("device", "cpu")
        able = [kind for kind in asked if executor or switch != _OWN_STREAM or catalog.has_own_stream(kind, device)]
        for kind in able:
            self._one_switch(switch, script, decoder, kind, options)
        if not able:
            why = f"{switch} acts on executors with a stream of their own, which {', '.join(asked)} has not"
            self._notes.not_gated.append(why)
            self._ledger.not_gated.append(f"lockstep {self._test}: {why} (--harness-executor deferred)")

    def _one_switch(
        self, switch: str, script: Script, decoder: str | Decoder, kind: Any, options: dict[str, Any]
    ) -> None:
        __tracebackhide__ = True
        from harness.parity import lockstep  # noqa: PLC0415 - imports torch
        from harness.parity.compare import NothingCompared  # noqa: PLC0415 - imports torch

        ran = lockstep.run(script, switch, decoder, kind, **options)
        if not lockstep.acted(switch, ran.first.stats(), ran.second.stats()):
            raise NothingCompared(f"{switch} had nothing to do in the script: that both agree says nothing")
        self._ledger.exact.append(f"lockstep: {self._test}, {switch} on and off, {ran.compared} tensors")


class CostRail(_Fixture):
    """Holds the cost of a block against blessed counts."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[Block]:
        """Count operators, allocations, copies and host reads of a `with` block; pass where each is what was blessed.

        Work of other threads is not seen. What is done once (a cache filled, a buffer made) is counted where it is
        done: run the block's code before, if that is not to be part of it.

        Args:
            name: the rail's: letters, digits, `_`, `-`, `.`.

        Raises:
            CostsMoved: a count is higher or lower, or there on one side alone.
            CaptureMissing: it was never blessed.
            CaptureCorrupt: its file cannot be used.
            NothingCompared: no operator ran.
            InvalidInput: a wrong name.
            BlessRefused: the run blesses, and this cannot be blessed.
        """
        __tracebackhide__ = True
        from harness.rails.block import Block  # noqa: PLC0415 - imports torch

        with Block() as block:
            yield block
        self._judge(name, block.counts)

    def _judge(self, name: str, counts: Counts) -> None:
        __tracebackhide__ = True
        from harness.rails import block  # noqa: PLC0415 - imports torch

        entry = block.file(block.folder(self._place), name)
        self._settle(entry, lambda reason: block.bless(name, counts, self._place, reason))
        why = block.check(name, counts, self._place)
        if why:
            self._notes.not_gated.append(why)
            self._ledger.not_gated.append(f"cost rail {name}: {why}")
        else:
            self._passed("cost rail", entry, name)


@pytest.fixture
def blessed(request: pytest.FixtureRequest) -> Iterator[Blessed]:
    """`blessed(name, tree_or_function, k=0)`: byte for byte what was blessed under that name; one torch thread."""
    with _one_thread():
        yield Blessed(request)


@pytest.fixture
def lockstep(request: pytest.FixtureRequest) -> Iterator[Lockstep]:
    """`lockstep(plain, fast, events)`: two engines, the same bytes after every event; one torch thread."""
    with _one_thread():
        yield Lockstep(request)


@pytest.fixture
def cost_rail(request: pytest.FixtureRequest) -> Iterator[CostRail]:
    """`with cost_rail(name)`: exactly the operators, allocations, copies and host reads that were blessed."""
    with _one_thread():
        yield CostRail(request)


# What pytest calls.


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("harness", "proofs that no bit and no cost has moved (stream-harness)")
    group.addoption(
        "--harness-bless", metavar="REASON", help="Bless what drifted, for this reason; the run is red, run again."
    )
    group.addoption("--harness-captures", metavar="DIR", help="Folder of captures (default: captures in the rootdir).")
    group.addoption(
        "--harness-platform", metavar="NAME", default="", help="Compare with the captures of this platform."
    )
    group.addoption(
        "--harness-executor", action="append", choices=EXECUTORS, help="Executors of lockstep.switch; several times."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the ledger, and refuse to bless where that would not be an explicit act."""
    config.stash[_LEDGER] = Ledger()
    config.stash[_COLLECTED] = 0
    if config.option.harness_bless is not None:
        _refuse_to_bless(config)


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """What the tests will be held against, if any of them uses a fixture or an option was given."""
    used = sum(not set(FIXTURES).isdisjoint(getattr(item, "fixturenames", ())) for item in items)
    option = config.option
    if not used:
        given = option.harness_bless or option.harness_captures or option.harness_platform or option.harness_executor
        return ["harness: no test uses blessed, lockstep or cost_rail"] if given else []
    mode = f', blessing what drifted: "{option.harness_bless}"' if option.harness_bless is not None else ""
    place = _place(config)
    folder = place.folder("blessed").parent
    return [f"harness: {used} test{'s'[: used != 1]} with its fixtures, captures in {_shown(config, folder)}{mode}"]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Count the tests there are."""
    item.config.stash[_COLLECTED] += 1


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note where tests were left out, by whatever plugin: that is not the whole suite."""
    ledger = session.config.stash[_LEDGER]
    if len(session.items) < session.config.stash[_COLLECTED]:
        ledger.left_out.append("tests were deselected")
    if session.testsfailed:
        ledger.left_out.append("a module could not be collected")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that blessed, skip one that was not gated, refuse one that has failed before."""
    if item.nodeid in item.config.stash[_LEDGER].failed:
        pytest.fail("it failed before in this run: that it passes when tried again would prove nothing", pytrace=False)
    result = yield
    notes = item.stash.get(_NOTES, Notes())
    if notes.blessed:
        what = ", ".join(dict.fromkeys(notes.blessed))
        pytest.fail(f"blessed: run again without --harness-bless ({what})", pytrace=False)
    if notes.not_gated:
        pytest.skip(f"not gated: {'; '.join(notes.not_gated)}")
    return result


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Remember a failure, for whoever tries the test again."""
    if _NOTES in item.stash and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        item.config.stash[_LEDGER].failed.append(item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make a run red that blessed anything, or in which no test asked for something that is blessed."""
    config, ledger = session.config, session.config.stash[_LEDGER]
    if hasattr(config, "workerinput"):
        config.workeroutput["harness"] = asdict(ledger)  # type: ignore[attr-defined]
        return
    ledger.left_out += _left_out(session)
    config.stash[_UNASKED] = _unasked(config)
    red = ledger.blessed or (config.stash[_UNASKED] and not ledger.left_out)
    if red and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the ledger of one of pytest-xdist's workers."""
    ledger: Ledger = node.config.stash[_LEDGER]
    ended = getattr(node, "workeroutput", {})
    ledger.merge(ended.get("harness", {"left_out": ["a worker ended without its report"]}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was compared, what was not gated, what was blessed, and what no test asked for."""
    lines = list(_summary(config))
    if lines:
        terminalreporter.section("harness")
    for line, red in lines:
        terminalreporter.write_line(line, red=red)


# What they are made of.


def _summary(config: pytest.Config) -> Iterator[tuple[str, bool]]:
    """The lines of the summary, and which of them make the run red."""
    ledger = config.stash[_LEDGER]
    counts = Counter(each.split(": ")[0] for each in ledger.exact)
    if counts:
        plural = {kind: "s" if count > 1 and kind != "lockstep" else "" for kind, count in counts.items()}
        yield "exact: " + ", ".join(f"{count} {kind}{plural[kind]}" for kind, count in counts.items()), False
    if config.get_verbosity() > 0:
        yield from ((f"  {each}", False) for each in ledger.exact)
    yield from ((f"within tolerance: {each}", False) for each in ledger.tolerance)
    yield from ((f"not gated: {each}", False) for each in dict.fromkeys(ledger.not_gated))
    if ledger.blessed:
        yield f"blessed: {len(ledger.blessed)}, run again without --harness-bless", True
        yield from ((f"  {each}", False) for each in ledger.rewritten)
    unasked = config.stash.get(_UNASKED, [])
    if unasked and ledger.left_out:
        reasons = "; ".join(dict.fromkeys(ledger.left_out))
        yield f"not checked whether {len(unasked)} other blessed entries still have a test: {reasons}", False
    elif unasked:
        yield from (
            (f"{each}: blessed, but no test asked for it: mend the test or remove it", True) for each in unasked
        )


def _left_out(session: pytest.Session) -> Iterator[str]:
    """Why a run may not have been that of the whole suite."""
    config = session.config
    finished = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if session.shouldstop or session.shouldfail or session.exitstatus not in finished:
        yield "the run was stopped"
    options = ("collectonly", "setuponly", "setupplan", "lf", "ignore", "ignore_glob")
    yield from (f"--{option} was given" for option in options if config.getoption(option, None))
    here = config.invocation_params.dir
    targets = [Path(os.path.abspath(here / arg)) for arg in config.args]
    suite = [config.rootpath / path for path in config.getini("testpaths")] or [config.rootpath]
    chosen = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if chosen and not all(any(path.is_relative_to(target) for target in targets) for path in suite):
        yield f"only {' '.join(config.args)} was run, of {' '.join(_shown(config, path) for path in suite)}"


def _unasked(config: pytest.Config) -> list[str]:
    """Blessed entries that no test asked for, and stray files among them."""
    captures = _captures(config)
    if not any(next(captures.glob(f"*/{kind}/*"), None) for kind in ("blessed", "costs")):
        return []
    from harness.parity import kept  # noqa: PLC0415 - imports torch
    from harness.rails import block  # noqa: PLC0415 - imports torch

    asked = set(config.stash[_LEDGER].asked)
    place = _place(config)
    found = [*kept.entries(place), *block.entries(place)]
    return [_shown(config, path) for path in found if str(path) not in asked]


def _refuse_to_bless(config: pytest.Config) -> None:
    """Refuse under continuous integration, without a reason, over uncommitted captures and in several processes.

    Raises:
        UsageError: one of these.
    """
    from harness.parity.bless import BlessRefused, refuse_unless_explicit  # noqa: PLC0415 - imports torch

    reason: str = config.option.harness_bless
    try:
        if hasattr(config, "workerinput") or config.getoption("numprocesses", None):
            raise BlessRefused("several processes would bless at once: run without -n")
        if (config.invocation_params.dir / reason.split("::")[0]).exists() and reason.strip():
            raise BlessRefused(f"{reason!r} is a path, and no reason")
        refuse_unless_explicit(reason, _captures(config))
    except BlessRefused as error:
        raise pytest.UsageError(f"--harness-bless: {error}") from error


def _captures(config: pytest.Config) -> Path:
    given: str | None = config.option.harness_captures
    return config.rootpath / "captures" if given is None else config.invocation_params.dir / given


def _place(config: pytest.Config) -> Place:
    from harness.parity.kept import Place  # noqa: PLC0415 - imports torch

    return Place(_captures(config), config.rootpath, config.option.harness_platform)


@contextmanager
def _one_thread() -> Iterator[None]:
    from harness.parity import platform  # noqa: PLC0415 - imports torch

    with platform.one_thread():
        yield


def _shown(config: pytest.Config, path: Path) -> str:
    """A path as one reads it from the project's folder."""
    return os.path.relpath(path, config.rootpath) if path.is_relative_to(config.rootpath) else str(path)

"""The fixtures `blessed`, `lockstep`, `cost_rail` and `time_rail`, and the names of all; `scripts` is in `trials`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.plugin.ledger import LEDGER, NOTES, Notes
from harness.plugin.places import engine_for, one_thread, place_of

if TYPE_CHECKING:
    from harness.engine.decoders import Decoder
    from harness.engine.executors import Executor
    from harness.parity.baselines.blessed import Rewritten
    from harness.parity.battery.scripts import Script
    from harness.parity.proofs.bounds import Bound
    from harness.parity.proofs.generic import Agreed
    from harness.rails.bench.ratio import Timed
    from harness.rails.costs.block import Block

FIXTURES = ("blessed", "lockstep", "cost_rail", "time_rail", "scripts")


class Fixture:
    """Common part of the fixtures: the run's ledger, the test's notes, and the place of the captures."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._options = request.config.option
        self._ledger = request.config.stash[LEDGER]
        self._notes: Notes = request.node.stash.setdefault(NOTES, Notes())
        self._place = place_of(request.config)
        self._test: str = request.node.nodeid

    def _settle(self, entry: Path, bless: Callable[[str], Rewritten | None]) -> None:
        """Note that the test asked for `entry`; in a run that blesses, bless the entry the first time.

        Later tests that ask for the same entry are compared with the entry that the first test blessed.
        """
        __tracebackhide__ = True
        first = str(entry) not in self._ledger.asked
        self._ledger.asked.append(str(entry))
        if first and self._options.harness_bless is not None:
            written = bless(self._options.harness_bless)
            if written is not None:
                self._ledger.rewritten += written.lines()
                self._ledger.blessed.append(str(entry))

    @contextmanager
    def _with_the_command(self) -> Iterator[None]:
        """Let the error of a comparison inside the block say which command blesses what it found."""
        __tracebackhide__ = True
        from harness.parity.baselines.blessed import OutOfBound  # noqa: PLC0415 - imports torch
        from harness.parity.baselines.store import CaptureMissing  # noqa: PLC0415 - imports torch
        from harness.parity.compare import ParityError  # noqa: PLC0415 - imports torch
        from harness.rails.costs.block import CostsMoved  # noqa: PLC0415 - imports torch

        try:
            yield
        except (CaptureMissing, CostsMoved, OutOfBound, ParityError) as error:
            when = "to bless it" if isinstance(error, CaptureMissing) else "if that is meant"
            error.add_note(f"{when}: {self._command()}")
            raise

    def _command(self) -> str:
        """The command that blesses what this test asks for."""
        given = self._options.harness_captures
        captures = [] if given is None else ["--harness-captures", shlex.quote(given)]
        return " ".join(["pytest", '--harness-bless "why"', *captures, shlex.quote(self._test)])

    def _passed(self, kind: str, entry: Path, name: str) -> None:
        """Note an exact comparison, or that the test blessed, where this run wrote the entry itself."""
        if str(entry) in self._ledger.blessed:
            self._notes.blessed.append(name)
        else:
            self._ledger.exact.append(f"{kind}: {name}")


class Blessed(Fixture):
    """Comparison of trees of tensors with captures."""

    def __call__(self, name: str, what: object, *, k: float = 0.0, keep: str = "all") -> None:
        """Pass if the tree `what` equals the capture `name` byte for byte.

        Args:
            name: name of the capture: letters, digits, `_`, `-`, `.`.
            what: a tree of mappings, sequences, dataclasses and None, with tensors, NumPy arrays and scalars, numbers
                and texts as leaves; or a function without arguments that returns such a tree. Only a function can be
                blessed, because blessing calls it three times.
            k: tolerance on machines other than the one that blessed the capture, at least 0: for every tensor
                `max |Δ| <= k * eps * rms(capture)`, with the eps of float32. `k` is kept with the capture. 0 requires
                equal bytes on every machine.
            keep: the part of the tree that the capture keeps: `"all"` every byte; `"sample"` a SHA-256 of each tensor
                and array, and at most 1024 of its elements; `"digest"` the SHA-256 alone. Each of them finds the same
                differences; without the bytes a message can show less of them. `"sample"` and `"digest"` are for large
                tensors, and have no tolerance `k`. `keep` is kept with the capture.

        Raises:
            ParityError: the tree differs; the message names the first differences.
            OutOfBound: the tree differs on another machine by more than the tolerance.
            CaptureMissing: the name was never blessed on this platform, or the capture's file is missing.
            CaptureCorrupt: the capture's file or manifest is truncated or altered.
            NothingCompared: the tree has no tensor with an element.
            NotComparable: a leaf is of another type, or has no bytes to compare.
            InvalidInput: a name, `k` or `keep` that is not allowed.
            BlessRefused: the run blesses, and the tree cannot be blessed.
        """
        __tracebackhide__ = True
        from harness.parity.baselines import blessed, store  # noqa: PLC0415 - imports torch

        store.file_name(name)
        again = what if callable(what) else None
        tree = what if again is None else again()
        device = blessed.device_of(tree)
        blessing = self._options.harness_bless is not None
        compared = self._place.folder(blessed.BLESSED, device, name) / name
        entry = self._place.to_bless(blessed.BLESSED, device) / name if blessing else compared
        if entry != compared:
            self._ledger.asked.append(str(compared))
        self._settle(entry, lambda reason: blessed.bless(name, tree, again, self._place, reason, k, keep))
        with self._with_the_command():
            result = blessed.check(name, tree, self._place, k, keep)
        if result.verdict == "exact":
            self._passed("capture", entry, name)
        else:
            self._ledger.tolerance.append(f"capture {name}: {result.detail}, k = {k:g}, blessed on another machine")


class Lockstep(Fixture):
    """Comparison of two engines that get the same events."""

    def __call__(
        self,
        plain: object,
        fast: object,
        events: Iterable[object],
        *,
        isolate: bool = True,
        remember: int = 64,
        where_both: Iterable[str] = (),
        bounds: Mapping[str, Bound] | None = None,
    ) -> Agreed:
        """Pass if `plain` and `fast` make the same bytes at each of the events.

        Engines with the methods `step` and `state` of `harness.parity.proofs.ring` are compared in the stages that they
        report, in what they return, and in their state. Of other engines only what they return is compared.

        Args:
            plain: the reference engine. An event that can be called, such as `operator.methodcaller("tick")`, is called
                with the engine; any other event goes to `step`, or the engine is called with it.
            fast: the engine that must make the same bytes.
            events: the events, in order. Neither engine may write to an event's tensors.
            isolate: True lets each engine draw the random numbers that it would draw alone, and restores the caller's
                random state.
            remember: number of the last events whose outputs are compared again after every event; so many outputs and
                a copy of each are kept.
            where_both: stages, or `stage/name`, that are compared only where both engines report them.
            bounds: bounds of stages that need not be exact; see `harness.parity.proofs.bounds`.

        Returns:
            The counts of what was compared, and the bounds that were in force.

        Raises:
            EnginesParted: the engines differ; the message names the first event, tick, slot and stage or path.
            OutputChanged: an output changed after it was handed out; the message names who made and who changed it.
            NothingCompared: no event made a tensor with an element, or a stage that an option names was never compared.
            NotComparable: an engine returns anything but a tree of tensors; see `Blessed`.
            InvalidInput: `plain` and `fast` are one object or have different methods, or an option is out of range.
        """
        __tracebackhide__ = True
        from harness.parity.proofs import generic as by_event  # noqa: PLC0415 - imports torch

        agreed = by_event.run(
            plain, fast, events, isolate=isolate, remember=remember, where_both=where_both, bounds=bounds
        )
        kept = self._ledger.tolerance if agreed.bounds else self._ledger.exact
        kept.append(f"lockstep: {self._test}, {agreed}")
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
        """Pass if the pipeline of stream-harness makes the same bits with a switch on and off.

        Args:
            switch: a field of `harness.engine.Switches`.
            script: the events; see `harness.parity.battery.scripts`.
            decoder: a decoder, or a name that `harness.registry.decoder` knows.
            executor: function that makes a new executor at every call; None compares on each kind that
                `--harness-executor` names.
            options: `others`, `max_rows`, `pin_rows` and `device`, as in `harness.parity.proofs.lockstep.run`.

        Raises:
            Parted: the pipelines differ; the message names the first tick, slot and stage.
            NothingCompared: no tick made a tensor, or the switch did not act.
            InvalidInput: an unknown switch, or an event that the pipelines refuse.
        """
        __tracebackhide__ = True
        with engine_for("lockstep.switch"):
            from harness.engine.switches import SWITCHES  # noqa: PLC0415 - imports torch
            from harness.registry import ExecutorKind  # noqa: PLC0415 - imports torch

        named = [ExecutorKind(kind) for kind in self._options.harness_executor or [ExecutorKind.EAGER]]
        asked: Sequence[Any] = named if executor is None else [executor]
        free = executor is not None or switch not in SWITCHES or not SWITCHES[switch].needs_own_stream
        able = [kind for kind in asked if free or kind.has_own_stream(options.get("device", "cpu"))]
        for kind in able:
            self._one_switch(switch, script, decoder, kind, options)
        if not able:
            why = f"{switch} acts on executors with a stream of their own, and {', '.join(asked)} has none"
            self._notes.not_gated.append(why)
            self._ledger.not_gated.append(f"lockstep {self._test}: {why} (--harness-executor deferred)")

    def _one_switch(
        self, switch: str, script: Script, decoder: str | Decoder, kind: Any, options: dict[str, Any]
    ) -> None:
        __tracebackhide__ = True
        from harness.parity.compare import NothingCompared  # noqa: PLC0415 - imports torch
        from harness.parity.proofs import lockstep  # noqa: PLC0415 - imports torch

        ran = lockstep.run(script, switch, decoder, kind, **options)
        if not lockstep.acted(switch, ran.first.stats(), ran.second.stats()):
            raise NothingCompared(f"{switch} did not act in the script: equal results prove nothing")
        self._ledger.exact.append(f"lockstep: {self._test}, {switch} on and off, {ran.compared} tensors")


class CostRail(Fixture):
    """Comparison of the costs of a block with blessed counts."""

    @contextmanager
    def __call__(
        self,
        name: str,
        *,
        without: Mapping[str, object] = {},
        count: Mapping[str, object] = {},  # noqa: B006 - read only
    ) -> Iterator[Block]:
        """Count operators, allocations, copies and host reads of a `with` block; pass if they equal the blessed counts.

        Work of other threads is not counted. Work that happens only once (filling a cache, making a buffer) is counted
        if it happens in the block. To leave such work out, run the code once before the block.

        A target of `without` and `count` is an object that can be called, such as a module; a bound method; or a pair
        of an owner and the name of its function, such as `(context, "execute_async_v3")`. A call is counted from
        whatever thread, and also if it raises. What the block yields has `outside()`, which leaves out a `with` block.

        Args:
            name: name of the rail: letters, digits, `_`, `-`, `.`.
            without: targets by name. What runs inside a call of one is not counted; the calls are, as one integer.
            count: targets by name, whose calls are counted too, such as those of what is no operator of torch.

        Raises:
            CostsMoved: a count is higher or lower than blessed, or only one side has the count. Where the number of
                host reads differs, the message names the lines of code that read.
            CaptureMissing: the name was never blessed.
            CaptureCorrupt: the file of the name cannot be used.
            NothingCompared: no operator ran, the host read no tensor and no target was called; or nothing called a
                target that was to be left out.
            InvalidInput: a name that is not allowed, or a target whose calls cannot be met.
            BlessRefused: the run blesses, and the costs cannot be blessed.
        """
        __tracebackhide__ = True
        from harness.rails.costs.block import Block  # noqa: PLC0415 - imports torch

        with Block(without, count) as block:
            yield block
        self._judge(name, block)

    def _judge(self, name: str, counted: Block) -> None:
        __tracebackhide__ = True
        from harness.rails.costs import block  # noqa: PLC0415 - imports torch

        counts = counted.counts
        block.refuse_uncalled(name, counted)
        entry = block.file(block.folder(self._place), name)
        self._settle(entry, lambda reason: block.bless(name, counts, self._place, reason))
        with self._with_the_command():
            why = block.check(name, counts, self._place, counted.lines)
        if why:
            self._notes.not_gated.append(why)
            self._ledger.not_gated.append(f"cost rail {name}: {why}")
        else:
            self._passed("cost rail", entry, name)


class TimeRail(Fixture):
    """Comparison of the times of two functions within one run."""

    def __call__(
        self,
        name: str,
        fast: Callable[[], object],
        plain: Callable[[], object],
        at_most: float = 1.05,
        *,
        seconds: float | None = None,
    ) -> Timed:
        """Pass if `fast` takes at most `at_most` of the time of `plain`; without a verdict the test is not gated.

        Both are called many times, in turns that alternate. The rail fails if the whole 95 % interval of the ratio lies
        above the limit, in two draws. It passes if the whole interval lies at or below the limit. Where the noise is
        too wide for either, the test is skipped as not gated, and fails with `--harness-strict`. A GPU that torch uses
        is waited for at the end of each turn.

        Args:
            name: name of the rail in the summary: letters, digits, `_`, `-`, `.`.
            fast: function without arguments that is held to the limit.
            plain: function without arguments that it is compared with.
            at_most: limit of the ratio, above 0. Equal functions never show a limit of 1: leave a margin.
            seconds: time after which each of the draws ends without a verdict; None is 20 s.

        Returns:
            The ratio, its interval and the verdict.

        Raises:
            TooSlow: the whole interval lies above the limit, in two draws; the message gives ratio and interval.
            NothingCompared: the functions take no time.
            InvalidInput: a name or a number that is not allowed, or both functions are the same object.
        """
        __tracebackhide__ = True
        from harness.parity.baselines import store  # noqa: PLC0415 - imports torch
        from harness.rails.bench import ratio  # noqa: PLC0415 - imports numpy

        store.file_name(name)
        found = ratio.timed(fast, plain, at_most, seconds=ratio.MOST_S if seconds is None else seconds)
        if found.verdict is ratio.RatioVerdict.BEYOND:
            raise ratio.TooSlow(f"{name}: {found}, in both of two draws")
        if found.verdict is ratio.RatioVerdict.UNDECIDED:
            why = f"undecided, {found.why}: {found}"
            self._notes.not_gated.append(why)
            self._ledger.not_gated.append(f"time rail {name}: {why}")
        else:
            self._ledger.timed.append(f"time rail {name}: {found}")
        return found


@pytest.fixture
def blessed(request: pytest.FixtureRequest) -> Iterator[Blessed]:
    """`blessed(name, tree_or_function, k=0)`: compare a tree with the capture of that name; one torch thread."""
    with one_thread():
        yield Blessed(request)


@pytest.fixture
def lockstep(request: pytest.FixtureRequest) -> Iterator[Lockstep]:
    """`lockstep(plain, fast, events)`: compare the bytes of two engines after every event; one torch thread."""
    with one_thread():
        yield Lockstep(request)


@pytest.fixture
def cost_rail(request: pytest.FixtureRequest) -> Iterator[CostRail]:
    """`with cost_rail(name)`: compare operators, allocations, copies and host reads with the blessed counts."""
    with one_thread():
        yield CostRail(request)


@pytest.fixture
def time_rail(request: pytest.FixtureRequest) -> Iterator[TimeRail]:
    """`time_rail(name, fast, plain, at_most=1.05)`: gate the ratio of two times within one run; one torch thread."""
    with one_thread():
        yield TimeRail(request)

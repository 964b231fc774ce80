"""The fixtures `blessed`, `lockstep`, `cost_rail` and `scripts`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
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
    from harness.parity.foreign.records import Script as ForeignScript
    from harness.parity.foreign.trial import Proved
    from harness.parity.proofs.bounds import Bound
    from harness.parity.proofs.generic import Agreed
    from harness.rails.costs.block import Block
    from harness.rails.costs.counts import Counts

FIXTURES = ("blessed", "lockstep", "cost_rail", "scripts")


class _Fixture:
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
        from harness.parity.baselines.store import CaptureMissing  # noqa: PLC0415 - imports torch
        from harness.parity.compare import ParityError  # noqa: PLC0415 - imports torch
        from harness.rails.costs.block import CostsMoved  # noqa: PLC0415 - imports torch

        try:
            yield
        except (CaptureMissing, CostsMoved, ParityError) as error:
            error.add_note(f'if that is meant: pytest --harness-bless "why" {shlex.quote(self._test)}')
            raise

    def _passed(self, kind: str, entry: Path, name: str) -> None:
        """Note an exact comparison, or that the test blessed, where this run wrote the entry itself."""
        if str(entry) in self._ledger.blessed:
            self._notes.blessed.append(name)
        else:
            self._ledger.exact.append(f"{kind}: {name}")


class Blessed(_Fixture):
    """Comparison of trees of tensors with captures."""

    def __call__(self, name: str, what: object, *, k: float = 0.0) -> None:
        """Pass if the tree `what` equals the capture `name` byte for byte.

        Args:
            name: name of the capture: letters, digits, `_`, `-`, `.`.
            what: a tree of tensors (mappings, sequences, dataclasses, None; tensors as leaves), or a function without
                arguments that returns such a tree. Only a function can be blessed, because blessing calls it three
                times.
            k: tolerance on machines other than the one that blessed the capture, at least 0: for every tensor
                `max |Δ| <= k * eps * rms(capture)`, with the eps of float32. `k` is kept with the capture. 0 requires
                equal bytes on every machine.

        Raises:
            ParityError: the tree differs; the message names the first differences.
            OutOfBound: the tree differs on another machine by more than the tolerance.
            CaptureMissing: the name was never blessed on this platform, or the capture's file is missing.
            CaptureCorrupt: the capture's file or manifest is truncated or altered.
            NothingCompared: the tree has no tensor with an element.
            NotComparable: a leaf is no tensor, or a tensor without bytes to compare.
            InvalidInput: a name or `k` that is not allowed.
            BlessRefused: the run blesses, and the tree cannot be blessed.
        """
        __tracebackhide__ = True
        from harness.parity.baselines import blessed  # noqa: PLC0415 - imports torch

        again = what if callable(what) else None
        tree = what if again is None else again()
        device = blessed.device_of(tree)
        blessing = self._options.harness_bless is not None
        compared = self._place.folder(blessed.BLESSED, device, name) / name
        entry = self._place.to_bless(blessed.BLESSED, device) / name if blessing else compared
        if entry != compared:
            self._ledger.asked.append(str(compared))
        self._settle(entry, lambda reason: blessed.bless(name, tree, again, self._place, reason, k))
        with self._with_the_command():
            result = blessed.check(name, tree, self._place, k)
        if result.verdict == "exact":
            self._passed("capture", entry, name)
        else:
            self._ledger.tolerance.append(f"capture {name}: {result.detail}, k = {k:g}, blessed on another machine")


class Lockstep(_Fixture):
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


class CostRail(_Fixture):
    """Comparison of the costs of a block with blessed counts."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[Block]:
        """Count operators, allocations, copies and host reads of a `with` block; pass if they equal the blessed counts.

        Work of other threads is not counted. Work that happens only once (filling a cache, making a buffer) is counted
        if it happens in the block. To leave such work out, run the code once before the block.

        Args:
            name: name of the rail: letters, digits, `_`, `-`, `.`.

        Raises:
            CostsMoved: a count is higher or lower than blessed, or only one side has the count.
            CaptureMissing: the name was never blessed.
            CaptureCorrupt: the file of the name cannot be used.
            NothingCompared: no operator ran and the host read no tensor.
            InvalidInput: a name that is not allowed.
            BlessRefused: the run blesses, and the costs cannot be blessed.
        """
        __tracebackhide__ = True
        from harness.rails.costs.block import Block  # noqa: PLC0415 - imports torch

        with Block() as block:
            yield block
        self._judge(name, block.counts)

    def _judge(self, name: str, counts: Counts) -> None:
        __tracebackhide__ = True
        from harness.rails.costs import block  # noqa: PLC0415 - imports torch

        entry = block.file(block.folder(self._place), name)
        self._settle(entry, lambda reason: block.bless(name, counts, self._place, reason))
        with self._with_the_command():
            why = block.check(name, counts, self._place)
        if why:
            self._notes.not_gated.append(why)
            self._ledger.not_gated.append(f"cost rail {name}: {why}")
        else:
            self._passed("cost rail", entry, name)


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


class Scripts(_Fixture):
    """Random scripts for a ring of any make; see `harness.parity.foreign`."""

    def __call__(
        self,
        make: Callable[..., Any],
        *,
        plain: Mapping[str, Any] | None = None,
        fast: Mapping[str, Any] | None = None,
        count: int = 20,
        seed: int = 0,
        size: int = 28,
        **options: Any,
    ) -> Proved:
        """Pass if in random scripts both rings make the same bytes, each request those that it has alone.

        Args:
            make: function that makes a new adapter of `harness.parity.foreign.records.Scripted`, such as its class.
            plain: keyword arguments of `make` for the reference ring.
            fast: the same for the ring that must make the same bytes; None compares requests with themselves alone.
            count: number of scripts.
            seed: seed of the first script; the others follow.
            size: number of operations of a script.
            options: `bounds`, `where_both`, `not_alone`, `waived` and `runs` of `harness.parity.foreign.trial.Options`.

        Raises:
            ScriptFailed: a script fails; the message names its seed and a small script that fails in the same way.
            NotCovered: something that the ring can do occurred in no script.
            NothingCompared: nothing was compared, or nothing within a bound.
            InvalidInput: the adapter lacks a method, or an option is out of range.
        """
        __tracebackhide__ = True
        from harness.parity.foreign import trial  # noqa: PLC0415 - imports torch

        rings = _rings(make, plain, fast)
        return self._kept(trial.run(*rings, count, seed, size, trial.Options(**options)))

    def replay(
        self,
        make: Callable[..., Any],
        script: ForeignScript,
        *,
        plain: Mapping[str, Any] | None = None,
        fast: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Proved:
        """Pass if one script, such as one that failed, passes now; arguments and errors as for the fixture itself."""
        __tracebackhide__ = True
        from harness.parity.foreign import trial  # noqa: PLC0415 - imports torch

        return self._kept(trial.replay(*_rings(make, plain, fast), script, trial.Options(**options)))

    def _kept(self, proved: Proved) -> Proved:
        kept = self._ledger.tolerance if proved.bounds else self._ledger.exact
        kept.append(f"script proof: {self._test}, {proved}")
        return proved


def _rings(
    make: Callable[..., Any], plain: Mapping[str, Any] | None, fast: Mapping[str, Any] | None
) -> tuple[Callable[[], Any], Callable[[], Any] | None]:
    return partial(make, **(plain or {})), None if fast is None else partial(make, **fast)


@pytest.fixture
def scripts(request: pytest.FixtureRequest) -> Iterator[Scripts]:
    """`scripts(make, fast={...})`: play random scripts on rings of any make; one torch thread."""
    with one_thread():
        yield Scripts(request)

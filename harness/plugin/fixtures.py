"""The fixtures `blessed`, `lockstep` and `cost_rail`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.plugin.ledger import LEDGER, NOTES, Notes
from harness.plugin.places import one_thread, place_of

if TYPE_CHECKING:
    from harness.engine.decoders import Decoder
    from harness.engine.executors import Executor
    from harness.parity.baselines.blessed import Rewritten
    from harness.parity.battery.scripts import Script
    from harness.parity.proofs.generic import Agreed
    from harness.rails.costs.block import Block
    from harness.rails.costs.rails import Counts

FIXTURES = ("blessed", "lockstep", "cost_rail")


class _Fixture:
    """What the fixtures share: the run's ledger, the test's notes, and where captures are."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._options = request.config.option
        self._ledger = request.config.stash[LEDGER]
        self._notes: Notes = request.node.stash.setdefault(NOTES, Notes())
        self._place = place_of(request.config)
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
        from harness.parity.baselines import blessed  # noqa: PLC0415 - imports torch

        again = what if callable(what) else None
        tree = what if again is None else again()
        device = blessed.device_of(tree)
        blessing = self._options.harness_bless is not None
        entry = (self._place.to_bless if blessing else self._place.folder)(blessed.BLESSED, device) / name
        self._settle(entry, lambda reason: blessed.bless(name, tree, again, self._place, reason, k))
        result = blessed.check(name, tree, self._place, k)
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
        from harness.parity.proofs import generic as by_event  # noqa: PLC0415 - imports torch

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
            script: what happens, see `harness.parity.battery.scripts`.
            decoder: a decoder, or a name that `harness.registry.decoder` knows.
            executor: makes an executor at every call; None is one of each kind that `--harness-executor` names.
            options: `others`, `max_rows`, `pin_rows`, `device`, as `harness.parity.proofs.lockstep.run` has them.

        Raises:
            Parted: the first tick, slot and stage that differ.
            NothingCompared: no tick made a tensor, or the switch had nothing to do.
            InvalidInput: no such switch, or the script asks for what is refused.
        """
        __tracebackhide__ = True
        from harness.engine.switches import SWITCHES  # noqa: PLC0415 - imports torch
        from harness.registry import ExecutorKind  # noqa: PLC0415 - imports torch

        named = [ExecutorKind(kind) for kind in self._options.harness_executor or [ExecutorKind.EAGER]]
        asked: Sequence[Any] = named if executor is None else [executor]
        free = executor is not None or switch not in SWITCHES or not SWITCHES[switch].needs_own_stream
        able = [kind for kind in asked if free or kind.has_own_stream(options.get("device", "cpu"))]
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
        from harness.parity.compare import NothingCompared  # noqa: PLC0415 - imports torch
        from harness.parity.proofs import lockstep  # noqa: PLC0415 - imports torch

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
        from harness.rails.costs.block import Block  # noqa: PLC0415 - imports torch

        with Block() as block:
            yield block
        self._judge(name, block.counts)

    def _judge(self, name: str, counts: Counts) -> None:
        __tracebackhide__ = True
        from harness.rails.costs import block  # noqa: PLC0415 - imports torch

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
    with one_thread():
        yield Blessed(request)


@pytest.fixture
def lockstep(request: pytest.FixtureRequest) -> Iterator[Lockstep]:
    """`lockstep(plain, fast, events)`: two engines, the same bytes after every event; one torch thread."""
    with one_thread():
        yield Lockstep(request)


@pytest.fixture
def cost_rail(request: pytest.FixtureRequest) -> Iterator[CostRail]:
    """`with cost_rail(name)`: exactly the operators, allocations, copies and host reads that were blessed."""
    with one_thread():
        yield CostRail(request)

"""One ring, played alone: everything that it reports, returns and holds, as one tree for the fixture `blessed`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from torch import Tensor

from harness.parity.bits import copied
from harness.parity.proofs.randomness import Isolation
from harness.parity.proofs.ring import alone
from harness.parity.proofs.stages import Place, Recorder
from harness.parity.trees import children, joined, positional
from harness.parity.values import encoded


def played(ring: object, events: Iterable[object], *, isolate: bool = True) -> dict[str, Any]:
    """Feed the events to a ring; return copies of its stages, of what it returned and of its state after every event.

    Paths name the place as a difference in lockstep does: `event-5/tick-3/guidance/slot-1/velocity`, `event-5/output`,
    `event-5/state`. A report without a slot has no step `slot-1`. For a ring that does not count ticks the step
    `stages` takes the place of `tick-3`.

    Args:
        ring: an engine with the protocol of `harness.parity.proofs.ring`, newly made. Of any other engine only the
            returned trees are kept.
        events: the events, as for `harness.parity.proofs.generic.run`.
        isolate: True restores the caller's random state after every event, so that a second ring that is played draws
            the same numbers.

    Raises:
        NotComparable: what the ring reports, returns or holds has another leaf than `trees.named` takes.
        InvalidInput: the ring's `ticks` is no integer, or one of its `generators` is none.
    """
    side = alone(ring)
    recorder, randomness = Recorder(side.ticks), Isolation([side.generators()], on=isolate)
    tree: dict[str, Any] = {}
    side.observe(recorder)
    try:
        for number, event in enumerate(events):
            recorder.seen.clear()
            with randomness.turn(0):
                output = _copy(side.call(event), "output")
                state = None if side.ring is None else _copy(side.ring.state(), "state")
            tree[f"event-{number}"] = {**_stages(recorder.seen), "output": output, "state": state}
    finally:
        side.observe(None)
    return tree


def _stages(seen: Mapping[Place, Tensor]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for place, tensor in seen.items():
        below = tree.setdefault("stages" if place.tick is None else f"tick-{place.tick}", {}).setdefault(
            place.stage, {}
        )
        if place.slot is not None:
            below = below.setdefault(f"slot-{place.slot}", {})
        below[place.name + (f"#{place.again + 1}" if place.again else "")] = tensor
    return tree


def _copy(tree: object, path: str) -> Any:
    """Copy a tree with its structure; a dataclass becomes a mapping of its fields."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return copied(tree, path)
    below = children(tree)
    if below is None:
        encoded(tree, path)  # refuses what cannot be compared
        return copy(tree)
    copies = [_copy(child, joined(path, step)) for step, child in below.items()]
    if positional(tree):
        return copies
    keys = tree if isinstance(tree, Mapping) else [step.removeprefix("/") for step in below]
    return dict(zip(keys, copies, strict=True))

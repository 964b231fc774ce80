"""Lockstep of two foreign engines: both get the same events, and their results are compared byte for byte.

`harness.parity.proofs.lockstep` knows this project's pipeline and compares the stages of its ticks. This module knows
nothing of an engine and compares only the tree that an engine returns after an event. State that the proof must cover
has to be part of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import Difference, NothingCompared, named_differences, tree_differences
from harness.parity.differences import LOCKSTEP
from harness.parity.trees import leaves, named
from harness.parity.values import is_array

LONGEST = 200
"""Largest number of characters of an event in a message."""


class EnginesParted(AssertionError):
    """Two engines differ after the same events.

    Attributes:
        event: number of the first event after which the engines differ, from 0.
        path: path of the first tensor in the tree that differs; empty where the difference is not one of tensors.
        differences: all differences after that event.
    """

    def __init__(self, event: int, what: object, detail: str, differences: Iterable[Difference] = ()) -> None:
        """Name the event after which the engines differ, and the differences."""
        self.event, self.differences = event, tuple(differences)
        self.path = self.differences[0].name if self.differences else ""
        lines = [detail] if detail else [difference.told(LOCKSTEP) for difference in self.differences]
        super().__init__("\n  ".join([f"plain and fast differ at event {event}, {_short(what)}:", *lines]))


@dataclass(frozen=True)
class Agreed:
    """Number of events, and of tensors after them, that were compared and are the same."""

    events: int
    tensors: int


def run(plain: object, fast: object, events: Iterable[object]) -> Agreed:
    """Feed every event to `plain`, then to `fast`, and compare the trees that they return.

    Args:
        plain: the reference engine. An event that can be called, such as `operator.methodcaller("tick")`, is called
            with the engine; the engine is called with any other event.
        fast: the engine that must return the same bytes.
        events: the events, in order. Both engines read the tensors of an event, so neither may write to them.

    Raises:
        EnginesParted: the engines return different trees, only one raises, one writes to an event's tensors, or both
            return a NaN.
        NothingCompared: after no event did the engines return a tensor with an element.
        NotComparable: an engine returns anything but a tree of tensors; see `trees.named`.
        InvalidInput: `plain` and `fast` are the same object.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    if plain is fast:
        raise InvalidInput("fast", "the same object as plain", "another object: nothing differs from itself")
    count, elements, tensors = 0, 0, 0
    for count, event in enumerate(events, start=1):
        first = _both(plain, fast, event, count - 1)
        tensors += sum(tensor.numel() > 0 for tensor in first.values())
        elements += sum(tensor.numel() for tensor in first.values())
    if not elements:
        raise NothingCompared(f"none of {count} events made the engines return a tensor with an element")
    return Agreed(count, tensors)


def nans(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN; equal NaNs may have different causes and prove nothing."""
    numbers = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() or tensor.is_complex()}
    return [name for name, tensor in numbers.items() if bool(torch.isnan(tensor).any())]


def _both(plain: object, fast: object, event: object, number: int) -> dict[str, Tensor]:
    """Feed one event to both engines; return the tensors of their equal results."""
    __tracebackhide__ = True
    given = _inputs(event)
    results, errors = [], []
    for name, engine in (("plain", plain), ("fast", fast)):
        # Copied before the other engine runs, because the engines may share a buffer.
        result, error = _outcome(engine, event)
        results.append(result)
        errors.append(error)
        if named_differences(_inputs(event), given):
            raise EnginesParted(number, event, f"{name} wrote to the event's own tensors, which both engines read")
    words = [_words(error) for error in errors]
    if words[0] != words[1]:
        raise EnginesParted(number, event, f"plain {words[0]}, fast {words[1]}")
    if errors[0] is not None:
        raise errors[0]
    differences = tree_differences(results[1], results[0])
    if differences:
        raise EnginesParted(number, event, "", differences)
    if nans(results[0]):
        raise EnginesParted(number, event, f"{nans(results[0])[0]} is NaN in both: equal NaNs prove nothing")
    return results[0]


def _outcome(engine: Any, event: object) -> tuple[dict[str, Tensor], Exception | None]:
    call: Callable[[], object] = (lambda: event(engine)) if callable(event) else (lambda: engine(event))
    try:
        result = call()
    except Exception as error:  # noqa: BLE001 - any exception that only one engine raises is a difference
        return {}, error
    return named(result), None


def _inputs(event: object) -> dict[str, Tensor]:
    """Copy the tensors and arrays of an event, by path; other leaves are left out."""
    return named({path: leaf for path, leaf in leaves(event) if isinstance(leaf, Tensor) or is_array(leaf)})


def _words(error: Exception | None) -> str:
    return "returns" if error is None else f"raises {type(error).__name__}: {error}"


def _short(event: object) -> str:
    text = repr(event)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."

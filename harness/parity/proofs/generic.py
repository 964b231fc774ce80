"""Two engines of any make fed the same events, and compared byte for byte after each of them.

`harness.parity.proofs.lockstep` knows the pipeline and looks into its ticks. This module knows nothing of an engine:
only what the engine returns after an event is compared. State that belongs to the proof has to be in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import Difference, NothingCompared, copied, named_differences
from harness.parity.trees import leaves, named

LONGEST = 200
"""Characters of an event in a report."""


class EnginesParted(AssertionError):
    """Two engines that were fed the same events are not the same.

    Attributes:
        event: the number of the first event after which they differ, from 0.
        path: the first place in the tree that differs; empty where it is no tensor that does.
        differences: all of them after that event.
    """

    def __init__(self, event: int, what: object, detail: str, differences: Iterable[Difference] = ()) -> None:
        """Say after which event they part, and how."""
        self.event, self.differences = event, tuple(differences)
        self.path = self.differences[0].name if self.differences else ""
        lines = [detail] if detail else [str(difference) for difference in self.differences]
        super().__init__("\n  ".join([f"plain and fast part at event {event}, {_short(what)}:", *lines]))


@dataclass(frozen=True)
class Agreed:
    """What was compared, and found the same: how many events, and how many tensors after them."""

    events: int
    tensors: int


def run(plain: object, fast: object, events: Iterable[object]) -> Agreed:
    """Feed every event to `plain`, then to `fast`, and compare the trees that they return.

    Args:
        plain: the engine that is right. An event that can be called is called with the engine, such as
            `operator.methodcaller("tick")`; the engine is called with any other.
        fast: the one that must be the same.
        events: what happens, in order. Tensors in them are read by both, so neither may write to them.

    Raises:
        EnginesParted: they return other trees, one alone fails or writes to an event, or both return a NaN.
        NothingCompared: no event made them return a tensor with an element.
        NotComparable: they return something else than trees of tensors, see `trees.named`.
        InvalidInput: both are one object.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    if plain is fast:
        raise InvalidInput("fast", "the very object that plain is", "another one: nothing differs from itself")
    count, elements, tensors = 0, 0, 0
    for count, event in enumerate(events, start=1):
        first = _both(plain, fast, event, count - 1)
        tensors += sum(tensor.numel() > 0 for tensor in first.values())
        elements += sum(tensor.numel() for tensor in first.values())
    if not elements:
        raise NothingCompared(f"none of {count} events made plain or fast return a tensor with an element")
    return Agreed(count, tensors)


def nans(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those with a NaN: it equals itself, whatever made it."""
    numbers = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() or tensor.is_complex()}
    return [name for name, tensor in numbers.items() if bool(torch.isnan(tensor).any())]


def _both(plain: object, fast: object, event: object, number: int) -> dict[str, Tensor]:
    """What both return after one event, the same."""
    __tracebackhide__ = True
    given = _inputs(event)
    results, errors = [], []
    for name, engine in (("plain", plain), ("fast", fast)):
        # Copied before the other one runs: they may share a buffer.
        result, error = _outcome(engine, event)
        results.append(result)
        errors.append(error)
        if named_differences(_inputs(event), given):
            raise EnginesParted(number, event, f"{name} wrote to the event's own tensors, so the other reads others")
    words = [_words(error) for error in errors]
    if words[0] != words[1]:
        raise EnginesParted(number, event, f"plain {words[0]}, fast {words[1]}")
    if errors[0] is not None:
        raise errors[0]
    differences = named_differences(results[1], results[0])
    if differences:
        raise EnginesParted(number, event, "", differences)
    if nans(results[0]):
        raise EnginesParted(number, event, f"{nans(results[0])[0]} is NaN in both: their equality says nothing")
    return results[0]


def _outcome(engine: Any, event: object) -> tuple[dict[str, Tensor], Exception | None]:
    call: Callable[[], object] = (lambda: event(engine)) if callable(event) else (lambda: engine(event))
    try:
        result = call()
    except Exception as error:  # noqa: BLE001 - whatever it is: raised by one side alone it is a difference
        return {}, error
    return named(result), None


def _inputs(event: object) -> dict[str, Tensor]:
    """Copies of the tensors in an event, whatever else is in it."""
    return {path: copied(leaf, path) for path, leaf in leaves(event) if isinstance(leaf, Tensor)}


def _words(error: Exception | None) -> str:
    return "returns" if error is None else f"raises {type(error).__name__}: {error}"


def _short(event: object) -> str:
    text = repr(event)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."

"""Outputs that engines handed out in earlier events, compared again with copies after every turn of an engine.

An engine may hand out a view of a buffer that a later event reuses. Such an output is right when it is compared first,
and wrong when its receiver reads it later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import Difference, difference, identical
from harness.parity.trees import leaves
from harness.parity.values import array_name, in_memory, is_array

REMEMBERED = 64
"""Default number of events whose outputs are compared again."""


@dataclass(frozen=True)
class Output:
    """A tensor that an engine handed out.

    Attributes:
        side: name of the side.
        event: number of the event that made the tensor.
        path: path of the tensor in the tree that the engine returned.
        tensor: the tensor itself, which may share memory with the engine; of a NumPy array a tensor in its memory.
        copy: copy made when the tensor was handed out.
    """

    side: str
    event: int
    path: str
    tensor: Tensor
    copy: Tensor


@dataclass(frozen=True)
class Changed:
    """An output that changed after it was handed out: `turn` is the side whose turn changed it."""

    output: Output
    turn: str
    difference: Difference


class HandedOut:
    """The outputs of the last events, of both sides.

    The object holds the outputs themselves and a copy of each on the CPU, so its memory is bounded by twice what both
    sides hand out in `remember` events. Older outputs are forgotten.

    Args:
        remember: number of the last events whose outputs are compared again; 0 compares none.

    Attributes:
        compared: number of comparisons of earlier outputs with their copies.

    Raises:
        InvalidInput: a number of events below 0.
    """

    def __init__(self, remember: int = REMEMBERED) -> None:
        if remember < 0:
            raise InvalidInput("remember", remember, "a number of events, 0 or above")
        self.compared = 0
        self._remember = remember
        self._outputs: deque[list[Output]] = deque(maxlen=remember)

    def event(self) -> None:
        """Begin an event; the oldest one is forgotten if too many are kept."""
        if self._remember:
            self._outputs.append([])

    def keep(self, side: str, event: int, tree: object, copies: Mapping[str, Tensor]) -> None:
        """Keep what a side handed out in the event that began last.

        Args:
            side: name of the side.
            event: number of the event.
            tree: what the side handed out.
            copies: copies of the leaves of `tree`, as `trees.named` makes them.
        """
        if self._remember:
            shared = ((path, *_shared(leaf, path)) for path, leaf in leaves(tree))
            found = ((path, name, tensor) for path, name, tensor in shared if tensor is not None and tensor.numel())
            self._outputs[-1] += [Output(side, event, path, tensor, copies[name]) for path, name, tensor in found]

    def changed(self, turn: str) -> Changed | None:
        """Return the first kept output that differs from its copy, or None; `turn` is the side that ran last."""
        for output in self._all():
            self.compared += 1
            if not identical(output.tensor, output.copy):
                found = difference(output.tensor, output.copy, output.path)
                return Changed(output, turn, found) if found else None
        return None

    def _all(self) -> Iterator[Output]:
        for outputs in self._outputs:
            yield from outputs


def _shared(leaf: object, path: str) -> tuple[str, Tensor | None]:
    """Name among the copies, and a tensor in the leaf's own memory; None for a leaf that nobody can write to."""
    if isinstance(leaf, Tensor):
        return path, leaf
    return (array_name(path), in_memory(leaf)) if is_array(leaf) else (path, None)

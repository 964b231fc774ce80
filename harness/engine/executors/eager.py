"""Runs a decoder as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.decoders.base import Decoder
from harness.engine.errors import PipelineClosed
from harness.engine.executors.base import Batch, ExecutorStream, check_rows


class EagerExecutor:
    """Calls a decoder directly.

    Args:
        decoder: any callable with the decoder's signature; one with `takes_mask = False` is called without the mask.
        max_rows: the most rows of one run.
        pin_rows: always run this many rows, the unused ones repeating the first. A row's bits then do not depend on
            how many rows run with it, and a run costs what `pin_rows` rows cost. It lowers `max_rows` to itself.
    """

    def __init__(self, decoder: Decoder, max_rows: int = 8, pin_rows: int | None = None) -> None:
        """See the class."""
        checks.integer("max_rows", max_rows, 1)
        if pin_rows is not None:
            max_rows = min(max_rows, checks.integer("pin_rows", pin_rows, 1))
        self.decoder = decoder
        self.max_rows = max_rows
        self.pin_rows = pin_rows
        self.takes_mask = bool(getattr(decoder, "takes_mask", True))
        self.stream: ExecutorStream | None = None
        self._closed = False

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]`; see `Executor.run`."""
        return self.decode(self.prepared(batch))[: batch.rows]

    def prepared(self, batch: Batch) -> Batch:
        """The batch as the decoder gets it: with its rows pinned.

        Raises:
            PipelineClosed: after `close`.
            BatchTooLarge: more than `max_rows` rows.
        """
        if self._closed:
            raise PipelineClosed("the executor is closed")
        check_rows(batch, self.max_rows)
        return batch if self.pin_rows is None else pin(batch, self.pin_rows)

    def decode(self, prepared: Batch) -> Tensor:
        """The decoder's velocity of every row."""
        inputs = prepared.tensors()
        if not self.takes_mask:
            del inputs["encoder_mask"]
        with torch.no_grad():
            return self.decoder(**inputs)

    def close(self) -> None:
        """Refuse further runs; the decoder stays the caller's."""
        self._closed = True


def pin(batch: Batch, rows: int) -> Batch:
    """The batch with `rows` rows, the first one repeated at the end."""
    missing = rows - batch.rows
    if missing == 0:
        return batch
    return Batch(**{name: torch.cat([t, *[t[:1]] * missing]) for name, t in batch.tensors().items()})

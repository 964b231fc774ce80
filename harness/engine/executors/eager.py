"""The executor that calls a decoder directly, without compilation or static buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.engine import checks
from harness.engine.decoders.base import Decoder
from harness.engine.errors import PipelineClosed
from harness.engine.executors.base import Batch, Declared, ExecutorStream, check_rows


class EagerExecutor:
    """Calls a decoder directly.

    Args:
        decoder: any callable with the signature of `Decoder`; a decoder with `takes_mask = False` is called without the
            mask.
        max_rows: the largest number of rows of one run, at least 1.
        pin_rows: run exactly this number of rows every time; unused rows repeat the first row. The bits of a row then
            do not depend on the number of rows in the batch, but every run costs as much as `pin_rows` rows. `max_rows`
            becomes at most `pin_rows`. None: run the rows of the batch.

    Raises:
        InvalidInput: `max_rows` or `pin_rows` is below 1.
    """

    def __init__(self, decoder: Decoder, max_rows: int = 8, pin_rows: int | None = None) -> None:
        checks.integer("max_rows", max_rows, 1)
        if pin_rows is not None:
            max_rows = min(max_rows, checks.integer("pin_rows", pin_rows, 1))
        self.decoder = decoder
        self.max_rows = max_rows
        self.pin_rows = pin_rows
        self.takes_mask = bool(getattr(decoder, "takes_mask", True))
        self.declares = Declared.of_decoder(decoder)
        self.stream: ExecutorStream | None = None
        self._closed = False

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]`; see `Executor.run`."""
        made: Any = self.decode(self.prepared(batch))
        return made[: batch.rows] if isinstance(made, Tensor) else made

    def prepared(self, batch: Batch) -> Batch:
        """The batch as the decoder gets it: padded to `pin_rows` rows.

        Raises:
            PipelineClosed: the executor is closed.
            BatchTooLarge: the batch has more than `max_rows` rows.
        """
        if self._closed:
            raise PipelineClosed("the executor is closed")
        check_rows(batch, self.max_rows)
        return batch if self.pin_rows is None else pin(batch, self.pin_rows)

    def decode(self, prepared: Batch) -> Tensor:
        """The decoder's velocity `[N, T, D]` of every row, padding included."""
        inputs = prepared.tensors()
        if not self.takes_mask:
            del inputs["encoder_mask"]
        with torch.no_grad():
            return self.decoder(**inputs)

    def close(self) -> None:
        """Refuse further runs. The decoder belongs to the caller and is not freed."""
        self._closed = True


def pin(batch: Batch, rows: int) -> Batch:
    """The batch padded to `rows` rows with copies of its first row."""
    missing = rows - batch.rows
    if missing == 0:
        return batch
    return Batch(**{name: torch.cat([t, *[t[:1]] * missing]) for name, t in batch.tensors().items()})

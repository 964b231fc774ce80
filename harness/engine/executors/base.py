"""What an executor is: it runs a decoder on one batch of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

from torch import Tensor

from harness.engine.errors import BatchTooLarge


@dataclass(frozen=True, eq=False)
class Batch:
    """The decoder's input for one run of N rows. Tensors are never written to.

    Attributes:
        hidden_states: `[N, T, D]` float32, the latents.
        timestep: `[N]` float32 in [0, 1]; 1 is pure noise.
        encoder_hidden_states: `[N, L, E]`, zero-padded to the pipeline's encoder length.
        encoder_mask: `[N, L]` bool; True where a row is attended, False on the ring's padding.
        context_latents: `[N, T, C]`, source latents and chunk mask, `C = 2*D`.
    """

    hidden_states: Tensor
    timestep: Tensor
    encoder_hidden_states: Tensor
    encoder_mask: Tensor
    context_latents: Tensor

    @property
    def rows(self) -> int:
        """The number of rows N."""
        return self.hidden_states.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, in the decoder's order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class ExecutorStream(Protocol):
    """Work that runs in the order it was launched, beside torch's current stream; see `executors.stream`."""

    def launch(self, work: Callable[[], None]) -> None:
        """Queue `work` after everything launched so far, after what the current stream holds at this moment, and after
        what every stream that waited for an earlier launch holds.
        """
        ...

    def join(self) -> None:
        """Make the current stream wait for everything launched so far. The host goes on at once."""
        ...

    def wait(self) -> None:
        """Make the host wait for everything launched so far, and for what that waited for."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Runs a decoder on a batch.

    Attributes:
        max_rows: the most rows one `run` takes; also the ring's largest depth.
        takes_mask: whether `encoder_mask` reaches the decoder. Where it does not, padding would be attended, and the
            pipeline refuses conditions of unequal lengths.
        stream: the executor's own stream; None where it runs on torch's current one. With a stream of its own, what
            `run` returns is not computed yet: `stream.join()` or `stream.wait()` comes before it is read, and the
            batch is kept until then.
    """

    max_rows: int
    takes_mask: bool
    stream: ExecutorStream | None

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]` of every row, in any floating dtype.

        The returned tensor **may be a view of a buffer that the next `run` overwrites**: whoever needs it longer
        copies it.

        Raises:
            BatchTooLarge: more than `max_rows` rows.
        """
        ...

    def close(self) -> None:
        """Free what the executor holds. Calling it twice is fine."""
        ...


def check_rows(batch: Batch, max_rows: int) -> None:
    """Raise `BatchTooLarge` where `batch` has more than `max_rows` rows."""
    if batch.rows > max_rows:
        raise BatchTooLarge(f"a run of {batch.rows} rows was asked of an executor whose max_rows is {max_rows}")

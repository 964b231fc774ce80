"""The interface of executors: an executor runs a decoder on one batch of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine.errors import BatchTooLarge, WrongVelocity


@dataclass(frozen=True, eq=False)
class Batch:
    """The decoder's input for one run of N rows. The tensors are read-only.

    Attributes:
        hidden_states: latents `[N, T, D]`, float32.
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
        """The tensors by name, in the order of the decoder's arguments."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Declared:
    """Facts of a decoder that are known before it runs; None where they are not.

    Attributes:
        channels: latent channels D.
        encoder_dim: encoder width E.
        dtype: dtype of the velocity that the executor returns.
    """

    channels: int | None = None
    encoder_dim: int | None = None
    dtype: torch.dtype | None = None

    @classmethod
    def of_decoder(cls, decoder: object) -> Declared:
        """The facts of a decoder that names both widths in `channels` and `encoder_dim`, and its dtype in `dtype`."""
        found = {name: getattr(decoder, name, None) for name in ("channels", "encoder_dim")}
        dtype = getattr(decoder, "dtype", None)
        widths = found if all(isinstance(width, int) for width in found.values()) else {}
        return cls(**widths, dtype=dtype if isinstance(dtype, torch.dtype) else None)


def declared(executor: object) -> Declared:
    """What an executor declares in its attribute `declares`; nothing where it has none."""
    found: Declared = getattr(executor, "declares", Declared())
    return found


class ExecutorStream(Protocol):
    """A queue of work that runs in launch order, asynchronously to torch's current stream; see `executors.stream`."""

    def launch(self, work: Callable[[], None]) -> None:
        """Queue `work`. It starts after all earlier launches, after the work that is now on torch's current stream, and
        after the work on every stream that waited for an earlier launch.
        """
        ...

    def join(self) -> None:
        """Make the current stream wait for all launches so far. The host does not wait."""
        ...

    def wait(self) -> None:
        """Make the host wait for all launches so far, and for the work that the launches waited for."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Runs a decoder on a batch, for one thread at a time; see `harness.engine.turns`.

    Attributes:
        max_rows: the largest number of rows of one `run`; also the ring's largest depth.
        takes_mask: True if `encoder_mask` reaches the decoder. If False, padding would be attended, so the pipeline
            refuses conditions of unequal lengths.
        stream: the executor's own stream; None if the executor runs on torch's current stream. With an own stream, the
            velocity that `run` returns is not computed yet: call `stream.join()` or `stream.wait()` before reading the
            velocity, and keep the batch until then.
    """

    max_rows: int
    takes_mask: bool
    stream: ExecutorStream | None

    def run(self, batch: Batch) -> Tensor:
        """The velocity `[N, T, D]` of every row, in any floating dtype.

        The returned tensor **may be a view of a buffer that the next `run` overwrites**: copy a velocity that is used
        after the next run.

        Raises:
            BatchTooLarge: the batch has more than `max_rows` rows.
        """
        ...

    def close(self) -> None:
        """Free the executor's resources. A second call does nothing."""
        ...


def velocity_of(made: object, shape: torch.Size, dtype: torch.dtype | None, maker: str = "executor") -> Tensor:
    """Return what a decoder or an executor made, if it is a velocity.

    Args:
        made: any object.
        shape: the shape `[N, T, D]` that it must have.
        dtype: its dtype; None allows any floating dtype.
        maker: who made it, for the error message.

    Raises:
        WrongVelocity: it is no floating tensor of this shape and dtype.
    """
    if isinstance(made, Tensor) and made.shape == shape and made.is_floating_point() and dtype in (None, made.dtype):
        return made
    kind = "floating" if dtype is None else str(dtype)
    raise WrongVelocity(f"the {maker} returned {_words(made)} for rows of {list(shape)}, expected a {kind} tensor")


def _words(made: object) -> str:
    if isinstance(made, Tensor):
        return f"a {made.dtype} tensor of {list(made.shape)}"
    return "None" if made is None else f"an object of type {type(made).__name__}"


def check_rows(batch: Batch, max_rows: int) -> None:
    """Raise `BatchTooLarge` if `batch` has more than `max_rows` rows."""
    if batch.rows > max_rows:
        raise BatchTooLarge(f"a batch of {batch.rows} rows: the executor's max_rows is {max_rows}")

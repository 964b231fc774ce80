"""Records that a pipeline returns: submissions, finished latents, counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from harness.engine.conditioning import CacheCounts


class DropReason(StrEnum):
    """The reason why a waiting request was dropped."""

    QUEUE_FULL = "queue_full"
    LENGTH_CHANGED = "length_changed"


@dataclass(frozen=True)
class Dropped:
    """A waiting request that was dropped because of a submission.

    Attributes:
        id: the request's name.
        reason: the reason.
    """

    id: str | int
    reason: DropReason


@dataclass(frozen=True)
class Submission:
    """The result of `submit`.

    Attributes:
        id: the name of the new request.
        dropped: the waiting requests that were dropped for the new one.
    """

    id: str | int
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished latent, which belongs to the caller: no later tick writes to its memory.

    Attributes:
        id: the request's name.
        latent: float32 `[1, T, D]`.
        seed: the request's seed.
        steps: the number of steps that the request ran.
        denoise: the request's denoise.
        ticks_in_flight: the number of ticks that the request was in the ring.
    """

    id: str | int
    latent: Tensor
    seed: int
    steps: int
    denoise: float
    ticks_in_flight: int


@dataclass(frozen=True)
class Stats:
    """Counts since the pipeline was made, and its present state.

    Attributes:
        ticks: the number of committed ticks.
        submitted: the number of accepted requests.
        admitted: the number of requests that entered the ring.
        finished: the number of finished latents.
        dropped: the number of dropped requests.
        decoder_runs: the number of executor runs of committed ticks.
        decoder_rows: the number of rows of these runs.
        joins: the number of waits, of the current stream or the host, for runs on an executor's own stream.
        euler_steps: the number of slot steps on the plain Euler path.
        gates: the number of checks if a curve is neutral.
        depth: the present number of slots for new requests.
        in_flight: the present number of occupied slots.
        queued: the present number of waiting requests.
        conditioning: hits, misses and evictions of the conditioning cache; failed ticks are included.
    """

    ticks: int = 0
    submitted: int = 0
    admitted: int = 0
    finished: int = 0
    dropped: int = 0
    decoder_runs: int = 0
    decoder_rows: int = 0
    joins: int = 0
    euler_steps: int = 0
    gates: int = 0
    depth: int = 0
    in_flight: int = 0
    queued: int = 0
    conditioning: CacheCounts = CacheCounts()

"""Records that a pipeline hands out: submissions, finished latents, counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from harness.engine.conditioning import CacheCounts


class DropReason(StrEnum):
    """Why a request was displaced."""

    QUEUE_FULL = "queue_full"
    LENGTH_CHANGED = "length_changed"


@dataclass(frozen=True)
class Dropped:
    """A request that a submission displaced."""

    id: str | int
    reason: DropReason


@dataclass(frozen=True)
class Submission:
    """What `submit` did: the new request's name, and whatever it displaced."""

    id: str | int
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, eq=False)
class Finished:
    """A generated latent. It is the caller's: no later tick changes it.

    Attributes:
        id: the request's name.
        latent: float32 `[1, T, D]`.
        seed: the request's.
        steps: how many steps it ran.
        denoise: the request's.
        ticks_in_flight: how many ticks it was in the ring.
    """

    id: str | int
    latent: Tensor
    seed: int
    steps: int
    denoise: float
    ticks_in_flight: int


@dataclass(frozen=True)
class Stats:
    """Counts since the pipeline was made, and what it holds now.

    Attributes:
        ticks: committed ticks.
        submitted: accepted requests.
        admitted: requests that entered the ring.
        finished: latents handed out.
        dropped: requests displaced.
        decoder_runs: executor runs of committed ticks.
        decoder_rows: rows of those runs.
        joins: runs on a stream of the executor's own, which the current stream, or the host, waited for.
        euler_steps: steps of slots on the plain Euler path.
        gates: questions whether a curve is neutral.
        depth: places that take new requests.
        in_flight: occupied places.
        queued: waiting requests.
        conditioning: hits, misses and evictions of the conditioning cache, those of ticks that failed too.
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

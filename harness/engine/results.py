"""Records that a pipeline returns: submissions, finished latents, failed requests, counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from torch import Tensor

from harness.engine.conditioning import CacheCounts
from harness.engine.errors import RequestFailed


class DropReason(StrEnum):
    """Reason for which a submission displaced a request.

    `queue_full`: the queue already held `depth` requests. `length_changed`: the new request has another length T.
    """

    QUEUE_FULL = "queue_full"
    LENGTH_CHANGED = "length_changed"


@dataclass(frozen=True)
class Dropped:
    """A request, waiting or in flight, that was dropped because of a submission.

    Attributes:
        id: the request's name.
        reason: the reason.
    """

    id: str | int
    reason: DropReason


@dataclass(frozen=True)
class Submission:
    """Result of a submission: the new request's name, and the requests that it displaced."""

    id: str | int
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, eq=False)
class Finished:
    """A generated latent, which no later tick changes.

    Attributes:
        id: the request's name.
        latent: float32 `[1, T, D]`.
        seed: the request's seed.
        steps: number of steps that the request ran.
        denoise: the request's denoising strength.
        ticks_in_flight: number of ticks that the request was in the ring.
    """

    id: str | int
    latent: Tensor
    seed: int
    steps: int
    denoise: float
    ticks_in_flight: int


class FailReason(StrEnum):
    """Reason for which a request failed after it was accepted.

    `input_not_finite`: a tensor of the request that lies on a GPU holds a value that is not finite in float32. On the
    CPU such a tensor is refused when the record is made.
    """

    INPUT_NOT_FINITE = "input_not_finite"


@dataclass(frozen=True)
class Failed:
    """A request that failed in the ring; no latent comes of it.

    Every other request has the bits that it has without it, on an executor whose rows do not depend on the number of
    rows in a run, such as one with pinned rows.

    Attributes:
        id: the request's name.
        reason: the reason.
        step: number of steps whose results were kept until then.
        detail: the field and what was found in it, for people.
    """

    id: str | int
    reason: FailReason
    step: int
    detail: str


Outcome: TypeAlias = Finished | Failed
"""What a tick hands out for a request that leaves the ring."""


def all_finished(outcomes: Iterable[Outcome]) -> list[Finished]:
    """Return what a tick handed out, where every request finished.

    Raises:
        RequestFailed: a request failed.
    """
    told = tuple(outcomes)
    for outcome in told:
        if isinstance(outcome, Failed):
            message = f"request {outcome.id!r} failed after {outcome.step} steps: {outcome.detail}"
            raise RequestFailed(message, told)
    return [outcome for outcome in told if isinstance(outcome, Finished)]


@dataclass(frozen=True)
class Stats:
    """Counts since the pipeline was made, and the pipeline's present state.

    Attributes:
        ticks: committed ticks.
        submitted: accepted requests.
        admitted: requests that entered the ring.
        finished: latents handed out.
        failed: requests that failed in the ring.
        dropped: requests displaced.
        decoder_runs: executor runs of committed ticks.
        decoder_rows: rows of those runs.
        joins: decoder runs on an executor's own stream, each waited for by the current stream or by the host.
        euler_steps: steps of slots on the plain Euler path.
        gates: neutrality checks of curves.
        depth: places that take new requests, now.
        in_flight: occupied places, now.
        queued: waiting requests, now.
        waits: how often a tick made the host wait for a GPU: because the host was `max_ticks_ahead` ticks ahead of it,
            or for the tensors of a request that ends before they are due. Ticks that raised are counted too. Depends on
            timing.
        conditioning: hits, misses and evictions of the conditioning cache, including those of failed ticks.
    """

    ticks: int = 0
    submitted: int = 0
    admitted: int = 0
    finished: int = 0
    failed: int = 0
    dropped: int = 0
    decoder_runs: int = 0
    decoder_rows: int = 0
    joins: int = 0
    euler_steps: int = 0
    gates: int = 0
    depth: int = 0
    in_flight: int = 0
    queued: int = 0
    waits: int = 0
    conditioning: CacheCounts = CacheCounts()

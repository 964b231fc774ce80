"""Records that a pipeline returns: submissions, finished latents, failed requests, counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from harness.engine.conditioning import CacheCounts
from harness.engine.errors import RequestFailed


class DropReason(StrEnum):
    """Reason for which a request was dropped.

    `queue_full`: the queue held more than `depth` requests. `length_changed`: a new request has another length T.
    `cancelled`: its name was given to `cancel`.
    """

    QUEUE_FULL = "queue_full"
    LENGTH_CHANGED = "length_changed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Dropped:
    """A request, waiting or in flight, that was dropped by a call: a submission, a change of depth, a cancellation.

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
    CPU such a tensor is refused when the record is made. `callback`: `strength_at` raised an exception or returned a
    value out of range. `velocity_not_finite`: a decoder run made a value of the request's rows that is not finite in
    float32.
    """

    INPUT_NOT_FINITE = "input_not_finite"
    CALLBACK = "callback"
    VELOCITY_NOT_FINITE = "velocity_not_finite"


@dataclass(frozen=True)
class Failed:
    """A request that failed in the ring; no latent comes of it.

    Every other request has the bits that it has without it, on an executor whose rows do not depend on the number of
    rows in a run, such as one with pinned rows.

    Attributes:
        id: the request's name.
        reason: the reason.
        step: number of steps whose results were kept until then; for a velocity the first step that made a bad one.
        detail: the field or row, and what was found in it, for people.
    """

    id: str | int
    reason: FailReason
    step: int
    detail: str


class Outcomes(list[Finished]):
    """Latents that a tick or a drain hands out, in the order of the ring and of the ticks; with what else left.

    As a list it holds the latents alone, and equals any list of the same ones.

    Args:
        finished: the latents.
        failed: see `failed`.
        dropped: see `dropped`.

    Attributes:
        failed: requests that failed in the ring.
        dropped: requests that a call displaced while a tick was running that held them.
    """

    def __init__(
        self, finished: Iterable[Finished] = (), failed: Iterable[Failed] = (), dropped: Iterable[Dropped] = ()
    ) -> None:
        super().__init__(finished)
        self.failed: tuple[Failed, ...] = tuple(failed)
        self.dropped: tuple[Dropped, ...] = tuple(dropped)

    def joined(self, *others: Outcomes) -> Outcomes:
        """Return what is here, followed by what is in the others."""
        every = (self, *others)
        failed = [each for outcomes in every for each in outcomes.failed]
        dropped = [each for outcomes in every for each in outcomes.dropped]
        return Outcomes([each for outcomes in every for each in outcomes], failed, dropped)

    def __repr__(self) -> str:
        """The three parts."""
        return f"Outcomes({super().__repr__()}, failed={self.failed!r}, dropped={self.dropped!r})"


def all_finished(outcomes: Outcomes) -> list[Finished]:
    """Return what a tick handed out, where no request failed.

    Raises:
        RequestFailed: a request failed.
    """
    for each in outcomes.failed:
        message = f"request {each.id!r} failed after {each.step} steps: {each.detail}"
        raise RequestFailed(message, outcomes)
    return list(outcomes)


@dataclass(frozen=True)
class Stats:
    """Counts since the pipeline was made, and the pipeline's present state.

    Attributes:
        ticks: committed ticks.
        submitted: accepted requests.
        admitted: requests that entered the ring.
        finished: latents handed out.
        failed: requests that failed in the ring.
        dropped: requests dropped.
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

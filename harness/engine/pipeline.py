"""The streaming pipeline: owns the ring, the queue and the live controls; plans, runs and commits each tick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

import torch
from torch import Tensor

from harness.engine import checks, names
from harness.engine.conditioning import ConditioningCache, build
from harness.engine.config import DCW, PipelineConfig
from harness.engine.controls import Controls, SharedControl, check_frames, check_gain_channels, placed
from harness.engine.curve import Curve, CurveLike, curve, of_values
from harness.engine.errors import InvalidInput, PipelineClosed
from harness.engine.execute import Machinery, Observer, Stage, execute
from harness.engine.executors.base import Executor
from harness.engine.executors.stream import joiner
from harness.engine.geometry import Geometry, fix
from harness.engine.plan import Path, Queued, TickPlan, plan_tick
from harness.engine.ranges import FACTOR
from harness.engine.request import Request
from harness.engine.results import Dropped, DropReason, Finished, Stats, Submission
from harness.engine.schedule import known_timesteps
from harness.engine.slot import Slot, admit
from harness.engine.switches import Integrator


class StreamPipeline:
    """A streaming pipeline: keeps up to `depth` requests in flight and moves each one step a tick.

    A tick that fails (an executor's error, out of memory) leaves ring, queue and controls unchanged and can be run
    again. The pipeline does not close the executor, because other pipelines may use the same one.

    Args:
        executor: runs the decoder; `executor.max_rows` bounds the depth.
        config: the pipeline's configuration; None is `PipelineConfig()`.
        observe: called with every tensor of every stage, for comparisons; None in production.

    Raises:
        InvalidInput: a depth above `executor.max_rows`, or an object that is no `Executor`.
    """

    def __init__(self, executor: Executor, config: PipelineConfig | None = None, *, observe: Observer | None = None):
        checks.instance("executor", executor, Executor, "an Executor: max_rows, takes_mask, stream, run and close")
        self.config = config or PipelineConfig()
        self.executor = executor
        self._observe = observe
        self._check_depth("config.depth", self.config.depth)
        self._depth = self.config.depth
        self._ring: tuple[Slot | None, ...] = (None,) * self._depth
        self._queue: tuple[Queued, ...] = ()
        self._controls = Controls(shared={}, dcw=self.config.dcw)
        self._geometry: Geometry | None = None
        self._cache = ConditioningCache()
        self._stats = Stats()
        self._unused_name = 0
        self._closed = False

    # Public methods.

    @property
    def depth(self) -> int:
        """Number of places that take new requests."""
        return self._depth

    @property
    def max_depth(self) -> int:
        """Largest depth: the executor's `max_rows`."""
        return self.executor.max_rows

    @property
    def encoder_length(self) -> int | None:
        """Number of tokens that conditions are padded to; None if not configured and no request was submitted yet."""
        return self.config.encoder_length if self._geometry is None else self._geometry.encoder_length

    @property
    def slots(self) -> tuple[Slot | None, ...]:
        """The ring: a frozen `Slot` at each occupied place, None at each free one."""
        return self._ring

    def submit(self, request: Request) -> Submission:
        """Queue a request; return its name and the requests that it displaced.

        The queue holds `depth` requests; a submission to a full queue drops the oldest one. A request of another length
        T drops every request that is queued or in flight.

        A request without an id gets a name `request-N` that neither an earlier request of this pipeline nor a caller's
        id has had. Callers' ids need not differ from each other.

        Raises:
            InvalidInput: the request does not fit the pipeline, or its id is the automatic name of a request that is
                queued or in flight, or `request-` and more than 18 digits; the pipeline is unchanged.
            PipelineClosed: after `close`.
        """
        self._check_open()
        checks.instance("request", request, Request, "a Request")
        geometry = self._geometry or fix(request, self.config, takes_mask=self.executor.takes_mask)
        geometry.check(request)
        controls = placed(self._controls, geometry.device)
        check_frames(controls, request.frames)
        check_gain_channels(controls, request.channels)
        name, unused = self._name(request)
        times = known_timesteps(self.config.steps, request.denoise, self.config.shift)
        ring, waiting, dropped = self._ring, [*self._queue, Queued(name, request, times)], []
        if self._frames not in (None, request.frames):
            held = [slot.id for slot in ring if slot is not None] + [q.id for q in self._queue]
            dropped = [Dropped(id, DropReason.LENGTH_CHANGED) for id in held]
            ring, waiting = (None,) * self._depth, waiting[-1:]
        full = len(waiting) - self._depth
        dropped += [Dropped(q.id, DropReason.QUEUE_FULL) for q in waiting[: max(full, 0)]]
        self._geometry, self._controls = geometry, controls
        self._unused_name = unused
        self._ring, self._queue = ring, tuple(waiting[max(full, 0) :])
        self._stats = replace(
            self._stats, submitted=self._stats.submitted + 1, dropped=self._stats.dropped + len(dropped)
        )
        return Submission(name, tuple(dropped))

    def tick(self) -> list[Finished]:
        """Move every slot one step; return the latents that finished, in ring order.

        Raises:
            PipelineClosed: after `close`.
            Exception: any exception of the executor; the pipeline is unchanged.
        """
        self._check_open()
        with torch.no_grad():
            plan = self._plan()
            slots = {index: slot for index, slot in enumerate(self._ring) if slot is not None}
            for a in plan.admissions:
                slots[a.index] = admit(a.queued.id, a.queued.request, a.queued.times, plan.tick, masked=a.masked)
            moved = execute(plan, slots, self._machinery()) if plan.slots else {}
            return self._commit(plan, moved)

    def drain(self) -> list[Finished]:
        """Tick until nothing is queued or in flight; return every latent that finished, in order."""
        return [finished for batch in self._until_empty() for finished in batch]

    def set_shared_curve(self, name: str, value: CurveLike | None) -> None:
        """Override a value of every slot that the control acts on, from the next tick on.

        Args:
            name: `velocity_scale`, `noise_injection` (every slot), `sde_curve` (slots with a source),
                `guidance_scale`, `momentum`, `rescale` (guided slots) or `x0_strength` (slots with an x0 target
                without a curve).
            value: a number or a per-frame curve; None restores each request's own value.

        Raises:
            InvalidInput: another name, a value outside the range of the request's own value, or a curve whose length
                differs from the requests in flight.
            PipelineClosed: after `close`.
        """
        self._check_open()
        control = checks.member("name", name, SharedControl)
        shared = {key: held for key, held in self._controls.shared.items() if key is not control}
        if value is not None:
            shared[control] = curve(control.value, value, frames=self._frames, device=self._device, **control.bounds)
        self._controls = replace(self._controls, shared=shared)

    def set_channel_gain(self, gain: Tensor | None) -> None:
        """Multiply the decoder's input of every slot by a gain, from the next tick on; the slot's state is not scaled.

        Args:
            gain: `[1, T, D]` or `[1, 1, D]`, values from -50 to 50; copied. None is off.

        Raises:
            InvalidInput: another shape or device, or a value out of range.
            PipelineClosed: after `close`.
        """
        self._check_open()
        self._controls = replace(self._controls, channel_gain=None if gain is None else self._channel_gain(gain))

    def set_dcw(self, dcw: DCW | None) -> None:
        """Change the wavelet correction from the next tick on; None is off."""
        self._check_open()
        if dcw is not None:
            checks.instance("dcw", dcw, DCW, "a DCW or None")
        controls = replace(self._controls, dcw=dcw)
        self._controls = controls if self._device is None else placed(controls, self._device)

    def set_depth(self, depth: int) -> None:
        """Change the number of places that take new requests, from the next tick on.

        Slots beyond a smaller depth finish their requests. Queued requests stay queued; the next submission drops the
        oldest ones beyond the new depth.

        Raises:
            InvalidInput: a depth below 1 or above `max_depth`.
            PipelineClosed: after `close`.
        """
        self._check_open()
        self._check_depth("depth", depth)
        self._depth = depth
        self._ring = _resized(self._ring, depth)

    def stats(self) -> Stats:
        """Return the counts since the pipeline was made and its present state; allowed after `close`."""
        return replace(
            self._stats,
            depth=self._depth,
            in_flight=sum(slot is not None for slot in self._ring),
            queued=len(self._queue),
        )

    def close(self) -> None:
        """Release ring, queue and cached conditions; the executor stays open. A second call is allowed."""
        self._closed = True
        self._ring, self._queue = (), ()
        self._cache.clear()

    def __enter__(self) -> StreamPipeline:
        """Return the pipeline."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipeline."""
        self.close()

    # Parts of a tick.

    def _plan(self) -> TickPlan:
        return plan_tick(
            self._stats.ticks,
            self._ring,
            self._queue,
            self._controls,
            self.config,
            depth=self._depth,
            max_rows=self.executor.max_rows,
        )

    def _machinery(self) -> Machinery:
        if self._geometry is None:
            raise TypeError("the ring has slots, but no request has fixed the geometry")
        switches = self.config.switches
        return Machinery(
            executor=self.executor,
            conditioner=self._cache if switches.cached_conditioning else build,
            encoder_length=self._geometry.encoder_length,
            integrator=Integrator(switches.integrator),
            join=joiner(self.executor, joined=switches.joined_stream),
            observe=self._observe,
        )

    def _commit(self, plan: TickPlan, moved: dict[int, Slot]) -> list[Finished]:
        finishing = [p.index for p in plan.slots if p.finishes]
        finished = [_finished(moved[index], plan.tick) for index in finishing]
        ring = tuple(None if index in finishing else moved.get(index) for index in range(len(self._ring)))
        stats = replace(
            self._stats,
            ticks=plan.tick + 1,
            admitted=self._stats.admitted + len(plan.admissions),
            finished=self._stats.finished + len(finished),
            decoder_runs=self._stats.decoder_runs + len(plan.runs),
            decoder_rows=self._stats.decoder_rows + sum(len(rows) for rows in plan.runs),
            joins=self._stats.joins + (0 if self.executor.stream is None else len(plan.runs)),
            euler_steps=self._stats.euler_steps + sum(p.path is Path.EULER for p in plan.slots),
            gates=self._stats.gates + plan.gates,
            conditioning=self._cache.counts,
        )
        if self._observe is not None:
            for index, slot in moved.items():
                for name, tensor in slot.state().items():
                    self._observe(Stage.COMMIT, index, name, tensor)
        self._ring, self._queue = _resized(ring, self._depth), self._queue[len(plan.admissions) :]
        self._stats = stats
        return finished

    def _until_empty(self) -> Iterator[list[Finished]]:
        self._check_open()
        while self._queue or any(slot is not None for slot in self._ring):
            yield self.tick()

    # Facts and checks.

    @property
    def _frames(self) -> int | None:
        """Number of frames T of the requests that are queued or in flight; None where there are none."""
        requests = [slot.request for slot in self._ring if slot is not None] + [q.request for q in self._queue]
        return requests[0].frames if requests else None

    @property
    def _device(self) -> torch.device | None:
        return None if self._geometry is None else self._geometry.device

    def _name(self, request: Request) -> tuple[str | int, int]:
        """The request's name, and the number of the first automatic name that is unused then."""
        if request.id is None:
            number = max(self._stats.submitted, self._unused_name)
            return names.automatic(number), number + 1
        held = [(slot.id, slot.request) for slot in self._ring if slot is not None]
        held += [(queued.id, queued.request) for queued in self._queue]
        if request.id in [name for name, owner in held if owner.id is None]:
            raise InvalidInput("id", repr(request.id), "another name than an automatic one that is in the pipeline")
        return request.id, max(self._unused_name, names.beyond(request.id))

    def _channel_gain(self, gain: Tensor) -> Curve:
        channels = "D" if self._geometry is None else self._geometry.channels
        checks.tensor("channel_gain", gain, (1, "T", channels))
        if self._frames is not None and gain.shape[1] not in (1, self._frames):
            raise InvalidInput("channel_gain", checks.describe(gain), f"1 or {self._frames} frames")
        if self._device is not None:
            checks.same_device("channel_gain", gain, self._device)
        return curve("channel_gain", of_values(gain.detach().to(torch.float32, copy=True)), **FACTOR)

    def _check_depth(self, field: str, depth: int) -> None:
        checks.integer(field, depth, 1)
        if depth > self.max_depth:
            raise InvalidInput(field, depth, f"at most max_depth = {self.max_depth}, the executor's max_rows")

    def _check_open(self) -> None:
        if self._closed:
            raise PipelineClosed("the pipeline is closed")


def _finished(slot: Slot, tick: int) -> Finished:
    return Finished(
        id=slot.id,
        latent=slot.x,
        seed=slot.request.seed,
        steps=slot.total,
        denoise=slot.request.denoise,
        ticks_in_flight=tick - slot.admitted_at + 1,
    )


def _resized(ring: tuple[Slot | None, ...], depth: int) -> tuple[Slot | None, ...]:
    """Resize the ring to `depth` places, or up to the last occupied place where that lies beyond `depth`."""
    last = max((index for index, slot in enumerate(ring) if slot is not None), default=-1)
    size = max(depth, last + 1)
    return (*ring[:size], *(None,) * (size - len(ring)))

"""The streaming pipeline: owns the ring, the queue and the live controls; plans, runs and commits each tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

import torch
from torch import Tensor

from harness.engine import checks, names, once, records, transfer
from harness.engine.conditioning import ConditioningCache, build
from harness.engine.config import DCW, PipelineConfig
from harness.engine.controls import Controls, SharedControl, check_frames, check_gain_channels, placed
from harness.engine.curve import Curve, CurveLike, curve, per_channel
from harness.engine.errors import InvalidInput, PipelineClosed
from harness.engine.execute import Machinery, Observer, Stage, execute
from harness.engine.executors.base import Executor
from harness.engine.executors.stream import joiner
from harness.engine.geometry import Geometry, fix
from harness.engine.pace import HostPace, Pace, pace
from harness.engine.plan import Path, Queued, TickPlan, plan_tick
from harness.engine.ranges import FACTOR
from harness.engine.request import Request
from harness.engine.results import Dropped, DropReason, Failed, FailReason, Finished, Outcome, Stats, Submission
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
        self._pace: Pace = HostPace()
        self._early = 0
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

        The host does not wait for a GPU. Whether tensors on a GPU are finite is therefore not known yet; a request with
        one that is not fails at a later tick, see `tick`.

        A request without an id gets a name `request-N` that neither an earlier request of this pipeline nor a caller's
        id has had. Callers' ids need not differ from each other.

        Raises:
            InvalidInput: the request does not fit the pipeline, its id is the automatic name of a request that is
                queued or in flight, or `request-` and more than 18 digits, or the executor has not prepared its shape
                (`NotPrepared`); the pipeline is unchanged.
            PipelineClosed: after `close`.
        """
        self._check_open()
        checks.instance("request", request, Request, "a Request")
        geometry = self._geometry or fix(request, self.config, takes_mask=self.executor.takes_mask)
        geometry.check(request)
        geometry.check_prepared(self.executor, request.frames)
        controls = placed(self._controls, geometry.device)
        check_frames(controls, request.frames)
        check_gain_channels(controls, request.channels)
        name, unused = self._name(request)
        times = known_timesteps(self.config.steps, request.denoise, self.config.shift)
        ordered = self._pace if self._geometry else pace(geometry.device, self.config.max_ticks_ahead)
        transfer.catch_up(geometry.device)
        queued = Queued(name, request, times, once.unread(request.tensors()))
        ordered.mark(records.tensors((queued, controls)))
        ring, waiting, dropped = self._ring, [*self._queue, queued], []
        if self._frames not in (None, request.frames):
            held = [slot.id for slot in ring if slot is not None] + [q.id for q in self._queue]
            dropped = [Dropped(id, DropReason.LENGTH_CHANGED) for id in held]
            ring, waiting = (None,) * self._depth, waiting[-1:]
        full = len(waiting) - self._depth
        dropped += [Dropped(q.id, DropReason.QUEUE_FULL) for q in waiting[: max(full, 0)]]
        self._geometry, self._controls, self._pace = geometry, controls, ordered
        self._unused_name = unused
        self._ring, self._queue = ring, tuple(waiting[max(full, 0) :])
        self._stats = replace(
            self._stats, submitted=self._stats.submitted + 1, dropped=self._stats.dropped + len(dropped)
        )
        return Submission(name, tuple(dropped))

    def tick(self) -> list[Outcome]:
        """Move every slot one step; return what left the ring, in ring order: finished latents and failed requests.

        A request fails where one of its tensors on a GPU holds a value that is not finite in float32. That is found
        before the tick that is `max_ticks_ahead + 1` ticks after its admission, or at its last step where that comes
        first, so it does not depend on timing. Its place is free in that tick. For other requests see `Failed`.

        The host waits for a GPU where it is `max_ticks_ahead` ticks ahead, and for what must be known of a request that
        ends before that tick; `stats().waits` counts both.

        Raises:
            PipelineClosed: after `close`.
            Exception: any exception of the executor; the pipeline is unchanged.
        """
        self._check_open()
        try:
            with torch.no_grad():
                return self._tick()
        except BaseException:
            # What it launched may still run, and the cache may hold what that makes. A GPU that is lost marks nothing.
            with suppress(RuntimeError):
                self._pace.mark(())
            raise

    def drain(self) -> list[Outcome]:
        """Tick until nothing is queued or in flight; return everything that left the ring, in order."""
        self._check_open()
        outcomes: list[Outcome] = []
        while self._queue or any(slot is not None for slot in self._ring):
            outcomes += self.tick()
        return outcomes

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
        self._control(replace(self._controls, shared=shared))

    def set_channel_gain(self, gain: Tensor | None) -> None:
        """Multiply the decoder's input of every slot by a gain, from the next tick on; the slot's state is not scaled.

        Args:
            gain: `[1, T, D]` or `[1, 1, D]`, values from -50 to 50; copied. None is off.

        Raises:
            InvalidInput: another shape or device, or a value out of range.
            PipelineClosed: after `close`.
        """
        self._check_open()
        self._control(replace(self._controls, channel_gain=None if gain is None else self._channel_gain(gain)))

    def set_dcw(self, dcw: DCW | None) -> None:
        """Change the wavelet correction from the next tick on; None is off."""
        self._check_open()
        if dcw is not None:
            checks.instance("dcw", dcw, DCW, "a DCW or None")
        controls = replace(self._controls, dcw=dcw)
        self._control(controls if self._device is None else placed(controls, self._device))

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
            waits=self._pace.waits + self._early,
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

    def _tick(self) -> list[Outcome]:
        self._pace.begin(self._held)
        ring, failed = self._read(self._ring)
        plan = self._plan(ring)
        slots = {index: slot for index, slot in enumerate(ring) if slot is not None}
        for a in plan.admissions:
            q = a.queued
            slots[a.index] = admit(q.id, q.request, q.times, plan.tick, masked=a.masked, unread=q.unread)
        moved = execute(plan, slots, self._machinery()) if plan.slots else {}
        return self._commit(plan, moved, failed)

    def _read(self, ring: tuple[Slot | None, ...]) -> tuple[tuple[Slot | None, ...], dict[int, Failed]]:
        """Read what is due; return the ring without the requests that failed, and those by place."""
        due = self._stats.ticks - self.config.max_ticks_ahead - 1
        left, failed = list(ring), {}
        for index, slot in enumerate(ring):
            if slot is None or slot.unread is None or slot.admitted_at > due:
                continue
            bad = self._not_finite(slot)
            left[index] = replace(slot, unread=None) if bad is None else None
            if bad is not None:
                failed[index] = Failed(slot.id, FailReason.INPUT_NOT_FINITE, slot.step, bad)
        return tuple(left), failed

    def _plan(self, ring: tuple[Slot | None, ...]) -> TickPlan:
        return plan_tick(
            self._stats.ticks,
            ring,
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

    def _commit(self, plan: TickPlan, moved: dict[int, Slot], failed: Mapping[int, Failed]) -> list[Outcome]:
        finishing = [p.index for p in plan.slots if p.finishes]
        last = {index: self._outcome(moved[index], plan.tick) for index in finishing}
        outcomes = [each[index] for index in range(len(self._ring)) for each in (failed, last) if index in each]
        finished = sum(isinstance(each, Finished) for each in outcomes)
        ring = tuple(None if index in finishing else moved.get(index) for index in range(len(self._ring)))
        stats = replace(
            self._stats,
            ticks=plan.tick + 1,
            admitted=self._stats.admitted + len(plan.admissions),
            finished=self._stats.finished + finished,
            failed=self._stats.failed + len(outcomes) - finished,
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
        self._pace.end()
        self._ring, self._queue = _resized(ring, self._depth), self._queue[len(plan.admissions) :]
        self._stats = stats
        return outcomes

    def _outcome(self, slot: Slot, tick: int) -> Outcome:
        """What becomes of a slot that has made its last step."""
        bad = self._not_finite(slot)
        if bad is not None:
            return Failed(slot.id, FailReason.INPUT_NOT_FINITE, slot.step - 1, bad)
        return slot.finished(tick)

    def _not_finite(self, slot: Slot) -> str | None:
        """Text that names a field with a value that is not finite, or None; counts the wait for it."""
        if slot.unread is None:
            return None
        before = slot.unread.waited
        bad = slot.unread.not_finite()
        self._early += slot.unread.waited and not before
        return bad

    def _control(self, controls: Controls) -> None:
        self._pace.mark(records.tensors(controls))
        self._controls = controls

    def _held(self) -> Iterable[Tensor]:
        """Every tensor on a GPU that the next tick may read."""
        held = (self._ring, self._queue, self._controls, self._cache.held())
        return (tensor for tensor in records.tensors(held) if tensor.is_cuda)

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
        checks.shaped("channel_gain", gain, (1, "T", channels))
        if self._frames is not None and gain.shape[1] not in (1, self._frames):
            raise InvalidInput("channel_gain", checks.describe(gain), f"1 or {self._frames} frames")
        if self._device is not None:
            checks.movable("channel_gain", gain, self._device)
        made = curve("channel_gain", per_channel("channel_gain", gain), **FACTOR)
        return made if self._device is None else made.to(self._device)

    def _check_depth(self, field: str, depth: int) -> None:
        checks.integer(field, depth, 1)
        if depth > self.max_depth:
            raise InvalidInput(field, depth, f"at most max_depth = {self.max_depth}, the executor's max_rows")

    def _check_open(self) -> None:
        if self._closed:
            raise PipelineClosed("the pipeline is closed")


def _resized(ring: tuple[Slot | None, ...], depth: int) -> tuple[Slot | None, ...]:
    """Resize the ring to `depth` places, or up to the last occupied place where that lies beyond `depth`."""
    last = max((index for index, slot in enumerate(ring) if slot is not None), default=-1)
    size = max(depth, last + 1)
    return (*ring[:size], *(None,) * (size - len(ring)))

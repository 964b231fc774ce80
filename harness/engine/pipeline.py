"""The streaming pipeline: owns the ring, the queue and the live controls; plans, runs and commits each tick."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import torch
from torch import Tensor

from harness.engine import checks, once, records, transfer
from harness.engine.conditioning import ConditioningCache
from harness.engine.config import DCW, PipelineConfig
from harness.engine.controls import Controls, SharedControl, fitting, gain_curve, placed
from harness.engine.curve import Curve, CurveLike, curve
from harness.engine.errors import InvalidInput
from harness.engine.execute import Machinery, Observer, execute, observed
from harness.engine.executors.base import Executor
from harness.engine.finite import Look
from harness.engine.geometry import Geometry, fix
from harness.engine.keeping import Keeping
from harness.engine.memory import Memory
from harness.engine.pace import HostPace, Pace, pace
from harness.engine.parcels import Parcel, handed_out
from harness.engine.plan import Admission, TickPlan, plan_tick
from harness.engine.records import replace
from harness.engine.request import Request
from harness.engine.results import Dropped, Failed, Outcomes, Stats, Submission
from harness.engine.schedule import known_timesteps
from harness.engine.slot import Slot
from harness.engine.state import Left, Queued, Ring, State, fitted
from harness.engine.turns import Turn, turn_of
from harness.engine.verdicts import Verdicts, in_order


class StreamPipeline(Keeping):
    """A streaming pipeline: keeps up to `depth` requests in flight and moves each one step a tick.

    A tick that fails (an executor's error, out of memory) leaves ring, queue and controls unchanged and can be run
    again. The pipeline does not close the executor, because other pipelines may use the same one.

    Any thread may call any method at any time, also while a tick runs. Ticks of several threads take turns, and so do
    ticks of pipelines that have one executor. `submit`, `set_depth` and `cancel` change the queue at once and return
    what left it. A request that a running tick holds is not taken from it: where a call displaces such a request, it
    leaves when that tick ends, unless it ends there itself, and the next tick names it in `dropped`. Live controls act
    from the next tick on.

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
        ring: Ring = (None,) * self.config.depth
        super().__init__(State(self.config.depth, ring, Controls(shared={}, dcw=self.config.dcw)))
        self._ticking = Turn("pipeline")
        self._running = turn_of(executor)
        self._pace: Pace = HostPace()
        self._verdicts = Verdicts(self.config.max_ticks_ahead)
        self._cache = ConditioningCache()

    @property
    def depth(self) -> int:
        """Number of places that take new requests."""
        return self._state.depth

    @property
    def max_depth(self) -> int:
        """Largest depth: the executor's `max_rows`."""
        return self.executor.max_rows

    @property
    def encoder_length(self) -> int | None:
        """Number of tokens that conditions are padded to; None if not configured and no request was submitted yet."""
        geometry = self._state.geometry
        return self.config.encoder_length if geometry is None else geometry.encoder_length

    @property
    def slots(self) -> tuple[Slot | None, ...]:
        """The ring after the last tick: a frozen `Slot` at each occupied place, None at each free one."""
        return self._state.ring

    def submit(self, request: Request) -> Submission:
        """Queue a request; return its name and the requests that it displaced.

        The queue holds `depth` requests; a submission to a full queue drops the oldest one. A request of another length
        T drops every request that is queued or in flight; see the class for those that a running tick holds.

        The host does not wait for a GPU. Whether tensors on a GPU are finite is therefore not known yet; a request with
        one that is not fails at a later tick, see `tick`.

        The first request fixes the sizes that later ones must have, once a tick has run with it.

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
        # Outside the lock, because kernels may be compiled.
        fixed = self._state.fixed or fix(request, self.config, takes_mask=self.executor.takes_mask)
        return handed_out(lambda parcel: self._queued(request, fixed, parcel))

    def tick(self) -> Outcomes:
        """Move every slot one step; return what left the ring, in ring order: a list of finished latents.

        Its attribute `failed` has the requests that failed, and `dropped` those that a call displaced while the tick
        before was running. What an earlier call has kept comes first; see `collect`.

        A request fails where one of its tensors on a GPU holds a value that is not finite in float32. That is found
        before the tick that is `max_ticks_ahead + 1` ticks after its admission, or at its last step where that comes
        first, so it does not depend on timing. Its place is free in that tick. For other requests see `Failed`.

        The host waits for a GPU where it is `max_ticks_ahead` ticks ahead, and for what must be known of a request that
        ends before that tick; `stats().waits` counts both.

        Raises:
            PipelineClosed: after `close`.
            TickInside: the call comes from inside a tick of this pipeline or executor, in the same thread.
            Exception: any exception of the executor; the pipeline is unchanged.
        """
        return handed_out(self._ticked)

    def drain(self) -> Outcomes:
        """Tick until nothing is queued or in flight; return everything that left the ring, in order.

        Where a tick fails, what has left the ring until then is kept; see `collect`. At the end the host waits for a
        GPU: it reads what is known of every velocity.

        Raises:
            PipelineClosed: after `close`.
            TickInside: see `tick`.
            Exception: any exception of the executor.
        """
        return handed_out(self._drained)

    def cancel(self, id: str | int) -> tuple[Dropped, ...]:
        """Drop every request of a name, waiting or in flight; return those that left.

        A request that a running tick holds leaves when that tick ends, and the next tick names it in `dropped`; where
        it makes its last step in that tick, its latent is handed out. A name that no request has drops nothing.

        Raises:
            PipelineClosed: after `close`.
        """
        return handed_out(lambda parcel: self._left(parcel, lambda state: state.cancelled(id)))

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

        def checked(given: CurveLike) -> Curve:
            return curve(control.value, given, frames=self._state.frames, device=self._device, **control.bounds)

        # Outside the lock, because reading a tensor on a GPU makes the host wait; then again under it.
        made = None if value is None else checked(value)
        self._control(lambda controls: controls.sharing(control, None if made is None else checked(made)))

    def set_channel_gain(self, gain: Tensor | None) -> None:
        """Multiply the decoder's input of every slot by a gain, from the next tick on; the slot's state is not scaled.

        Args:
            gain: `[1, T, D]` or `[1, 1, D]`, values from -50 to 50; copied. None is off.

        Raises:
            InvalidInput: another shape or device, or a value out of range.
            PipelineClosed: after `close`.
        """
        self._check_open()

        def checked(given: Tensor | Curve) -> Curve:
            geometry, frames = self._state.geometry, self._state.frames
            return gain_curve(given, frames, None if geometry is None else geometry.channels, self._device)

        made = None if gain is None else checked(gain)
        self._control(lambda controls: replace(controls, channel_gain=None if made is None else checked(made)))

    def set_dcw(self, dcw: DCW | None) -> None:
        """Change the wavelet correction from the next tick on; None is off."""
        self._check_open()
        if dcw is not None:
            checks.instance("dcw", dcw, DCW, "a DCW or None")
        self._control(lambda controls: replace(controls, dcw=dcw))

    def set_depth(self, depth: int) -> tuple[Dropped, ...]:
        """Change the number of places that take new requests, from the next tick on; return the requests dropped.

        Slots beyond a smaller depth finish their requests. Of a queue that is longer than `depth`, the oldest requests
        are dropped.

        Raises:
            InvalidInput: a depth below 1 or above `max_depth`.
            PipelineClosed: after `close`.
        """
        self._check_open()
        self._check_depth("depth", depth)
        return handed_out(lambda parcel: self._left(parcel, lambda state: state.resized(depth)))

    def stats(self) -> Stats:
        """Return the counts since the pipeline was made and its present state; allowed after `close`."""
        return replace(self._state.counts, waits=self._pace.waits + self._verdicts.waits)

    def close(self) -> None:
        """Release ring, queue and cached conditions; the executor stays open. A second call is allowed.

        A tick that runs meanwhile ends and hands out what finished in it.
        """
        with self._lock:
            self._state = self._state.over()
            self._let_go()

    def __enter__(self) -> StreamPipeline:
        """Return the pipeline."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Close the pipeline."""
        self.close()

    # Parts of a tick.

    def _ticked(self, parcel: Parcel) -> Outcomes:
        def work() -> Outcomes:
            self._advance()
            return self._packed(parcel)

        return self._ticking.take(work)

    def _drained(self, parcel: Parcel) -> Outcomes:
        self._check_open()
        while self._state.unfinished:
            self._ticking.take(self._advance)
        self._ticking.take(self._find_out)
        return self._packed(parcel)

    def _find_out(self) -> None:
        late = self._verdicts.rest(self._state.memory)
        with self._lock:
            self._state = replace(self._state.told(late), memory=Memory())

    def _advance(self) -> None:
        self._check_open()
        try:
            with torch.no_grad(), transfer.no_autocast(self._device):
                self._tick()
        except BaseException:
            # What it launched may still run, and the cache may hold what that makes. A GPU that is lost marks nothing.
            with suppress(RuntimeError):
                self._pace.mark(())
            with self._lock:
                if self._state.running:
                    self._state = self._state.abandoned()
                self._let_go()
            raise

    def _tick(self) -> None:
        self._pace.wait()
        seen = self._state
        due = self._verdicts.due(seen.ring, seen.stats.ticks, seen.memory)
        with self._lock:
            state = self._state.started()
            due = due.among(seen.ring, state.ring)
            ring = fitted(due.ring, state.depth)
            # Whoever submits marks first and binds then, so that the pace orders all that is taken.
            state = self._state = state.taking([place for place in range(state.depth) if ring[place] is None])
        self._pace.begin(lambda: self._held(state))
        taken, most = tuple(state.taken.values()), self.executor.max_rows
        stats, controls, looks = state.stats, state.controls, list[Look]()
        plan = plan_tick(stats.ticks, ring, taken, controls, self.config, depth=state.depth, max_rows=most)
        admitted = {each.index: self._admitted(each, plan.tick) for each in plan.admissions}
        held = {index: slot for index, slot in enumerate(ring) if slot is not None} | admitted
        slots = {p.index: held[p.index] for p in plan.slots}
        moved = self._moved(plan, slots, state.geometry, looks) if plan.slots else {}
        last = self._verdicts.last(plan, looks, slots, moved)
        after = tuple(None if index in last else moved.get(index) for index in range(len(ring)))
        observed(self._observe, moved)
        self._pace.end()
        memory = self._verdicts.after(due, plan.tick, looks, slots, last)
        self._commit(plan, after, in_order(due.failed, last), memory, due.late.values())

    def _admitted(self, admission: Admission, tick: int) -> Slot:
        return admission.admitted(tick)

    def _moved(
        self, plan: TickPlan, slots: Mapping[int, Slot], geometry: Geometry | None, looks: list[Look]
    ) -> dict[int, Slot]:
        switches, watch = self.config.switches, self._observe
        machinery = Machinery.of(self.executor, self._cache, geometry, switches, looks, watch)
        return self._running.take(lambda: execute(plan, slots, machinery))

    def _commit(self, plan: TickPlan, ring: Ring, outcomes: Outcomes, memory: Memory, late: Iterable[Failed]) -> None:
        with self._lock:
            counted = plan.counted(self._state.stats, own_stream=self.executor.stream is not None)
            stats = replace(counted, conditioning=self._cache.counts)
            state = self._state.committed(ring, outcomes, stats, memory, proven=bool(plan.slots))
            self._state = state.told(late)
            self._let_go()

    def _let_go(self) -> None:
        """Forget the cached conditions of a closed pipeline, as soon as no tick reads them."""
        if self._state.closed and not self._state.running:
            self._cache.clear()

    # Changes by any thread, under the lock.

    def _queued(self, request: Request, fixed: Geometry, parcel: Parcel) -> Submission:
        with self._lock:
            left = self._left(parcel, lambda state: self._submitted(state, request, fixed))
            return Submission(self._state.queue[-1].id, left)

    def _submitted(self, state: State, request: Request, fixed: Geometry) -> tuple[State, Left]:
        geometry = state.fixed or fixed
        geometry.accept(request, self.executor)
        controls = fitting(state.controls, request, geometry.device)
        name, unused = state.name(request)
        times = known_timesteps(self.config.steps, request.denoise, self.config.shift)
        ordered = self._pace if geometry.device == self._device else pace(geometry.device, self.config.max_ticks_ahead)
        transfer.catch_up(geometry.device)
        queued = Queued(name, request, times, once.unread(request.tensors()))
        ordered.mark(records.tensors((queued, controls)))
        self._pace = ordered
        return replace(state, geometry=geometry, controls=controls).submitted(queued, unused)

    def _control(self, changed: Callable[[Controls], Controls]) -> None:
        with self._lock:
            self._check_open()
            controls = changed(self._state.controls)
            if self._device is not None and controls.dcw is not self._state.controls.dcw:
                controls = placed(controls, self._device)
            self._pace.mark(records.tensors(controls))
            self._state = self._state.controlled(controls)

    def _held(self, state: State) -> Iterable[Tensor]:
        """Every tensor on a GPU that the next tick may read."""
        held = (state.ring, state.queue, tuple(state.taken.values()), state.controls, self._cache.held())
        return (tensor for tensor in records.tensors(held) if tensor.is_cuda)

    @property
    def _device(self) -> torch.device | None:
        geometry = self._state.geometry
        return None if geometry is None else geometry.device

    def _check_depth(self, field: str, depth: int) -> None:
        checks.integer(field, depth, 1)
        if depth > self.max_depth:
            raise InvalidInput(field, depth, f"at most max_depth = {self.max_depth}, the executor's max_rows")

"""Oracle: a textbook loop that runs one request alone, one row at a time, without ring, tick plan or fast path.

The oracle shares the formulas (schedule, noise, guidance, blend, solver, wavelet) with the engine and nothing else. The
oracle decides a second time, from the specification, which conditions are active, which path a step takes, which values
a shared control overrides and how rows are padded. The formulas themselves are checked against other sources in the
tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from harness.engine import blend, guidance, kernels, solver, wavelet
from harness.engine.config import DCW, PipelineConfig
from harness.engine.curve import Curve, CurveLike, curve
from harness.engine.errors import InvalidInput
from harness.engine.executors.base import Batch, Executor
from harness.engine.executors.stream import run_to_end
from harness.engine.noise import Purpose, noise
from harness.engine.request import Condition, Guidance, Request, normal, required
from harness.engine.schedule import timesteps


@dataclass(frozen=True, eq=False)
class StepControls:
    """The live controls in force at one step.

    Attributes:
        shared: overriding values by name of the control, as in `StreamPipeline.set_shared_curve`.
        dcw: wavelet correction, or None.
        channel_gain: factor of the decoder's input, `[1, T, D]` or `[1, 1, D]`, or None.
    """

    shared: Mapping[str, CurveLike] = field(default_factory=dict)
    dcw: DCW | None = None
    channel_gain: Tensor | None = None


@dataclass(frozen=True, eq=False)
class State:
    """State of a request before `step`: latent, guidance average and kept negative velocity, float32 `[1, T, D]`."""

    step: int
    x: Tensor
    average: Tensor | None = None
    kept_negative: Tensor | None = None


def run(
    executor: Executor,
    request: Request,
    config: PipelineConfig,
    encoder_length: int,
    controls_per_step: Sequence[StepControls] | None = None,
) -> Tensor:
    """Run a request; return its finished latent, float32 `[1, T, D]`.

    Args:
        executor: runs the decoder, one row at a time.
        request: the request.
        config: steps, shift, solver and, without `controls_per_step`, the wavelet correction; nothing else is read.
        encoder_length: number of tokens L that conditions are padded to.
        controls_per_step: the controls in force, one `StepControls` for each step; None leaves the request's own
            values.

    Raises:
        InvalidInput: not one `StepControls` for each step.
    """
    return list(states(executor, request, config, encoder_length, controls_per_step))[-1].x


def states(
    executor: Executor,
    request: Request,
    config: PipelineConfig,
    encoder_length: int,
    controls_per_step: Sequence[StepControls] | None = None,
) -> Iterator[State]:
    """Run a request; yield every state, from the initial to the finished one. Arguments and errors as in `run`."""
    times = timesteps(config.steps, request.denoise, config.shift)
    total = len(times) - 1
    controls = [StepControls(dcw=config.dcw)] * total if controls_per_step is None else controls_per_step
    if len(controls) != total:
        raise InvalidInput("controls_per_step", f"{len(controls)} of them", f"one for each of {total} steps")
    loop = _Loop(executor, request, str(config.solver), encoder_length, times)
    with torch.no_grad():
        state = State(0, loop.initial())
        yield state
        for step in range(total):
            state = loop.advance(state, controls[step])
            yield state


class _Loop:
    def __init__(
        self, executor: Executor, request: Request, solver_name: str, length: int, times: tuple[float, ...]
    ) -> None:
        self.executor, self.request, self.solver, self.length, self.times = (
            executor,
            request,
            solver_name,
            length,
            times,
        )
        self.source = request.source
        if self.source is None and request.latent_mask is not None:
            self.source = request.latent_mask.original

    def draw(self, purpose: Purpose, step: int = 0) -> Tensor:
        request = self.request
        return noise(request.seed, purpose, step, (1, request.frames, request.channels), request.device)

    def initial(self) -> Tensor:
        drawn, request = self.draw(Purpose.INITIAL), self.request
        if self.source is not None and request.initial_noise is not None:
            c = required(request.initial_noise).values
            return c * drawn + (1 - c) * self.source.float()
        if self.source is not None and request.denoise < 1.0:
            t = self.times[0]
            return t * drawn + (1.0 - t) * self.source.float()
        return drawn

    def advance(self, state: State, controls: StepControls) -> State:
        step, t = state.step, self.times[state.step]
        shared = {n: curve(n, v).to(self.request.device) for n, v in controls.shared.items()}
        mask = self.mask(step)
        x = state.x
        if mask is not None and self.request.latent_mask is not None:
            original = self.request.latent_mask.original.float()
            x = blend.mask_state(x, mask, original, self.draw(Purpose.MASK), t)
        seen = x if controls.channel_gain is None else x * controls.channel_gain.float()
        v, average, kept = self.velocity(state, seen, t, shared)
        scale = shared.get("velocity_scale", normal(self.request.velocity_scale))
        vs = v if scale is None or scale.uniform == 1.0 else v * scale.values
        stepped = self.stepped(x, vs, step, mask, shared)
        if controls.dcw is not None and t > 0.0:
            stepped = self.corrected(controls.dcw, stepped, x, v, t)
        return State(step + 1, stepped, average, kept)

    # The velocity.

    def velocity(
        self, state: State, x: Tensor, t: float, shared: Mapping[str, Curve]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        guided = self.request.guidance
        v_pos = self.mean(self.request.conditions, state.step, x, t)
        if guided is None:
            return v_pos, None, None
        if guided.mode == "self":
            v_neg, kept = self.draw(Purpose.INITIAL), None
        elif guided.mode == "initialize" and state.step > 0 and state.kept_negative is not None:
            v_neg = kept = state.kept_negative
        else:
            v_neg = self.mean(guided.negatives, state.step, x, t)
            kept = v_neg if guided.mode == "initialize" else None
        v, average = self.guided(guided, v_pos, v_neg, state.average, shared)
        return v, average, kept

    def guided(
        self, own: Guidance, v_pos: Tensor, v_neg: Tensor, before: Tensor | None, shared: Mapping[str, Curve]
    ) -> tuple[Tensor, Tensor]:
        g = shared.get("guidance_scale", required(own.scale))
        m = shared.get("momentum", required(own.momentum))
        k = shared.get("rescale", normal(own.rescale))
        start = torch.zeros_like(v_pos) if before is None else before
        if k is not None and k.uniform == 0.0:
            k = None
        if kernels.here(v_pos.device):
            rescale = None if k is None else k.values
            slot = kernels.Guided(v_pos, v_neg, start, g.values, m.values, rescale, own.norm_threshold, own.eta)
            return kernels.plain.guide([slot])[0]
        average = guidance.running_average(v_pos - v_neg, start, m.values)
        v = guidance.guide(v_pos, average, g.values, own.norm_threshold, own.eta)
        if k is not None:
            v = guidance.rescale(v, v_pos, k.values)
        return v, average

    def mean(self, conditions: Sequence[Condition], step: int, x: Tensor, t: float) -> Tensor:
        total = len(self.times) - 1
        chosen = []
        for condition in conditions:
            start, end = condition.step_range or (0.0, 1.0)
            if start <= step / total < end:
                chosen.append(condition)
        chosen = chosen or [conditions[0]]
        velocities = [self.row(condition, x, t) for condition in chosen]
        if len(chosen) == 1:
            return velocities[0]
        weights = [self.weight(condition) for condition in chosen]
        return blend.weighted_mean(velocities, weights)

    def weight(self, condition: Condition) -> Tensor:
        own = normal(condition.temporal_weight)
        return torch.ones(1, 1, 1, device=self.request.device) if own is None else own.values

    def row(self, condition: Condition, x: Tensor, t: float) -> Tensor:
        missing = self.length - condition.length
        attended = torch.ones(1, condition.length, dtype=torch.bool, device=self.request.device)
        if condition.encoder_mask is not None:
            attended = condition.encoder_mask
        batch = Batch(
            hidden_states=x,
            timestep=torch.tensor([t], dtype=torch.float32).to(self.request.device),
            encoder_hidden_states=functional.pad(condition.encoder_hidden_states, (0, 0, 0, missing)),
            encoder_mask=functional.pad(attended, (0, missing), value=False),
            context_latents=self.request.context_latents,
        )
        return run_to_end(self.executor, batch).to(torch.float32, copy=True).contiguous()

    # The step.

    def mask(self, step: int) -> Tensor | None:
        own = self.request.latent_mask
        if own is None or (own.strength_at is None and required(own.mask).uniform == 1.0):
            return None
        strength = 1.0 if own.strength_at is None else float(own.strength_at(step, len(self.times) - 1))
        return required(own.mask).values * strength

    def target(self, step: int, shared: Mapping[str, Curve]) -> Tensor | None:
        own, total = self.request.x0_target, len(self.times) - 1
        if own is None or self.times[step] == 0.0:
            return None
        if own.curve is not None:
            progress = step / max(total - 1, 1)
            ramp = max(0.0, progress - own.gate) / max(1.0 - own.gate, 1e-6)
            return required(own.curve).values * ramp if ramp > 0.0 else None
        strength = shared.get("x0_strength", required(own.strength))
        return None if step < total // 2 or strength.uniform == 0.0 else strength.values

    def stepped(self, x: Tensor, v: Tensor, step: int, mask: Tensor | None, shared: Mapping[str, Curve]) -> Tensor:
        t, s, target = self.times[step], self.times[step + 1], self.target(step, shared)
        q = shared.get("sde_curve", normal(self.request.sde_curve))
        through_curve = q is not None and self.source is not None
        if not through_curve and self.solver == "ode" and mask is None and target is None:
            return self.injected(solver.euler(x, v, t, s), step, s, shared)
        x0 = self.edited(solver.denoised(x, v, t), mask, target)
        if not through_curve and self.solver == "ode":
            return self.injected(solver.euler_through(x, x0, t, s), step, s, shared)
        z = None
        if s > 0.0:
            z = self.draw(Purpose.STEP, step) if mask is None else self.draw(Purpose.MASK)
        if q is None or self.source is None:
            return solver.sde(x0, z, s)
        return solver.sde_curve(x0, self.source.float(), z, q.values, s)

    def edited(self, x0: Tensor, mask: Tensor | None, target: Tensor | None) -> Tensor:
        if mask is not None and self.request.latent_mask is not None:
            x0 = blend.mix(mask, x0, self.request.latent_mask.original.float())
        if target is not None and self.request.x0_target is not None:
            x0 = blend.toward(x0, self.request.x0_target.latent.float(), target)
        return x0

    def injected(self, x: Tensor, step: int, s: float, shared: Mapping[str, Curve]) -> Tensor:
        amount = shared.get("noise_injection", normal(self.request.noise_injection))
        if amount is None or amount.uniform == 0.0 or s == 0.0:
            return x
        return solver.inject(x, self.draw(Purpose.STEP, step), amount.values, s)

    def corrected(self, dcw: DCW, stepped: Tensor, x: Tensor, v: Tensor, t: float) -> Tensor:
        a, b = (None if scaler.uniform == 0.0 else scaler.values.to(x.device) for scaler in dcw.scalers)
        mode = wavelet.DCWMode(dcw.mode)
        if not (kernels.here(x.device) and dcw.wavelet == "haar"):
            return wavelet.correct(mode, stepped, solver.denoised(x, v, t), t, a, b, dcw.wavelet)
        frames, pairs = stepped.shape[1], (stepped.shape[1] + 1) // 2
        pix, low, high = {"pix": (a, None, None), "low": (None, a, None), "high": (None, None, a)}.get(
            mode.value, (None, a, b)
        )
        if pix is None and low is None and high is None:
            return stepped
        pix = None if pix is None else wavelet.resample(pix, frames)
        low, high = (None if each is None else wavelet.resample(each, pairs) for each in (low, high))
        slot = kernels.Corrected(stepped, x, v, t, low, t, high, 1.0 - t, pix)
        return kernels.plain.correct([slot])[0]

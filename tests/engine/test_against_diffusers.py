"""Whole requests end where third parties end: diffusers' transformer, scheduler and guidance, and PyWavelets.

The loop knows none of the engine's modules. It runs one request alone, its prompts unpadded and without a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import pywt
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from torch import Tensor
from torch.nn import functional

from harness.engine import DCW, Condition, Guidance, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AceStepDecoder
from harness.engine.executors import EagerExecutor

STEPS, D, E = 8, 8, 32
BOUND = 2e-5
"""Largest difference, as a share of the expected latent's rms.

The two sides add the same float32 terms in another order: a masked softmax over 64 tokens against one over the
prompt's own, rows of a batch against rows alone, float32 wavelets against float64. The requests here end 2.6e-7 to
1.7e-6 apart (float32 rounds at 6e-8, and eight steps pass a difference on); the bound leaves ten times that to another
processor's kernels. The weakest of `DEFECTS` ends 0.07 away.
"""


@dataclass(frozen=True)
class Job:
    """A request in plain numbers; the engine and the loop each make of it what they need."""

    seed: int = 1
    frames: int = 16
    tokens: int = 12
    negative_tokens: int | None = None
    scale: float = 4.0
    momentum: float = -0.75
    threshold: float = 0.5  # low enough to clip at these lengths; a job without guidance does not read it
    denoise: float = 1.0
    shift: float = 3.0
    dcw: tuple[float, float] | None = None

    @property
    def positive(self) -> Tensor:
        return draw(10 + self.seed, self.tokens, E)

    @property
    def negative(self) -> Tensor | None:
        return None if self.negative_tokens is None else draw(20 + self.seed, self.negative_tokens, E)

    @property
    def context(self) -> Tensor:
        return draw(30, self.frames, 2 * D)

    @property
    def source(self) -> Tensor:
        return draw(40 + self.seed, self.frames, D)


class Swapped(Job):
    """Each prompt in the other's place."""

    @property
    def positive(self) -> Tensor:
        return draw(20 + self.seed, self.negative_tokens or 0, E)

    @property
    def negative(self) -> Tensor:
        return draw(10 + self.seed, self.tokens, E)


class Padded(Job):
    """Zero rows behind the prompt, attended."""

    @property
    def positive(self) -> Tensor:
        return functional.pad(super().positive, (0, 0, 0, 64 - self.tokens))


PLAIN, GUIDED = Job(), Job(seed=2, tokens=5, negative_tokens=3)


def draw(seed: int, length: int, width: int) -> Tensor:
    """ComfyUI's layout of noise: drawn channel by channel, `[1, length, width]`."""
    return torch.randn(1, width, length, generator=torch.Generator().manual_seed(seed)).transpose(1, 2)


@pytest.fixture(autouse=True, name="decoder")
def _decoder() -> Iterator[AceStepDecoder]:
    with torch.no_grad():
        yield AceStepDecoder.preset("tiny", 0)


# The loop of third parties.


def schedule(job: Job) -> FlowMatchEulerDiscreteScheduler:
    """The last `STEPS` steps of a whole schedule, which a lower denoise makes longer. One training step: t is sigma."""
    whole = int(STEPS / job.denoise)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=job.shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1.0, 0.0, whole + 1)[:-1].tolist())
    scheduler.set_begin_index(whole - STEPS)
    return scheduler


def guided(v: Tensor, against: Tensor, job: Job, average: MomentumBuffer) -> Tensor:
    return normalized_guidance(
        v, against, job.scale - 1.0, average, 0.0, job.threshold, use_original_formulation=True, norm_dim=1
    )


def corrected(stepped: Tensor, clean: Tensor, t: float, scalers: tuple[float, float]) -> Tensor:
    (xl, xh), (yl, yh) = (pywt.dwt(x.double().numpy(), "haar", mode="zero", axis=1) for x in (stepped, clean))
    a, b = scalers
    moved = pywt.idwt(xl + t * a * (xl - yl), xh + (1.0 - t) * b * (xh - yh), "haar", mode="zero", axis=1)
    return torch.from_numpy(moved).float()[:, : stepped.shape[1]]


def by_third_parties(decoder: AceStepDecoder, job: Job) -> Tensor:
    scheduler, average, x = schedule(job), MomentumBuffer(job.momentum), draw(job.seed, job.frames, D)
    times = scheduler.timesteps[-STEPS:]
    if job.denoise < 1.0:
        x = scheduler.scale_noise(job.source, times[:1], x)

    def velocity(text: Tensor, t: Tensor) -> Tensor:
        return decoder.transformer(x, t, t, text, job.context, return_dict=False)[0]

    for t in times:
        v = velocity(job.positive, t[None])
        if job.negative is not None:
            v = guided(v, velocity(job.negative, t[None]), job, average)
        before, x = x, scheduler.step(v, t, x, return_dict=False)[0]
        if job.dcw is not None:
            x = corrected(x, before - t * v, float(t), job.dcw)
    return x


# The engine, and the verdict.


def by_the_engine(decoder: AceStepDecoder, *jobs: Job) -> list[Tensor]:
    dcw = None if jobs[0].dcw is None else DCW("double", *jobs[0].dcw, wavelet="haar")
    config = PipelineConfig(depth=len(jobs), steps=STEPS, shift=jobs[0].shift, encoder_length=64, dcw=dcw)
    with StreamPipeline(EagerExecutor(decoder), config) as pipeline:
        for job in jobs:
            pipeline.submit(requested(job))
        done = {finished.id: finished.latent for finished in pipeline.drain()}
        assert pipeline.stats().ticks == STEPS  # all of them in flight at once
    return [done[job.seed] for job in jobs]


def requested(job: Job) -> Request:
    guidance = None
    if job.negative is not None:
        guidance = Guidance(
            job.scale, [Condition(job.negative)], momentum=job.momentum, norm_threshold=job.threshold, eta=0.0
        )
    source = job.source if job.denoise < 1.0 else None
    return Request(
        [Condition(job.positive)], job.context, job.seed, job.seed, job.denoise, source=source, guidance=guidance
    )


def distance(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.square().mean().sqrt())


JOBS = {
    "plain": PLAIN,
    "guided": GUIDED,
    "longer negative": replace(GUIDED, tokens=3, negative_tokens=9),
    "partial": replace(PLAIN, denoise=0.6),
    "guided partial": replace(GUIDED, denoise=0.3),
    "dcw": replace(PLAIN, dcw=(0.05, 0.02)),
}

DEFECTS: dict[str, tuple[Job, Job]] = {
    "unguided": (GUIDED, replace(GUIDED, negative_tokens=None)),
    "positive and negative swapped": (GUIDED, Swapped(seed=2, tokens=5, negative_tokens=3)),
    "scale not less one": (GUIDED, replace(GUIDED, scale=GUIDED.scale + 1.0)),
    "no momentum": (GUIDED, replace(GUIDED, momentum=0.0)),
    "no clipping": (GUIDED, replace(GUIDED, threshold=1e9)),
    "padding attended": (PLAIN, Padded()),
    "another shift": (PLAIN, replace(PLAIN, shift=2.9)),
    "a longer tail": (replace(PLAIN, denoise=0.6), replace(PLAIN, denoise=0.57)),
    "no dcw": (JOBS["dcw"], PLAIN),
    "dcw scalers swapped": (JOBS["dcw"], replace(PLAIN, dcw=(0.02, 0.05))),
}


@pytest.mark.parametrize("frames", [16, 21])
@pytest.mark.parametrize("name", JOBS)
def test_a_request_ends_where_the_third_parties_end(decoder: AceStepDecoder, name: str, frames: int) -> None:
    job = replace(JOBS[name], frames=frames)
    (actual,) = by_the_engine(decoder, job)
    assert distance(actual, by_third_parties(decoder, job)) < BOUND


@pytest.mark.parametrize("frames", [16, 21])
def test_three_requests_in_flight_each_end_where_they_end_alone(decoder: AceStepDecoder, frames: int) -> None:
    unequal = [PLAIN, GUIDED, replace(GUIDED, seed=3, tokens=40, negative_tokens=7, denoise=0.6)]
    jobs = [replace(job, frames=frames) for job in unequal]
    ends = zip(by_the_engine(decoder, *jobs), (by_third_parties(decoder, job) for job in jobs), strict=True)
    assert max(distance(actual, expected) for actual, expected in ends) < BOUND


@pytest.mark.parametrize("name", DEFECTS)
def test_the_bound_tells_a_defect_from_rounding(decoder: AceStepDecoder, name: str) -> None:
    right, wrong = DEFECTS[name]
    (actual,) = by_the_engine(decoder, right)
    assert distance(actual, by_third_parties(decoder, wrong)) > 1000 * BOUND

"""The words of refusals, whole: the field, what it got, and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.engine import (
    DCW,
    Condition,
    Guidance,
    LatentMask,
    PipelineConfig,
    Request,
    Session,
    StreamPipeline,
    Switches,
    X0Target,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor, StaticExecutor
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request
from tests.engine.executors.test_eager import batch

LATENT, CONTEXT, PROMPT = fixed(3), fixed(7, T, 2 * D), condition(1)
WIDER, HALF = Condition(torch.ones(1, 3, E + 1)), Condition(torch.ones(1, 3, E).half())
ON = "on cpu, expected"


def closed(kind: Any) -> Any:
    made = kind(AffineDecoder(E))
    made.close()
    return made


def running() -> StreamPipeline:
    p = pipeline()
    p.submit(request(1, id=None))
    return p


CURVE = "a number or a real tensor of shape [T], [1, T] or [1, T, 1]"
WORDS: list[tuple[Callable[[], Any], str]] = [
    # Conditions.
    (
        lambda: Condition(torch.ones(1, 3)),
        "condition.encoder_hidden_states: got torch.float32 tensor of shape [1, 3] on cpu, expected a finite floating "
        "point tensor of shape [1, L, E]",
    ),
    (
        lambda: condition(encoder_mask=torch.ones(1, 2)),
        f"condition.encoder_mask: got torch.float32 tensor of shape [1, 2] {ON} a mask of 0 and 1 of shape [1, 3]",
    ),
    (
        lambda: condition(encoder_mask=torch.full((1, 3), 2)),
        "condition.encoder_mask: got values other than 0 and 1, expected a mask of 0 and 1 of shape [1, 3]",
    ),
    (
        lambda: condition(encoder_mask=torch.zeros(1, 3)),
        "condition.encoder_mask: got a mask of zeros, expected at least one attended token",
    ),
    (
        lambda: condition(temporal_weight=-1),
        "condition.temporal_weight: got a value of -1.0, expected values >= 0.0",
    ),
    (
        lambda: condition(temporal_weight=torch.tensor([0.5, 2e6])),
        "condition.temporal_weight: got a value of 2000000.0, expected values <= 1000000.0",
    ),
    (
        lambda: condition(step_range=(0.5, 0.25)),
        "condition.step_range: got (0.5, 0.25), expected (start, end) with 0 <= start < end <= 1",
    ),
    (
        lambda: condition(step_range=(0.5, 2)),
        "condition.step_range: got 2, expected a finite number >= 0.0 and <= 1.0",
    ),
    # Guidance, targets and masks.
    (lambda: Guidance("2"), f"guidance.scale: got '2', expected {CURVE}"),  # type: ignore[arg-type]
    (lambda: Guidance(51), "guidance.scale: got a value of 51.0, expected values <= 50.0"),
    (lambda: Guidance(1, momentum=-11), "guidance.momentum: got a value of -11.0, expected values >= -10.0"),
    (
        lambda: Guidance(1, rescale=torch.ones(2, 3)),
        f"guidance.rescale: got torch.float32 tensor of shape [2, 3] {ON} {CURVE}",
    ),
    (lambda: Guidance(1, mode="half"), "guidance.mode: got 'half', expected one of 'full', 'initialize', 'self'"),
    (lambda: Guidance(1, eta=10.5), "guidance.eta: got 10.5, expected a finite number >= -10.0 and <= 10.0"),
    (
        lambda: Guidance(1, norm_threshold=0),
        "guidance.norm_threshold: got 0, expected a finite number >= 1.1754943508222875e-38 and <= "
        "3.4028234663852886e+38",
    ),
    (lambda: Guidance(1, [PROMPT, 5]), "guidance.negatives[1]: got 5, expected a Condition"),  # type: ignore[list-item]
    (
        lambda: Guidance(1, "ab"),  # type: ignore[arg-type]
        "guidance.negatives[0]: got 'a', expected a Condition",
    ),
    (lambda: Guidance(1, 5), "guidance.negatives: got 5, expected a sequence of Conditions"),  # type: ignore[arg-type]
    (
        lambda: X0Target(LATENT, 0.5, 0.5),
        "x0_target.strength: got a strength and a curve, expected either a strength or a curve",
    ),
    (
        lambda: X0Target(LATENT, torch.ones(T + 1)),
        "x0_target.strength: got a curve of 7 frames, expected a scalar or 6 frames",
    ),
    (lambda: X0Target(LATENT, gate=2), "x0_target.gate: got 2, expected a finite number >= 0.0 and <= 1.0"),
    (lambda: LatentMask(2, LATENT), "latent_mask.mask: got a value of 2.0, expected values <= 1.0"),
    (
        lambda: LatentMask(1, LATENT, 5),  # type: ignore[arg-type]
        "latent_mask.strength_at: got 5, expected a callable or None",
    ),
    (
        lambda: LatentMask(1, LATENT, lambda step, total: step + total).strength_in_force(2, 3),
        "latent_mask.strength_at(2, 3): got 5, expected a finite number >= 0.0 and <= 1.0",
    ),
    # Requests.
    (lambda: Request([PROMPT], CONTEXT, -1), f"seed: got -1, expected an integer from 0 to {2**64 - 1}"),
    (lambda: request(id=1.5), "id: got 1.5, expected a string, an integer or None"),
    (lambda: request(denoise=-1), "denoise: got -1, expected a finite number >= 0.0"),
    (
        lambda: request(denoise=0.5),
        "denoise: got 0.5 without source or latent_mask, expected a source or a latent_mask to start from",
    ),
    (
        lambda: request(sde_curve=0.5),
        "sde_curve: got a curve without source or latent_mask, expected a source or a latent_mask to mix with",
    ),
    (
        lambda: request(initial_noise=0.5),
        "initial_noise: got a curve without source or latent_mask, expected a source or a latent_mask to mix with",
    ),
    (
        lambda: request(context_latents=torch.ones(1, T, 5)),
        f"context_latents: got torch.float32 tensor of shape [1, 6, 5] {ON} an even number of channels, C = 2*D",
    ),
    (lambda: request(conditions=[]), "conditions: got none, expected at least one Condition"),
    (lambda: request(conditions=None), "conditions: got None, expected a sequence of Conditions"),
    (
        lambda: request(guidance=Guidance(2, mode="initialize")),
        "guidance.negatives: got none, expected at least one Condition in mode initialize",
    ),
    (
        lambda: request(conditions=[PROMPT, WIDER]),
        f"conditions[1].encoder_hidden_states: got torch.float32 tensor of shape [1, 3, 9] {ON} torch.float32 of width "
        "8, as conditions[0] has",
    ),
    (
        lambda: request(guidance=Guidance(2, [PROMPT, HALF])),
        f"guidance.negatives[1].encoder_hidden_states: got torch.float16 tensor of shape [1, 3, 8] {ON} "
        "torch.float32 of width 8, as conditions[0] has",
    ),
    (
        lambda: request(conditions=[PROMPT, condition(2, temporal_weight=torch.ones(T + 2))]),
        "conditions[1].temporal_weight: got a curve of 8 frames, expected a scalar or 6 frames",
    ),
    (
        lambda: request(guidance=Guidance(torch.ones(T - 1), mode="self")),
        "guidance.scale: got a curve of 5 frames, expected a scalar or 6 frames",
    ),
    (lambda: request(guidance=2.0), "guidance: got 2.0, expected a Guidance or None"),
    (lambda: request(x0_target=2.0), "x0_target: got 2.0, expected an X0Target or None"),
    (lambda: request(latent_mask=2.0), "latent_mask: got 2.0, expected a LatentMask or None"),
    (
        lambda: request(source=fixed(3, T + 1)),
        f"source: got torch.float32 tensor of shape [1, 7, 4] {ON} a finite floating point tensor of shape [1, 6, 4]",
    ),
    # Configurations.
    (lambda: PipelineConfig(depth=0), "config.depth: got 0, expected an integer >= 1"),
    (lambda: PipelineConfig(steps=1001), "config.steps: got 1001, expected an integer from 1 to 1000"),
    (lambda: PipelineConfig(shift=0), "config.shift: got 0, expected a finite number >= 0.001 and <= 1000.0"),
    (lambda: PipelineConfig(solver="x"), "config.solver: got 'x', expected one of 'ode', 'sde'"),
    (lambda: PipelineConfig(padding="x"), "config.padding: got 'x', expected one of 'mask', 'zeros'"),
    (
        lambda: PipelineConfig(encoder_length=0),
        "config.encoder_length: got 0, expected an integer from 1 to 65536",
    ),
    (lambda: PipelineConfig(dcw=1), "config.dcw: got 1, expected a DCW or None"),  # type: ignore[arg-type]
    (lambda: PipelineConfig(switches=1), "config.switches: got 1, expected a Switches"),  # type: ignore[arg-type]
    (lambda: Switches(fused_cfg=1), "switches.fused_cfg: got 1, expected True or False"),  # type: ignore[arg-type]
    (lambda: Switches(integrator="x"), "switches.integrator: got 'x', expected one of 'per_slot', 'foreach'"),
    (lambda: DCW("x"), "dcw.mode: got 'x', expected one of 'low', 'high', 'double', 'pix'"),
    (
        lambda: DCW(wavelet="x"),
        "dcw.wavelet: got 'x', expected a discrete wavelet of PyWavelets with a reconstruction error of at most 1e-05",
    ),
    # Pipelines, sessions and executors.
    (
        lambda: pipeline(depth=9),
        "config.depth: got 9, expected at most max_depth = 8, the executor's max_rows",
    ),
    (lambda: pipeline().set_depth(9), "depth: got 9, expected at most max_depth = 8, the executor's max_rows"),
    (
        lambda: StreamPipeline(5),  # type: ignore[arg-type]
        "executor: got 5, expected an Executor: max_rows, takes_mask, stream, run and close",
    ),
    (lambda: pipeline().submit(5), "request: got 5, expected a Request"),  # type: ignore[arg-type]
    (lambda: pipeline().set_dcw(5), "dcw: got 5, expected a DCW or None"),  # type: ignore[arg-type]
    (
        lambda: pipeline().set_shared_curve("x", 1),
        "name: got 'x', expected one of 'velocity_scale', 'noise_injection', 'sde_curve', 'guidance_scale', "
        "'momentum', 'rescale', 'x0_strength'",
    ),
    (
        lambda: running().set_shared_curve("guidance_scale", torch.ones(T + 1)),
        "guidance_scale: got a curve of 7 frames, expected a scalar or 6 frames",
    ),
    (
        lambda: running().submit(request(id="request-0")),
        "id: got 'request-0', expected another name than an automatic one that is in the pipeline",
    ),
    (
        lambda: running().submit(request(id="request-" + "1" * 19)),
        "id: got 'request-1111111111111111111', expected a number of at most 18 digits after `request-`",
    ),
    (lambda: Session(5), "decoder: got 5, expected a decoder; the executor is the second argument"),  # type: ignore[arg-type]
    (
        lambda: Session(AffineDecoder()).null_condition(PROMPT),
        "null_embedding: got none, expected a null embedding of the decoder, or given to the session",
    ),
    (
        lambda: Session(AffineDecoder(E)).null_condition(WIDER),
        f"condition.encoder_hidden_states: got torch.float32 tensor of shape [1, 3, 9] {ON} width 8, as the null "
        "embedding has",
    ),
    (
        lambda: Session(AffineDecoder(E)).stream([PROMPT], CONTEXT).tick(seed=1, negative=PROMPT),
        "negative: got a condition without guidance, expected a guidance beside the condition",
    ),
    (
        lambda: (
            Session(AffineDecoder(E))
            .stream([PROMPT], CONTEXT)
            .tick(seed=1, negative=PROMPT, guidance=Guidance(2, [PROMPT]))
        ),
        "negative: got a condition beside guidance.negatives, expected either of the two",
    ),
    (
        lambda: (
            Session(AffineDecoder(E))
            .stream([PROMPT], CONTEXT)
            .tick(seed=1, negative=PROMPT, guidance=Guidance(2, mode="self"))
        ),
        "negative: got a condition beside guidance of mode self, expected none: it uses none",
    ),
    (lambda: closed(Session).stream([PROMPT], CONTEXT), "the session is closed"),
    (lambda: closed(EagerExecutor).run(batch(1)), "the executor is closed"),
    (lambda: closed(StaticExecutor).run(batch(1)), "the executor is closed"),
    (
        lambda: EagerExecutor(AffineDecoder(), 2).run(batch(3)),
        "a batch of 3 rows: the executor's max_rows is 2",
    ),
]


@pytest.mark.parametrize(("call", "words"), WORDS, ids=range(len(WORDS)))
def test_a_refusal_says_exactly_what_is_wrong(call: Callable[[], Any], words: str) -> None:
    with pytest.raises((ValueError, RuntimeError)) as refused:
        call()
    assert str(refused.value) == words
    assert getattr(refused.value, "field", words.partition(":")[0]) == words.partition(":")[0]

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, Condition, Guidance, InvalidInput, LatentMask, PipelineConfig, Request, X0Target

T, D, E = 6, 4, 8


def condition(**fields: Any) -> Condition:
    return Condition(torch.ones(1, 3, E), **fields)


def request(**fields: Any) -> Request:
    return Request(**{"conditions": [condition()], "context_latents": torch.ones(1, T, 2 * D), "seed": 1, **fields})


def latent(frames: int = T) -> Tensor:
    return torch.ones(1, frames, D)


BAD: list[tuple[str, Callable[[], Any]]] = [
    ("encoder_hidden_states", lambda: Condition(torch.ones(3, E))),
    ("encoder_hidden_states", lambda: Condition(torch.ones(1, 3, E, dtype=torch.int64))),
    ("encoder_hidden_states", lambda: Condition(torch.full((1, 3, E), float("nan")))),
    ("encoder_mask", lambda: condition(encoder_mask=torch.ones(1, 4))),
    ("encoder_mask", lambda: condition(encoder_mask=torch.full((1, 3), 0.5))),
    ("encoder_mask", lambda: condition(encoder_mask=torch.zeros(1, 3))),
    ("temporal_weight", lambda: condition(temporal_weight=float("inf"))),
    ("step_range", lambda: condition(step_range=(0.5, 0.2))),
    ("step_range", lambda: condition(step_range=(0.0, 1.5))),
    ("step_range", lambda: condition(step_range=(0.1,))),
    ("guidance.mode", lambda: Guidance(2.0, mode="half")),
    ("guidance.scale", lambda: Guidance(True)),
    ("guidance.norm_threshold", lambda: Guidance(2.0, norm_threshold=0.0)),
    ("guidance.negatives", lambda: request(guidance=Guidance(2.0))),
    ("guidance.negatives", lambda: request(guidance=Guidance(2.0, mode="initialize"))),
    ("guidance.scale", lambda: request(guidance=Guidance(torch.ones(T + 1), mode="self"))),
    ("x0_target.strength", lambda: X0Target(latent(), strength=0.5, curve=0.5)),
    ("x0_target.gate", lambda: X0Target(latent(), curve=0.5, gate=1.5)),
    ("x0_target.latent", lambda: request(x0_target=X0Target(latent(T + 1)))),
    ("latent_mask.mask", lambda: LatentMask(torch.ones(T + 1), latent())),
    ("latent_mask.mask", lambda: LatentMask(2.0, latent())),
    ("latent_mask.strength_at", lambda: LatentMask(1.0, latent(), 0.5)),
    ("conditions", lambda: request(conditions=[])),
    ("conditions", lambda: request(conditions=condition())),
    ("conditions[1]", lambda: request(conditions=[condition(), Condition(torch.ones(1, 3, E + 1))])),
    ("context_latents", lambda: request(context_latents=torch.ones(1, T, 5))),
    ("context_latents", lambda: request(context_latents=torch.ones(T, 2 * D))),
    ("seed", lambda: request(seed=-1)),
    ("seed", lambda: request(seed=2**64)),
    ("denoise", lambda: request(denoise=-0.1)),
    ("denoise", lambda: request(denoise=0.5)),
    ("denoise", lambda: request(denoise=float("nan"))),
    ("sde_curve", lambda: request(sde_curve=0.5)),
    ("initial_noise", lambda: request(initial_noise=0.5)),
    ("source", lambda: request(source=latent(T - 1))),
    ("source", lambda: request(source=torch.ones(1, T, D + 1))),
    ("velocity_scale", lambda: request(velocity_scale=torch.ones(T - 1))),
    ("noise_injection", lambda: request(noise_injection=torch.full((T,), float("nan")))),
    ("temporal_weight", lambda: request(conditions=[condition(temporal_weight=torch.ones(T + 1))])),
    ("config.depth", lambda: PipelineConfig(depth=0)),
    ("config.steps", lambda: PipelineConfig(steps=True)),
    ("config.shift", lambda: PipelineConfig(shift=0.0)),
    ("config.solver", lambda: PipelineConfig(solver="heun")),
    ("dcw.mode", lambda: DCW("triple")),
    ("dcw.wavelet", lambda: DCW(wavelet="dmey")),
    ("dcw.wavelet", lambda: DCW(wavelet="morl")),
]


@pytest.mark.parametrize(("field", "make"), BAD, ids=[f"{n}-{field}" for n, (field, _) in enumerate(BAD)])
def test_bad_input_is_refused_by_name(field: str, make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInput, match="expected") as refused:
        make()
    assert field in refused.value.field


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.bfloat16])
def test_masks_are_taken_in_bool_integer_and_float(dtype: torch.dtype) -> None:
    assert condition(encoder_mask=torch.tensor([[1, 0, 1]]).to(dtype)).encoder_mask.tolist() == [[True, False, True]]
    mask = LatentMask(torch.tensor([1, 0, 1, 0, 1, 0]).to(dtype), latent()).mask
    assert mask.values.flatten().tolist() == [1, 0, 1, 0, 1, 0]


def test_a_curve_is_copied_and_a_source_is_not() -> None:
    scale, source = torch.ones(T), latent()
    made = request(velocity_scale=scale, source=source)
    scale.fill_(3.0)
    assert made.velocity_scale.values.unique().tolist() == [1.0]
    assert made.source is source


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        request().seed = 2

"""Requests at the edge of every range in one long ring: each ends with the bits of the textbook loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, Guidance, LatentMask, PipelineConfig, Request, StreamPipeline, X0Target
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.noise import MAX_SEED
from harness.parity import reference
from harness.parity.compare import assert_identical
from tests.engine.builders import D, T, condition, fixed, request

SIGNS = torch.tensor([0.0, -0.0, 1e-20, -1.0]).expand(1, T, D).contiguous()
NOTHING = torch.full((1, T, D), -0.0)
RAMP, HARD = torch.linspace(0.0, 1.0, T), torch.tensor([0.0, -0.0, 1.0, 1.0, 0.5, 1.0])
SMALLEST = math.nextafter(1e-6, 1.0)


def prompts(*fields: dict[str, Any]) -> list[Any]:
    return [condition(20 + number, 1 + number, **each) for number, each in enumerate(fields)]


def against(scale: Any = 3.0, mode: str = "full", count: int = 1, **fields: Any) -> dict[str, Any]:
    negatives = [] if mode == "self" else [condition(40 + number, 2 + number) for number in range(count)]
    return {"guidance": Guidance(scale, negatives, mode, **fields)}


def masked(mask: Any = HARD, original: Tensor = SIGNS, strength: Any = None) -> dict[str, Any]:
    return {"latent_mask": LatentMask(mask, original, strength)}


def target(latent: Tensor = SIGNS, **fields: Any) -> dict[str, Any]:
    return {"x0_target": X0Target(latent, **fields)}


FIELDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "the largest seed": {"seed": MAX_SEED, "noise_injection": 1.0},
    "a seed beyond 32 bits": {"seed": 2**63 + 5, **masked()},
    **{
        f"an initial share of {share}": {"source": SIGNS, "initial_noise": share, "denoise": 0.5}
        for share in (1.0, 0.0, -0.0, -10.0)
    },
    **{f"from denoise {d}": {"source": NOTHING, "denoise": d} for d in (0.0, 1e-6, SMALLEST, 0.999, 1.0, 1e300)},
    **{
        f"{name} from denoise {d}": {"source": NOTHING, "denoise": d, **more}
        for d in (0.0, SMALLEST)
        for name, more in {
            "injected": {"noise_injection": 10.0},
            "guided": against(rescale=1.0),
            "targeted": target(fixed(3), strength=1.0),
            "gated": target(fixed(3), curve=1.0),
            "masked": masked(0.5, fixed(3)),
            "by a curve": {"sde_curve": RAMP},
            "scaled": {"velocity_scale": -50.0},
        }.items()
    },
    **{f"scaled by {v}": {"velocity_scale": v} for v in (0.0, -0.0, -50.0, torch.tensor([1.0, 1, 1, 1, 1, 2]))},
    "injected in one frame": {"noise_injection": torch.tensor([0.0, 0, 0, 0, 0, 1])},
    "masked and injected": {**masked(), "noise_injection": -10.0},
    "a mask that is nowhere": masked(0.0),
    "a mask of one frame less": masked(torch.tensor([1.0, 1, 1, 1, 1, 0]), fixed(3)),
    **{
        f"a mask of strength {name}": masked(mask, fixed(3), strength)
        for name, mask, strength in (
            ("one", 1.0, lambda _step, _total: 1.0),
            ("half", 0.7, lambda _step, _total: 0.5),
            ("none at first", RAMP, lambda step, total: step / total),
            ("none at last", 1.0, lambda step, total: 1.0 - (step + 1) / total),
        )
    },
    "a mask beside a source": {"source": fixed(4), "denoise": 0.7, **masked(RAMP, fixed(3))},
    "a mask for a source": {"denoise": 0.7, "sde_curve": HARD, **masked(RAMP, fixed(3))},
    **{f"a target of strength {v}": target(strength=v) for v in (1.0, -0.0, -10.0, torch.tensor([0.0, 0, 0, 0, 0, 1]))},
    **{f"a gate at {g}": target(curve=RAMP, gate=g) for g in (0.0, 0.5, math.nextafter(1.0, 0.0), 1.0)},
    "a gated target of zeros": target(fixed(3), curve=0.0),
    "a target within a mask": {**target(fixed(3), curve=RAMP, gate=0.2), **masked(HARD, fixed(4))},
    "a strength within a mask": {**target(fixed(3), strength=0.7), **masked(RAMP, fixed(4))},
    **{f"a curve of {v}": {"source": fixed(4), "sde_curve": v} for v in (0.0, 1.0, -0.0, -10.0)},
    "a curve and a target": {"source": fixed(4), "sde_curve": 0.5, **target(fixed(3), strength=1.0)},
    "weights of nothing": {"conditions": prompts(*[{"temporal_weight": w} for w in (0.0, -0.0, 0.0)])},
    "weights of ones and none": {"conditions": prompts({}, {"temporal_weight": torch.ones(T)}, *[{}] * 7)},
    "many weights": {"conditions": prompts(*[{"temporal_weight": 0.1 * n + RAMP} for n in range(7)])},
    "prompts in turn": {"conditions": prompts({"step_range": (0.5, 1.0)}, {"step_range": (0.0, 0.5)}, {})},
    "prompts that are over": {"conditions": prompts(*[{"step_range": (0.0, 1e-9), "temporal_weight": 0.5}] * 2)},
    "negatives by weight": {
        "guidance": Guidance(
            3.0, prompts({"temporal_weight": RAMP}, {"step_range": (0.0, 0.5)}, {"temporal_weight": 5})
        )
    },
    "kept from many": against(mode="initialize", count=3),
    **{f"guided by {g}": against(g) for g in (1.0, 0.0, -50.0, 50.0 * RAMP)},
    **{f"of itself, {m}": against(mode="self", momentum=m) for m in (0.0, -0.0, 1.0, RAMP)},
    **{f"eta {eta}": against(eta=eta) for eta in (1.0, -0.0, -10.0)},
    **{f"a norm of {r}": against(mode="initialize", norm_threshold=r) for r in (None, 2.0**-126, 0.5)},
    **{f"rescaled by {k}": against(rescale=k) for k in (1.0, -0.0, RAMP, -10.0)},
    "from a source against itself": {"source": fixed(4), "denoise": 0.6, **against(mode="self")},
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one step": ({"steps": 1, "dcw": DCW("double", 0.3, 0.2, "db2")}, {}),
    "two steps back through noise": ({"steps": 2, "solver": "sde", "dcw": DCW("high", 0.5)}, {}),
    "three steps": ({"steps": 3, "shift": 1.0, "dcw": DCW("low", RAMP)}, {"channel_gain": fixed(6, 1)}),
    "three steps back through noise": ({"steps": 3, "solver": "sde", "shift": 0.3}, {}),
    "three steps under neutral controls": (
        {"steps": 3, "dcw": DCW("double", 0.0, 0.4)},
        {"velocity_scale": 1.0, "noise_injection": -0.0, "x0_strength": 0.0, "rescale": 0.0},
    ),
    "two steps under controls": (
        {"steps": 2, "dcw": DCW("pix", RAMP)},
        {"guidance_scale": RAMP, "momentum": 1.0, "sde_curve": 1.0, "x0_strength": RAMP, "noise_injection": RAMP},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_requests_at_the_edge_of_every_range_end_in_one_long_ring_with_the_bits_they_have_alone(case: str) -> None:
    fields, live = CASES[case]
    config = PipelineConfig(depth=len(FIELDS), encoder_length=64, **fields)
    with StreamPipeline(EagerExecutor(AffineDecoder(), 2 * len(FIELDS)), config) as p:
        for name, value in live.items():
            if name == "channel_gain":
                p.set_channel_gain(value)
            else:
                p.set_shared_curve(name, value)
        made = {name: request(**{"seed": 100 + n, "id": name, **each}) for n, (name, each) in enumerate(FIELDS.items())}
        for each in made.values():
            p.submit(each)
        ended = {f.id: f.latent for f in p.drain()}
    assert ended.keys() == made.keys()
    controls = reference.StepControls(
        {name: value for name, value in live.items() if name != "channel_gain"}, config.dcw, live.get("channel_gain")
    )
    for name, each in made.items():
        assert_identical(ended[name], alone(each, config, controls), name)


def alone(each: Request, config: PipelineConfig, controls: Any) -> Tensor:
    steps = 1 if each.denoise <= 1e-6 else config.steps
    return reference.run(EagerExecutor(AffineDecoder()), each, config, 64, [controls] * steps)

"""A place for a value in every field of every record and in every live control: a small request that reads it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

import harness.engine
from harness.engine import (
    DCW,
    Condition,
    Curve,
    Dropped,
    Failed,
    Finished,
    Guidance,
    LatentMask,
    PipelineConfig,
    Request,
    Stats,
    StreamPipeline,
    Submission,
    Switches,
    X0Target,
)
from harness.engine.controls import SharedControl
from harness.engine.switches import SWITCHES
from tests.engine.builders import D, E, T, condition, fixed, pipeline

RETURNED = (Curve, Dropped, Failed, Finished, Stats, Submission)
"""Records that a caller reads and does not make."""

RECORDS = [
    record
    for record in (getattr(harness.engine, name) for name in harness.engine.__all__)
    if isinstance(record, type) and is_dataclass(record) and record not in RETURNED
]
LIVE = [f"live.{name}" for name in SharedControl]
LIVE += [f"live.{name.removeprefix('set_')}" for name in dir(StreamPipeline) if name.startswith("set_")]
LIVE.remove("live.shared_curve")
KEYS = [f"{record.__name__}.{each.name}" for record in RECORDS for each in fields(record)] + LIVE
"""Every field of every record that a caller makes, and every live control; derived, so that none can be forgotten."""

MASK = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0, 1.0])


@dataclass(frozen=True)
class Scene:
    """Fields of a `PipelineConfig` and of a `Request`, and a live change."""

    config: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    live: Callable[[StreamPipeline], None] | None = None

    def pipeline(self, **others: Any) -> StreamPipeline:
        return pipeline(**{**others, **self.config})

    def made(self) -> Request:
        given = {"conditions": [condition(1, 5)], "context_latents": fixed(7, T, 2 * D), "seed": 1, "id": "r1"}
        return Request(**{**given, **self.request})

    def submit(self, p: StreamPipeline) -> None:
        p.submit(self.made())
        self.change(p)

    def change(self, p: StreamPipeline) -> None:
        if self.live is not None:
            self.live(p)

    def run(self, **config: Any) -> list[Finished]:
        """Run the request to its end; its live change acts from the first tick on."""
        p = self.pipeline(**config)
        self.submit(p)
        return p.drain()


def guided(**fields: Any) -> Guidance:
    return Guidance(**{"scale": 2.5, "negatives": [condition(9)], **fields})


def _prompts(name: str) -> Callable[[Any], Scene]:
    return lambda value: Scene(request={"conditions": [condition(1, **{name: value}), condition(2)]})


def _guidance(name: str) -> Callable[[Any], Scene]:
    return lambda value: Scene(request={"guidance": guided(**{name: value})})


def _target(name: str) -> Callable[[Any], Scene]:
    beside = {"strength": {"strength": 0.5}, "curve": {"curve": 0.5}}["strength" if name == "latent" else "curve"]
    alone = {} if name == "strength" else beside
    return lambda value: Scene(request={"x0_target": X0Target(**{"latent": fixed(3), **alone, name: value})})


def _mask(name: str) -> Callable[[Any], Scene]:
    return lambda value: Scene(request={"latent_mask": LatentMask(**{"mask": MASK, "original": fixed(3), name: value})})


def _request(name: str) -> Callable[[Any], Scene]:
    needs = {"source": fixed(3)} if name in ("denoise", "sde_curve", "initial_noise") else {}
    needs |= {"denoise": 0.7} if name == "source" else {}
    return lambda value: Scene(request={**needs, name: value})


def _config(name: str) -> Callable[[Any], Scene]:
    return lambda value: Scene(config={name: value}, request={"conditions": [condition(1, 1)]})


def _dcw(name: str) -> Callable[[Any], Scene]:
    return lambda value: Scene(config={"dcw": DCW(**{name: value})})


def _switch(name: str) -> Callable[[Any], Scene]:
    return lambda value: Scene(config={"switches": Switches(**{name: value})})


def _shared(name: str) -> Callable[[Any], Scene]:
    acted_on = {"source": fixed(3), "guidance": guided(rescale=0.5), "x0_target": X0Target(fixed(4), strength=0.5)}
    return lambda value: Scene(request=acted_on, live=lambda p: p.set_shared_curve(name, value))


def _set(name: str) -> Callable[[Any], Scene]:
    return lambda value: Scene(live=lambda p: getattr(p, f"set_{name}")(value))


PLACES: dict[str, Callable[[Any], Scene]] = {
    "Condition.encoder_hidden_states": lambda value: Scene(request={"conditions": [Condition(value)]}),
    **{f"Condition.{name}": _prompts(name) for name in ("encoder_mask", "temporal_weight", "step_range")},
    **{
        f"{record.__name__}.{each.name}": make(each.name)
        for record, make in (
            (Guidance, _guidance),
            (X0Target, _target),
            (LatentMask, _mask),
            (Request, _request),
            (PipelineConfig, _config),
            (DCW, _dcw),
            (Switches, _switch),
        )
        for each in fields(record)
    },
    **{f"live.{name}": _shared(str(name)) for name in SharedControl},
    **{f"live.{name}": _set(name) for name in ("dcw", "channel_gain", "depth")},
}
"""By field: the scene in which a value stands in that field."""

LARGEST = (2.0 - 2.0**-23) * 2.0**127
"""The largest float32."""

TENSORS: dict[str, tuple[int, ...]] = {
    "Condition.encoder_hidden_states": (1, 5, E),
    "X0Target.latent": (1, T, D),
    "LatentMask.original": (1, T, D),
    "Request.context_latents": (1, T, 2 * D),
    "Request.source": (1, T, D),
}
"""Tensors that are not copied, and shapes that fit."""

MASKS = {"Condition.encoder_mask": (1, 3)}
"""Masks of 0 and 1, which are copied."""

FACTOR, SHARE, UNIT = (-50.0, 50.0), (-10.0, 10.0), (0.0, 1.0)
CURVES: dict[str, tuple[float, float]] = {
    "Condition.temporal_weight": (0.0, 1e6),
    "Guidance.scale": FACTOR,
    "Guidance.momentum": SHARE,
    "Guidance.rescale": SHARE,
    "X0Target.strength": SHARE,
    "X0Target.curve": SHARE,
    "LatentMask.mask": UNIT,
    "Request.velocity_scale": FACTOR,
    "Request.noise_injection": SHARE,
    "Request.sde_curve": SHARE,
    "Request.initial_noise": SHARE,
    "DCW.a": SHARE,
    "DCW.b": SHARE,
    "live.velocity_scale": FACTOR,
    "live.noise_injection": SHARE,
    "live.sde_curve": SHARE,
    "live.guidance_scale": FACTOR,
    "live.momentum": SHARE,
    "live.rescale": SHARE,
    "live.x0_strength": SHARE,
}
"""Curves, which are copied, and their ranges: written down a second time, so that no range changes unseen."""

GAINS = {"live.channel_gain": FACTOR}

NUMBERS: dict[str, tuple[float, float]] = {
    "Guidance.norm_threshold": (2.0**-126, LARGEST),
    "Guidance.eta": SHARE,
    "X0Target.gate": UNIT,
    "Request.denoise": (0.0, math.inf),
    "PipelineConfig.shift": (1e-3, 1e3),
}
INTEGERS: dict[str, tuple[int, int]] = {
    "Request.seed": (0, 2**64 - 1),
    "PipelineConfig.depth": (1, 8),
    "PipelineConfig.steps": (1, 1000),
    "PipelineConfig.encoder_length": (1, 65536),
    "PipelineConfig.max_ticks_ahead": (1, 64),
    "live.depth": (1, 8),
}
CHOICES: dict[str, list[Any]] = {
    "Guidance.mode": ["full", "initialize", "self"],
    "PipelineConfig.solver": ["ode", "sde"],
    "PipelineConfig.padding": ["mask", "zeros"],
    "DCW.mode": ["low", "high", "double", "pix"],
    "DCW.wavelet": ["haar", "db2", "sym4", "bior2.2"],
    **{f"Switches.{name}": [each.plain, each.fast] for name, each in SWITCHES.items()},
}
COMPOSED: dict[str, list[Callable[[], Any]]] = {
    "Condition.step_range": [lambda: None, lambda: (0.0, math.nextafter(0.0, 1.0)), lambda: [0.25, 1.0]],
    "Guidance.negatives": [lambda: [condition(9)], lambda: (condition(8), condition(9))],
    "LatentMask.strength_at": [lambda: None, lambda: lambda step, total: step / total, lambda: lambda *_: 1],
    "Request.conditions": [lambda: [condition()], lambda: (condition(1), condition(2))],
    "Request.id": [lambda: None, lambda: "", lambda: 0, lambda: "name", lambda: -1],
    "Request.guidance": [lambda: None, guided],
    "Request.x0_target": [lambda: None, lambda: X0Target(fixed(3), strength=1.0)],
    "Request.latent_mask": [lambda: None, lambda: LatentMask(MASK, fixed(3))],
    "PipelineConfig.dcw": [lambda: None, DCW],
    "PipelineConfig.switches": [Switches],
    "live.dcw": [lambda: None, DCW],
}
"""Fields that hold records, names or functions, and values that they take."""


def finite(latent: Tensor) -> bool:
    return bool(torch.isfinite(latent).all())

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, fields
from typing import Any

import pytest
import torch

from harness.engine import (
    DCW,
    Condition,
    Guidance,
    Integrator,
    InvalidInput,
    LatentMask,
    Padding,
    PipelineConfig,
    Request,
    Solver,
    Switches,
    X0Target,
)
from harness.engine.curve import Curve
from harness.engine.wavelet import DCWMode

BAD: list[tuple[str, Callable[[], Any]]] = [
    ("config.depth", lambda: PipelineConfig(depth=0)),
    ("config.depth", lambda: PipelineConfig(depth=2.0)),
    ("config.steps", lambda: PipelineConfig(steps=0)),
    ("config.steps", lambda: PipelineConfig(steps=True)),
    ("config.shift", lambda: PipelineConfig(shift=0.0)),
    ("config.shift", lambda: PipelineConfig(shift=-1.0)),
    ("config.shift", lambda: PipelineConfig(shift=float("nan"))),
    ("config.solver", lambda: PipelineConfig(solver="heun")),
    ("config.padding", lambda: PipelineConfig(padding="repeat")),
    ("config.encoder_length", lambda: PipelineConfig(encoder_length=0)),
    ("config.dcw", lambda: PipelineConfig(dcw="double")),
    ("config.switches", lambda: PipelineConfig(switches=None)),
    ("switches.fused_cfg", lambda: Switches(fused_cfg=1)),
    ("switches.integrator", lambda: Switches(integrator="batched")),
    ("dcw.mode", lambda: DCW("triple")),
    ("dcw.a", lambda: DCW(a=float("inf"))),
    ("dcw.b", lambda: DCW(b=True)),
    ("dcw.wavelet", lambda: DCW(wavelet="nothing")),
    ("dcw.wavelet", lambda: DCW(wavelet="dmey")),
    ("dcw.wavelet", lambda: DCW(wavelet="morl")),
    ("dcw.wavelet", lambda: DCW(wavelet=1)),
]


@pytest.mark.parametrize(("field", "make"), BAD, ids=[f"{n}-{field}" for n, (field, _) in enumerate(BAD)])
def test_bad_configuration_is_refused_by_name(field: str, make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: got .*, expected ") as refused:
        make()
    assert refused.value.field == field


def test_strings_become_members() -> None:
    made = PipelineConfig(solver="sde", padding="zeros", switches=Switches(integrator="per_slot"))
    assert (made.solver, made.padding, made.switches.integrator) == (Solver.SDE, Padding.ZEROS, Integrator.PER_SLOT)


def test_scalers_are_copied() -> None:
    scaler = torch.ones(5)
    made = DCW(a=scaler)
    scaler.fill_(0.0)
    assert made.scalers[0].is_everywhere(1.0)
    assert made.scalers[0].values.unique().tolist() == [1.0]


@pytest.mark.parametrize(("record", "field"), [(PipelineConfig(), "depth"), (Switches(), "fused_cfg"), (DCW(), "a")])
def test_configuration_is_frozen(record: Any, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(record, field, None)


@pytest.mark.parametrize("mode", ["low", "high", "double", "pix"])
def test_a_correction_keeps_and_checks_both_scalers_in_every_mode(mode: str) -> None:
    made = DCW(mode, a=0.25, b=0.5)
    assert [each.uniform for each in (made.a, made.b) if isinstance(each, Curve)] == [0.25, 0.5]
    for field in ("a", "b"):
        with pytest.raises(InvalidInput, match=f"dcw.{field}: got nan"):
            DCW(mode, **{field: float("nan")})


DEFAULTS: dict[type, dict[str, Any]] = {
    PipelineConfig: {
        "depth": 4,
        "steps": 8,
        "shift": 3.0,
        "solver": "ode",
        "encoder_length": None,
        "dcw": None,
        "padding": "mask",
        "max_ticks_ahead": 2,
    },
    DCW: {"mode": "double", "a": 0.05, "b": 0.02, "wavelet": "haar"},
    Guidance: {
        "negatives": (),
        "mode": "full",
        "momentum": -0.75,
        "rescale": None,
        "norm_threshold": 2.5,
        "eta": 0.0,
    },
    Condition: {"encoder_mask": None, "temporal_weight": None, "step_range": None},
    X0Target: {"strength": 0.0, "curve": None, "gate": 0.0},
    LatentMask: {"strength_at": None},
    Request: {
        "id": None,
        "denoise": 1.0,
        **dict.fromkeys(["source", "guidance", "velocity_scale", "noise_injection", "sde_curve", "initial_noise"]),
        **dict.fromkeys(["x0_target", "latent_mask"]),
    },
}
"""By record: its defaults as docs/requests.md has them, written down a second time, so that none changes unseen."""


@pytest.mark.parametrize("record", DEFAULTS, ids=lambda record: record.__name__)
def test_the_defaults_are_the_documented_ones(record: Any) -> None:
    assert {each.name: each.default for each in fields(record) if each.default is not MISSING} == DEFAULTS[record]


@pytest.mark.parametrize(("field", "most"), [("steps", 1000), ("encoder_length", 65536), ("max_ticks_ahead", 64)])
def test_the_largest_number_of_steps_and_of_tokens_is_taken_and_one_more_is_refused(field: str, most: int) -> None:
    assert getattr(PipelineConfig(**{field: most}), field) == most
    with pytest.raises(InvalidInput, match=f"config.{field}: got {most + 1}"):
        PipelineConfig(**{field: most + 1})


def test_a_wavelet_that_loses_something_is_refused_with_what_it_loses() -> None:
    with pytest.raises(InvalidInput) as refused:
        DCW(wavelet="dmey")
    assert str(refused.value) == (
        "dcw.wavelet: got 'dmey' with a reconstruction error of 3.6e-03, "
        "expected a discrete wavelet of PyWavelets with a reconstruction error of at most 1e-05"
    )


def test_configurations_of_equal_fields_are_equal_and_numbers_are_floats() -> None:
    assert PipelineConfig() == PipelineConfig(4, 8, 3, "ode", None, None, Switches(), "mask")
    assert PipelineConfig() != PipelineConfig(padding="zeros")
    assert Switches() != Switches(host_gates=False)
    assert type(PipelineConfig(shift=3).shift) is float
    made = DCW("pix", 1, 2)
    assert made.mode is DCWMode.PIX
    assert made.scalers == (made.a, made.b)


@pytest.mark.parametrize("field", ["a", "b"])
def test_scalers_of_a_correction_that_was_not_checked_are_an_error(field: str) -> None:
    made = DCW()
    object.__setattr__(made, field, 0.5)
    with pytest.raises(TypeError, match="DCW.scalers was read before the fields of DCW were checked"):
        _ = made.scalers

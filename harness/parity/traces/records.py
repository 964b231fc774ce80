"""Records of the engine in a trace: requests with all that they hold, the configuration, the wavelet correction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.engine import curve
from harness.engine.config import DCW, PipelineConfig
from harness.engine.curve import Curve
from harness.engine.errors import InvalidInput
from harness.engine.request import Condition, Guidance, LatentMask, Request, X0Target
from harness.engine.switches import Switches
from harness.parity.traces.encoding import Encoder, Place

_PLAIN: tuple[type[Any], ...] = (Request, Condition, Guidance, X0Target, DCW, PipelineConfig, Switches)
_SCALE = 1e6


class Strengths:
    """Recorded values of `strength_at` of a latent mask: a pure function of the step, so its values say all of it.

    Args:
        values: the value at each step; None where the function raised or returned no number.
    """

    def __init__(self, values: list[float | None]) -> None:
        self.values = values

    def __call__(self, step: int, total: int) -> float:
        """Return the recorded value.

        Raises:
            LookupError: the recorded function failed at this step, or the request has another number of steps.
        """
        value = self.values[step] if total == len(self.values) else None
        if value is None:
            raise LookupError(f"the recorded strength_at gave no number at step {step} of {total}")
        return value


def encoders(total: int) -> Mapping[type, Callable[[Encoder, Any, Place], Any]]:
    """Encoders of all records, by type.

    Args:
        total: number of steps of the request that is encoded, at which `strength_at` is asked.
    """
    plain: dict[type, Callable[[Encoder, Any, Place], Any]] = dict.fromkeys(_PLAIN, _fields)
    return {**plain, Curve: _curve, LatentMask: partial(_mask, total)}


def decoders(device: torch.device | str) -> Mapping[str, Callable[[dict[str, Any]], Any]]:
    """Makers of all records, by name; a curve is put on `device`."""

    def made_curve(values: Tensor) -> Curve:
        if values.dtype != torch.float32 or not values.numel() or values.shape != (1, values.numel(), 1):
            raise InvalidInput("values", f"{values.dtype} {list(values.shape)}", "float32 [1, T, 1]")
        if not bool((values.abs() <= _SCALE).all()):
            raise InvalidInput("values", "a value that is not finite or above 1e6", "values of a curve")
        return curve.of_values(values).to(torch.device(device))

    def made_mask(strength_at: list[float | None] | None, **given: Any) -> LatentMask:
        return LatentMask(**given, strength_at=None if strength_at is None else Strengths(strength_at))

    makers: dict[str, Callable[..., Any]] = {each.__name__: each for each in _PLAIN}
    makers |= {"Curve": made_curve, "LatentMask": made_mask}
    return {name: partial(_made, maker) for name, maker in makers.items()}


def _made(maker: Callable[..., Any], given: dict[str, Any]) -> Any:
    return maker(**given)


def _fields(encoder: Encoder, record: Any, place: Place) -> Any:
    given = {each.name: encoder.encoded(getattr(record, each.name), (*place, each.name)) for each in fields(record)}
    return {"record": [type(record).__name__, given]}


def _curve(encoder: Encoder, made: Curve, place: Place) -> Any:
    return {"record": ["Curve", {"values": encoder.encoded(made.values, place)}]}


def _mask(total: int, encoder: Encoder, mask: LatentMask, place: Place) -> Any:
    values = None if mask.strength_at is None else [_strength(mask, step, total) for step in range(total)]
    given = {"mask": mask.mask, "original": mask.original, "strength_at": values}
    return {"record": ["LatentMask", {name: encoder.encoded(each, (*place, name)) for name, each in given.items()}]}


def _strength(mask: LatentMask, step: int, total: int) -> float | None:
    try:
        return mask.strength_in_force(step, total)
    except Exception:  # noqa: BLE001 - whatever a callback raises, the ring makes the request fail at this step
        return None

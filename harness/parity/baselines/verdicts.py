"""Verdicts about one capture, and the bound that a result must stay within on another machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from harness.parity.compare import compare_named, max_abs
from harness.parity.differences import DEFAULT, Words, listed

EPS = torch.finfo(torch.float32).eps


class Verdict(StrEnum):
    """The verdict of a check about one scenario; only `exact` and `tolerance` pass.

    `outside_profile` neither passes nor fails: an engine from a file does not take what the scenario runs.
    """

    EXACT = "exact"
    TOLERANCE = "tolerance"
    MOVED = "moved"
    MISSING = "missing"
    ORPHAN = "orphan"
    CORRUPT = "corrupt"
    DIGEST_DIFFERS = "digest_differs"
    NOT_GATED = "not_gated"
    OUTSIDE_PROFILE = "outside_profile"

    @property
    def passes(self) -> bool:
        """True where this verdict lets a check succeed."""
        return self in (Verdict.EXACT, Verdict.TOLERANCE)

    @property
    def moved(self) -> bool:
        """True where two results were compared byte for byte and differ."""
        return self in (Verdict.MOVED, Verdict.DIGEST_DIFFERS)


@dataclass(frozen=True)
class Result:
    """One scenario's verdict.

    Attributes:
        name: the scenario's, or the file's where it belongs to none.
        verdict: see `Verdict`.
        max_abs: largest |Δ| over its tensors; None where nothing finite was compared.
        bound: what it had to stay within, 0.0 where bytes had to match; None where nothing was compared.
        detail: what differs and where, in words.
        compared_with: the platform whose capture was compared; None where nothing was, or where it is of no platform.
    """

    name: str
    verdict: Verdict
    max_abs: float | None = None
    bound: float | None = None
    detail: str = ""
    compared_with: str | None = None


def tolerance(actual: Tensor, expected: Tensor) -> tuple[float, float]:
    """`max |Δ|` and the unit it is measured in, eps * rms of `expected`, a complex one's parts; as float64.

    The unit is 0 where the rms is not finite: no bound relative to it exists, and nothing compares with a NaN.
    """
    rms = _rms(expected)
    return max_abs(actual, expected), EPS * rms if math.isfinite(rms) else 0.0


def _rms(tensor: Tensor) -> float:
    parts = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return float(parts.double().square().mean().sqrt()) if tensor.numel() else 0.0


def distance(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float | None:
    """Largest |Δ| over all tensors; None where names, dtypes or shapes differ or it is not finite."""
    alike = actual.keys() == expected.keys() and all(
        actual[name].dtype == expected[name].dtype and actual[name].shape == expected[name].shape for name in actual
    )
    largest = max((max_abs(actual[name], expected[name]) for name in actual), default=0.0) if alike else math.inf
    return largest if math.isfinite(largest) else None


def within_bound(
    name: str, actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], k: float, words: Words = DEFAULT
) -> Result:
    """`exact`, `tolerance` or `moved`, by `max |Δ| <= k * eps * rms(expected)` for every tensor; eps is float32's.

    Tick digests are no part of it: where the finished bits may differ, the states' may.
    """
    differences = compare_named(actual, expected)
    if not differences:
        return Result(name, Verdict.EXACT, 0.0, 0.0)
    told = listed(differences, words)
    if distance(actual, expected) is None:
        return Result(name, Verdict.MOVED, detail="; ".join(told))
    measured = {each.name: tolerance(actual[each.name], expected[each.name]) for each in differences}
    boundless = [each for each in measured if not math.isfinite(_rms(expected[each]))]
    if boundless:
        detail = "; ".join([f"{boundless[0]}: its capture is not finite, so no bound exists", *told])
        return Result(name, Verdict.MOVED, detail=detail)
    # The tensor that is furthest out of its own bound speaks for the scenario.
    worst = max(measured, key=lambda each: measured[each][0] - k * measured[each][1])
    moved, unit = measured[worst]
    if moved <= k * unit:
        return Result(name, Verdict.TOLERANCE, moved, k * unit, f"{worst}: max |Δ| {moved:.3g} <= {k * unit:.3g}")
    detail = "; ".join([f"{worst}: max |Δ| {moved:.3g} > {k * unit:.3g}", *told])
    return Result(name, Verdict.MOVED, moved, k * unit, detail)

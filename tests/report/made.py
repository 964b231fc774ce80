"""Documents of checks, and evidence, made up for tests of the report."""

from __future__ import annotations

from typing import Any

import torch

from harness.parity.proofs.evidence import DIFFERS, SAME, STAGES, Evidence, Picture, Place, Seat, TickSeen
from harness.report.differences import Difference

SWITCHES = ("fused_cfg", "cached_conditioning", "integrator", "host_gates", "joined_stream", "another")
EXECUTORS = ("eager", "static", "deferred")


def switched(
    scenario: str, switch: str = "fused_cfg", executor: str = "eager", verdict: str = "exact", **more: Any
) -> Any:
    fields = {"decoder": "affine", "dtype": "float32", "device": "cpu", "acted": True, "detail": ""}
    return {"switch": switch, "scenario": scenario, "executor": executor, "verdict": verdict, **fields, **more}


def captured(name: str, verdict: str = "exact", detail: str = "") -> dict[str, Any]:
    return {"name": name, "verdict": verdict, "max_abs": 0.0, "bound": 0.0, "detail": detail, "compared_with": "here"}


def document(**parts: Any) -> dict[str, Any]:
    """A document of a check, as `CheckReport.document` makes it."""
    where = {"name": "here", "fingerprint": {"torch": "2.13.0"}, "elsewhere": []}
    empty: dict[str, Any] = {"scenarios": [], "switches": [], "costs": [], "failed": {}, "platform": where}
    return {**empty, "summary": {"passes": True, "verdicts": {}, "text": "all as blessed"}, **parts}


def evidence(name: str = "velocity", ticks: int = 6, frames: int = 12, channels: int = 4, id: str = "a") -> Evidence:
    """A difference at tick 2, slot 1, stage step."""
    seen = []
    for number in range(ticks):
        stages = {
            stage: DIFFERS if (number, STAGES.index(stage)) >= (2, STAGES.index("step")) else SAME for stage in STAGES
        }
        seats = (None, Seat(id, number + 1, ticks))
        seen.append(TickSeen(number, seats, stages, frozenset({1} if number >= 2 else ())))
    draw = torch.Generator().manual_seed(0)
    expected = torch.randn(frames, channels, generator=draw)
    got = expected.clone()
    got[7 % frames :, 3 % channels] += 0.5
    return Evidence(tuple(seen), Place(2, 1, "step"), (Picture(name, got, expected),), ("words",))


def difference(scenario: str = "cfg_full", shown: Evidence | None = None, **more: Any) -> Difference:
    fields: dict[str, Any] = {"detail": "it differs", "repro": "python -m harness check --switches --only cfg_full"}
    return Difference(scenario, "fused_cfg on eager, affine", "moved", **{**fields, **more}, evidence=shown)

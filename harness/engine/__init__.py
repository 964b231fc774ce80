"""The streaming engine: requests, configuration, pipeline and session.

Each name is imported on first use. The pytest plugin reads some modules of this package in projects in which the
libraries of the engine are not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.engine.config import DCW, Padding, PipelineConfig, Solver
    from harness.engine.curve import Curve
    from harness.engine.errors import (
        BatchTooLarge,
        ExecutorError,
        InvalidInput,
        PipelineClosed,
        RequestFailed,
        TickInside,
    )
    from harness.engine.guidance_modes import GuidanceMode
    from harness.engine.pipeline import StreamPipeline
    from harness.engine.request import Condition, Guidance, LatentMask, Request, X0Target
    from harness.engine.results import (
        Dropped,
        DropReason,
        Failed,
        FailReason,
        Finished,
        Outcomes,
        Stats,
        Submission,
        all_finished,
    )
    from harness.engine.session import Session, Stream
    from harness.engine.switches import PLAIN_PATH, Integrator, Switches

__all__ = [
    "DCW",
    "PLAIN_PATH",
    "BatchTooLarge",
    "Condition",
    "Curve",
    "DropReason",
    "Dropped",
    "ExecutorError",
    "FailReason",
    "Failed",
    "Finished",
    "Guidance",
    "GuidanceMode",
    "Integrator",
    "InvalidInput",
    "LatentMask",
    "Outcomes",
    "Padding",
    "PipelineClosed",
    "PipelineConfig",
    "Request",
    "RequestFailed",
    "Session",
    "Solver",
    "Stats",
    "Stream",
    "StreamPipeline",
    "Submission",
    "Switches",
    "TickInside",
    "X0Target",
    "all_finished",
]

_MODULES = {
    "config": ["DCW", "Padding", "PipelineConfig", "Solver"],
    "curve": ["Curve"],
    "errors": ["BatchTooLarge", "ExecutorError", "InvalidInput", "PipelineClosed", "RequestFailed", "TickInside"],
    "guidance_modes": ["GuidanceMode"],
    "pipeline": ["StreamPipeline"],
    "request": ["Condition", "Guidance", "LatentMask", "Request", "X0Target"],
    "results": [
        "Dropped", "DropReason", "Failed", "FailReason", "Finished", "Outcomes", "Stats", "Submission", "all_finished"
    ],
    "session": ["Session", "Stream"],
    "switches": ["PLAIN_PATH", "Integrator", "Switches"],
}  # fmt: skip
"""The public names by the module that defines them."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)

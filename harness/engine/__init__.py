"""The streaming engine: requests, configuration, pipeline and session."""

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

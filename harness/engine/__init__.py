"""The streaming engine: requests, configuration, pipeline and session."""

from harness.engine.config import DCW, PLAIN_PATH, Integrator, Padding, PipelineConfig, Solver, Switches
from harness.engine.curve import Curve
from harness.engine.errors import BatchTooLarge, ExecutorError, InvalidInput, PipelineClosed
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Condition, Guidance, GuidanceMode, LatentMask, Request, X0Target
from harness.engine.results import Dropped, DropReason, Finished, Stats, Submission
from harness.engine.session import Session, Stream

__all__ = [
    "DCW",
    "PLAIN_PATH",
    "BatchTooLarge",
    "Condition",
    "Curve",
    "DropReason",
    "Dropped",
    "ExecutorError",
    "Finished",
    "Guidance",
    "GuidanceMode",
    "Integrator",
    "InvalidInput",
    "LatentMask",
    "Padding",
    "PipelineClosed",
    "PipelineConfig",
    "Request",
    "Session",
    "Solver",
    "Stats",
    "Stream",
    "StreamPipeline",
    "Submission",
    "Switches",
    "X0Target",
]

"""The engine's exception classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.engine.results import Outcomes


class InvalidInput(ValueError):
    """An argument is invalid.

    Attributes:
        field: the path of the argument, such as `guidance.scale` or `conditions[1].encoder_mask`.
    """

    def __init__(self, field: str, got: object, expected: str) -> None:
        """Make the message: the `field`, the value it `got`, and the `expected` value."""
        super().__init__(f"{field}: got {got}, expected {expected}")
        self.field = field


class CheckpointRefused(InvalidInput):
    """A checkpoint's file is missing, is not what its format says, or belongs to another model."""


class BatchTooLarge(ValueError):
    """A batch has more rows than the executor's `max_rows`."""


class OutsideProfile(ValueError):
    """A batch has rows, frames, tokens or widths outside the range of a compiled decoder."""


class NeedsMask(InvalidInput, OutsideProfile):
    """Conditions have unequal lengths or a mask, and the executor takes no mask."""


class NotPrepared(InvalidInput, OutsideProfile):
    """A run or a request has a shape that the executor has not prepared."""


class RequestFailed(RuntimeError):
    """A request failed in the ring where every request must finish, as in a benchmark or a scenario.

    Attributes:
        outcomes: everything that was handed out with the failed request, as `tick` returns it.
    """

    def __init__(self, message: str, outcomes: Outcomes) -> None:
        """Make the error with the `message` and the `outcomes`."""
        super().__init__(message)
        self.outcomes = outcomes


class CallbackFailed(RuntimeError):
    """A callback of a request raised an exception or returned a value out of range. A tick fails that request alone."""


class TickInside(RuntimeError):
    """A tick was asked for inside a tick of the same pipeline or executor, such as by a decoder or a callback."""


class PipelineClosed(RuntimeError):
    """A pipeline, session or executor was used after `close()`."""


class ExecutorError(RuntimeError):
    """An executor did not return one velocity per row, or its runtime refused a call."""


class WrongVelocity(ExecutorError):
    """A decoder or an executor returned something else than a velocity of the shape and dtype that it must have."""


class RecordingFailed(ExecutorError):
    """A decoder could not be recorded as a CUDA graph, or a replay makes other bits than the decoder itself."""


class KernelsDiffer(ExecutorError):
    """A prepared run launches other kernels than those that its file of code records: its bits may be others."""


class EngineError(RuntimeError):
    """Base class: a compiled decoder cannot be made or loaded; a subclass gives the reason."""


class PackageMissing(EngineError):
    """An optional package is needed and not installed; the message gives the command that installs the package.

    Attributes:
        package: the name of the package.
    """

    def __init__(self, package: str, extra: str) -> None:
        """Make the message from the `package` and the `extra` of this project that installs the package."""
        super().__init__(
            f"{package} is not installed: pip install 'stream-harness[{extra}]', in a checkout '.[{extra}]'"
        )
        self.package = package


class ExportRefused(EngineError):
    """An exported file is refused: truncated, no decoder, with a frozen dimension or a local path, or inaccurate."""


class Inaccurate(ExportRefused):
    """An exported file is farther from float64 than allowed."""


class BuildFailed(EngineError):
    """TensorRT could not build a plan; the message holds TensorRT's errors."""


class SidecarMissing(EngineError):
    """The metadata of a plan, or of a file of code, is missing or cannot be read."""


class PlanCorrupt(EngineError):
    """A plan is missing, truncated or altered, or differs from its metadata."""


class PlanMismatch(EngineError):
    """A plan was built for another environment: another flavour, version, compute capability, GPU or driver.

    Attributes:
        field: the field of the metadata that differs.
    """

    def __init__(self, field: str, recorded: object, here: object) -> None:
        """Make the message: the `field`, its value `recorded` in the metadata, and its value `here`."""
        super().__init__(f"{field}: the plan was built for {recorded}, here it is {here}")
        self.field = field


class CodeCorrupt(EngineError):
    """A file of code is missing, truncated or altered, or differs from its metadata."""


class CodeMismatch(EngineError):
    """A file of code was made in another environment, with other options, or for another decoder.

    Attributes:
        field: the field of the metadata that differs.
    """

    def __init__(self, field: str, recorded: object, here: object) -> None:
        """Make the message: the `field`, its value `recorded` in the metadata, and its value `here`."""
        super().__init__(f"{field}: the code was made for {recorded}, here it is {here}")
        self.field = field

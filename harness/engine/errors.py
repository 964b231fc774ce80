"""The engine's named errors."""

from __future__ import annotations


class InvalidInput(ValueError):
    """A value that a caller passed is refused.

    Attributes:
        field: where it was, as the caller writes it (`guidance.scale`, `conditions[1].encoder_mask`).
    """

    def __init__(self, field: str, got: object, expected: str) -> None:
        """Say which `field` is wrong, what it `got` and what was `expected`."""
        super().__init__(f"{field}: got {got}, expected {expected}")
        self.field = field


class BatchTooLarge(ValueError):
    """An executor was given more rows in one run than its `max_rows`."""


class OutsideProfile(ValueError):
    """An ahead-of-time engine was given frames, tokens or widths that it was not made for."""


class NeedsMask(InvalidInput, OutsideProfile):
    """Conditions of unequal lengths, or with a mask, were given to an executor that takes no mask."""


class PipelineClosed(RuntimeError):
    """A pipeline, session or executor was used after `close()`."""


class ExecutorError(RuntimeError):
    """An executor returned something that is not one velocity per row, or its engine refused a call."""


class EngineError(RuntimeError):
    """An ahead-of-time engine cannot be made or loaded; the subclasses say why."""


class PackageMissing(EngineError):
    """An optional package is asked for and not installed; the message gives the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the `package` and the `extra` of this project that brings it."""
        super().__init__(
            f"{package} is not installed: pip install 'stream-harness[{extra}]', in a checkout '.[{extra}]'"
        )
        self.package = package


class ExportRefused(EngineError):
    """An exported file is not what it has to be: a frozen dimension, a path in it, or too far from the model."""


class BuildFailed(EngineError):
    """TensorRT could not build an engine; the message has what it said."""


class SidecarMissing(EngineError):
    """A plan has no metadata beside it, or metadata that cannot be read: nothing says what it was built from."""


class PlanCorrupt(EngineError):
    """A plan is truncated or altered, or its engine is not the one that its metadata describes."""


class PlanMismatch(EngineError):
    """A plan was built for something else: another file, version, flavour, GPU or profile.

    Attributes:
        field: of the metadata, the one that differs.
    """

    def __init__(self, field: str, recorded: object, here: object) -> None:
        """Say which `field` differs, what is `recorded` beside the plan and what is `here`."""
        super().__init__(f"{field}: the plan was built for {recorded}, here it is {here}")
        self.field = field

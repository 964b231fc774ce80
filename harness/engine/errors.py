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


class PipelineClosed(RuntimeError):
    """A pipeline, session or executor was used after `close()`."""


class ExecutorError(RuntimeError):
    """An executor returned something that is not one velocity per row."""

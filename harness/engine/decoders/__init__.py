"""Decoders: a decoder maps one batch of rows to the velocities of these rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.engine.decoders.affine import AffineDecoder
from harness.engine.decoders.base import Decoder

if TYPE_CHECKING:
    from harness.engine.decoders.ace_step import AceStepDecoder

__all__ = ["AceStepDecoder", "AffineDecoder", "Decoder"]


def __getattr__(name: str) -> Any:
    """Import `AceStepDecoder` on first use: importing diffusers takes seconds, and captures do not need diffusers."""
    if name == "AceStepDecoder":
        from harness.engine.decoders.ace_step import AceStepDecoder  # noqa: PLC0415 - diffusers takes seconds to import

        return AceStepDecoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The load of a session that is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.engine.decoders.decoder_switches import PLAIN, DecoderSwitches
from harness.engine.errors import InvalidInput
from harness.engine.switches import Switches

FRAMES_PER_SECOND = 25


@dataclass(frozen=True)
class Load:
    """The load of a session.

    Attributes:
        decoder: its name; see `registry.decoder`.
        executor: kind.
        dtype: what the decoder computes in, such as `"float32"`.
        device: where.
        engine: path of the file that an ahead-of-time kind runs; None is `registry.engine_for` the decoder.
        code: path of the file of code that a `compiled_graph` executor loads, or None.
        duration: of a latent, in seconds of 25 frames.
        depth: requests in flight.
        steps: of a request.
        denoise: of a request; below 1 it starts from a source.
        ticks: in the window.
        warmup: ticks before it, at least `steps`, so that the ring is full.
        cfg: guidance mode, or None for no guidance.
        guidance_scale: with `cfg`.
        dcw: whether the wavelet correction is on.
        fresh: whether every request has a prompt and a context of its own; else all share one.
        max_ticks_ahead: of the pipeline.
        switches: of the pipeline.
        decoder_switches: accelerations of the decoder; see `registry.decoder`.

    Raises:
        InvalidInput: a window without ticks, or one that begins before the ring is full.
    """

    decoder: str = "tiny"
    executor: str = "eager"
    dtype: str = "float32"
    device: str = "cpu"
    engine: str | None = None
    code: str | None = None
    duration: float = 30.0
    depth: int = 4
    steps: int = 8
    denoise: float = 1.0
    ticks: int = 200
    warmup: int = 30
    cfg: str | None = None
    guidance_scale: float = 2.5
    dcw: bool = True
    fresh: bool = False
    max_ticks_ahead: int = 2
    switches: Switches = field(default_factory=Switches)
    decoder_switches: DecoderSwitches = PLAIN

    def __post_init__(self) -> None:
        """Check what no record further down checks."""
        if self.ticks < 1:
            raise InvalidInput("ticks", self.ticks, "at least 1")
        if self.warmup < self.steps:
            raise InvalidInput("warmup", self.warmup, f"at least steps, {self.steps}: before that the ring is not full")
        if not self.duration * FRAMES_PER_SECOND >= 1:
            raise InvalidInput("duration", self.duration, f"at least one frame, {1 / FRAMES_PER_SECOND} s")

    @property
    def frames(self) -> int:
        """T."""
        return round(self.duration * FRAMES_PER_SECOND)

    @property
    def max_rows(self) -> int:
        """Of the executor: a tick's rows fit into one run."""
        return max(8, 2 * self.depth)

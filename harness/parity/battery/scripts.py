"""Scripts: the events of a pipeline as records of plain numbers.

Tensors are named by the seed that draws them, and the `repr` of a script is Python that makes the script again. A
script that found a defect can therefore be pasted into a test, and two equal scripts feed a pipeline the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from harness.engine.config import DCW, PipelineConfig
from harness.engine.curve import CurveLike
from harness.engine.request import Request
from harness.engine.results import Dropped, Outcomes, Stats, Submission
from harness.engine.slot import Slot
from harness.engine.switches import Switches
from harness.parity.battery.props import Props

__all__ = [
    "Control",
    "Correct",
    "Depth",
    "Drain",
    "Gain",
    "Guided",
    "Masked",
    "Props",
    "Rewrite",
    "Script",
    "Submit",
    "Text",
    "Tick",
    "Toward",
    "Wavelets",
]

Level: TypeAlias = "float | tuple[float, float]"
"""A number at every frame, or `(first, last)`: a linear curve from the first frame's value to the last frame's."""


@dataclass(frozen=True)
class Text:
    """A condition. Equal texts of a script are one `Condition`, as for a caller that uses a prompt again.

    Attributes:
        seed: seed of the encoder states.
        tokens: number of tokens, at least 1.
        weight: temporal weight, or None.
        span: step range, or None.
        hidden: number of last tokens that the condition's mask hides, fewer than `tokens`; 0 is no mask.
    """

    seed: int = 1
    tokens: int = 5
    weight: Level | None = None
    span: tuple[float, float] | None = None
    hidden: int = 0


@dataclass(frozen=True)
class Guided:
    """A `Guidance` with its negatives as texts."""

    scale: Level = 2.5
    negatives: tuple[Text, ...] = (Text(90, 3),)
    mode: str = "full"
    momentum: Level = -0.75
    rescale: Level | None = None
    threshold: float | None = 2.5
    eta: float = 0.0


@dataclass(frozen=True)
class Toward:
    """An `X0Target` with a latent drawn by `seed`."""

    seed: int = 60
    strength: Level = 0.0
    curve: Level | None = None
    gate: float = 0.0


@dataclass(frozen=True)
class Masked:
    """A `LatentMask` with an original drawn by `seed`.

    Attributes:
        seed: seed of the original.
        level: values of the mask.
        every: sets the mask to 0 at every frame whose number is a multiple of `every`; 0 leaves the mask unchanged.
        fading: the mask's strength falls from 1 toward 0 over the steps.
    """

    seed: int = 70
    level: Level = 1.0
    every: int = 0
    fading: bool = False


@dataclass(frozen=True)
class Wavelets:
    """A `DCW` with its scalers as levels over the frames."""

    mode: Literal["low", "high", "double", "pix"] = "double"
    a: Level = 0.05
    b: Level = 0.02
    wavelet: str = "haar"


@dataclass(frozen=True)
class Submit:
    """A submission of a `Request`, with tensors as seeds and curves as levels.

    Attributes:
        seed: seed of the request.
        texts: the conditions.
        frames: number of frames T; None is the script's.
        denoise: denoising strength.
        source: seed of the source, or None.
        guided: the guidance, or None.
        velocity_scale: as in `Request`, like the three fields after it.
        noise_injection: see `Request`.
        sde_curve: see `Request`.
        initial_noise: see `Request`.
        toward: the x0 target, or None.
        masked: the latent mask, or None.
    """

    seed: int = 1
    texts: tuple[Text, ...] = (Text(),)
    frames: int | None = None
    denoise: float = 1.0
    source: int | None = None
    guided: Guided | None = None
    velocity_scale: Level | None = None
    noise_injection: Level | None = None
    sde_curve: Level | None = None
    initial_noise: Level | None = None
    toward: Toward | None = None
    masked: Masked | None = None

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Submit the request."""
        driven.submit(props.request(self))
        return Outcomes()


@dataclass(frozen=True)
class Tick:
    """Ticks, `count` of them."""

    count: int = 1

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Run the ticks."""
        del props
        return Outcomes().joined(*(driven.tick() for _ in range(self.count)))


@dataclass(frozen=True)
class Drain:
    """Ticks until nothing is queued or in flight."""

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Drain the pipeline."""
        del props
        return driven.drain()


@dataclass(frozen=True)
class Control:
    """A change of a shared control; level None restores each request's own value."""

    name: str
    level: Level | None

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Set the control."""
        driven.set_shared_curve(self.name, props.curve(self.level, props.script.frames))
        return Outcomes()


@dataclass(frozen=True)
class Gain:
    """A change of the channel gain, a level over the channels; None is off."""

    level: Level | None

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Set the gain."""
        driven.set_channel_gain(props.gain(self.level))
        return Outcomes()


@dataclass(frozen=True)
class Correct:
    """A change of the wavelet correction; None is off."""

    wavelets: Wavelets | None

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Set the correction."""
        driven.set_dcw(props.dcw(self.wavelets))
        return Outcomes()


@dataclass(frozen=True)
class Depth:
    """A change of the depth."""

    depth: int

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Set the depth."""
        del props
        driven.set_depth(self.depth)
        return Outcomes()


@dataclass(frozen=True)
class Rewrite:
    """A write of other encoder states, drawn by `seed`, into a condition in place, which callers must not do."""

    text: Text
    seed: int

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Write to the condition."""
        del driven
        props.rewrite(self.text, self.seed)
        return Outcomes()


class Event(Protocol):
    """An event of a script."""

    def happen(self, driven: Driven, props: Props) -> Outcomes:
        """Apply the event to `driven`, with tensors from `props`; return what left the ring."""
        ...


class Driven(Protocol):
    """Interface that a script drives: a `StreamPipeline`, or two pipelines in lockstep."""

    @property
    def slots(self) -> tuple[Slot | None, ...]:
        """See `StreamPipeline.slots`."""
        ...

    def stats(self) -> Stats:
        """See `StreamPipeline.stats`."""
        ...

    def submit(self, request: Request) -> Submission:
        """See `StreamPipeline.submit`."""
        ...

    def tick(self) -> Outcomes:
        """See `StreamPipeline.tick`."""
        ...

    def drain(self) -> Outcomes:
        """See `StreamPipeline.drain`."""
        ...

    def set_shared_curve(self, name: str, value: CurveLike | None) -> None:
        """See `StreamPipeline.set_shared_curve`."""
        ...

    def set_channel_gain(self, gain: Tensor | None) -> None:
        """See `StreamPipeline.set_channel_gain`."""
        ...

    def set_dcw(self, dcw: DCW | None) -> None:
        """See `StreamPipeline.set_dcw`."""
        ...

    def set_depth(self, depth: int) -> tuple[Dropped, ...]:
        """See `StreamPipeline.set_depth`."""
        ...


@dataclass(frozen=True)
class Script:
    """Events, and the configuration and sizes of the pipeline that takes them.

    Attributes:
        events: the events, in order.
        depth: depth of the pipeline; this field and the next five as in `PipelineConfig`.
        steps: steps of every request.
        shift: shift of the schedule.
        solver: `"ode"` or `"sde"`.
        encoder_length: number of tokens that conditions are padded to, or None.
        dcw: wavelet correction, or None.
        frames: number of frames T of a request that gives none of its own.
        channels: number of latent channels D.
        encoder_dim: encoder width E.
    """

    events: tuple[Event, ...] = ()
    depth: int = 3
    steps: int = 4
    shift: float = 3.0
    solver: Literal["ode", "sde"] = "ode"
    encoder_length: int | None = None
    dcw: Wavelets | None = None
    frames: int = 12
    channels: int = 4
    encoder_dim: int = 8

    def config(self, switches: Switches | None = None) -> PipelineConfig:
        """Make the pipeline's configuration; with `switches` None the default switches."""
        return PipelineConfig(
            depth=self.depth,
            steps=self.steps,
            shift=self.shift,
            solver=self.solver,
            encoder_length=self.encoder_length,
            dcw=Props(self).dcw(self.dcw),
            switches=switches or Switches(),
        )

    def play(self, driven: Driven, device: torch.device | str = "cpu") -> Outcomes:
        """Apply every event to `driven`; return what left the ring, in order."""
        props = Props(self, device)
        return Outcomes().joined(*(event.happen(driven, props) for event in self.events))

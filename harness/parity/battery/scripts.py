"""What happens to a pipeline, written in plain numbers: a script prints as the Python that makes it again.

Tensors are named by the seed that draws them. So a script that was found to break something can be pasted into a test,
and two scripts that are equal feed a pipeline the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from harness.engine.config import DCW, PipelineConfig
from harness.engine.curve import CurveLike
from harness.engine.request import Request
from harness.engine.results import Finished, Stats, Submission
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
"""A number at every frame, or a line from the first frame's value to the last one's."""


@dataclass(frozen=True)
class Text:
    """A condition. Equal texts are one `Condition` in a script, as a caller's who keeps his prompts.

    Attributes:
        seed: draws the encoder states.
        tokens: how many, at least 1.
        weight: temporal weight, or None.
        span: step range, or None.
        hidden: how many of the last tokens the caller's own mask hides, fewer than all; 0 is no mask.
    """

    seed: int = 1
    tokens: int = 5
    weight: Level | None = None
    span: tuple[float, float] | None = None
    hidden: int = 0


@dataclass(frozen=True)
class Guided:
    """A `Guidance`, its negatives as texts."""

    scale: Level = 2.5
    negatives: tuple[Text, ...] = (Text(90, 3),)
    mode: str = "full"
    momentum: Level = -0.75
    rescale: Level | None = None
    threshold: float | None = 2.5
    eta: float = 0.0


@dataclass(frozen=True)
class Toward:
    """An `X0Target` whose latent `seed` draws."""

    seed: int = 60
    strength: Level = 0.0
    curve: Level | None = None
    gate: float = 0.0


@dataclass(frozen=True)
class Masked:
    """A `LatentMask` whose original `seed` draws.

    Attributes:
        seed: draws the original.
        level: the mask.
        every: multiplies the mask with 0 at frames that this number divides; 0 leaves it.
        fading: whether the mask's strength falls from 1 over the steps.
    """

    seed: int = 70
    level: Level = 1.0
    every: int = 0
    fading: bool = False


@dataclass(frozen=True)
class Wavelets:
    """A `DCW`, its scalers as levels over the frames."""

    mode: Literal["low", "high", "double", "pix"] = "double"
    a: Level = 0.05
    b: Level = 0.02
    wavelet: str = "haar"


@dataclass(frozen=True)
class Submit:
    """A request; tensors and curves as in `Request`, drawn by seeds and levels.

    Attributes:
        frames: T; None is the script's.
        source: seed of the source, or None.
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

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Submit it."""
        driven.submit(props.request(self))
        return []


@dataclass(frozen=True)
class Tick:
    """`count` ticks."""

    count: int = 1

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Tick."""
        del props
        return [finished for _ in range(self.count) for finished in driven.tick()]


@dataclass(frozen=True)
class Drain:
    """Ticks until nothing is left."""

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Drain."""
        del props
        return driven.drain()


@dataclass(frozen=True)
class Control:
    """A shared control; None gives each request's own value back."""

    name: str
    level: Level | None

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Set it."""
        driven.set_shared_curve(self.name, props.curve(self.level, props.script.frames))
        return []


@dataclass(frozen=True)
class Gain:
    """A channel gain, a level over the channels; None is off."""

    level: Level | None

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Set it."""
        driven.set_channel_gain(props.gain(self.level))
        return []


@dataclass(frozen=True)
class Correct:
    """Another wavelet correction; None is off."""

    wavelets: Wavelets | None

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Set it."""
        driven.set_dcw(props.dcw(self.wavelets))
        return []


@dataclass(frozen=True)
class Depth:
    """Another depth."""

    depth: int

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Set it."""
        del props
        driven.set_depth(self.depth)
        return []


@dataclass(frozen=True)
class Rewrite:
    """The caller breaks his promise: he writes other states, drawn by `seed`, into a condition in place."""

    text: Text
    seed: int

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Write."""
        del driven
        props.rewrite(self.text, self.seed)
        return []


class Event(Protocol):
    """Something that happens to a pipeline."""

    def happen(self, driven: Driven, props: Props) -> list[Finished]:
        """Let it happen to `driven`, with what `props` makes; what finished."""
        ...


class Driven(Protocol):
    """What a script drives: a `StreamPipeline`, or two of them in lockstep."""

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

    def tick(self) -> list[Finished]:
        """See `StreamPipeline.tick`."""
        ...

    def drain(self) -> list[Finished]:
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

    def set_depth(self, depth: int) -> None:
        """See `StreamPipeline.set_depth`."""
        ...


@dataclass(frozen=True)
class Script:
    """Events, and the pipeline that they happen to.

    Attributes:
        events: in order.
        depth: of the pipeline, like the fields up to `dcw`; see `PipelineConfig`.
        steps: of every request.
        shift: of the schedule.
        solver: `"ode"` or `"sde"`.
        encoder_length: tokens that conditions are padded to, or None.
        dcw: wavelet correction, or None.
        frames: T, where an event does not say.
        channels: D.
        encoder_dim: E.
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
        """The pipeline's configuration; None is the default switches."""
        return PipelineConfig(
            depth=self.depth,
            steps=self.steps,
            shift=self.shift,
            solver=self.solver,
            encoder_length=self.encoder_length,
            dcw=Props(self).dcw(self.dcw),
            switches=switches or Switches(),
        )

    def play(self, driven: Driven, device: torch.device | str = "cpu") -> list[Finished]:
        """Let everything happen; what finished, in order."""
        props = Props(self, device)
        return [finished for event in self.events for finished in event.happen(driven, props)]

"""Props of a script: the tensors and records that its events name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.engine.config import DCW
from harness.engine.noise import Purpose, noise
from harness.engine.request import CURVES, Condition, Guidance, LatentMask, Request, X0Target

if TYPE_CHECKING:
    from harness.parity.battery.scripts import Guided, Level, Masked, Script, Submit, Text, Toward, Wavelets


class Props:
    """Maker of the tensors and records that events name; tensors and conditions are made once each.

    Args:
        script: the script, for the sizes.
        device: device of the tensors.
    """

    def __init__(self, script: Script, device: torch.device | str = "cpu") -> None:
        self.script = script
        self.device = torch.device(device)
        self._conditions: dict[tuple[Text, int], Condition] = {}
        self._drawn: dict[tuple[int, int, int], Tensor] = {}

    def drawn(self, seed: int, length: int, width: int) -> Tensor:
        """Draw a fixed tensor `[1, length, width]`; equal arguments return the same object."""
        key = (seed, length, width)
        if key not in self._drawn:
            self._drawn[key] = noise(seed, Purpose.INITIAL, 0, (1, length, width), self.device)
        return self._drawn[key]

    def latent(self, seed: int, frames: int) -> Tensor:
        """Draw a fixed latent `[1, T, D]` by its seed."""
        return self.drawn(seed, frames, self.script.channels)

    def curve(self, level: Level | None, frames: int) -> Any:
        """Turn a level into the argument that a caller would pass: a number, or a curve `[T]`."""
        return torch.linspace(*level, frames, device=self.device) if isinstance(level, tuple) else level

    def gain(self, level: Level | None) -> Tensor | None:
        """Turn a level over the channels into a gain `[1, 1, D]`."""
        if level is None:
            return None
        first, last = level if isinstance(level, tuple) else (level, level)
        return torch.linspace(first, last, self.script.channels, device=self.device).reshape(1, 1, -1)

    def condition(self, text: Text, frames: int) -> Condition:
        """Make the condition of a text; its encoder states share no memory with other tensors."""
        key = (text, frames)
        if key not in self._conditions:
            states = noise(text.seed, Purpose.INITIAL, 0, (1, text.tokens, self.script.encoder_dim), self.device)
            mask = torch.arange(text.tokens, device=self.device)[None] < text.tokens - text.hidden
            self._conditions[key] = Condition(
                encoder_hidden_states=states,
                encoder_mask=mask if text.hidden else None,
                temporal_weight=self.curve(text.weight, frames),
                step_range=text.span,
            )
        return self._conditions[key]

    def rewrite(self, text: Text, seed: int) -> None:
        """Write other encoder states, drawn by `seed`, into every condition that was made from the text."""
        for (made, _), condition in self._conditions.items():
            if made == text:
                states = condition.encoder_hidden_states
                states.copy_(self.drawn(seed, *states.shape[1:]))

    def dcw(self, wavelets: Wavelets | None) -> DCW | None:
        """Make the wavelet correction."""
        if wavelets is None:
            return None
        a, b = (self.curve(level, self.script.frames) for level in (wavelets.a, wavelets.b))
        return DCW(wavelets.mode, a, b, wavelets.wavelet)

    def guidance(self, guided: Guided, frames: int) -> Guidance:
        """Make the guidance."""
        return Guidance(
            scale=self.curve(guided.scale, frames),
            negatives=[self.condition(text, frames) for text in guided.negatives],
            mode=guided.mode,
            momentum=self.curve(guided.momentum, frames),
            rescale=self.curve(guided.rescale, frames),
            norm_threshold=guided.threshold,
            eta=guided.eta,
        )

    def target(self, toward: Toward, frames: int) -> X0Target:
        """Make the x0 target."""
        latent, strength = self.latent(toward.seed, frames), self.curve(toward.strength, frames)
        return X0Target(latent, strength=strength, curve=self.curve(toward.curve, frames), gate=toward.gate)

    def mask(self, masked: Masked, frames: int) -> LatentMask:
        """Make the latent mask."""
        mask: Any = self.curve(masked.level, frames)
        if masked.every:
            mask = (torch.arange(frames, device=self.device) % masked.every != 0).float() * mask
        return LatentMask(mask, self.latent(masked.seed, frames), _fading if masked.fading else None)

    def request(self, submit: Submit) -> Request:
        """Make the request of a submission."""
        frames = self.script.frames if submit.frames is None else submit.frames
        return Request(
            conditions=[self.condition(text, frames) for text in submit.texts],
            context_latents=self.drawn(200 + submit.seed % 3, frames, 2 * self.script.channels),
            seed=submit.seed,
            denoise=submit.denoise,
            source=None if submit.source is None else self.latent(submit.source, frames),
            guidance=None if submit.guided is None else self.guidance(submit.guided, frames),
            x0_target=None if submit.toward is None else self.target(submit.toward, frames),
            latent_mask=None if submit.masked is None else self.mask(submit.masked, frames),
            **{name: self.curve(getattr(submit, name), frames) for name in CURVES},
        )


def _fading(step: int, total: int) -> float:
    return 1.0 - step / total

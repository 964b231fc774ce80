"""Switches of a decoder: the accelerations of `AceStepDecoder`, each beside the forward of diffusers."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from harness.engine import checks
from harness.engine.errors import InvalidInput


class BandForm(StrEnum):
    """Form of the attention in sliding-window layers. All forms attend the same keys."""

    BIAS = "bias"
    """An additive bias whose rows are aligned; torch chooses the kernel."""
    REPEATED = "repeated"
    """The same bias, and keys and values repeated for every query head, as kernels without grouped heads need them."""
    CUDNN = "cudnn"
    """The same bias, by the kernel of cuDNN; on a GPU alone."""
    FLEX = "flex"
    """FlexAttention with a mask of blocks, which skips blocks of keys outside the window."""


class FullForm(StrEnum):
    """Form of the attention in layers where every query attends every key."""

    AUTO = "auto"
    """torch chooses the kernel."""
    CUDNN = "cudnn"
    """The kernel of cuDNN; on a GPU alone."""
    FLASH = "flash"
    """The kernel of FlashAttention; on a GPU alone."""


class NormForm(StrEnum):
    """Form of the norms, with the residuals, gates and rotations around them."""

    KERNELS = "kernels"
    """Operators that are one kernel each on a GPU, and the plain formulas on a CPU; see `decoders.fused`."""
    COMPILER = "compiler"
    """Formulas that torch's compiler makes few kernels of."""


@dataclass(frozen=True)
class DecoderSwitches:
    """Accelerations of an `AceStepDecoder`; see `accelerated`. All off, the default, is the forward of diffusers.

    Attributes:
        fused_products: one product for queries, keys and values, one for keys and values of the cross-attention, and
            one for gate and up.
        patch_products: the convolutions into and out of patches are matrix products, and hidden states are contiguous.
        kept_time: the embedding of the second time, which is always 0, is kept; it is a constant of the weights.
        kept_condition: the decoder takes keys and values of the cross-attention that `condition` made, once for a
            condition, instead of encoder states.
        banded_attention: sliding-window layers get their window in the form `band`, full layers run in the form
            `full`, and the mask of the cross-attention is made a bias once for all layers.
        fused_norms: norms, rotation, gates and residuals run in few kernels, in the form `norms`.
        band: form of the attention in sliding-window layers; read where `banded_attention` is on.
        full: form of the attention in full layers; read where `banded_attention` is on.
        norms: form of the norms; read where `fused_norms` is on.

    Raises:
        InvalidInput: a field of another type, or an unknown form.
    """

    fused_products: bool = False
    patch_products: bool = False
    kept_time: bool = False
    kept_condition: bool = False
    banded_attention: bool = False
    fused_norms: bool = False
    band: BandForm | str = BandForm.BIAS
    full: FullForm | str = FullForm.AUTO
    norms: NormForm | str = NormForm.KERNELS

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ACCELERATIONS:
            checks.flag(f"switches.{name}", getattr(self, name))
        object.__setattr__(self, "band", checks.member("switches.band", self.band, BandForm))
        object.__setattr__(self, "full", checks.member("switches.full", self.full, FullForm))
        object.__setattr__(self, "norms", checks.member("switches.norms", self.norms, NormForm))

    @property
    def on(self) -> tuple[str, ...]:
        """Names of the accelerations that are on."""
        return tuple(name for name in ACCELERATIONS if getattr(self, name))

    def turned_on(self, *names: str) -> DecoderSwitches:
        """Return a copy with the accelerations `names` on.

        Raises:
            InvalidInput: a name that is no acceleration.
        """
        return self._turned(names, True)

    def turned_off(self, *names: str) -> DecoderSwitches:
        """Return a copy with the accelerations `names` off.

        Raises:
            InvalidInput: a name that is no acceleration.
        """
        return self._turned(names, False)

    def assigned(self, name: str, value: str) -> DecoderSwitches:
        """Return a copy with one field set from a text.

        Args:
            name: an acceleration, a form (`band`, `full` or `norms`), or `all` for every acceleration.
            value: `on` or `off`; of a form, its name.

        Raises:
            InvalidInput: another name or value.
        """
        if name in FORMS:
            changed: dict[str, Any] = {name: value}
            return replace(self, **changed)
        names = ACCELERATIONS if name == EVERY else (name,)
        if name != EVERY and name not in ACCELERATIONS:
            raise InvalidInput("switches", repr(name), f"one of {', '.join((EVERY, *ACCELERATIONS, *FORMS))}")
        if value not in ("on", "off"):
            raise InvalidInput(f"switches.{name}", repr(value), "on or off")
        return self._turned(names, value == "on")

    def _turned(self, names: tuple[str, ...], value: bool) -> DecoderSwitches:
        for name in names:
            if name not in ACCELERATIONS:
                raise InvalidInput("switches", repr(name), f"one of {', '.join(ACCELERATIONS)}")
        changed = dict.fromkeys(names, value)
        return replace(self, **changed)  # type: ignore[arg-type]  # mypy takes the values for forms


ACCELERATIONS = tuple(each.name for each in fields(DecoderSwitches) if each.type == "bool")
"""Names of the accelerations, in the order of the fields."""

FORMS = tuple(each.name for each in fields(DecoderSwitches) if each.name not in ACCELERATIONS)
"""Names of the fields that name a form."""

EVERY = "all"
"""In `assigned`: every acceleration."""

PLAIN = DecoderSwitches()
"""No acceleration: the forward of diffusers."""

ALL = PLAIN.turned_on(*ACCELERATIONS)
"""Every acceleration."""

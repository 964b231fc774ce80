"""Configuration of a pipeline, fixed for its life, and of the wavelet correction."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harness.engine import checks
from harness.engine.curve import Curve, CurveLike, curve
from harness.engine.errors import InvalidInput
from harness.engine.switches import Switches
from harness.engine.wavelet import RECONSTRUCTION_BOUND, DCWMode, reconstruction_error


class Solver(StrEnum):
    """How a slot without an SDE curve steps: along the velocity, or by denoising and noising again."""

    ODE = "ode"
    SDE = "sde"


class Padding(StrEnum):
    """What a condition shorter than the encoder length becomes.

    `mask`: zero rows that the decoder is told not to attend; an executor that takes no mask refuses unequal lengths.
    `zeros`: zero rows, attended where the executor takes no mask. It has to be asked for, because it moves the output.
    """

    MASK = "mask"
    ZEROS = "zeros"


@dataclass(frozen=True, eq=False)
class DCW:
    """Wavelet correction after every step (arXiv:2604.16044); see `harness.engine.wavelet`.

    Attributes:
        mode: `"low"`, `"high"`, `"double"` or `"pix"`.
        a: first scaler: a number, or a curve of any length, resampled to the band it scales.
        b: second scaler, the high band's in mode `"double"`; other modes do not read it.
        wavelet: a discrete wavelet of PyWavelets that reconstructs to 1e-5.
    """

    mode: DCWMode | str = DCWMode.DOUBLE
    a: CurveLike = 0.05
    b: CurveLike = 0.02
    wavelet: str = "haar"

    def __post_init__(self) -> None:
        """Check every field and bring the scalers into their normal form."""
        object.__setattr__(self, "mode", checks.member("dcw.mode", self.mode, DCWMode))
        object.__setattr__(self, "a", curve("dcw.a", self.a))
        object.__setattr__(self, "b", curve("dcw.b", self.b))
        expected = f"a discrete wavelet of PyWavelets that reconstructs to {RECONSTRUCTION_BOUND:g}"
        checks.instance("dcw.wavelet", self.wavelet, str, expected)
        try:
            error = reconstruction_error(self.wavelet)
        except ValueError:
            raise InvalidInput("dcw.wavelet", repr(self.wavelet), expected) from None
        if error > RECONSTRUCTION_BOUND:
            raise InvalidInput("dcw.wavelet", f"{self.wavelet!r}, which reconstructs to {error:.1e}", expected)

    @property
    def scalers(self) -> tuple[Curve, Curve]:
        """`a` and `b` in their normal form."""
        if not isinstance(self.a, Curve) or not isinstance(self.b, Curve):
            raise TypeError("scalers are read before DCW was checked")
        return self.a, self.b


@dataclass(frozen=True)
class PipelineConfig:
    """A pipeline's configuration.

    Attributes:
        depth: how many requests are in flight at once, at least 1 and at most the executor's `max_rows`.
        steps: denoising steps of a request, at least 1.
        shift: of the schedule, above 0.
        solver: `"ode"` or `"sde"`.
        encoder_length: tokens L that every condition is padded to, fixed for the pipeline's life. None: the longest
            condition of the first submission, rounded up to a multiple of 64.
        dcw: wavelet correction, or None.
        switches: which optimizations are on.
        padding: `"mask"`, or `"zeros"` to let a decoder without a mask attend zero rows.
    """

    depth: int = 4
    steps: int = 8
    shift: float = 3.0
    solver: Solver | str = Solver.ODE
    encoder_length: int | None = None
    dcw: DCW | None = None
    switches: Switches = field(default_factory=Switches)
    padding: Padding | str = Padding.MASK

    def __post_init__(self) -> None:
        """Check every field."""
        checks.integer("config.depth", self.depth, 1)
        checks.integer("config.steps", self.steps, 1)
        object.__setattr__(self, "shift", checks.number("config.shift", self.shift, 0.0))
        if self.shift == 0.0:
            raise InvalidInput("config.shift", "0.0", "a number above 0")
        object.__setattr__(self, "solver", checks.member("config.solver", self.solver, Solver))
        object.__setattr__(self, "padding", checks.member("config.padding", self.padding, Padding))
        if self.encoder_length is not None:
            checks.integer("config.encoder_length", self.encoder_length, 1)
        if self.dcw is not None:
            checks.instance("config.dcw", self.dcw, DCW, "a DCW or None")
        checks.instance("config.switches", self.switches, Switches, "a Switches")

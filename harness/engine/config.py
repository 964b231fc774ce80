"""Configuration of a pipeline, fixed for its lifetime, and of the wavelet correction."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harness.engine import checks, ranges
from harness.engine.curve import Curve, CurveLike, curve
from harness.engine.errors import InvalidInput
from harness.engine.switches import Switches
from harness.engine.wavelet import RECONSTRUCTION_BOUND, DCWMode, reconstruction_error


class Solver(StrEnum):
    """Step of a slot without an SDE curve.

    `ode`: an Euler step along the velocity. `sde`: denoise to the clean estimate, then add noise again.
    """

    ODE = "ode"
    SDE = "sde"


class Padding(StrEnum):
    """Padding of a condition that is shorter than the encoder length.

    `mask`: zero rows, masked out in the decoder; with an executor that takes no mask, unequal lengths are refused.
    `zeros`: zero rows, attended where the executor takes no mask. Attended zero rows change the output, so `zeros` is
    not the default.
    """

    MASK = "mask"
    ZEROS = "zeros"


@dataclass(frozen=True, eq=False)
class DCW:
    """Wavelet correction after every step (arXiv:2604.16044); see `harness.engine.wavelet`.

    Attributes:
        mode: `"low"`, `"high"`, `"double"` or `"pix"`.
        a: first scaler from -10 to 10: a number, or a curve of any length, resampled to the length of the band. 0 is
            off.
        b: second scaler from -10 to 10, of the high band in mode `"double"`; not read in the other modes. 0 is off.
        wavelet: name of a discrete wavelet of PyWavelets whose reconstruction error is at most 1e-5.

    Raises:
        InvalidInput: an unknown mode or wavelet, or a scaler out of range.
    """

    mode: DCWMode | str = DCWMode.DOUBLE
    a: CurveLike = 0.05
    b: CurveLike = 0.02
    wavelet: str = "haar"

    def __post_init__(self) -> None:
        """Check every field and convert the scalers to `Curve`."""
        object.__setattr__(self, "mode", checks.member("dcw.mode", self.mode, DCWMode))
        object.__setattr__(self, "a", curve("dcw.a", self.a, **ranges.SHARE))
        object.__setattr__(self, "b", curve("dcw.b", self.b, **ranges.SHARE))
        expected = f"a discrete wavelet of PyWavelets with a reconstruction error of at most {RECONSTRUCTION_BOUND:g}"
        checks.instance("dcw.wavelet", self.wavelet, str, expected)
        try:
            error = reconstruction_error(self.wavelet)
        except ValueError:
            raise InvalidInput("dcw.wavelet", repr(self.wavelet), expected) from None
        if error > RECONSTRUCTION_BOUND:
            raise InvalidInput("dcw.wavelet", f"{self.wavelet!r} with a reconstruction error of {error:.1e}", expected)

    @property
    def scalers(self) -> tuple[Curve, Curve]:
        """`a` and `b` as `Curve`s."""
        if not isinstance(self.a, Curve) or not isinstance(self.b, Curve):
            raise TypeError("DCW.scalers was read before the fields of DCW were checked")
        return self.a, self.b


@dataclass(frozen=True)
class PipelineConfig:
    """A pipeline's configuration.

    Attributes:
        depth: number of requests in flight at once, at least 1 and at most the executor's `max_rows`.
        steps: denoising steps of a request, 1 to 1000.
        shift: shift of the time schedule, from 0.001 to 1000; 1 leaves the times evenly spaced.
        solver: step of slots without an SDE curve: `"ode"` or `"sde"`.
        encoder_length: number of tokens L that every condition is padded to, 1 to 65536, fixed for the pipeline's
            lifetime. None: the length of the longest condition of the first request, rounded up to a multiple of 64.
        dcw: wavelet correction, or None.
        switches: the optimizations that are on.
        padding: `"mask"`, or `"zeros"` to let a decoder without a mask attend zero rows.
        max_ticks_ahead: number of ticks, 1 to 64, that the host may launch before the GPU has finished the first of
            them. A tick waits where the host is further ahead; on the CPU no tick waits. A request on a GPU whose
            tensors hold a value that is not finite fails `max_ticks_ahead + 1` ticks after its admission, or at its
            last step where that comes first.

    Raises:
        InvalidInput: a field of another type, or out of range.
    """

    depth: int = 4
    steps: int = 8
    shift: float = 3.0
    solver: Solver | str = Solver.ODE
    encoder_length: int | None = None
    dcw: DCW | None = None
    switches: Switches = field(default_factory=Switches)
    padding: Padding | str = Padding.MASK
    max_ticks_ahead: int = 2

    def __post_init__(self) -> None:
        """Check every field."""
        checks.integer("config.depth", self.depth, 1)
        checks.integer("config.steps", self.steps, 1, ranges.MAX_STEPS)
        object.__setattr__(self, "shift", checks.number("config.shift", self.shift, **ranges.SHIFT))
        object.__setattr__(self, "solver", checks.member("config.solver", self.solver, Solver))
        object.__setattr__(self, "padding", checks.member("config.padding", self.padding, Padding))
        if self.encoder_length is not None:
            checks.integer("config.encoder_length", self.encoder_length, 1, ranges.MAX_TOKENS)
        if self.dcw is not None:
            checks.instance("config.dcw", self.dcw, DCW, "a DCW or None")
        checks.instance("config.switches", self.switches, Switches, "a Switches")
        checks.integer("config.max_ticks_ahead", self.max_ticks_ahead, 1, ranges.MAX_TICKS_AHEAD)

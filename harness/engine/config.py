"""What a pipeline is told once: its configuration, its switches and the wavelet correction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from harness.engine import checks
from harness.engine.curve import Curve, CurveLike, curve
from harness.engine.errors import InvalidInput
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


class Integrator(StrEnum):
    """How plain Euler slots are integrated: one by one, or all in two multi-tensor launches."""

    PER_SLOT = "per_slot"
    FOREACH = "foreach"


@dataclass(frozen=True)
class Switches:
    """The tick's optimizations. Each is on by default, off is the plain path, and both give the same bits.

    For `fused_cfg` that holds on an executor whose rows do not depend on how many run with them; pinning the rows makes
    one of any other.

    Attributes:
        fused_cfg: positive and negative rows in one decoder run where they fit `max_rows`; off: two passes.
        cached_conditioning: padded and stacked conditions kept between ticks; off: rebuilt every tick.
        integrator: `"foreach"`, or `"per_slot"` as the plain path.
        host_gates: whether a curve is neutral is read from a fact recorded when it was set; off: from the tensor,
            in the tick.
        joined_stream: the current stream waits for an executor's own stream by an event; off: the host waits. It
            acts on executors that have a stream of their own.
    """

    fused_cfg: bool = True
    cached_conditioning: bool = True
    integrator: Integrator | str = Integrator.FOREACH
    host_gates: bool = True
    joined_stream: bool = True

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("fused_cfg", "cached_conditioning", "host_gates", "joined_stream"):
            checks.flag(f"switches.{name}", getattr(self, name))
        object.__setattr__(self, "integrator", checks.member("switches.integrator", self.integrator, Integrator))

    def turned_on(self, name: str) -> Switches:
        """These, with the switch `name` on."""
        return replace(self, **{name: getattr(Switches(), name)})

    def turned_off(self, name: str) -> Switches:
        """These, with the switch `name` off."""
        return replace(self, **{name: getattr(PLAIN_PATH, name)})


PLAIN_PATH = Switches(
    fused_cfg=False,
    cached_conditioning=False,
    integrator=Integrator.PER_SLOT,
    host_gates=False,
    joined_stream=False,
)
"""Every switch off: the plain path."""


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

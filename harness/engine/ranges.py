"""Ranges of numbers and curves.

Latents are float32, whose largest value is 3.4e38, and a latent that is infinite once stays so. The ranges are chosen
so that one value at a bound, with ordinary values beside it, keeps every latent of a request of up to 32 steps finite:

- A factor of the velocity or of its guided part acts times the length of the step, and the steps add up to 1. So a
  decoder whose velocity has slope 1.5, such as `AffineDecoder`, multiplies a latent by at most `exp(1.5*50) = 4e32`.
- A share acts at every step in full: `10**32` in 32 steps.
- A weight acts relative to other weights. Beyond `2**24` times another weight, float32 drops the other one.
- A shift acts on the times. With up to 1000 steps and a shift from 1/1000 to 1000, neighbouring times differ by 1e-6,
  16 float32 spacings at 1. A shift of `2**-25` would divide by zero, and beyond `2**24` all times but the last are 1.
- A norm divides and is a float32 tensor: 0 and infinity are none, and subnormal values may be flushed to 0.

Several values at their bounds, or more steps, may exceed float32.
"""

from __future__ import annotations

from typing import TypedDict


class Bounds(TypedDict):
    """Smallest and largest value allowed, after rounding to float32 for a curve."""

    low: float
    high: float


FACTOR: Bounds = {"low": -50.0, "high": 50.0}
"""Factors of the velocity or of the decoder's input: velocity scale, guidance scale, channel gain."""

SHARE: Bounds = {"low": -10.0, "high": 10.0}
"""Shares and amounts that act at each step."""

UNIT: Bounds = {"low": 0.0, "high": 1.0}
"""Shares of the steps, and masks."""

WEIGHT: Bounds = {"low": 0.0, "high": 1e6}
"""Weights of conditions."""

NORM: Bounds = {"low": 2.0**-126, "high": (2.0 - 2.0**-23) * 2.0**127}
"""Bounds of norms: the positive float32 numbers that are finite and normal."""

SHIFT: Bounds = {"low": 1e-3, "high": 1e3}
"""Shifts of the schedule."""

MAX_STEPS = 1000
"""Largest number of steps."""

MAX_TOKENS = 65536
"""Largest configured encoder length; the padded rows of one tick are made at this length."""

MAX_TICKS_AHEAD = 64
"""Largest number of ticks that the host may be ahead of a GPU."""

"""The formulas once more in float64, and how the engine's float32 is held against them.

Two strengths: `assert_bits` compares bytes, dtype and shape, for what the order of operations fixes; `assert_rounds_to`
allows what float32 rounding can do to a formula and nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from tests.transcription.numerics64 import Array

EPS = float(torch.finfo(torch.float32).eps)
"""Float32's spacing at 1: two roundings' worth."""

drawn = settings(max_examples=40, deadline=None)
"""For a property of a formula: cheap examples, and no clock on them, since machines are shared."""


def f64(tensor: Tensor) -> Array:
    """The same values in float64."""
    return tensor.double().numpy()


def assert_bits(got: Tensor, want: Tensor) -> None:
    """The same dtype, shape and bytes."""
    assert got.dtype == want.dtype == torch.float32
    assert got.shape == want.shape
    assert torch.equal(got.contiguous().view(torch.int32), want.contiguous().view(torch.int32))


def differ(one: Tensor, other: Tensor) -> bool:
    """Whether two float32 tensors of one shape have different bytes somewhere."""
    assert one.dtype == other.dtype == torch.float32
    assert one.shape == other.shape
    return not torch.equal(one.contiguous().view(torch.int32), other.contiguous().view(torch.int32))


def assert_rounds_to(got: Tensor, want: Array, *sizes: Tensor | Array | float, roundings: float = 4) -> None:
    """`got` is `want` but for float32 rounding.

    Each operation of a formula moves its result by at most `EPS/2` times the size of what it makes, so a formula of k
    operations whose terms have the given `sizes` errs by less than `k/2 * EPS * sum(sizes)`. A wrong term, sign or
    constant moves it by the size of the term itself, a million times more.

    Args:
        got: float32.
        want: its float64 twin.
        sizes: the terms of the sum, or bounds on them; the largest magnitude of each counts.
        roundings: in units of EPS.
    """
    assert got.dtype == torch.float32
    assert tuple(got.shape) == want.shape
    scale = sum(float(np.abs(np.asarray(size)).max()) for size in sizes)
    error = float(np.abs(f64(got) - want).max())
    assert error <= roundings * EPS * scale, f"off by {error:.2e}, {error / (EPS * scale):.1f} EPS of {scale:.2e}"


@dataclass
class Case:
    """Seeded tensors of one drawn shape."""

    frames: int
    channels: int
    seed: int
    rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def latent(self) -> Tensor:
        """Normal values `[1, T, D]`, float32."""
        return torch.from_numpy(self.rng.standard_normal((1, self.frames, self.channels), dtype=np.float32))

    def curve(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform values in [low, high), `[1, T, 1]` or, as often, `[1, 1, 1]`."""
        frames = self.frames if self.rng.random() < 0.5 else 1
        return torch.from_numpy(self.rng.uniform(low, high, (1, frames, 1)).astype(np.float32))

    def times(self) -> tuple[float, float]:
        """A step's two times, `1 >= t > s > 0`, as a schedule has them: float32 values as Python floats."""
        s, t = sorted(float(np.float32(time)) for time in self.rng.uniform(0.01, 1.0, 2))
        return t, s


cases = st.builds(
    Case,
    frames=st.one_of(st.sampled_from([1, 2, 7, 16]), st.integers(1, 40)),
    channels=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)

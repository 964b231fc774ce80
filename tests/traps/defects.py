"""The eleven small defects that comparators are judged by: what was expected, what came, and what must be reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.parity.compare import DifferenceKind

LATENT = (4, 16, 64)
NAN, NAN_WITH_PAYLOAD = 0x7FC00000, 0x7FC00001


@dataclass(frozen=True)
class Defect:
    """`make` gives (actual, expected); the rest is what the report must say, a count of 0 meaning "several"."""

    name: str
    make: Callable[[], tuple[Tensor, Tensor]]
    kind: DifferenceKind
    index: tuple[int, ...] | None = None
    count: int = 0


def latent(seed: int = 0) -> Tensor:
    """A float32 latent [4, 16, 64] without zeros."""
    return torch.randn(LATENT, generator=torch.Generator().manual_seed(seed))


def bits(*patterns: int) -> Tensor:
    """Float32 values with the given bit patterns."""
    return torch.tensor(patterns, dtype=torch.int32).view(torch.float32)


def _changed(index: tuple[int, ...], value: float | Tensor) -> tuple[Tensor, Tensor]:
    expected = latent()
    actual = expected.clone()
    actual[index] = value
    return actual, expected


def _half() -> tuple[Tensor, Tensor]:
    values = latent().half()
    return values, values.float()


def _single() -> tuple[Tensor, Tensor]:
    values = latent()
    return values, values.double()


def _negative_zero() -> tuple[Tensor, Tensor]:
    actual, expected = _changed((2, 5, 7), -0.0)
    expected[2, 5, 7] = 0.0
    return actual, expected


def _payload() -> tuple[Tensor, Tensor]:
    actual, expected = latent(), latent()
    actual[1, 2, 3], expected[1, 2, 3] = bits(NAN_WITH_PAYLOAD)[0], bits(NAN)[0]
    return actual, expected


def _one_ulp() -> tuple[Tensor, Tensor]:
    return _changed((0, 15, 63), torch.nextafter(latent()[0, 15, 63], torch.tensor(torch.inf)))


def _nine_fold() -> tuple[Tensor, Tensor]:
    actual, expected = _changed((3, 0, 1), 1e-8)
    expected[3, 0, 1] = 1e-9
    return actual, expected


def _middle() -> tuple[Tensor, Tensor]:
    actual, expected = _changed((2, 0, 0), latent()[2, 0, 0] + 0.1)
    return actual, expected


def _squeezed() -> tuple[Tensor, Tensor]:
    return torch.arange(4.0), torch.arange(4.0).reshape(4, 1)


def _relative() -> tuple[Tensor, Tensor]:
    expected = latent()
    return expected * (1 + 3e-7), expected


def _swapped() -> tuple[Tensor, Tensor]:
    expected = latent()
    expected[2] = expected[1] + 1e-6
    return expected[[0, 2, 1, 3]], expected


ELEVEN = [
    Defect("fp32 becomes fp16, same values", _half, DifferenceKind.DTYPE),
    Defect("fp64 becomes fp32, same values", _single, DifferenceKind.DTYPE),
    Defect("+0 becomes -0", _negative_zero, DifferenceKind.BYTES, (2, 5, 7), 1),
    Defect("a NaN appears", lambda: _changed((1, 2, 3), torch.nan), DifferenceKind.BYTES, (1, 2, 3), 1),
    Defect("a NaN's payload changes", _payload, DifferenceKind.BYTES, (1, 2, 3), 1),
    Defect("one ULP", _one_ulp, DifferenceKind.BYTES, (0, 15, 63), 1),
    Defect("a 9x error on a 1e-9 element", _nine_fold, DifferenceKind.BYTES, (3, 0, 1), 1),
    Defect("0.1 in the middle of 4096 elements", _middle, DifferenceKind.BYTES, (2, 0, 0), 1),
    Defect("shape (4, 1) becomes (4,)", _squeezed, DifferenceKind.SHAPE),
    Defect("3e-7 relative", _relative, DifferenceKind.BYTES, (0, 0, 0)),
    Defect("two slots that differ by 1e-6 swapped", _swapped, DifferenceKind.BYTES, (1, 0, 0)),
]
BY_NAME = {defect.name: defect for defect in ELEVEN}

"""How far an exported file is from its decoder, against float64: closeness, not equality of bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.engine import decoders
from harness.engine.aot.runtime import session
from harness.engine.aot.signature import MASK
from harness.engine.errors import ExportRefused
from harness.engine.noise import Purpose, noise

FACTOR = 2.0
"""A file may be so many times as far from float64 as torch's own forward in the file's dtype is."""

SHAPES = ((1, 2, 1), (3, 40, 12), (2, 76, 33))
"""Rows, frames and tokens that are tried; none of them is what was traced."""


@dataclass(frozen=True)
class Distance:
    """Of one shape, root mean squares over every element of the velocity.

    Attributes:
        shape: rows, frames and tokens.
        elements: of the velocity.
        scale: of the velocity in float64.
        file: of what the file gives less that.
        torch: of what the decoder gives in its own dtype less that.
        worst: the largest absolute difference of the file's.
    """

    shape: tuple[int, int, int]
    elements: int
    scale: float
    file: float
    torch: float
    worst: float


@dataclass(frozen=True)
class Closeness:
    """Of a file, over all shapes that were tried; few elements alone would say little.

    Attributes:
        distances: one a shape.
    """

    distances: tuple[Distance, ...]

    @property
    def file(self) -> float:
        """Root mean square of the file's difference, over every element of every shape."""
        return self._pooled([d.file for d in self.distances])

    @property
    def torch(self) -> float:
        """The same of torch's own forward in the file's dtype."""
        return self._pooled([d.torch for d in self.distances])

    @property
    def worst(self) -> float:
        """The largest absolute difference of the file's."""
        return max(d.worst for d in self.distances)

    @property
    def passes(self) -> bool:
        """Whether the file is near enough; a NaN is not."""
        return self.file <= FACTOR * self.torch

    def _pooled(self, means: Sequence[float]) -> float:
        counts = [d.elements for d in self.distances]
        return math.sqrt(sum(n * rms**2 for n, rms in zip(counts, means, strict=True)) / sum(counts))

    def check(self) -> None:
        """Refuse a file that is farther from float64 than it may be.

        Raises:
            ExportRefused: with the distances.
        """
        if not self.passes:
            raise ExportRefused(
                f"the file is {self.file:.3g} from float64 (root mean square; worst {self.worst:.3g}), torch itself "
                f"{self.torch:.3g}, expected at most {FACTOR:g} times that"
            )


def measure(
    path: Path, decoder: decoders.AceStepDecoder, shapes: Sequence[tuple[int, int, int]] = SHAPES, *, mask: bool = True
) -> Closeness:
    """Run an exported file and its decoder on the same inputs, and both against float64.

    ONNX Runtime runs float32 and float16 files on the CPU, and ONNX's reference evaluator bfloat16 ones, for which
    ONNX Runtime has no kernels there.

    Args:
        path: of the file.
        decoder: that it was exported from. It is in float64 meanwhile and gets its dtype and its values back.
        shapes: rows, frames and tokens; even frames.
        mask: whether the file takes the mask. Without it every token is attended on both sides.

    Raises:
        PackageMissing: neither runtime is installed.
    """
    inputs = [_inputs(decoder, shape, number, mask=mask) for number, shape in enumerate(shapes)]
    run = _runner(path, decoder.dtype)
    files = [run({name: t for name, t in each.items() if mask or name != MASK}).double() for each in inputs]
    del run
    owns = [_forward(decoder, each).double() for each in inputs]
    exact = list(_in_double(decoder, inputs))
    return Closeness(
        tuple(
            Distance(shape, r.numel(), _rms(r), _rms(f - r), _rms(o - r), float((f - r).abs().max()))
            for shape, f, o, r in zip(shapes, files, owns, exact, strict=True)
        )
    )


def _inputs(
    decoder: decoders.AceStepDecoder, shape: tuple[int, int, int], seed: int, *, mask: bool
) -> dict[str, Tensor]:
    """Fixed inputs in the file's dtypes; every row's padding has another length."""
    rows, frames, tokens = shape
    channels, dtype = decoder.channels, decoder.dtype

    def drawn(step: int, length: int, width: int) -> Tensor:
        each = [
            noise(16 * seed + row, Purpose.STEP, step, (1, length, width), torch.device("cpu")) for row in range(rows)
        ]
        return torch.cat(each).to(dtype)

    lengths = torch.tensor([1 + (row * tokens) // rows if mask else tokens for row in range(rows)])
    return {
        "hidden_states": drawn(0, frames, channels),
        "timestep": torch.linspace(1.0, 0.1, rows),
        "encoder_hidden_states": drawn(1, tokens, decoder.encoder_dim),
        "context_latents": drawn(2, frames, 2 * channels),
        MASK: torch.arange(tokens) < lengths[:, None],
    }


def _forward(decoder: decoders.AceStepDecoder, inputs: dict[str, Tensor]) -> Tensor:
    moved = {name: tensor.to(decoder.device) for name, tensor in inputs.items()}
    with torch.no_grad(), _full_precision():
        velocity: Tensor = decoder(**moved)
    return velocity.cpu()


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 in float32: with TF32 a GPU's own distance would be a thousand times as large a bound."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _in_double(decoder: decoders.AceStepDecoder, inputs: Sequence[dict[str, Tensor]]) -> Iterator[Tensor]:
    """In place: two copies of the full model, one of them in float64, do not fit where one does."""
    dtype = decoder.dtype
    decoder.double()
    try:
        for each in inputs:
            yield _forward(decoder, each)
    finally:
        decoder.to(dtype)  # every value of a narrower dtype is one of float64, so nothing is lost


def _runner(path: Path, dtype: torch.dtype) -> Callable[[dict[str, Tensor]], Tensor]:
    if dtype is torch.bfloat16:
        return _reference_evaluator(path)
    made = session(path)
    return lambda inputs: torch.from_numpy(made.run(None, {name: t.numpy() for name, t in inputs.items()})[0])


def _reference_evaluator(path: Path) -> Callable[[dict[str, Tensor]], Tensor]:
    import ml_dtypes  # noqa: PLC0415 - of an optional package
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - an optional package

    evaluator = ReferenceEvaluator(str(path))

    def array(tensor: Tensor) -> Any:
        # torch has no NumPy view of bfloat16.
        narrow = tensor.dtype is torch.bfloat16
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if narrow else tensor.numpy()

    def run(inputs: dict[str, Tensor]) -> Tensor:
        velocity: Any = evaluator.run(None, {name: array(t) for name, t in inputs.items()})[0]
        return torch.from_numpy(velocity.astype("float32"))

    return run


def _rms(difference: Tensor) -> float:
    return float(difference.pow(2).mean().sqrt())

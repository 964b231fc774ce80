"""Accuracy of an exported file: its distance from a float64 forward, compared with torch's own distance.

The check bounds rounding errors. It does not ask for equal bits.
"""

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
from harness.engine.aot.runtime import computes_in, session
from harness.engine.aot.signature import MASK
from harness.engine.errors import Inaccurate
from harness.engine.noise import Purpose, noise

FACTOR = 2.0
"""Largest allowed ratio of a compiled decoder's distance from float64 to that of torch's forward in the same dtype.

Measured on the whole battery with the tiny decoder, ONNX Runtime is at 0.99 to 1.3 times torch's own distance.
"""

SHAPES = ((1, 2, 1), (3, 40, 12), (2, 76, 33))
"""Rows, frames and tokens of each test input. All differ from the traced shape, so frozen dimensions show."""


@dataclass(frozen=True)
class Distance:
    """Distances from the float64 velocity at one shape. RMS is the root mean square over the elements.

    Attributes:
        shape: rows, frames and tokens.
        elements: the number of elements of the velocity.
        scale: the RMS of the float64 velocity.
        file: the RMS of the exported file's velocity minus the float64 velocity.
        torch: the RMS of torch's velocity, in the file's dtype, minus the float64 velocity.
        worst: the largest absolute difference between the exported file's velocity and the float64 velocity.
    """

    shape: tuple[int, int, int]
    elements: int
    scale: float
    file: float
    torch: float
    worst: float


@dataclass(frozen=True)
class Closeness:
    """Distances of one exported file, pooled over all shapes, because a single small shape has too few elements.

    Attributes:
        distances: one for each shape.
    """

    distances: tuple[Distance, ...]

    @property
    def file(self) -> float:
        """RMS of the file's difference from float64, over every element of every shape."""
        return self._pooled([d.file for d in self.distances])

    @property
    def torch(self) -> float:
        """RMS of the difference from float64 of torch's forward in the file's dtype, over every element."""
        return self._pooled([d.torch for d in self.distances])

    @property
    def worst(self) -> float:
        """The largest absolute difference of the file from float64, over all shapes."""
        return max(d.worst for d in self.distances)

    @property
    def passes(self) -> bool:
        """Return True if the file's distance is at most `FACTOR` times torch's; a NaN gives False."""
        return self.file <= FACTOR * self.torch

    def _pooled(self, means: Sequence[float]) -> float:
        counts = [d.elements for d in self.distances]
        return math.sqrt(sum(n * rms**2 for n, rms in zip(counts, means, strict=True)) / sum(counts))

    def check(self) -> None:
        """Refuse a file that does not pass.

        Raises:
            Inaccurate: the distance is too large; the message holds the distances.
        """
        if not self.passes:
            raise Inaccurate(
                f"the file's distance from float64 is {self.file:.3g} (root mean square; worst {self.worst:.3g}), "
                f"expected at most {FACTOR:g} times torch's own distance, {self.torch:.3g}"
            )


def measure(
    path: Path, decoder: decoders.AceStepDecoder, shapes: Sequence[tuple[int, int, int]] = SHAPES, *, mask: bool = True
) -> Closeness:
    """Run an exported file and its decoder on the same inputs; return the distances of both from float64.

    ONNX Runtime runs float32 and float16 files on the CPU. ONNX's reference evaluator runs bfloat16 files, because ONNX
    Runtime has no bfloat16 kernels on a CPU.

    Args:
        path: the exported file.
        decoder: the decoder that the file was exported from. During the call the decoder is cast to float64 in place;
            afterwards its dtype and values are as before.
        shapes: rows, frames (even) and tokens of each test input.
        mask: True if the file takes the encoder mask. Without a mask every token is attended on both sides.

    Raises:
        PackageMissing: ONNX Runtime is not installed (float32 and float16).
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
    """Deterministic inputs in the file's dtypes; with a mask, rows have different lengths of padding."""
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
    """Switch TF32 off inside the block: TF32 makes torch's own distance, and so the bound, about 1000 times larger."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _in_double(decoder: decoders.AceStepDecoder, inputs: Sequence[dict[str, Tensor]]) -> Iterator[Tensor]:
    """Yield the float64 velocity of each input; the decoder is cast in place, because two copies may not fit."""
    held = [
        (module, name, tensor.dtype)
        for module in decoder.modules()
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    ]
    try:
        decoder.double()
        for each in inputs:
            yield _forward(decoder, each)
    finally:
        for module, name, dtype in held:
            tensor = getattr(module, name)
            tensor.data = tensor.data.to(dtype)  # lossless: float64 holds every value of a narrower dtype


def _runner(path: Path, dtype: torch.dtype) -> Callable[[dict[str, Tensor]], Tensor]:
    if not computes_in(dtype):
        return _reference_evaluator(path)
    made = session(path)
    return lambda inputs: torch.from_numpy(made.run(None, {name: t.numpy() for name, t in inputs.items()})[0])


def _reference_evaluator(path: Path) -> Callable[[dict[str, Tensor]], Tensor]:
    import ml_dtypes  # noqa: PLC0415 - a dependency of an optional package
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

"""The exporter: a decoder becomes one ONNX file with dynamic batch, frames and encoder length."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.engine import decoders
from harness.engine.aot import constants, graph
from harness.engine.aot.signature import INPUTS, MASK, VELOCITY
from harness.engine.decoders import AffineDecoder, Decoder
from harness.engine.errors import ExportRefused, InvalidInput, PackageMissing
from harness.files import reading, tensors

OPSET = 20
"""The newest ONNX opset that all supported runtimes read. Opset 23 adds single attention and norm operators, which not
every runtime supports."""

EXTERNAL_OVER = 2**31 - 2**24
"""Size of the weights in bytes above which they are stored in a separate file: a protobuf message is limited to 2 GiB.
"""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOKENS = 64
"""Default encoder length of an exported `AffineDecoder`, which is static: the number of operations depends on it."""

_ROWS, _HALF, _TOKENS = 2, 20, 12
"""Rows, half of the frames, and tokens of the traced example. With one row the exporter freezes the batch silently."""


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path: the path of the file.
        dtype: the dtype that the decoder computes in.
        nodes: the number of nodes in the graph.
        size: bytes of the file and its external data.
        data: the path of the external data, beside the file; None where the weights are in the file.
        mask: True if the file has an input for the encoder mask.
    """

    path: Path
    dtype: torch.dtype
    nodes: int
    size: int
    data: Path | None
    mask: bool


class Traced(nn.Module):
    """The traced module: calls a decoder with inputs in the file's order and an optional mask.

    Args:
        decoder: an `AceStepDecoder` or an `AffineDecoder`.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        context_latents: Tensor,
        encoder_mask: Tensor | None = None,
    ) -> Tensor:
        """The velocity `[N, T, D]`; without a mask every token is attended. Shapes are those of `Decoder`."""
        if encoder_mask is None:
            encoder_mask = torch.ones_like(encoder_hidden_states[..., 0], dtype=torch.bool)
        velocity: Tensor = self.decoder(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            encoder_mask=encoder_mask,
            context_latents=context_latents,
        )
        return velocity


def export(
    decoder: Decoder,
    path: Path,
    *,
    mask: bool = True,
    tokens: int | None = None,
    external_over: int = EXTERNAL_OVER,
    accept: Callable[[Path], None] = lambda _file: None,
) -> Exported:
    """Export a decoder to one ONNX file. Where the export fails, an existing file stays as it is.

    Inputs are `hidden_states`, `encoder_hidden_states` and `context_latents` in the decoder's dtype, `timestep` in
    float32 and, with `mask`, `encoder_mask` in bool; the output is `velocity`. The dimensions `batch`, `tokens` and T
    are dynamic, T as `2*half` where the model takes patches of two frames. Nodes are named
    `<module path>/<operator>_<index>`.

    Args:
        decoder: an `AceStepDecoder` in float32, float16 or bfloat16; or an `AffineDecoder`, which is exported with a
            static encoder length and with `channels_of(decoder)` channels.
        path: the path of the file; weights of more than 2 GiB go to `<path>.data`.
        mask: True: the file takes the encoder mask. False: padding is attended.
        tokens: the static encoder length of an `AffineDecoder`, `TOKENS` by default; None for other decoders.
        external_over: size of the weights in bytes above which they are stored in `<path>.data`.
        accept: called with the path of the finished temporary file before it replaces `path`; where `accept` raises,
            the temporary file is deleted.

    Raises:
        PackageMissing: `onnx` or `onnxscript` is not installed.
        InvalidInput: the decoder is of another kind or dtype, or has `tokens` although its encoder length is dynamic.
        ExportRefused: the exporter froze a dimension, or the file contains a path of this machine.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise PackageMissing(package, "onnx")
    subject = _subject(decoder, tokens)
    with _quiet():
        program = torch.onnx.export(
            Traced(subject.module).eval(),
            kwargs=subject.example(mask=mask),
            dynamo=True,
            dynamic_shapes=subject.dynamic(mask=mask),
            opset_version=OPSET,
            output_names=[VELOCITY],
            verbose=False,
        )
    if program is None or program.exported_program is None:
        raise ExportRefused("torch.onnx.export returned no program")
    model = program.model
    constants.restore(model, program.exported_program)
    graph.tidy(model, "decoder.transformer." if subject.patch > 1 else "decoder.")
    values = (*model.graph.inputs, *model.graph.outputs)
    shapes = {str(value.name): list(value.shape) for value in values}
    graph.check_dimensions(shapes, tokens=subject.tokens, frames="2*half" if subject.patch == 2 else "frames")
    graph.check_names(node.name for node in model.graph)
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    data = _save(program, path, accept, external=weights > external_over)
    size = path.stat().st_size + (0 if data is None else data.stat().st_size)
    return Exported(path, subject.dtype, len(list(model.graph)), size, data, mask)


def channels_of(decoder: decoders.AceStepDecoder | AffineDecoder) -> int:
    """Channels D of an exported decoder. An `AffineDecoder` takes any number and is exported with four."""
    return 4 if isinstance(decoder, AffineDecoder) else decoder.channels


def parts(path: Path) -> tuple[Path, Path]:
    """The paths of an exported file and of its external data, which need not exist."""
    return path, _data_of(path)


def digest(path: Path) -> str:
    """SHA-256, in hexadecimal, of an exported file and its external data together."""
    hashed = hashlib.sha256()
    for part in parts(path):
        if part.is_file():
            with reading.opened(part, tensors.CHECKPOINT) as file:
                while block := file.read(2**24):
                    hashed.update(block)
    return hashed.hexdigest()


@dataclass(frozen=True)
class _Subject:
    module: Any
    dtype: torch.dtype
    channels: int
    encoder_dim: int
    patch: int
    tokens: int | None
    device: torch.device

    def example(self, *, mask: bool) -> dict[str, Tensor]:
        """The inputs for tracing; zeros, because only shapes and dtypes matter."""
        frames, tokens = 2 * _HALF, self.tokens or _TOKENS
        shapes = {
            "hidden_states": ((_ROWS, frames, self.channels), self.dtype),
            "timestep": ((_ROWS,), torch.float32),
            "encoder_hidden_states": ((_ROWS, tokens, self.encoder_dim), self.dtype),
            "context_latents": ((_ROWS, frames, 2 * self.channels), self.dtype),
            MASK: ((_ROWS, tokens), torch.bool),
        }
        return {
            name: torch.zeros(shape, dtype=dtype, device=self.device)
            for name, (shape, dtype) in shapes.items()
            if mask or name != MASK
        }

    def dynamic(self, *, mask: bool) -> dict[str, dict[int, Any]]:
        """The dynamic dimensions by input. T is `2*half`, which excludes the model's branch for an odd T."""
        batch = torch.export.Dim("batch", min=1)
        frames = 2 * torch.export.Dim("half", min=1) if self.patch == 2 else torch.export.Dim("frames", min=1)
        latent = {0: batch, 1: frames}
        encoder = {0: batch} if self.tokens else {0: batch, 1: torch.export.Dim("tokens", min=1)}
        every = dict(zip(INPUTS, (latent, {0: batch}, encoder, latent, encoder), strict=True))
        return {name: axes for name, axes in every.items() if mask or name != MASK}


def _subject(decoder: Decoder, tokens: int | None) -> _Subject:
    if isinstance(decoder, AffineDecoder):
        width = decoder.encoder_dim or 16
        length = TOKENS if tokens is None else tokens
        return _Subject(decoder, torch.float32, channels_of(decoder), width, 1, length, torch.device("cpu"))
    if not isinstance(decoder, decoders.AceStepDecoder):
        raise InvalidInput("decoder", type(decoder).__name__, "an AceStepDecoder or an AffineDecoder")
    if tokens is not None:
        raise InvalidInput("tokens", tokens, "None: the encoder length of this decoder is dynamic")
    if decoder.dtype not in DTYPES:
        raise InvalidInput("decoder", decoder.dtype, "one of " + ", ".join(map(str, DTYPES)))
    patch = int(decoder.transformer.config.patch_size)
    if patch != 2:
        raise InvalidInput("decoder", f"patches of {patch} frames", "patches of 2 frames")
    from harness.engine.aot.patches import with_linear_patches  # noqa: PLC0415 - imports diffusers, which takes seconds

    linear = with_linear_patches(decoder)
    return _Subject(linear, decoder.dtype, decoder.channels, decoder.encoder_dim, patch, None, decoder.device)


def _save(program: Any, path: Path, accept: Callable[[Path], None], *, external: bool) -> Path | None:
    """Write the file atomically, its external data first; return the path of the data, None where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        # The final name, because the file refers to its external data by name.
        partial = Path(folder) / path.name
        program.save(str(partial), external_data=external)
        graph.check_places(
            reading.whole(partial, reading.LARGE), (str(Path.home()), os.getcwd(), folder, tempfile.gettempdir())
        )
        accept(partial)
        made = _data_of(partial)
        data = _data_of(path)
        if made.is_file() or data.is_file():
            # Before the data is replaced, so that a file never stands beside the weights of another one.
            path.unlink(missing_ok=True)
        if made.is_file():
            os.replace(made, data)
        else:
            data.unlink(missing_ok=True)
        os.replace(partial, path)
    return data if external else None


def _data_of(path: Path) -> Path:
    """The path to which the exporter writes external data."""
    return path.with_name(path.name + ".data")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns of its internals and of optional packages; the graph is checked afterwards."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

"""The decoders and executors that a comparison can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from harness.engine import decoders
from harness.engine.aot.export import TOKENS, export
from harness.engine.decoders import AffineDecoder, Decoder
from harness.engine.errors import InvalidInput
from harness.engine.executors import CudaStream, EagerExecutor, Executor, StaticExecutor

AFFINE = "affine"
AFFINE_CHANNELS = 4
"""It takes any number; comparisons give it so many."""

PRESETS = ("tiny", "mid", "2b")


@lru_cache(maxsize=4)
def decoder(name: str, *, encoder_dim: int = 16, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Decoder:
    """A decoder by name, made once.

    Args:
        name: `affine` (closed form), `tiny`, `mid` or `2b` (the ACE-Step architecture with seeded random weights), or
            the path of a local checkpoint.
        encoder_dim: E of `affine`; the others have their own.
        dtype: what the others compute in.
        device: where the others are.

    Raises:
        InvalidInput: neither a name nor a directory.
    """
    check_name(name)
    if name == AFFINE:
        return AffineDecoder(encoder_dim)
    if name in PRESETS:
        return decoders.AceStepDecoder.preset(name, 0, dtype=dtype, device=device)
    return decoders.AceStepDecoder.from_pretrained(name, dtype=dtype, device=device)


def onnx_file(name: str, *, encoder_dim: int = 16, dtype: str = "float32", tokens: int = TOKENS) -> Path:
    """A decoder by name as an ONNX file, exported once a process, in a folder that goes with it.

    Args:
        name: see `decoder`.
        encoder_dim: E of `affine`.
        dtype: what the others compute in, by name.
        tokens: L of `affine`, which is static there.

    Raises:
        InvalidInput: neither a name nor a directory.
        PackageMissing: the exporter is not installed.
    """
    return _exported(name, encoder_dim, dtype, tokens)


@lru_cache(maxsize=8)
def _exported(name: str, encoder_dim: int, dtype: str, tokens: int) -> Path:
    made = decoder(name, encoder_dim=encoder_dim, dtype=getattr(torch, dtype))
    folder = Path(_exports().name)
    return export(made, folder / f"{len(list(folder.iterdir()))}.onnx", tokens=tokens if name == AFFINE else None).path


@lru_cache(maxsize=1)
def _exports() -> TemporaryDirectory[str]:
    """The folder, which is removed at the process's end."""
    return TemporaryDirectory(prefix="harness-onnx-")


def check_name(name: str) -> None:
    """Refuse what is no decoder's name.

    Raises:
        InvalidInput: neither a name nor a directory.
    """
    if name not in (AFFINE, *PRESETS) and not Path(name).is_dir():
        raise InvalidInput("decoder", repr(name), f"{AFFINE}, {', '.join(PRESETS)} or a checkpoint's directory")


def widths(decoder: Decoder) -> tuple[int, int]:
    """A decoder's channels D and encoder width E.

    Raises:
        TypeError: it is none of `decoder`'s.
    """
    if isinstance(decoder, AffineDecoder):
        return AFFINE_CHANNELS, decoder.encoder_dim or 16
    if not isinstance(decoder, decoders.AceStepDecoder):
        raise TypeError(f"the widths of a {type(decoder).__name__} are not known")
    return decoder.channels, decoder.encoder_dim


class DeferredStream:
    """A CPU's model of an executor's own stream: a run is computed no sooner than somebody waits for it.

    So a caller who forgets to wait reads the buffer as it was before the run, always and not now and then.
    """

    def __init__(self) -> None:
        """A stream that holds nothing."""
        self._pending: list[Callable[[], None]] = []

    @property
    def pending(self) -> int:
        """How many launches nobody has waited for."""
        return len(self._pending)

    def launch(self, work: Callable[[], None]) -> None:
        """See `ExecutorStream.launch`."""
        self._pending.append(work)

    def join(self) -> None:
        """See `ExecutorStream.join`."""
        self.wait()

    def wait(self) -> None:
        """See `ExecutorStream.wait`."""
        while self._pending:
            self._pending.pop(0)()


class Kind(StrEnum):
    """An executor's kind.

    `eager` calls the decoder. `static` calls it on static buffers, on a GPU on a stream of its own. `deferred` is
    `static` on a CPU with a stream that computes as late as it may.
    """

    EAGER = "eager"
    STATIC = "static"
    DEFERRED = "deferred"


def executor(
    kind: Kind | str, decoder: Decoder, max_rows: int = 8, pin_rows: int | None = None, device: str = "cpu"
) -> Executor:
    """A new executor of `kind`.

    Args:
        kind: which.
        decoder: the model.
        max_rows: see `EagerExecutor`.
        pin_rows: see `EagerExecutor`.
        device: where the decoder is.
    """
    return _MAKERS[Kind(kind)](decoder, max_rows, pin_rows, torch.device(device))


def has_own_stream(kind: Kind | str, device: str = "cpu") -> bool:
    """Whether executors of `kind` run on a stream of their own on `device`."""
    return Kind(kind) is Kind.DEFERRED or (Kind(kind) is Kind.STATIC and torch.device(device).type == "cuda")


def _eager(decoder: Decoder, max_rows: int, pin_rows: int | None, _device: torch.device) -> Executor:
    return EagerExecutor(decoder, max_rows, pin_rows)


def _static(decoder: Decoder, max_rows: int, pin_rows: int | None, device: torch.device) -> Executor:
    stream = CudaStream(device) if device.type == "cuda" else None
    return StaticExecutor(decoder, max_rows, pin_rows, stream=stream)


def _deferred(decoder: Decoder, max_rows: int, pin_rows: int | None, _device: torch.device) -> Executor:
    return StaticExecutor(decoder, max_rows, pin_rows, stream=DeferredStream())


_MAKERS: dict[Kind, Callable[[Decoder, int, int | None, torch.device], Executor]] = {
    Kind.EAGER: _eager,
    Kind.STATIC: _static,
    Kind.DEFERRED: _deferred,
}

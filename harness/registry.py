"""The decoders and executors that a comparison can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch

from harness.engine import decoders, executors
from harness.engine.aot.export import TOKENS, export
from harness.engine.aot.runtime import check_dtype
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
        InvalidInput: neither a name nor a directory, or a device that is not here.
    """
    check_name(name)
    check_here(device)
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
    # What says nothing about the decoder is left out, so that whoever asks for the same file gets it.
    return _exported(AFFINE, encoder_dim, "float32", tokens) if name == AFFINE else _exported(name, 0, dtype, None)


@lru_cache(maxsize=16)
def _exported(name: str, encoder_dim: int, dtype: str, tokens: int | None) -> Path:
    made = decoder(name, encoder_dim=encoder_dim, dtype=getattr(torch, dtype))
    folder = Path(_exports().name)
    return export(made, folder / f"{len(list(folder.iterdir()))}.onnx", tokens=tokens).path


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


def check_here(device: str) -> None:
    """Refuse a device that torch does not know or has not here.

    Raises:
        InvalidInput: it is one.
    """
    try:
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise InvalidInput("device", f"'{device}'", f"a device that is here ({str(error).splitlines()[0]})") from error


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


@dataclass(frozen=True)
class Asked:
    """The options of an executor that is to be made.

    Attributes:
        max_rows: see `EagerExecutor`.
        pin_rows: see `EagerExecutor`.
        device: the device of the decoder.
        file: the compiled decoder to run; empty for a kind that runs the decoder itself.
    """

    max_rows: int
    pin_rows: int | None
    device: torch.device
    file: Path


def _eager(decoder: Decoder, asked: Asked) -> Executor:
    return EagerExecutor(decoder, asked.max_rows, asked.pin_rows)


def _static(decoder: Decoder, asked: Asked) -> Executor:
    stream = CudaStream(asked.device) if asked.device.type == "cuda" else None
    return StaticExecutor(decoder, asked.max_rows, asked.pin_rows, stream=stream)


def _deferred(decoder: Decoder, asked: Asked) -> Executor:
    return StaticExecutor(decoder, asked.max_rows, asked.pin_rows, stream=DeferredStream())


def _onnx(_decoder: Decoder, asked: Asked) -> Executor:
    threads = torch.get_num_threads()
    return executors.OnnxExecutor(asked.file, max_rows=asked.max_rows, pin_rows=asked.pin_rows, threads=threads)


def _tensorrt(_decoder: Decoder, asked: Asked) -> Executor:
    device = str(asked.device)
    made = executors.TensorRTExecutor(asked.file, max_rows=asked.max_rows, pin_rows=asked.pin_rows, device=device)
    # Its stream is a CudaStream, which a protocol's own attribute does not allow.
    return cast(Executor, made)


@dataclass(frozen=True)
class ExecutorRecord:
    """The record of a kind of executor.

    Attributes:
        make: makes an executor of a decoder, or of the file that `Asked` names.
        devices: types of the devices that the kind runs on.
        streams: types of the devices on which the kind has a stream of its own.
        file: the file that the kind runs, in words; empty for a kind that runs the decoder itself.
        exports: the file is exported from the decoder where none is named.
        stand_in: the kind is a CPU's model of a stream on a GPU, and is compared only where a stream matters.
    """

    make: Callable[[Decoder, Asked], Executor]
    devices: tuple[str, ...] = ("cpu", "cuda")
    streams: tuple[str, ...] = ()
    file: str = ""
    exports: bool = False
    stand_in: bool = False


_EAGER = ExecutorRecord(_eager)


class ExecutorKind(StrEnum):
    """A kind of executor, each with its record.

    `eager` calls the decoder. `static` calls the decoder on static buffers, on a GPU on a stream of its own.
    `deferred` is `static` on a CPU with a stream that computes as late as possible. `onnx` and `tensorrt` run a
    compiled decoder: an exported file on the CPU, and a built plan on a GPU.
    """

    record: ExecutorRecord

    EAGER = "eager", _EAGER
    STATIC = "static", ExecutorRecord(_static, streams=("cuda",))
    DEFERRED = "deferred", ExecutorRecord(_deferred, devices=("cpu",), streams=("cpu",), stand_in=True)
    ONNX = "onnx", ExecutorRecord(_onnx, devices=("cpu",), file="an ONNX file", exports=True)
    TENSORRT = "tensorrt", ExecutorRecord(_tensorrt, devices=("cuda",), streams=("cuda",), file="a built plan")

    def __new__(cls, name: str, record: ExecutorRecord = _EAGER) -> ExecutorKind:
        """A member whose value is its name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.record = record
        return member

    @property
    def ahead_of_time(self) -> bool:
        """The kind runs a compiled decoder from a file, and not the decoder itself."""
        return bool(self.record.file)

    def has_own_stream(self, device: torch.device | str = "cpu") -> bool:
        """Say whether executors of this kind run on a stream of their own on `device`."""
        return torch.device(device).type in self.record.streams


LIVE = tuple(kind for kind in ExecutorKind if not kind.ahead_of_time)
"""The kinds that run the decoder itself: a comparison takes these where no kind is named."""

COMPARED = tuple(kind for kind in LIVE if not kind.record.stand_in)
"""Those of `LIVE` whose bits and costs are measured where no kind is named."""


def executor(
    kind: ExecutorKind | str,
    decoder: Decoder,
    max_rows: int = 8,
    pin_rows: int | None = None,
    device: str = "cpu",
    engine: Path | None = None,
) -> Executor:
    """A new executor of `kind`.

    Args:
        kind: which.
        decoder: the model; an engine that was made ahead of time does not ask.
        max_rows: see `EagerExecutor`.
        pin_rows: see `EagerExecutor`.
        device: where the decoder is.
        engine: the file that an ahead-of-time kind runs, see `engine_for`. `onnx` has as many threads as torch has now.

    Raises:
        InvalidInput: an ahead-of-time kind without a file, another one with a file, or a device that it has nothing to
            do with.
        EngineError: the file cannot be used, or the package that runs it is not installed.
    """
    kind, place = ExecutorKind(kind), torch.device(device)
    if kind.ahead_of_time:
        if engine is None:
            raise InvalidInput(
                "engine", "none", f"the path of {kind.record.file}: executors of the kind {kind} run one"
            )
        check_device(kind, place)
    elif engine is not None:
        raise InvalidInput("engine", str(engine), f"none: executors of the kind {kind} run the decoder itself")
    return kind.record.make(decoder, Asked(max_rows, pin_rows, place, engine or Path()))


def engine_for(
    kind: ExecutorKind | str, name: str, *, encoder_dim: int = 16, dtype: str = "float32", tokens: int = TOKENS
) -> Path | None:
    """The file that an executor of `kind` runs where none is named: for `onnx` the decoder's, exported, else None.

    Args:
        kind: of the executor.
        name: of the decoder; see `onnx_file`, as for the others.
        encoder_dim: E of `affine`.
        dtype: what the others compute in, by name.
        tokens: L of `affine`.
    """
    if not ExecutorKind(kind).record.exports:
        return None
    if name != AFFINE:
        check_dtype(dtype)
    return onnx_file(name, encoder_dim=encoder_dim, dtype=dtype, tokens=tokens)


def check_device(kind: ExecutorKind | str, device: torch.device | str) -> None:
    """Refuse a device that executors of an ahead-of-time `kind` are not on.

    Raises:
        InvalidInput: it is one; a kind that runs the decoder itself is wherever that is.
    """
    try:
        named = torch.device(device).type
    except RuntimeError as error:
        raise InvalidInput("device", f"'{device}'", "the name of a device") from error
    kind = ExecutorKind(kind)
    if kind.ahead_of_time and named not in kind.record.devices:
        where = " or ".join(f"'{each}'" for each in kind.record.devices)
        raise InvalidInput("device", f"'{device}'", f"{where}, where executors of the kind {kind} are")

"""Decoders and executors by name."""

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
from harness.engine.aot.code_file import CodeFile
from harness.engine.aot.export import TOKENS, export
from harness.engine.aot.runtime import check_dtype
from harness.engine.decoders import AffineDecoder, Decoder
from harness.engine.decoders.accelerated import accelerated
from harness.engine.decoders.ace_step import OfTransformer
from harness.engine.decoders.decoder_switches import PLAIN, DecoderSwitches
from harness.engine.deferred import DeferredStream
from harness.engine.errors import InvalidInput
from harness.engine.executors import CudaGraphExecutor, CudaStream, EagerExecutor, Executor, StaticExecutor

AFFINE = "affine"
AFFINE_CHANNELS = 4
"""Latent channels D of the affine decoder in comparisons; the decoder itself takes any number."""

PRESETS = ("tiny", "mid", "2b")

DTYPES = ("float32", "bfloat16", "float16")
"""Names of the dtypes of a decoder; the first one where nothing names another."""


def decoder(
    name: str,
    *,
    encoder_dim: int = 16,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    switches: DecoderSwitches = PLAIN,
) -> Decoder:
    """Make a decoder by name; calls with the same arguments return the same decoder.

    Args:
        name: `affine` (closed form), `tiny`, `mid` or `2b` (the ACE-Step architecture with seeded random weights), or
            the directory of a local checkpoint.
        encoder_dim: encoder width E of `affine`; not read for the other decoders.
        dtype: dtype in which the decoder computes; not read for `affine`.
        device: device of the decoder; `affine` has no weights and runs on every device.
        switches: accelerations. A decoder with some shares its weights with the one that has none, and moves them; see
            `AcceleratedDecoder`.

    Raises:
        InvalidInput: neither a name nor a directory, a device that is not available, or accelerations of `affine`.
    """
    check_name(name)
    check_here(device)
    # Arguments that the decoder does not read are left out of the cache's key: equal decoders are made once.
    key = (name, encoder_dim if name == AFFINE else 0, dtype, device)
    return _accelerated(key, switches) if switches.on else _decoder(*key)


@lru_cache(maxsize=4)
def _decoder(name: str, encoder_dim: int, dtype: torch.dtype, device: str) -> Decoder:
    if name == AFFINE:
        return AffineDecoder(encoder_dim)
    if name in PRESETS:
        return decoders.AceStepDecoder.preset(name, 0, dtype=dtype, device=device)
    return decoders.AceStepDecoder.from_pretrained(name, dtype=dtype, device=device)


@lru_cache(maxsize=8)
def _accelerated(key: tuple[str, int, torch.dtype, str], switches: DecoderSwitches) -> Decoder:
    plain = _decoder(*key)
    if not isinstance(plain, decoders.AceStepDecoder):
        raise InvalidInput("decoder_switches", ", ".join(switches.on), "none on: this decoder has no accelerations")
    return accelerated(plain, switches)


def onnx_file(name: str, *, encoder_dim: int = 16, dtype: str = "float32", tokens: int = TOKENS) -> Path:
    """Export a decoder by name to an ONNX file, once a process, in a folder that is removed when the process ends.

    Args:
        name: see `decoder`.
        encoder_dim: encoder width E of `affine`; not read for the other decoders.
        dtype: name of the dtype in which the decoder computes; not read for `affine`.
        tokens: number of tokens L of `affine`, whose exported file has a static length; not read for the others.

    Raises:
        InvalidInput: neither a name nor a directory.
        PackageMissing: the exporter is not installed.
    """
    # Arguments that the decoder does not read are left out of the cache's key: equal files are exported once.
    return _exported(AFFINE, encoder_dim, "float32", tokens) if name == AFFINE else _exported(name, 0, dtype, None)


@lru_cache(maxsize=16)
def _exported(name: str, encoder_dim: int, dtype: str, tokens: int | None) -> Path:
    made = decoder(name, encoder_dim=encoder_dim, dtype=getattr(torch, dtype))
    folder = Path(_exports().name)
    return export(made, folder / f"{len(list(folder.iterdir()))}.onnx", tokens=tokens).path


@lru_cache(maxsize=1)
def _exports() -> TemporaryDirectory[str]:
    """Folder of exported files, removed when the process ends."""
    return TemporaryDirectory(prefix="harness-onnx-")


def check_name(name: str) -> None:
    """Check the name of a decoder.

    Raises:
        InvalidInput: neither a name nor a directory.
    """
    if name not in (AFFINE, *PRESETS) and not Path(name).is_dir():
        raise InvalidInput("decoder", repr(name), f"{AFFINE}, {', '.join(PRESETS)} or a checkpoint's directory")


def check_here(device: str) -> None:
    """Check that a device is available.

    Raises:
        InvalidInput: torch does not know the device, or the machine does not have it.
    """
    try:
        torch.empty(0, device=device)
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:
        raise InvalidInput("device", f"'{device}'", f"an available device ({str(error).splitlines()[0]})") from error


def widths(decoder: Decoder) -> tuple[int, int]:
    """Return the latent channels D and the encoder width E of a decoder.

    Raises:
        TypeError: a decoder that the function `decoder` does not make.
    """
    if isinstance(decoder, AffineDecoder):
        return AFFINE_CHANNELS, decoder.encoder_dim or 16
    if not isinstance(decoder, OfTransformer):
        raise TypeError(f"a {type(decoder).__name__} is no decoder of the registry: its widths are unknown")
    return decoder.channels, decoder.encoder_dim


@dataclass(frozen=True)
class Asked:
    """Options of an executor to make.

    Attributes:
        max_rows: limit of rows in one run; see `EagerExecutor`.
        pin_rows: number of rows that every run is padded to, or None; see `EagerExecutor`.
        device: the device of the decoder.
        file: the compiled decoder to run; the empty path for a kind that runs the decoder itself.
        code: the file of code to load, or None; see `CodeFile`.
    """

    max_rows: int
    pin_rows: int | None
    device: torch.device
    file: Path
    code: Path | None = None


def _eager(decoder: Decoder, asked: Asked) -> Executor:
    return EagerExecutor(decoder, asked.max_rows, asked.pin_rows)


def _static(decoder: Decoder, asked: Asked) -> Executor:
    stream = CudaStream(asked.device) if asked.device.type == "cuda" else None
    return StaticExecutor(decoder, asked.max_rows, asked.pin_rows, stream=stream)


def _deferred(decoder: Decoder, asked: Asked) -> Executor:
    return StaticExecutor(decoder, asked.max_rows, asked.pin_rows, stream=DeferredStream())


def buckets(max_rows: int) -> tuple[int, ...]:
    """The numbers of rows that executors of recorded runs prepare: powers of two, and the largest one."""
    powers = [1 << n for n in range(max_rows.bit_length()) if 1 << n < max_rows]
    return (*powers, max_rows)


def _cuda_graph(decoder: Decoder, asked: Asked, *, compiled: bool | CodeFile = False) -> Executor:
    return CudaGraphExecutor(
        decoder,
        row_buckets=buckets(asked.max_rows),
        pin_rows=asked.pin_rows,
        max_rows=asked.max_rows,
        compiled=compiled,
        on_demand=True,
        device=asked.device,
    )


def _compiled_graph(decoder: Decoder, asked: Asked) -> Executor:
    return _cuda_graph(decoder, asked, compiled=True if asked.code is None else CodeFile(asked.code))


def _onnx(_decoder: Decoder, asked: Asked) -> Executor:
    threads = torch.get_num_threads()
    return executors.OnnxExecutor(asked.file, max_rows=asked.max_rows, pin_rows=asked.pin_rows, threads=threads)


def _tensorrt(_decoder: Decoder, asked: Asked) -> Executor:
    device = str(asked.device)
    made = executors.TensorRTExecutor(asked.file, max_rows=asked.max_rows, pin_rows=asked.pin_rows, device=device)
    # mypy: the protocol's `stream` is mutable, so its type is invariant, and a CudaStream does not match it.
    return cast(Executor, made)


@dataclass(frozen=True)
class ExecutorRecord:
    """Record of a kind of executor.

    Attributes:
        make: function that makes an executor for a decoder, or for the file that `Asked` names.
        devices: types of the devices on which the kind runs.
        streams: types of the devices on which the kind has a stream of its own.
        file: description of the file that the kind runs; empty for a kind that runs the decoder itself.
        exports: the decoder is exported where no file is named.
        stand_in: the kind models a GPU's stream on a CPU, and is compared only where a stream matters.
        measured: types of the devices on which bits and costs of the kind are measured.
    """

    make: Callable[[Decoder, Asked], Executor]
    devices: tuple[str, ...] = ("cpu", "cuda")
    streams: tuple[str, ...] = ()
    file: str = ""
    exports: bool = False
    stand_in: bool = False
    measured: tuple[str, ...] = ("cpu", "cuda")


_EAGER = ExecutorRecord(_eager)


class ExecutorKind(StrEnum):
    """Kind of executor, with its record.

    `eager` calls the decoder. `static` calls the decoder on static buffers, on a GPU in a stream of its own.
    `deferred` is `static` on a CPU with a `DeferredStream`. `cuda_graph` replays recorded calls of the decoder, on a
    CPU their model; `compiled_graph` compiles the decoder before. Both record a shape at its first run. `onnx` and
    `tensorrt` run a compiled decoder: an exported file on the CPU, and a built plan on a GPU.
    """

    record: ExecutorRecord

    EAGER = "eager", _EAGER
    STATIC = "static", ExecutorRecord(_static, streams=("cuda",))
    DEFERRED = "deferred", ExecutorRecord(_deferred, devices=("cpu",), streams=("cpu",), stand_in=True, measured=())
    CUDA_GRAPH = "cuda_graph", ExecutorRecord(_cuda_graph, streams=("cuda",), measured=("cuda",))
    COMPILED_GRAPH = (
        "compiled_graph",
        ExecutorRecord(_compiled_graph, devices=("cuda",), streams=("cuda",), measured=("cuda",)),
    )
    ONNX = "onnx", ExecutorRecord(_onnx, devices=("cpu",), file="an ONNX file", exports=True)
    TENSORRT = "tensorrt", ExecutorRecord(_tensorrt, devices=("cuda",), streams=("cuda",), file="a built plan")

    def __new__(cls, name: str, record: ExecutorRecord = _EAGER) -> ExecutorKind:
        """Make a member whose value is its name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.record = record
        return member

    @property
    def ahead_of_time(self) -> bool:
        """Say whether the kind runs a compiled decoder from a file, and not the decoder itself."""
        return bool(self.record.file)

    def has_own_stream(self, device: torch.device | str = "cpu") -> bool:
        """Say whether executors of this kind run on a stream of their own on `device`."""
        return torch.device(device).type in self.record.streams


def live(device: torch.device | str = "cpu") -> tuple[ExecutorKind, ...]:
    """The kinds that run the decoder itself on `device`: the default of a comparison."""
    place = torch.device(device).type
    return tuple(kind for kind in ExecutorKind if not kind.ahead_of_time and place in kind.record.devices)


def compared(device: torch.device | str = "cpu") -> tuple[ExecutorKind, ...]:
    """The kinds of `live` whose bits and costs are measured on `device`: the default of measurements."""
    return tuple(kind for kind in live(device) if torch.device(device).type in kind.record.measured)


LIVE = live()
"""Kinds that run the decoder itself on a CPU."""

COMPARED = compared()
"""Kinds whose bits and costs are measured on a CPU."""


def executor(
    kind: ExecutorKind | str,
    decoder: Decoder,
    max_rows: int = 8,
    pin_rows: int | None = None,
    device: str = "cpu",
    engine: Path | None = None,
    code: Path | None = None,
) -> Executor:
    """Make a new executor of `kind`.

    Args:
        kind: kind of the executor.
        decoder: the model; not read by a kind that runs a compiled decoder.
        max_rows: limit of rows in one run; see `EagerExecutor`.
        pin_rows: number of rows that every run is padded to, or None; see `EagerExecutor`.
        device: device of the decoder.
        engine: file of the compiled decoder, for a kind that runs one; see `engine_for`. An `onnx` executor uses as
            many threads as torch is set to at the call.
        code: file of code that `compiled_graph` loads; see `CodeFile`.

    Raises:
        InvalidInput: a kind that runs a compiled decoder without a file or on a device on which it does not run, or
            another kind with a file; code for another kind.
        EngineError: the file cannot be used, or the package that runs the file is not installed.
    """
    kind, place = ExecutorKind(kind), torch.device(device)
    if kind.ahead_of_time:
        if engine is None:
            expected = f"the path of {kind.record.file}, which executors of the kind {kind} run"
            raise InvalidInput("engine", "none", expected)
        check_device(kind, place)
    elif engine is not None:
        raise InvalidInput("engine", str(engine), f"none: executors of the kind {kind} run the decoder itself")
    if code is not None and kind is not ExecutorKind.COMPILED_GRAPH:
        raise InvalidInput("code", str(code), f"none: executors of the kind {kind} compile nothing")
    return kind.record.make(decoder, Asked(max_rows, pin_rows, place, engine or Path(), code))


def engine_for(
    kind: ExecutorKind | str, name: str, *, encoder_dim: int = 16, dtype: str = "float32", tokens: int = TOKENS
) -> Path | None:
    """Return the default compiled decoder of an executor of `kind`: for `onnx` an export of the decoder, else None.

    Args:
        kind: kind of the executor.
        name: name of the decoder; this and the other arguments as in `onnx_file`.
        encoder_dim: encoder width E of `affine`.
        dtype: name of the dtype in which the decoder computes.
        tokens: number of tokens L of `affine`.

    Raises:
        InvalidInput: bfloat16, which ONNX Runtime does not run on a CPU, or a refusal of `onnx_file`.
        PackageMissing: the exporter is not installed.
    """
    if not ExecutorKind(kind).record.exports:
        return None
    if name != AFFINE:
        check_dtype(dtype)
    return onnx_file(name, encoder_dim=encoder_dim, dtype=dtype, tokens=tokens)


def check_device(kind: ExecutorKind | str, device: torch.device | str) -> None:
    """Check that a kind that runs a compiled decoder runs on a device; other kinds run on every device.

    Raises:
        InvalidInput: the kind does not run on the device, or torch does not know the device.
    """
    try:
        named = torch.device(device).type
    except RuntimeError as error:
        raise InvalidInput("device", f"'{device}'", "the name of a device") from error
    kind = ExecutorKind(kind)
    if kind.ahead_of_time and named not in kind.record.devices:
        where = " or ".join(f"'{each}'" for each in kind.record.devices)
        raise InvalidInput("device", f"'{device}'", f"{where}, where executors of the kind {kind} run")

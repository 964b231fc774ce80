"""The builder of TensorRT plans: an exported file becomes a plan, through Polygraphy and the installed TensorRT."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from harness.engine import atomic, checks
from harness.engine.aot import layers, onnx_file, sidecar
from harness.engine.aot.bindings import Binding, Flavour, binding, use_polygraphy
from harness.engine.aot.export import digest, parts
from harness.engine.aot.here import here
from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.aot.signature import VELOCITY, Signature
from harness.engine.errors import BuildFailed, EngineError, InvalidInput
from harness.engine.executors.tensorrt import runtime

SECONDS_30, SECONDS_60 = 750, 1500
"""Latent frames of 30 s and 60 s, at 25 frames a second."""

DETAILED = "detailed"
_PREFIX = re.compile(r"^\s*(\[[A-Z!]\])?\s*", re.MULTILINE)
_LOGGER = "Polygraphy"


@dataclass(frozen=True)
class Sizes:
    """The sizes of a dimension in an optimization profile: `low` to `high` are allowed, kernels are tuned for `opt`."""

    low: int
    opt: int
    high: int


@dataclass(frozen=True)
class Asked:
    """The options of a build.

    Attributes:
        max_rows: the largest batch in rows, at least 1; kernels are tuned for this size. A ring's depth cannot be
            larger.
        frames: latent frames T, 25 a second; by default up to 60 s, tuned for 30 s.
        tokens: encoder tokens L.
        flavour: the flavour of TensorRT; None is the installed one.
        compute_capability: the compute capability to build for, such as `8.9`, with TensorRT-RTX; None is that of the
            GPU of this machine.

    Raises:
        InvalidInput: `max_rows` is below 1, sizes are not `1 <= low <= opt <= high`, or the compute capability is not
            `major.minor`.
    """

    max_rows: int = 8
    frames: Sizes = Sizes(2, SECONDS_30, SECONDS_60)
    tokens: Sizes = Sizes(1, 200, 512)
    flavour: Flavour | str | None = None
    compute_capability: str | None = None

    def __post_init__(self) -> None:
        """Check the options that no later step checks."""
        checks.integer("max_rows", self.max_rows, 1)
        for name, sizes in (("frames", self.frames), ("tokens", self.tokens)):
            if not 1 <= sizes.low <= sizes.opt <= sizes.high:
                raise InvalidInput(name, sizes, "1 <= low <= opt <= high")
        if self.compute_capability is not None and not re.fullmatch(r"[0-9]+\.[0-9]", self.compute_capability):
            raise InvalidInput("compute_capability", repr(self.compute_capability), "major and minor, such as 8.9")


@dataclass(frozen=True)
class Built:
    """A plan on disk.

    Attributes:
        plan: the path of the plan.
        sidecar: the plan's metadata.
        reused: True if an existing plan was used again, False if the plan was built.
        differs: the reasons why an existing plan was replaced: the metadata fields that differ, or the error that
            made the plan unusable. Empty where there was none.
    """

    plan: Path
    sidecar: Sidecar
    reused: bool
    differs: tuple[str, ...] = ()


def build(onnx: Path, plan: Path, asked: Asked | None = None) -> Built:
    """Build a plan and write it with its metadata, unless an existing plan matches in every field.

    Args:
        onnx: the exported file.
        plan: the path of the plan; `<plan>.json` is its metadata.
        asked: the options; None is `Asked()`.

    Raises:
        PackageMissing: TensorRT, Polygraphy or `onnx` is not installed.
        InvalidInput: there is no such file; the plan would overwrite the exported file; the exported file does not
            take the sizes of the profile; or the compute capability is missing or unknown to the installed TensorRT.
        ExportRefused: the file is no exported decoder, or its batch is frozen.
        BuildFailed: TensorRT refused the build; the message holds TensorRT's errors.
    """
    asked = asked or Asked()
    if not {plan.resolve(), sidecar.path(plan).resolve()}.isdisjoint(part.resolve() for part in parts(onnx)):
        raise InvalidInput("plan", str(plan), "a path that is not the ONNX file's or its data's, nor its metadata's")
    signature = onnx_file.read(onnx)
    found = binding(asked.flavour)
    wanted = _wanted(onnx, signature, found, asked)
    there, differs = _there(plan, wanted)
    if there is not None and not differs:
        return Built(plan, there, reused=True)
    data, log = _serialized(onnx, found, wanted)
    listed = _layers(data, log, found, wanted)
    made = replace(wanted, plan_sha256=hashlib.sha256(data).hexdigest(), layers=listed)
    _write(plan, data, made)
    return Built(plan, made, reused=False, differs=differs)


def profile(signature: Signature, asked: Asked) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Minimum, optimum and maximum shape of every input, by name.

    Args:
        signature: the exported file's.
        asked: the options of the build.

    Raises:
        InvalidInput: the exported file does not take one of the sizes.
    """
    multiple = signature.frames_multiple
    for name, sizes, taken in (("frames", asked.frames, signature.frames), ("tokens", asked.tokens, signature.tokens)):
        for size in (sizes.low, sizes.opt, sizes.high):
            if size not in taken or (name == "frames" and size % multiple):
                raise InvalidInput(name, size, f"{taken}" + (f", a multiple of {multiple}" if name == "frames" else ""))
    frames, tokens = asked.frames, asked.tokens
    low = signature.shapes(1, frames.low, tokens.low)
    opt = signature.shapes(asked.max_rows, frames.opt, tokens.opt)
    high = signature.shapes(asked.max_rows, frames.high, tokens.high)
    return {name: (low[name], opt[name], high[name]) for name in low if name != VELOCITY}


def _wanted(onnx: Path, signature: Signature, found: Binding, asked: Asked) -> Sidecar:
    """The metadata that the requested plan will have; its hash is still empty."""
    machine = here(found, torch.device("cuda"))
    capability = asked.compute_capability or machine.compute_capability
    if capability is None:
        raise InvalidInput("compute_capability", "none, and there is no GPU here", "one to build for, such as 8.9")
    if asked.compute_capability and found.flavour is Flavour.TENSORRT and capability != machine.compute_capability:
        raise InvalidInput("compute_capability", capability, "none: the full TensorRT builds for this machine's GPU")
    known = _capabilities(found)
    if found.flavour is Flavour.RTX and capability not in known:
        raise InvalidInput("compute_capability", capability, f"one that TensorRT-RTX builds for: {', '.join(known)}")
    elsewhere = capability != machine.compute_capability
    return Sidecar(
        plan_sha256="",
        onnx_sha256=digest(onnx),
        flavour=str(found.flavour),
        version=found.version,
        compute_capability=capability,
        gpu=None if elsewhere else machine.gpu,
        driver=None if elsewhere else machine.driver,
        profile=profile(signature, asked),
        dtypes={name: str(dtype).removeprefix("torch.") for name, dtype in signature.dtypes.items()},
        frames_multiple=signature.frames_multiple,
        verbosity=DETAILED,
    )


def _capabilities(found: Binding) -> list[str]:
    """The compute capabilities that TensorRT-RTX builds for, in ascending order; empty for the full TensorRT."""
    names = dir(getattr(found.module, "ComputeCapability", None))
    known = sorted(int(name[2:]) for name in names if name.startswith("SM"))
    return [f"{number // 10}.{number % 10}" for number in known]


def _there(plan: Path, wanted: Sidecar) -> tuple[Sidecar | None, tuple[str, ...]]:
    """The metadata of an existing plan, and the reasons why the plan cannot be used again: fields, or an error."""
    if not plan.exists():
        return None, ()
    try:
        _, recorded = sidecar.read_plan(plan)
    except EngineError as error:
        return None, (str(error),)
    return recorded, tuple(sidecar.differing(recorded, wanted))


def _serialized(onnx: Path, found: Binding, wanted: Sidecar) -> tuple[bytes, list[str]]:
    """Build the plan; return its bytes and the lines that the builder logged."""
    use_polygraphy(found)
    trt: Any = import_module("polygraphy.backend.trt")
    refused: type[Exception] = import_module("polygraphy.exception").PolygraphyException
    shapes = trt.Profile()
    for name, (low, opt, high) in wanted.profile.items():
        shapes.add(name, min=low, opt=opt, max=high)
    options = {"profiles": [shapes], "profiling_verbosity": found.module.ProfilingVerbosity.DETAILED}
    with _log() as lines, warnings.catch_warnings():
        # Polygraphy sets a timing cache, which is deprecated in the binding.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            if found.flavour is Flavour.RTX:
                major, minor = wanted.compute_capability.split(".")
                rtx: Any = import_module("polygraphy.backend.tensorrt_rtx")
                config = rtx.CreateConfigRTX(compute_capabilities=[(int(major), int(minor))], **options)
            else:
                config = trt.CreateConfig(**options)
            # By path, because a file with external data cannot be parsed from bytes.
            network = trt.NetworkFromOnnxPath(str(onnx), strongly_typed=True)
            data = bytes(trt.EngineBytesFromNetwork(network, config=config)())
        except refused as error:
            said = [line for line in lines if "rror" in line][-3:]
            raise BuildFailed(" ".join([str(error), *said])) from error
    return data, lines


@contextmanager
def _log() -> Iterator[list[str]]:
    """Collect the lines that Polygraphy and the builder log inside the block, and keep them off the terminal."""
    polygraphy: Any = import_module("polygraphy.logger").G_LOGGER
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend(_PREFIX.sub("", record.getMessage()).splitlines())

    keep = Keep()
    logger = logging.getLogger(_LOGGER)
    before = logger.level, logger.propagate, polygraphy.use_python_logging_system, polygraphy.colors
    logger.addHandler(keep)
    logger.setLevel(1)
    logger.propagate = False
    polygraphy.use_python_logging_system, polygraphy.colors = True, False
    try:
        with polygraphy.verbosity(polygraphy.EXTRA_VERBOSE):
            yield lines
    finally:
        level, logger.propagate, polygraphy.use_python_logging_system, polygraphy.colors = before
        logger.setLevel(level)
        logger.removeHandler(keep)


def _layers(data: bytes, log: list[str], found: Binding, wanted: Sidecar) -> tuple[Layer, ...]:
    """The plan's layers, from TensorRT's inspector where the plan fits this machine's GPU, else from the builder's log.

    Raises:
        BuildFailed: no layer is listed.
        EngineError: the new plan cannot be loaded.
    """
    if wanted.gpu is None:
        listed = layers.from_log(log)
    else:
        listed = layers.from_inspector(runtime.information_of(runtime.engine_from(data, found), found))
    if not listed:
        raise BuildFailed("TensorRT lists no layers of the plan, although it was built with detailed verbosity")
    return listed


def _write(plan: Path, data: bytes, made: Sidecar) -> None:
    """Write the plan and then its metadata, each atomically."""
    atomic.write(plan, data)
    sidecar.write(plan, made)

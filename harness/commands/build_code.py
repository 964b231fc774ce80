"""`build --backend inductor`: from a decoder to a file of the code that torch's compiler makes for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from harness import registry
from harness.commands.common import check_writable, reported, say, write_json
from harness.engine import checks
from harness.engine.aot import code_record
from harness.engine.aot.code_build import build_code
from harness.engine.errors import BuildFailed, ExecutorError, InvalidInput
from harness.engine.executors import Shape
from harness.parity.baselines import platform


def run(file: Path, json_path: Path | None, shapes: Sequence[tuple[int, int]], options: dict[str, Any]) -> None:
    """Build FILE, or use it again, and say what is in it.

    Args:
        file: the path of the file of code.
        json_path: path of the report, or None.
        shapes: frames T and tokens L of each shape.
        options: the command's options that say which decoder it is, and where it runs.
    """
    with reported("build"), platform.threads(options["threads"]):
        if file.suffix == ".onnx":
            raise InvalidInput(
                "file", str(file), "a path to write code to: an ONNX file is built by --backend tensorrt"
            )
        check_writable(file, code_record.path(file), json_path)
        decoder = registry.decoder(
            options["decoder"],
            dtype=getattr(torch, options["dtype"]),
            device=options["device"],
            switches=options["decoder_switches"],
        )
        asked = [Shape(frames, tokens, *registry.widths(decoder)) for frames, tokens in shapes]
        rows = registry.buckets(checks.integer("max_batch", options["max_batch"], 1))
        try:
            built = build_code(decoder, file, asked, rows, options["device"], lambda what: say(what, err=True))
        except ExecutorError as error:
            raise BuildFailed(str(error)) from error
    made = built.record
    if built.differs:
        say(f"the file that was there could not be used again: {', '.join(built.differs)}")
    for each in made.runs:
        say(f"{each.rows} rows of {each.shape}: {len(each.kernels)} kernels, {each.sha256[:16]}")
    state = "used again" if built.reused else "built"
    size = file.stat().st_size
    say(f"{file}: {state}, {size} bytes, {made.graphs} graphs, torch {made.torch}, {made.processor} {made.capability}")
    write_json(json_path, {"file": str(file), "reused": built.reused, "differs": built.differs, **asdict(made)})

"""Builds and loads files of code, each in a process of its own: `python -m tests.engine.aot.code_files`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.engine.aot.code_build import build_code
from harness.engine.aot.code_file import CodeFile
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.decoders.accelerated import accelerated
from harness.engine.decoders.decoder_switches import ALL
from harness.engine.errors import EngineError, ExecutorError, InvalidInput
from harness.engine.executors import CudaGraphExecutor, Shape
from harness.engine.executors.stream import run_to_end

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
DEVICE = torch.device(os.environ.get("HARNESS_TESTS_DEVICE", "cpu"))
SHAPE = Shape(frames=10, tokens=6, channels=8, encoder_dim=32)
ROWS = (1, 2)
OTHER_CHOICE = "OTHER_CHOICE"
"""Set in a process whose library makes another choice."""


@torch.library.custom_op("harness_tests::product", mutates_args=())
def product(x: Tensor, weight: Tensor) -> Tensor:
    """A product of a library that chooses one of two kernels, unseen by the compiler."""
    if os.environ.get(OTHER_CHOICE):
        return torch.addmm(torch.zeros(1), x, weight)
    return torch.mm(x, weight)


@product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


class Chosen(nn.Module):
    """A decoder with one product."""

    takes_mask = True

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.encoder_dim = 8, 32
        self.weight = nn.Parameter(torch.eye(8) * 0.5, requires_grad=False)

    def forward(self, *, hidden_states: Tensor, timestep: Tensor, **_other: Tensor) -> Tensor:
        rows, frames, channels = hidden_states.shape
        made: Tensor = product(hidden_states.reshape(-1, channels) + 1, self.weight)
        return made.view(rows, frames, channels) * timestep[:, None, None]


DECODERS: dict[str, Any] = {
    "affine": lambda: AffineDecoder(32),
    "chosen": Chosen,
    "tiny": lambda: AceStepDecoder.preset("tiny", 0, device=DEVICE),
    "fast": lambda: accelerated(AceStepDecoder.preset("tiny", 0, device=DEVICE), ALL),
}


def build(file: Path, name: str) -> dict[str, Any]:
    """Build a file; the bits are those of an executor of this process, which compiles anew."""
    decoder = DECODERS[name]()
    built = build_code(decoder, file, [SHAPE], ROWS, DEVICE)
    bits = used(CudaGraphExecutor(decoder, row_buckets=ROWS, compiled=True, device=DEVICE))["bits"]
    return {"reused": built.reused, "graphs": built.record.graphs, "bits": bits}


def load(file: Path, name: str, other_kernels: str = "refuse") -> dict[str, Any]:
    decoder = DECODERS[name]()
    executor = CudaGraphExecutor(decoder, row_buckets=ROWS, compiled=CodeFile(file, other_kernels), device=DEVICE)
    return used(executor)


def used(executor: CudaGraphExecutor) -> dict[str, Any]:
    try:
        executor.prepare([SHAPE])
        made = [run_to_end(executor, SHAPE.example(rows, DEVICE)).cpu().clone() for rows in ROWS]
        stats = executor.stats()
    finally:
        executor.close()
    bits = hashlib.sha256(b"".join(each.numpy().tobytes() for each in made)).hexdigest()
    return {
        "compiled": stats.compiled,
        "loaded": stats.loaded,
        "bits": bits,
        "others": [*map(str, stats.other_kernels)],
    }


def alone(folder: Path, *arguments: object, **environment: str) -> dict[str, Any]:
    """Run this module in a process of its own, whose compiler has an empty folder."""
    variables = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1", **environment}
    variables.pop("TRITON_CACHE_DIR", None)
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    ran = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main(do: str, file: str, name: str, *more: str) -> None:
    torch.set_num_threads(1)
    try:
        found = {"build": build, "load": load}[do](Path(file), name, *more)
    except (EngineError, ExecutorError, InvalidInput) as error:
        found = {"error": type(error).__name__, "says": str(error)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`build --backend inductor`, as one types it; what it builds is asked elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.commands import build_code as command
from harness.engine.aot.code_build import BuiltCode
from harness.engine.decoders.decoder_switches import PLAIN
from harness.engine.errors import ExecutorError
from harness.engine.executors import Shape
from tests.engine.aot.test_code_record import RECORD

SMALL = ("--backend", "inductor", "--decoder", "affine")


def typed(*words: object) -> Result:
    return CliRunner().invoke(main, ["build", *map(str, words)])


class Asked:
    """What was asked for; nothing is built."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.builds: list[tuple[Any, ...]] = []
        self.threads: list[int] = []
        self.fails: Exception | None = None
        self.differs: tuple[str, ...] = ()

        def build(decoder: Any, file: Path, *more: Any) -> BuiltCode:
            self.builds.append((decoder, file, *more[:3]))
            self.threads.append(torch.get_num_threads())
            if self.fails:
                raise self.fails
            file.write_bytes(b"code")
            return BuiltCode(file, RECORD, not self.differs, self.differs)

        patch.setattr(command, "build_code", build)


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def test_without_options_it_is_a_shape_of_30_seconds_with_up_to_8_rows(asked: Asked, tmp_path: Path) -> None:
    assert typed(*SMALL, tmp_path / "a.code").exit_code == 0
    shape = Shape(750, 200, *registry.widths(registry.decoder("affine")))
    assert asked.builds == [(registry.decoder("affine"), tmp_path / "a.code", [shape], (1, 2, 4, 8), "cpu")]
    assert asked.threads == [1]


def test_every_option_reaches_the_build(asked: Asked, tmp_path: Path) -> None:
    words = "--decoder tiny --dtype bfloat16 --shape 10 4 --shape 12 6 --max-batch 6 --threads 2"
    switch = ("--decoder-switch", "fused_products=on")
    assert typed("--backend", "inductor", *words.split(), *switch, tmp_path / "a.code").exit_code == 0
    ((decoder, _file, shapes, rows, device),) = asked.builds
    assert (decoder.switches, decoder.dtype) == (PLAIN.turned_on("fused_products"), torch.bfloat16)
    assert [(each.frames, each.tokens, each.channels) for each in shapes] == [(10, 4, 8), (12, 6, 8)]
    assert (rows, device, asked.threads) == ((1, 2, 4, 6), "cpu", [2])


@pytest.mark.parametrize("differs", [(), ("torch", "driver")])
def test_it_says_what_is_in_the_file_and_why_it_was_built_anew(
    asked: Asked, tmp_path: Path, differs: tuple[str, ...]
) -> None:
    asked.differs, file, report = differs, tmp_path / "a.code", tmp_path / "r.json"
    said = typed(*SMALL, file, "--json", report).stdout.splitlines()
    why = ["the file that was there could not be used again: torch, driver"] if differs else []
    state = "built" if differs else "used again"
    assert said == [
        *why,
        f"2 rows of T=10: 2 kernels, {RECORD.runs[0].sha256[:16]}",
        f"{file}: {state}, 4 bytes, 4 graphs, torch 2.13.0, NVIDIA H100 9.0",
    ]
    found = {"file": str(file), "reused": not differs, "differs": list(differs), **asdict(RECORD)}
    assert json.loads(report.read_text()) == json.loads(json.dumps(found))


@pytest.mark.parametrize(("words", "said"), [
    (("--backend", "inductor", "--tokens", "1", "2", "3", "a.code"), "--tokens: not of --backend inductor"),
    (("--backend", "inductor", "a.code", "b.plan"), "plan: not of --backend inductor"),
    (("--threads", "2", "--decoder-switch", "all=on", "a.onnx"), "--threads, --decoder-switch: not of --backend tens"),
    (("--backend", "inductor", "a.onnx"), "an ONNX file is built by --backend tensorrt"),
    ((*SMALL, "--decoder-switch", "all=on", "a.code"), "this decoder has no accelerations"),
    ((*SMALL, "--max-batch", "0", "a.code"), "max_batch: got 0"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_a_usage_error(asked: Asked, words: tuple[str, ...], said: str) -> None:
    result = typed(*words)
    assert (result.exit_code, asked.builds) == (2, []), result.output
    assert said in " ".join(result.stderr.split())


def test_a_decoder_that_cannot_be_recorded_is_exit_code_125(asked: Asked, tmp_path: Path) -> None:
    asked.fails = ExecutorError("no velocity")
    result = typed(*SMALL, tmp_path / "a.code")
    assert (result.exit_code, result.stderr) == (125, "cannot build: no velocity\n")

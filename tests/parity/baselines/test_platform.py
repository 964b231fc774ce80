"""A fingerprint holds every fact that decides bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.parity.baselines import platform

GPU_FACTS = {
    "gpu", "capability", "driver", "torch", "cuda", "cudnn", "triton", "matmul_precision", "tf32", "reduced_precision",
    "attention", "deterministic", "autocast", "environment",
}  # fmt: skip


def test_every_fact_of_a_gpu_is_in_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Board")
    monkeypatch.setattr(platform, "driver", lambda: "1")
    monkeypatch.setattr(platform, "_version", lambda package: f"{package} 2")
    found = platform.gpu_fingerprint("cuda")
    assert found.keys() == GPU_FACTS
    facts = [found[name] for name in ("gpu", "capability", "driver", "torch", "triton")]
    assert facts == ["Board", "9.0", "1", torch.__version__, "triton 2"]


CPU = """\
processor\t: 0
model name\t: Made-up \u2122 CPU @ 2.10GHz: stepping 7
flags\t\t: fpu avx2
power management:

processor\t: 1
model name\t: Another
"""


def test_the_first_processor_s_fields_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "ascii")
    path = tmp_path / "cpuinfo"
    path.write_text(CPU, encoding="utf-8")
    assert platform._cpu(path) == {
        "processor": "0",
        "model name": "Made-up \u2122 CPU @ 2.10GHz: stepping 7",
        "flags": "fpu avx2",
        "power management": "",
    }


def test_bytes_that_are_no_text_do_not_hide_the_other_fields(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_bytes(b"model name: \xff\nflags: avx2\n\n")
    assert platform._cpu(path) == {"model name": "\ufffd", "flags": "avx2"}


def test_every_flag_of_torch_is_said_in_one_word() -> None:
    flags = platform._flags()
    assert flags.pop("environment") is not None
    assert {**flags, "threads": "1"} == {
        "threads": "1",
        "matmul_precision": "highest",
        "tf32": str(torch.backends.cudnn.allow_tf32).lower(),
        "deterministic": "false",
        "autocast": "false",
        "default_dtype": "torch.float32",
        "flush_denormal": "false",
    }


def test_a_machine_that_flushes_denormals_says_so() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        assert platform._flags()["flush_denormal"] == "true"
    finally:
        torch.set_flush_denormal(False)

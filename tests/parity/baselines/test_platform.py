"""A fingerprint holds every fact that decides bits."""

from __future__ import annotations

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

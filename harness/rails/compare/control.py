"""The control workload: it shares no code with the engine, so its time measures the machine and not the revision."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

SIZE = 256
REPEATS = 12


def control(device: str) -> Callable[[], float]:
    """Make a function that runs matrix products, additions and norms on `device` and returns their time in ms."""
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(SIZE, SIZE, generator=draw).to(device)
    on_gpu = torch.device(device).type == "cuda"

    @torch.no_grad()
    def run() -> float:
        started = time.perf_counter()
        x = matrix
        for _ in range(REPEATS):
            x = x @ matrix + matrix
            x = x / x.norm()
        if on_gpu:
            torch.cuda.synchronize(device)
        return 1e3 * (time.perf_counter() - started)

    return run

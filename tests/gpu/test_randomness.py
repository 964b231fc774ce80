"""Random state of CUDA devices, each side's own."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from harness.parity.proofs.generic import EnginesParted, run
from harness.parity.proofs.randomness import Isolation
from tests.parity.proofs.test_randomness import in_turns


def draw(device: int) -> float:
    return torch.rand((), device=f"cuda:{device}").item()


def test_each_side_draws_what_it_draws_alone_on_every_device() -> None:
    torch.cuda.init()
    for device in range(torch.cuda.device_count()):
        drawn = in_turns(Isolation([[], []]), partial(draw, device), 3)
        alone = [draw(device) for _ in range(3)]
        assert drawn == (alone, alone)


def test_equal_engines_that_draw_on_the_gpu_agree() -> None:
    torch.cuda.init()
    run(lambda event: torch.rand(4, device="cuda"), lambda event: torch.rand(4, device="cuda"), [1] * 3)
    with pytest.raises(EnginesParted):
        run(lambda event: torch.rand(4, device="cuda"), lambda event: torch.rand(4, device="cuda"), [1], isolate=False)

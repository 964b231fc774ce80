"""The state that a request enters the ring with."""

from __future__ import annotations

import pytest
import torch

from harness.engine import Condition, Request
from harness.engine.slot import initial_state
from harness.parity.compare import assert_identical


@pytest.mark.parametrize("denoise", [1.0, 1.5, 2.0])
def test_from_a_denoise_of_1_on_a_request_starts_from_the_very_bits_of_its_noise(denoise: float) -> None:
    condition = Condition(torch.ones(1, 3, 8))
    request = Request([condition], torch.zeros(1, 6, 8), seed=0, denoise=denoise, source=torch.ones(1, 6, 4))
    # Any mixture with the source, even one of a share of 0, would make a positive zero of it.
    drawn = torch.full((1, 6, 4), -0.0)
    assert_identical(initial_state(request, drawn, 1.0), drawn)

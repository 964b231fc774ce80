from __future__ import annotations

import pytest
import torch

from harness.engine import checks


@pytest.mark.parametrize(("length", "described"), [(119, "x" * 119), (120, "x" * 120), (121, "x" * 117 + "...")])
def test_a_long_value_is_cut_to_120_characters(length: int, described: str) -> None:
    class Given:
        def __repr__(self) -> str:
            return "x" * length

    assert checks.describe(Given()) == described


def test_a_tensor_is_described_without_its_values() -> None:
    described = checks.describe(torch.zeros(2, 3, dtype=torch.float16))
    assert described == "torch.float16 tensor of shape [2, 3] on cpu"

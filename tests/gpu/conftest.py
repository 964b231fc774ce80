"""What only a GPU can show. Without one these tests are not collected, and the report's header says so."""

from __future__ import annotations

import os

import pytest
import torch

collect_ignore_glob = [] if torch.cuda.is_available() or os.environ.get("HARNESS_REQUIRE_GPU") else ["test_*.py"]


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.fail("HARNESS_REQUIRE_GPU is set, and there is no CUDA device")

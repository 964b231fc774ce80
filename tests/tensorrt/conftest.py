"""What only a machine with TensorRT can show. Elsewhere these tests are skipped, and the report lists them."""

from __future__ import annotations

import pytest

from tests.tensorrt import ledger


@pytest.fixture(autouse=True, scope="package")
def _tensorrt() -> None:
    ledger.demand()

"""The line about pairwise coverage that ends a test run which measured it."""

from __future__ import annotations

import pytest

SAID = pytest.StashKey[str]()
"""The line, in the stash of pytest's configuration."""

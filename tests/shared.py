"""Set-up shared by every test, also where the engine's libraries are not installed.

It has the hypothesis profiles, and one thread for torch's operators. `ci`, the default profile, draws the same examples
at every run, so that a red test stays red until its cause is mended. `nightly` draws new ones, thousands of them.
HARNESS_HYPOTHESIS_PROFILE or pytest's --hypothesis-profile chooses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

# A time limit would make the verdict depend on how busy the machine is.
UNTIMED = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("ci", UNTIMED, max_examples=100, derandomize=True)
settings.register_profile("nightly", UNTIMED, max_examples=5000, derandomize=False)
# What sabotage runs its tests with: whether an example fails is asked there, and not how small one can be made.
WITHOUT_SHRINKING = [Phase.explicit, Phase.generate]
settings.register_profile("sabotage", UNTIMED, max_examples=100, derandomize=True, phases=WITHOUT_SHRINKING)
settings.load_profile(os.environ.get("HARNESS_HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Captures are made with one thread, and tensors this small are faster so; a test that wants two says it."""
    from harness.parity.baselines import platform  # noqa: PLC0415 - coverage starts after this file is imported

    with platform.one_thread():
        yield

"""Set-up shared by every test: the hypothesis profiles.

`ci`, the default, draws the same examples at every run, so that a red test stays red until its cause is mended.
`nightly` draws new ones, thousands of them. HARNESS_HYPOTHESIS_PROFILE or pytest's --hypothesis-profile chooses.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A time limit would make the verdict depend on how busy the machine is.
UNTIMED = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("ci", UNTIMED, max_examples=100, derandomize=True)
settings.register_profile("nightly", UNTIMED, max_examples=5000, derandomize=False)
settings.load_profile(os.environ.get("HARNESS_HYPOTHESIS_PROFILE", "ci"))

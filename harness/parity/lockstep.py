"""A short name of `harness.parity.proofs.lockstep`, which is this module."""

import sys

from harness.parity.proofs import lockstep

sys.modules[__name__] = lockstep

"""A short name of `harness.parity.proofs.oracle`, which is this module."""

import sys

from harness.parity.proofs import oracle

sys.modules[__name__] = oracle

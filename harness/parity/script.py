"""A short name of `harness.parity.battery.scripts`, which is this module."""

import sys

from harness.parity.battery import scripts

sys.modules[__name__] = scripts

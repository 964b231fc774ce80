"""A short name of `harness.rails.costs.counters`, which is this module."""

import sys

from harness.rails.costs import counters

sys.modules[__name__] = counters

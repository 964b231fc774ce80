"""What was recorded of this GPU is asked again; of one that nothing is recorded of, what a ring relies on is asked."""

from __future__ import annotations

import pytest

from harness.parity.baselines import contract
from harness.parity.baselines.contract import Standing
from harness.parity.proofs.invariance import RING, Subject

CUDA = "cuda"
KNOWN = contract.read(device=CUDA)
ASKED = contract.declared(["2b"], ["compiled_graph"], ["bfloat16"], [40], device=CUDA)
PINNED = [s for s in contract.declared(["tiny"], dtypes=["bfloat16"], frames=[40], device=CUDA) if s.pin_rows]
RECORDED = [subject for subject in ASKED if KNOWN is not None and subject.name in KNOWN.entries]


@pytest.mark.parametrize("subject", RECORDED or PINNED, ids=lambda subject: subject.name)
def test_what_is_recorded_holds_and_with_pinned_rows_all_that_a_ring_relies_on(subject: Subject) -> None:
    found = contract.probe([subject])
    (finding,) = found.findings
    if found.gated:
        assert finding.standing is Standing.KEPT, finding.detail
    if subject.pin_rows:
        assert {asked: finding.fails[asked] for asked in RING if finding.fails[asked]} == {}

"""The report of a check as a document."""

from __future__ import annotations

import torch

from harness.commands.check_report import CheckReport


def test_a_check_without_captures_tells_the_platform_with_the_one_thread_that_it_ran_with() -> None:
    torch.set_num_threads(2)
    document = CheckReport(None).document()
    assert document["platform"]["fingerprint"]["threads"] == "1"
    assert torch.get_num_threads() == 2

"""The table of `docs/decoder.md` is that of the kept report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.engine.decoders.decoder_switches import ACCELERATIONS
from harness.parity.baselines.platform import ROOT
from harness.parity.proofs.decoder_error import BOUND

PAGE = (ROOT / "docs/decoder.md").read_text().splitlines()
KEPT = json.loads((ROOT / "captures/cpu-x86_64-avx2/decoder_parity/tiny.json").read_text())


def interval(found: dict[str, float], verdict: str) -> str:
    return "exact" if verdict == "exact" else f"{found['low']:.3f} to {found['high']:.3f}"


def lines() -> Iterator[str]:
    for each in KEPT["found"]:
        if each["lengths"] == "full":
            errors = (interval(each[name], each["verdict"]) for name in ("velocity", "latent"))
            yield f"| {each['variant']} | {each['dtype']} | {' | '.join(errors)} |"


def test_the_table_has_every_figure_of_the_report_and_no_other() -> None:
    expected = list(lines())
    first = PAGE.index(expected[0])
    assert PAGE[first : first + len(expected)] == expected
    assert not PAGE[first + len(expected)].startswith("|")
    assert PAGE[first - 1] == "| --- | --- | --- | --- |"


def test_every_acceleration_is_in_the_report_and_in_the_table_of_switches() -> None:
    found: list[dict[str, Any]] = KEPT["found"]
    assert set(ACCELERATIONS) <= {each["variant"] for each in found}
    assert [line.split("`")[1] for line in PAGE if line.startswith("| `")] == list(ACCELERATIONS)


def test_no_error_is_above_the_bound_and_no_row_depends_on_others() -> None:
    for each in KEPT["found"]:
        assert each["apart"]
        assert max(each["velocity"]["high"], each["latent"]["high"]) <= BOUND
        assert (each["velocity"]["error"] == each["velocity"]["plain"]) or each["verdict"] == "within"

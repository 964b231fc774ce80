"""Marks of a report's page: places that begin at 0, links of the matrix, and the frame on a heat map."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from harness.parity.proofs.evidence import Evidence, Picture, Place
from harness.report.page import page
from tests.report.made import captured, difference, document, evidence, switched

MOVED = document(switches=[switched("cfg_full", verdict="moved", decoder=each) for each in ("affine", "tiny")])


@pytest.mark.parametrize(("place", "words"), [
    (Place(0, 0, "host"), "tick 0, slot 0, stage host"),
    (Place(7, None, "state"), "tick 7, stage state"),
    (Place(None, 1, "state"), "slot 1, stage state"),
])  # fmt: skip
def test_a_place_is_told_from_tick_0_and_slot_0_on(place: Place, words: str) -> None:
    html = page(MOVED, [difference(shown=replace(evidence(), first=place))])
    assert f"First difference: {words}</p>" in html and f" first at {words}</summary>" in html


def test_a_cell_of_several_differences_leads_to_the_first_one_which_has_evidence() -> None:
    found = [difference(), difference("cfg_full", why="too many"), replace(difference(), scenario="ode_plain")]
    (row,) = re.findall(r"<tr><th>cfg_full</th>(.*)</tr>", page(MOVED, found))
    assert row == '<td class="x"><a href="#d0">✗</a></td>'


def test_a_capture_and_a_compiled_decoder_lead_to_their_differences() -> None:
    for subject, more in (
        ("captures", {}),
        ("compiled decoder on onnx", {"engine": {"decoder": None, "device": "cpu"}}),
    ):
        html = page(
            document(scenarios=[captured("one", "moved")], **more), [replace(difference("one"), subject=subject)]
        )
        assert '<tr><th>one</th><td class="x"><a href="#d0">✗</a></td></tr>' in html


def framed(html: str) -> set[tuple[float, float, float]]:
    """Column and row from above of each frame on a heat map, and the height of the map."""
    heights = set(map(int, re.findall(r'viewBox="0 0 \d+ (\d+)"', html)))
    found = re.findall(r'<rect x="(\d+)" y="(\d+)" width="1" height="1"', html)
    return {(int(x), int(y), height) for x, y in found for height in heights}


@pytest.mark.parametrize(("frame", "channel"), [(0, 0), (4, 0), (2, 3)])
def test_both_frames_of_every_map_mark_the_first_element_that_differs(frame: int, channel: int) -> None:
    expected = torch.zeros(5, 4)
    got = expected.clone()
    got[frame, channel] = 1.0
    html = page(MOVED, [difference(shown=Evidence((), Place(0, 0, "step"), (Picture("x", got, expected),)))])
    assert html.count('<rect x="') == 6  # white and red on each of three maps
    assert framed(html) == {(frame, 4 - 1 - channel, 4)}  # frames to the right, channels up

"""What the pictures of the documentation say beside their numbers: axes, units, rows, legends and colours."""

from __future__ import annotations

import re
from typing import Any

import pytest
from matplotlib.colors import to_hex

from tests.pictures import draw, paper, reports
from tests.pictures.__main__ import PICTURES, made

STEPS, TICKS, SAVED, COUNTS = reports.ring(), reports.ticks(), reports.savings(), reports.operators()


def rows(ax: Any) -> list[str]:
    return [each.get_text() for each in ax.get_yticklabels()]


def colours(ax: Any) -> list[str]:
    return [to_hex(each.get_facecolor()) for each in ax.patches]


def legend(of: Any) -> dict[str, str]:
    """Colour by word of a legend."""
    handles = [getattr(each, "patches", [each])[0] for each in of.legend_handles]
    taken = [each.get_facecolor() if hasattr(each, "get_facecolor") else each.get_color() for each in handles]
    return {text.get_text(): to_hex(colour) for text, colour in zip(of.get_texts(), taken, strict=True)}


def test_the_bars_of_ticks_are_in_ms_in_the_legends_colours_and_say_their_lengths() -> None:
    figure = draw.ticks(TICKS)
    colour = legend(figure.legends[0])
    assert colour == {"tick": paper.BLUE, "bare decoder": paper.GREY}
    for ax in figure.axes:
        here = [each for each in TICKS if each.where == ax.get_title()]
        assert rows(ax) == [each.load for each in here] and ax.get_xlabel() == "ms"
        assert colours(ax) == [colour["tick"], colour["bare decoder"]] * len(here)
        places = [row + half for row in range(len(here)) for half in (-0.2, 0.2)]
        assert [bar.get_y() + 0.18 for bar in ax.patches] == pytest.approx(places)
        assert [text.get_position()[1] for text in ax.texts] == pytest.approx(places)
        said = [(text.get_text().strip(), text.get_position()[0]) for text in ax.texts]
        assert said == [(f"{bar.get_width():.2f}", bar.get_width()) for bar in ax.patches]
        assert ax.get_xlim()[0] == 0 and ax.yaxis_inverted()
    assert len({ax.get_xlim() for ax in figure.axes}) == 1, "lengths of two panels can be compared"


def test_a_panel_of_savings_names_its_switches_says_its_values_and_of_what_they_are() -> None:
    _noise, *switches = SAVED
    left, right = draw.savings(SAVED).axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("ms saved of a tick", "ms saved of the host’s time")
    assert rows(left) == [each.switch for each in switches] and set(rows(right)) == {""}
    assert [text.get_text() for text in left.texts] == [f"{each.tick[0]:.2f}" for each in switches]
    assert [text.get_text() for text in right.texts] == [f"{each.host[0]:.2f}" for each in switches]
    assert left.get_ylim() == right.get_ylim() == (len(switches), -1)


def test_a_panel_of_growth_names_its_machine_its_lines_and_what_is_counted() -> None:
    counts = COUNTS, reports.launches()
    left, right = draw.growth(*counts).axes
    assert (left.get_title(), left.get_ylabel()) == ("CPU, slot by slot", "operators a tick")
    assert (right.get_title(), right.get_ylabel()) == ("GPU, kernels over all slots", "launches a tick")
    for ax, found in zip((left, right), counts, strict=True):
        assert ax.get_xlabel() == "depth"
        assert legend(ax.get_legend()) == {name: line.get_color() for name, line in zip(found, ax.lines, strict=True)}
        assert len({line.get_color() for line in ax.lines}) == len(found)
        assert [text.get_text() for text in ax.texts] == [f"{points[-1][1]:g}" for points in found.values()]
        top = max(count for points in found.values() for _depth, count in points)
        assert ax.get_ylim()[1] >= top and ax.get_xlim()[1] > 8


def test_a_field_of_the_matrix_has_the_colour_of_its_word_in_its_decoder_s_row_and_its_property_s_column() -> None:
    found = reports.guarantees()
    (ax,) = draw.matrix(found).axes
    word = {"exact": paper.GREEN, "some": paper.ORANGE, "no": paper.GREY}
    places = [(column, row) for row in range(len(found)) for column in range(len(reports.PROPERTIES))]
    assert colours(ax) == [word[said] for each in found for said in each.said]
    assert [each.get_xy() for each in ax.patches] == places
    assert [text.get_position() for text in ax.texts] == [(column + 0.5, row + 0.5) for column, row in places]
    assert rows(ax) == [each.subject for each in found] and ax.get_ylim() == (len(found), 0)
    assert [each.get_text() for each in ax.get_xticklabels()] == [each.replace("_", " ") for each in reports.PROPERTIES]


def test_a_box_of_the_timeline_lies_in_its_place_and_has_its_request_s_colour_full_at_the_last_step() -> None:
    (ax,) = draw.ring(STEPS).axes
    last = {each.request: each.step for each in STEPS}
    assert [box.get_y() + 0.4 for box in ax.patches] == pytest.approx([each.place for each in STEPS])
    assert [text.get_position() for text in ax.texts] == [(each.tick + 0.5, each.place) for each in STEPS]
    assert [box.get_alpha() == 1 for box in ax.patches] == [each.step == last[each.request] for each in STEPS]
    assert len({*colours(ax)}) == len({(each.request, hue) for each, hue in zip(STEPS, colours(ax), strict=True)}) == 5
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tick", "place in the ring")


def test_the_ring_s_requests_move_one_step_a_tick_in_one_place() -> None:
    for request in "abcde":
        mine = [each for each in STEPS if each.request == request]
        assert [each.step for each in mine] == list(range(5)) and len({each.place for each in mine}) == 1
        assert [each.tick - mine[0].tick for each in mine] == list(range(5))
    assert [next(each.tick for each in STEPS if each.request == name) for name in "abc"] == [0, 1, 3]


def luminance(colour: str) -> float:
    """Relative luminance of sRGB as WCAG 2 defines it, 0 to 1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_ink_is_readable_on_both_papers_and_every_colour_can_be_told_from_them() -> None:
    schemes = re.findall(r"--ink: (#\w{6}); --paper: (#\w{6})", paper.STYLE)
    assert len(schemes) == 2
    (ink, light), (pale, dark) = schemes
    assert luminance(light) > 0.9 and luminance(dark) < 0.1
    assert min(contrast(ink, light), contrast(pale, dark)) > 7
    for colour in {*draw.COLOURS, *draw.VERDICTS.values(), paper.GREY}:
        assert min(contrast(colour, light), contrast(colour, dark)) >= 2.4, colour


def test_no_text_of_a_picture_has_a_colour_of_its_own() -> None:
    for name, text in made().items():
        assert text.count("<text") > 5, name
        assert not re.findall(r'<text[^>]*style="[^"]*fill: (?!var\(--ink\))', text), name
        assert PICTURES[name][0] in text

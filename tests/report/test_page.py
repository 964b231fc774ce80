"""The page of a report: it is read without scripts and fetches nothing, escapes names, and points at the difference."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.parity.proofs.evidence import DIFFERS, STATE, Evidence
from harness.report.differences import DESCRIBED, Difference
from harness.report.figures import Figures, Interval
from harness.report.page import page
from tests.report.made import EXECUTORS, SWITCHES, captured, difference, document, evidence, switched

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "line", "rect", "image", "br"}


class Read(HTMLParser):
    """The elements of a page with their attributes, the text, and the tags that are open at the end."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


MOVED = document(
    scenarios=[captured("cfg_full"), captured("ode_plain", "tolerance")],
    switches=[switched("cfg_full", verdict="moved"), switched("ode_plain", acted=False)],
    costs=[
        {"rail": "plain/1", "name": "copies", "blessed": 3, "now": 4, "verdict": "moved"},
        {"rail": "plain/1", "name": "operators", "blessed": 9, "now": 9, "verdict": "exact"},
        {"rail": "plain/1", "name": "operator aten::add", "blessed": 1, "now": None, "verdict": "moved"},
    ],
    summary={"passes": False, "verdicts": {}, "text": "one; two"},
)


def test_the_page_points_at_tick_slot_and_stage_and_has_the_command_to_paste() -> None:
    read = Read(page(MOVED, [difference(shown=evidence())]))
    assert "First difference: tick 2, slot 1, stage step" in read.text
    assert "python -m harness check --switches --only cfg_full" in read.text
    marked = [
        attrs["class"] for tag, attrs in read.tags if tag == "td" and "first" in (attrs.get("class") or "").split()
    ]
    assert marked == ["x first", "r0 d first"]
    assert "1 of 48 elements differ" not in read.text
    assert "5 of 48 elements differ, first at frame 7, channel 3" in read.text
    assert [attrs["aria-label"] for tag, attrs in read.tags if tag == "svg"] == ["expected", "got", "distance"]


def test_what_a_red_slot_means_is_said_of_a_comparison_and_of_a_capture() -> None:
    compared = evidence()
    state = replace(compared, ticks=tuple(replace(tick, stages={STATE: DIFFERS}) for tick in compared.ticks))
    legends = ("red: a tensor of this slot differs.", "red: the finished latent of this slot's request moved")
    pages = [Read(page(MOVED, [difference(shown=shown)])).text for shown in (compared, state)]
    assert [[legend in page for legend in legends] for page in pages] == [[True, False], [False, True]]


def test_a_page_has_no_script_fetches_nothing_and_is_whole() -> None:
    read = Read(page(MOVED, [difference(shown=evidence())]))
    assert read.open == []
    assert {tag for tag, _ in read.tags} & {"script", "link", "iframe", "object", "embed", "form", "img"} == set()
    assert not [name for _, attrs in read.tags for name in attrs if name.startswith("on")]
    led = [attrs[name] or "" for _, attrs in read.tags for name in ("href", "src") if name in attrs]
    assert led and all(target.startswith(("#", "data:image/png;base64,")) for target in led)
    (policy,) = [attrs["content"] for tag, attrs in read.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_link_inside_the_page_leads_somewhere() -> None:
    read = Read(page(MOVED, [difference(shown=evidence())], [figures()]))
    there = {attrs["id"] for _, attrs in read.tags if "id" in attrs}
    led = {(attrs["href"] or "").removeprefix("#") for tag, attrs in read.tags if tag == "a"}
    assert {"d0", "matrix", "open", "costs", "figures"} <= led
    assert led <= there


def figures(name: str = "draw 1") -> Figures:
    rows = ((name, "1.0100", "0.9900", "1.0300", "same"),)
    return Figures(
        f"compare: {name}", name, ("", name), rows, (Interval(name, 1.01, 0.99, 1.03, name),), 1.0, 0.02, name
    )


def evil_evidence() -> Evidence:
    made = evidence(EVIL, id=EVIL)
    return replace(made, stopped=EVIL, notes=(EVIL,))


def test_what_comes_from_names_and_messages_is_escaped() -> None:
    found = document(
        scenarios=[captured(EVIL, "moved", EVIL), captured(EVIL + "2", "not_gated")],
        switches=[switched(EVIL, EVIL, EVIL, "moved", decoder=EVIL, detail=EVIL)],
        costs=[{"rail": EVIL, "name": EVIL, "blessed": 3, "now": 4, "verdict": "moved"}],
        failed={"costs": EVIL},
        platform={"name": EVIL, "fingerprint": {EVIL: EVIL}},
        summary={"passes": False, "verdicts": {}, "text": EVIL},
    )
    evil = Difference(EVIL, f"{EVIL} on {EVIL}, {EVIL}", EVIL, EVIL, EVIL, evil_evidence(), EVIL)
    html = page(found, [evil], [figures(EVIL)], EVIL)
    assert html.count("&lt;script&gt;") > 25
    assert "<script" not in html
    assert "alert('" not in html
    assert {tag for tag, _ in Read(html).tags} & {"script"} == set()


def test_what_controls_a_terminal_or_turns_the_text_is_shown_and_not_obeyed() -> None:
    html = page(MOVED, [difference(detail="a\x1b[31mb\u202ec")])
    assert "\\x1b[31m" in html and "\\u202e" in html
    assert not set(html) & {"\x1b", "\u202e"}


def test_the_matrix_has_a_cell_for_each_scenario_switch_and_executor_and_links_to_the_difference() -> None:
    html = page(MOVED, [difference(shown=evidence())])
    table = html.split('<table class="m">')[1].split("</table>")[0]
    rows = re.findall(r"<tr><th>([^<]*)</th>(.*)</tr>", table.split("<tbody>")[1])
    assert rows == [
        ("cfg_full", '<td class="p">✓</td><td class="x"><a href="#d0">✗</a></td>'),
        ("ode_plain", '<td class="p">≈</td><td class="i">·</td>'),
    ]


def test_counts_that_moved_stand_beside_their_blessed_values() -> None:
    html = page(MOVED)
    assert '<tr><th>plain/1</th><td>copies</td><td>3</td><td class="x">4</td></tr>' in html
    assert '<td>operator aten::add</td><td>1</td><td class="x">none</td>' in html
    assert '<tr><th>plain/1</th><td class="x">3 → 4</td><td>9</td></tr>' in html


def test_what_was_not_compared_stands_in_the_open() -> None:
    text = Read(page(MOVED, [difference(why="played too often")])).text
    assert "1 of 2 comparisons of a switch: the switch did not act" in text
    assert "1 scenarios compared within a bound, not byte for byte: ode_plain" in text
    assert "evidence of 1 verdicts: played too often" in text
    assert "switches on executors of the kinds static, " in text
    empty = Read(page(document())).text
    assert all(f"{part}: not asked for" in empty for part in ("captures", "switches", "costs"))


def big(scenarios: int) -> tuple[dict[str, object], list[Difference]]:
    names = [f"scenario_with_a_long_name_{number}" for number in range(scenarios)]
    results = [
        switched(name, switch, executor, "moved", decoder=decoder, detail="differs " * 100)
        for name in names
        for switch in SWITCHES
        for executor in EXECUTORS
        for decoder in ("affine", "tiny")
    ]
    found = [difference(name, evidence(frames=750, channels=64, ticks=200)) for name in names[:20]]
    found += [difference(result["scenario"], detail=result["detail"]) for result in results]
    return document(scenarios=[captured(name, "moved") for name in names], switches=results), found


def test_500_scenarios_that_all_differ_stay_under_5_megabytes_and_none_is_lost() -> None:
    html = page(*big(500))
    assert len(html.encode()) < 5_000_000
    assert html.split('<table class="m">')[1].split("</table>")[0].count("✗") == 500 * (
        1 + len(SWITCHES) * len(EXECUTORS)
    )
    assert f"{20 + 18_000 - DESCRIBED} more differences are not described here" in html
    assert html.count("First difference: ") == 20


@pytest.mark.parametrize("passes", [True, False])
def test_the_verdict_comes_first(passes: bool) -> None:
    html = page(document(summary={"passes": passes, "verdicts": {}, "text": "a; b"}))
    body = Read(html).text.split("Report of a check")[1].split()
    assert " ".join(body[:4]).startswith("Passes on here" if passes else "Does not pass on")


def test_a_long_play_shows_the_ticks_around_the_first_difference() -> None:
    html = page(MOVED, [difference(shown=evidence(ticks=500))])
    assert "380 ticks further from it are not shown" in html
    assert 'class="x first"' in html

"""README and the pages under docs/: what they print, list and link to is what is there."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from harness import registry
from harness.cli import main
from harness.engine import DCW, Condition, Finished, Guidance, LatentMask, PipelineConfig, Request, Switches, X0Target
from harness.engine.controls import SharedControl
from harness.parity.baselines.verdicts import Verdict
from harness.parity.traces.engine_replay import replayed_pipeline
from tests.gpu.decoder import parser as decoder_parser
from tests.gpu.report import parser as report_parser
from tests.parity.traces import plain, rings
from tests.plugin import test_danger_example as danger_example
from tests.sabotage import mutants

ROOT = Path(__file__).parent.parent
README, INDEX = "README.md", "docs/index.md"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / README, *sorted((ROOT / "docs").rglob("*.md"))]
}
TEXT = "\n".join(PAGES.values())
PROSE = " ".join(TEXT.split())
"""All pages on one line: where a line breaks is no part of a claim."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
RECORDS = [Condition, Guidance, X0Target, LatentMask, Request, PipelineConfig, DCW, Finished]


# Examples.

Example = tuple[str, int]
"""A page, and which of its Python blocks."""

EXAMPLES: dict[Example, str] = {
    (page, number): code
    for page, text in PAGES.items()
    for number, code in enumerate(code for language, code in FENCE.findall(text) if language == "python")
}
PRINTING: list[Example] = [(README, 0), ("docs/requests.md", 0), ("docs/executors.md", 0)]
ON_A_FILE: Example = ("docs/compiled-decoders.md", 0)
OF_THE_PLUGIN: Example = (README, 1)
OF_DANGER: Example = ("docs/plugin.md", 0)
OF_TRACES: list[Example] = [("docs/traces.md", number) for number in range(2)]
OF_A_FOREIGN_RING: list[Example] = [
    *[("docs/foreign-ring.md", number) for number in range(3)],
    *[("docs/foreign-scripts.md", number) for number in range(2)],
]


def test_every_example_is_run_by_a_test() -> None:
    assert set(EXAMPLES) == {*PRINTING, ON_A_FILE, OF_THE_PLUGIN, OF_DANGER, *OF_A_FOREIGN_RING, *OF_TRACES}


@pytest.mark.parametrize("example", OF_A_FOREIGN_RING, ids=str)
def test_the_examples_of_a_foreign_ring_are_those_that_its_own_tests_run(example: Example) -> None:
    files = (ROOT / "docs/examples/foreign_ring").glob("test_*.py")
    assert [file.name for file in files if EXAMPLES[example] in file.read_text()] != []


def test_the_page_of_the_foreign_ring_is_short() -> None:
    assert len(PAGES["docs/foreign-ring.md"].splitlines()) <= 140
    assert len(PAGES["docs/foreign-scripts.md"].splitlines()) <= 80


def test_the_last_example_of_the_readme_is_the_one_that_the_plugins_tests_run() -> None:
    assert max(example for example in EXAMPLES if example[0] == README) == OF_THE_PLUGIN
    assert "my_engine" in EXAMPLES[OF_THE_PLUGIN]


def test_the_example_of_dangerous_decoders_is_the_one_that_the_plugins_tests_run() -> None:
    assert EXAMPLES[OF_DANGER] == danger_example.EXAMPLE


@pytest.mark.parametrize("example", PRINTING, ids=lambda example: example[0])
def test_an_example_prints_what_stands_below_it(example: Example) -> None:
    page, code = example[0], EXAMPLES[example]
    below = FENCE.search(PAGES[page], PAGES[page].index(code) + len(code) + len("```"))
    assert below is not None and below[1] == "text"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == below[2]


def test_the_example_of_an_exported_file_runs_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.onnx").symlink_to(registry.onnx_file("tiny"))
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(compile(EXAMPLES[ON_A_FILE], ON_A_FILE[0], "exec"), made)
    assert (made["executor"].max_rows, made["pipeline"].config.depth) == (8, 4)
    made["pipeline"].close()


def test_the_examples_of_traces_record_and_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recording, replaying = (compile(EXAMPLES[example], example[0], "exec") for example in OF_TRACES)
    exec(recording, {"pipeline": rings.pipeline(), "request": rings.request(1)})
    assert replayed_pipeline("night.trace", rings.executor).ticks == 1
    plain.counted(tmp_path / "mine.trace")
    made: dict[str, Any] = {"new_ring": plain.Counter}
    exec(replaying, made)
    made["test_the_day_happens_again"]()


# Pages and links.


def test_the_readme_is_read_in_ten_minutes() -> None:
    assert len(PAGES[README].splitlines()) <= 150


def links(page: str) -> list[tuple[str, str]]:
    """Where the page's relative links lead: a path from the root, and an anchor or nothing."""
    found = [target for target in LINK.findall(FENCE.sub("", PAGES[page])) if "://" not in target]
    split = [target.partition("#") for target in found]
    here = (ROOT / page).parent
    return [
        (str((here / path).resolve().relative_to(ROOT.resolve())) if path else page, anchor)
        for path, _, anchor in split
    ]


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    led = links(page)
    assert led or page not in (README, INDEX)
    assert [path for path, _ in led if not (ROOT / path).is_file()] == []
    assert [f"{path}#{anchor}" for path, anchor in led if anchor and anchor not in anchors(path)] == []


def test_the_index_links_to_every_page() -> None:
    assert {path for path, _ in links(INDEX)} == set(PAGES) - {INDEX}
    assert (INDEX, "") in links(README)


def test_pictures_are_small_and_each_is_shown_on_a_page() -> None:
    pictures = sorted((ROOT / "docs/pictures").iterdir())
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size >= 200_000] == []
    assert [path.name for path in pictures if f"pictures/{path.name})" not in TEXT] == []


def test_a_page_has_one_title() -> None:
    titles = {page: re.findall(r"^# (.*)$", FENCE.sub("", text), re.MULTILINE) for page, text in PAGES.items()}
    assert {page: len(found) for page, found in titles.items()} == dict.fromkeys(PAGES, 1)


# Names of the code.


def row(name: str) -> str:
    """What the one table row says that starts with `name`."""
    (found,) = re.findall(rf"^\| `{re.escape(name)}` \|(.*)\|$", TEXT, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_is_listed_with_its_fields_in_order(record: type) -> None:
    names = {field.name for field in fields(record)}
    listed = [name for name in re.findall(r"`([a-z_0-9]+)[`(]", row(record.__name__)) if name in names]
    assert listed == [field.name for field in fields(record)]


def test_every_switch_has_a_row() -> None:
    assert all(row(field.name) for field in fields(Switches))


def test_every_verdict_that_check_gives_has_a_row_that_says_whether_it_passes() -> None:
    for verdict in Verdict:
        assert row(verdict).split("|")[-1].strip() == ("yes" if verdict.passes else "no")


def test_every_shared_control_is_named() -> None:
    assert all(f'"{control}"' in TEXT for control in SharedControl)


@pytest.mark.parametrize("text", [PAGES[README], TEXT], ids=["README", "all pages"])
def test_every_command_that_is_named_is_there_and_the_other_way_round(text: str) -> None:
    commands = set(re.findall(r"python -m harness ([a-z]+)", " ".join(text.split())))
    assert commands == {name for name, command in main.commands.items() if not command.hidden}


def test_every_target_that_is_named_is_there() -> None:
    targets = set(re.findall(r"(?:^|^\$ |`)make ([a-z-]+)", TEXT, re.MULTILINE))
    rules = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= rules
    assert {"run", "test", "lint", "sabotage", "mutants"} <= targets


def test_every_option_that_is_named_is_one_of_a_command() -> None:
    there = {
        option
        for command in (*main.commands.values(), mutants.main)
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT))
    of_pytest = {option for option in named if option.startswith(("--harness-", "--benchmark-"))}
    of_others = {"--help", "--strict"}  # of every command, and of mypy
    of_reports = set(report_parser().format_help().split())
    of_parity = {f"--{name}" for name in vars(decoder_parser().parse_args(["parity", "--out", "folder"]))}
    assert named - of_pytest - of_others - of_reports - of_parity - there == set()


def test_the_page_of_the_plugin_explains_the_options_that_the_readme_names() -> None:
    named, explained = (set(re.findall(r"--harness-[a-z]+", PAGES[page])) for page in (README, "docs/plugin.md"))
    assert named == explained


def test_every_dotted_name_can_be_imported() -> None:
    named = set(re.findall(r"\bharness(?:\.\w+)+", TEXT))
    assert {"harness.parity.lockstep", "harness.rails.counters.HostReads"} <= named
    assert all(resolve_name(name) is not None for name in named)


def test_every_path_of_a_test_a_capture_or_the_engine_is_there() -> None:
    named = set(re.findall(r"`((?:tests|captures|harness)/[\w/.-]*)`", TEXT))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


# Proofs.


def owners() -> dict[str, list[str]]:
    """The tests that own each claim, by claim."""
    table = PAGES["docs/exactness.md"].split("## Which proof owns which claim")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    return {claim: re.findall(r"`(tests/[^`]*)`", named) for claim, _, named in rows}


def test_every_claim_has_an_owner_that_exists() -> None:
    named = owners()
    assert len(named) >= 14
    for claim, tests in named.items():
        assert tests, claim
        for path, _, name in (test.partition("::") for test in tests):
            functions = {each.name for each in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(each, "name")}
            assert {f for f in functions if f.startswith("test_")}, path
            assert not name or name in functions, f"{claim}: {path}::{name}"


def test_every_proof_owns_a_claim() -> None:
    owning = {test.partition("::")[0] for tests in owners().values() for test in tests}
    proofs = {"oracle", "machine", "switches", "laws", "float64"}
    assert {f"tests/parity/proofs/test_{proof}.py" for proof in proofs} <= owning


# Figures.

H200 = ROOT / "captures" / "cuda-nvidia-h200"
LOADS = {"plain": "plain", "dcw": "wavelet correction", "full": "full guidance", "both": "both"}


def test_the_readme_counts_the_scenarios_that_are_blessed() -> None:
    manifest = json.loads((ROOT / "captures/cpu-x86_64-avx2/scenarios/manifest.json").read_text())
    counts = re.findall(r"(\d+) scenarios", PAGES[README])
    assert counts == [str(len(manifest["scenarios"]))] * 2


def test_what_it_says_of_exactness_is_what_the_contracts_record() -> None:
    gpu = json.loads((H200 / "contract.json").read_text())["subjects"]
    cpu = json.loads((ROOT / "captures" / "cpu-x86_64-avx512" / "contract.json").read_text())["subjects"]
    free = {f"the same, T {frames}": gpu[f"2b/compiled_graph/bfloat16/T{frames}/max8"] for frames in (40, 750, 1500)}
    free["the same, not compiled, T 750"] = gpu["2b/cuda_graph/bfloat16/T750/max8"]
    h100 = json.loads((ROOT / "captures" / "cuda-nvidia-h100-80gb-hbm3" / "contract.json").read_text())["subjects"]
    free["the same"] = h100["2b/compiled_graph/bfloat16/T750/max8"]
    free['ACE-Step `"tiny"`, float32, CPU'] = cpu["tiny/eager/float32/T75/max8"]
    for subject, entry in free.items():
        holds, fails = entry["holds"]["fused"] or "no", entry["fails"]["fused"]
        words = f"fused exact at {holds} rows a pass, not at {fails}; a row alone differs"
        assert f"| {subject} | free | {words} | exact |" in TEXT
        rest = {name: rows for name, rows in entry["fails"].items() if name not in ("fused", "rows_alone", "padding")}
        assert not any(rest.values()), subject
        assert entry["fails"]["rows_alone"]
    exported = [cpu[f"tiny/onnx/float32/T{frames}/{rows}"] for frames in (16, 75) for rows in ("max8", "pinned8")]
    assert "ONNX Runtime, CPU, one thread | free or pinned | exact | exact |" in TEXT
    assert not any(rows for entry in exported for rows in entry["fails"].values())
    pinned = {
        name: entry
        for name, entry in {**gpu, **cpu, **h100}.items()
        if name.endswith("pinned8") and "affine" not in name
    }
    assert len(pinned) >= 5
    assert not any(rows for e in pinned.values() for name, rows in e["fails"].items() if name != "padding")


def test_the_figures_of_the_h200_are_those_of_its_reports() -> None:
    reports = {load: json.loads((H200 / "bench" / f"{load}.json").read_text()) for load in LOADS}
    assert [row for row in [*bench_rows(reports), *ablation_rows(reports)] if row not in TEXT] == []
    switches = json.loads((H200 / "switches.json").read_text())["switches"]
    assert {result["verdict"] for result in switches} == {"exact"}
    assert f"all {len(switches)} comparisons exact" in PROSE


def bench_rows(reports: dict[str, Any]) -> list[str]:
    rows = []
    for load, report in reports.items():
        forms, tick = report["bare"]["forms"], report["tick"]["median"]
        figures = [tick, report["host"]["median"], *forms.values(), tick - forms["eager"]]
        cells = [LOADS[load], *(f"{ms:.2f}" for ms in figures), f"{report['realtime']:.0f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def ablation_rows(reports: dict[str, Any]) -> list[str]:
    saved = {load: [f"{row['saved_tick_ms']:.2f}" for row in report["ablation"]] for load, report in reports.items()}
    return ["| " + " | ".join([LOADS[load], *cells]) + " |" for load, cells in saved.items()]

"""The site's plan: which pages it has, where their links lead, and that nothing is fetched. Needs no extra."""

from __future__ import annotations

import importlib
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from harness.parity import script
from harness.plugin import fixtures

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "docs" / "site"
CONFIG = yaml.safe_load((SITE / "mkdocs.yml").read_text(encoding="utf-8"))
REFERENCE: dict[str, Any] = CONFIG["extra"]["reference"]
WRITTEN = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", "CHANGELOG.md", *WRITTEN]


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(name, SITE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links = load("links")


def leaves(tree: object) -> list[Any]:
    if isinstance(tree, dict | list):
        return [leaf for branch in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(branch)]
    return [tree]


def targets(text: str) -> list[str]:
    """Where the links and pictures of a page lead, as a reader of Markdown finds them."""
    inline = [child for token in MarkdownIt().enable("table").parse(text) for child in token.children or ()]
    found = [token.attrGet("href") or token.attrGet("src") for token in inline]
    return [str(target) for target in found if target]


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)


def test_every_page_is_in_the_navigation_once() -> None:
    made = [*(f"reference/{name}.md" for name in REFERENCE), "reference/commands.md"]
    assert sorted(leaves(CONFIG["nav"])) == sorted([*map(links.place, PAGES), *made])


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_place_says_which_page_it_is(page: str) -> None:
    assert links.source(links.place(page)) == page


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading_of_the_site(page: str) -> None:
    there = {links.place(path): ROOT / path for path in [*PAGES, "LICENSE"]}
    copied = {links.place(str(path.relative_to(ROOT))): path for path in (ROOT / "docs").rglob("*.*")}
    for target in targets(links.rewritten((ROOT / page).read_text(encoding="utf-8"), page)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = {**copied, **there}[path or links.place(page)]
        assert not anchor or anchor in [links.slug(words, "-") for words in headings(file.read_text("utf-8"))], target


@pytest.mark.parametrize(
    ("target", "page", "led"),
    [
        ("docs/index.md", "README.md", "pages.md"),
        ("docs/captures.md#bless", "README.md", "captures.md#bless"),
        ("docs/pictures/ring.svg", "README.md", "pictures/ring.svg"),
        ("../README.md#in-your-own-project", "docs/plugin.md", "index.md#in-your-own-project"),
        ("../README.md", "docs/index.md", "index.md"),
        ("ring.md#faults", "docs/contributing.md", "ring.md#faults"),
        ("#faults", "docs/ring.md", "#faults"),
        ("LICENSE", "README.md", "LICENSE"),
        ("https://example.org/docs/index.md", "README.md", "https://example.org/docs/index.md"),
    ],
)
def test_a_link_as_on_github_leads_to_the_same_place_of_the_site(target: str, page: str, led: str) -> None:
    assert links.led(target, page) == led


def test_a_link_in_code_is_left_as_it_is() -> None:
    text = "[a](docs/ring.md) `[b](docs/ring.md)`\n\n```\n[c](docs/ring.md)\n```\n"
    assert links.rewritten(text, "README.md") == text.replace("docs/", "", 1)


def test_a_bar_in_the_code_of_a_table_is_a_bar() -> None:
    assert (
        links.rewritten("| `a \\| b` | c \\| d |\n\n`a \\| b`\n", "README.md") == "| `a | b` | c \\| d |\n\n`a \\| b`\n"
    )


def test_a_warning_fails_the_build_and_every_wrong_link_is_one() -> None:
    assert CONFIG["strict"] is True
    assert set(leaves(CONFIG["validation"])) == {"warn"}
    assert {"not_found", "anchors", "unrecognized_links", "absolute_links"} == CONFIG["validation"]["links"].keys()


def test_the_theme_fetches_nothing() -> None:
    assert [leaf for leaf in leaves(CONFIG) if re.match(r"(https?:)?//", str(leaf))] == []
    assert CONFIG["theme"]["highlightjs"] is False
    assert [name for name in ("search.js", "hooks.py") if "//cdn" in (SITE / name).read_text()] == []


@pytest.mark.parametrize("room", ["engine", "executors", "decoders"])
def test_the_reference_documents_every_public_name_once(room: str) -> None:
    package = "harness.engine" if room == "engine" else f"harness.engine.{room}"
    documented = [name.rpartition(".")[2] for name in REFERENCE[room]["names"]]
    assert sorted(documented) == sorted(importlib.import_module(package).__all__)


def test_the_reference_documents_every_fixture_of_the_plugin() -> None:
    assert set(fixtures.FIXTURES) <= {name.rpartition(".")[2] for name in REFERENCE["plugin"]["names"]}


def test_the_reference_documents_every_class_of_scripts() -> None:
    public = [name for name, made in vars(script).items() if not name.startswith("_") and isinstance(made, type)]
    own = {name for name in public if getattr(script, name).__module__ == script.__name__}
    assert own == {name.rpartition(".")[2] for name in REFERENCE["script"]["names"]}


@pytest.mark.parametrize("name", [name for room in REFERENCE.values() for name in room["names"]])
def test_a_documented_name_is_where_the_reference_looks_for_it(name: str) -> None:
    found = resolve_name(name)
    assert getattr(found, "__module__", name.rpartition(".")[0]) == name.rpartition(".")[0]

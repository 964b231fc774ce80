"""The built site: every page is there, is read without a network or a server, and a wrong link fails the build."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

from harness.cli import main
from tests.site.test_pages import CONFIG, REFERENCE, ROOT, leaves

MISSING = [name for name in ("mkdocs", "mkdocstrings_handlers", "pymdownx") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs the extra docs, which `make docs` installs: {MISSING}")


class Read(HTMLParser):
    """What a page loads, where it leads, and which anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loaded += [given[name] for name in ("src", "href") if tag != "a" and name in given]


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout into a folder, loudly: a quiet build counts no warnings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", "docs/site/mkdocs.yml"]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=root, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.fixture(scope="module", name="site")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stderr.splitlines()} == {"INFO"}, done.stderr
    return folder


@pytest.fixture(scope="module", name="pages")
def _pages(site: Path) -> dict[str, Read]:
    return {str(path.relative_to(site)): Read(path) for path in site.rglob("*.html")}


def test_every_page_of_the_navigation_is_built(pages: dict[str, Read]) -> None:
    assert {*(leaf.replace(".md", ".html") for leaf in leaves(CONFIG["nav"])), "404.html"} == set(pages)


def test_nothing_is_fetched(site: Path, pages: dict[str, Read]) -> None:
    loaded = {each for page in pages.values() for each in page.loaded}
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    loaded |= set(re.findall(r"url\(['\"]?([^'\")]+)", styles)) | set(re.findall(r"@import\s+['\"]([^'\"]+)", styles))
    assert len(loaded) > 10
    assert [each for each in loaded if re.match(r"([a-z]+:)?//", each)] == []


def test_every_link_leads_to_a_page_and_an_anchor_that_are_there(site: Path, pages: dict[str, Read]) -> None:
    wrong = []
    for name, page in pages.items():
        for link in page.links if name != "404.html" else []:  # a server sends that page for any folder
            path, _, anchor = unquote(link).partition("#")
            if "://" in link:
                continue
            there = str((site / name).parent.joinpath(path).resolve().relative_to(site)) if path else name
            if not (site / there).is_file() or (anchor and anchor not in pages[there].anchors):
                wrong.append(f"{name}: {link}")
    assert wrong == []


def test_the_search_finds_in_every_page_without_a_request(site: Path, pages: dict[str, Read]) -> None:
    script = (site / "search/main.js").read_text()
    sections = json.loads(script.partition("const SECTIONS = ")[2].partition(";\n")[0])
    assert {section["location"].partition("#")[0] for section in sections} == set(pages) - {"404.html"}
    assert not re.search(r"fetch\(|XMLHttpRequest|Worker|getJSON", script.partition(";\n")[2])
    assert [path.name for path in (site / "search").iterdir()] == ["main.js"]


def test_every_public_name_and_every_option_of_a_command_is_in_the_reference(
    site: Path, pages: dict[str, Read]
) -> None:
    for room, listed in REFERENCE.items():
        assert {*listed["names"]} <= pages[f"reference/{room}.html"].anchors
    text = (site / "reference/commands.html").read_text()
    shown = [command for command in main.commands.values() if not command.hidden]
    options = [option for command in shown for parameter in command.params for option in parameter.opts]
    assert [option for option in options if option.startswith("--") and f"<code>{option}" not in text] == []
    assert str(ROOT) not in text and "Sentinel" not in text


def test_a_wrong_link_or_anchor_or_a_page_that_is_nowhere_fails_the_build(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "harness").symlink_to(ROOT / "harness")
    with (tmp_path / "docs/ring.md").open("a") as page:
        page.write("\n[a](nowhere.md) [b](requests.md#nowhere) [c](../README.md#nowhere)\n")
    (tmp_path / "docs/forgotten.md").write_text("# Which page is this?\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    for said in ("'nowhere.md'", "'requests.md#nowhere'", "'index.md#nowhere'", "forgotten.md"):
        assert said in done.stderr, done.stderr

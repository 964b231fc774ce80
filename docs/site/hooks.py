"""Hooks of the site: pages from outside docs/, links as on GitHub, the reference, a search that needs no server."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import click
import links
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments.formatters import HtmlFormatter

from harness.commands.examples import EXAMPLES, PROGRAM

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROSE_OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
CODE = r"`\g<0>`"


def reference(room: dict[str, Any]) -> str:
    """Return a page of the reference: a title, words, and a directive for each name."""
    return "\n\n".join([f"# {room['title']}", room["words"], *(f"::: {name}" for name in room["names"])]) + "\n"


def commands() -> str:
    """Return the page of the commands: for each its description, its examples and a table of its options."""
    from harness.cli import main  # noqa: PLC0415 - imports torch, which takes seconds

    head = (HERE / "commands.txt").read_text()
    shown = [command for _, command in sorted(main.commands.items()) if not command.hidden]
    return "\n\n".join([head.rstrip(), *map(of_command, shown)]) + "\n"


def of_command(command: click.Command) -> str:
    """Return the part of one command."""
    words = PROSE_OPTION.sub(CODE, inspect.cleandoc(command.help or ""))
    context = click.Context(command, info_name=f"{PROGRAM} {command.name}")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    records = [each.get_help_record(context) for each in command.get_params(context)]
    table = [f"| `{option}` | {PROSE_OPTION.sub(CODE, meaning)} |" for option, meaning in filter(None, records)]
    examples = [f"# {words}\n{PROGRAM} {line}" for words, line in EXAMPLES[str(command.name)].items()]
    code = "```bash\n" + "\n\n".join([usage, *examples]) + "\n```"
    return "\n\n".join([f"## {command.name}", words, code, "\n".join([*HEAD, *table])])


HEAD = ("| option | meaning |", "| --- | --- |")


def on_config(config: MkDocsConfig) -> None:
    """Give headings the anchors that they have on GitHub."""
    config.mdx_configs["toc"]["slugify"] = links.slug


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the repository's pages in their places, and add the reference."""
    index = files.get_file_from_path("index.md")
    assert index is not None
    files.remove(index)
    for path, there in links.PLACES.items():
        files.append(File.generated(config, there, abs_src_path=str(ROOT / path)))
    for name, room in config.extra["reference"].items():
        files.append(File.generated(config, f"reference/{name}.md", content=reference(room)))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs("[data-bs-theme=dark] .highlight")
    files.append(File.generated(config, "assets/site.css", content=f"{colours}\n{dark}\n{STYLE}"))
    return files


STYLE = """
.headerlink { visibility: hidden; }
:is(h1, h2, h3, h4):hover .headerlink { visibility: visible; }
table { display: block; overflow-x: auto; }
td code { white-space: normal; overflow-wrap: anywhere; }
td:first-child { min-width: 10rem; }
.doc-heading { font-size: 1.4rem; }
:is(h3, h4).doc-heading { font-size: 1.15rem; }
.col-md-9 img { max-width: 100%; }
"""


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead the links of the repository's pages to their places in the site."""
    uri = page.file.src_uri
    if uri.startswith("reference/"):
        return markdown
    return links.rewritten(markdown, links.source(uri))


@event_priority(-100)
def on_post_build(config: MkDocsConfig) -> None:
    """Replace the search by one that needs no server: a browser fetches no index beside a page that is a file."""
    folder = Path(config.site_dir) / "search"
    found = json.loads((folder / "search_index.json").read_text())["docs"]
    sections = [each for each in found if "#" in each["location"]]  # the others repeat the text of a whole page
    script = (HERE / "search.js").read_text()
    for path in folder.iterdir():
        path.unlink()
    (folder / "main.js").write_text(f"const SECTIONS = {json.dumps(sections)};\n{script}")

"""Where a page of the repository is in the site, where its links lead there, and the anchors of its headings.

The pages are written for GitHub: a link in them is a path from the page's place in the repository. In the site some
pages are in another place.
"""

from __future__ import annotations

import posixpath
import re

PLACES = {"README.md": "index.md", "docs/index.md": "pages.md", "CHANGELOG.md": "changelog.md", "LICENSE": "LICENSE"}
"""Files of the repository whose place in the site is not their path under docs/."""

FENCE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
CELL = re.compile(r"^\|.*\|$", re.MULTILINE)
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s]+)(\))")


def place(path: str) -> str:
    """Return where a file of the repository is in the site; both are paths with slashes, from the root."""
    return PLACES.get(path) or posixpath.relpath(path, "docs")


def led(target: str, page: str) -> str:
    """Return the target of a link of the site for the target of a link on GitHub.

    Args:
        target: as it is written in the page: a URL, an anchor, or a path with or without an anchor.
        page: the page's path in the repository.
    """
    path, mark, anchor = target.partition("#")
    if not path or "://" in target:
        return target
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    return posixpath.relpath(place(meant), posixpath.dirname(place(page)) or ".") + mark + anchor


def rewritten(text: str, page: str) -> str:
    """Return a page's text with its links as they are in the site; code is left as it is.

    In a table's code GitHub takes `\\|` for a bar, and the site takes a bar.
    """
    parts = FENCE.split(CELL.sub(_bars, text))
    parts[::2] = [LINK.sub(lambda m: m[1] + led(m[2], page) + m[3], part) for part in parts[::2]]
    return "".join(parts)


def source(place: str) -> str:
    """Return the path in the repository of a page of the site that is written by hand."""
    return next((path for path, there in PLACES.items() if there == place), f"docs/{place}")


def _bars(row: re.Match[str]) -> str:
    return re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), row[0])


def slug(heading: str, _separator: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")

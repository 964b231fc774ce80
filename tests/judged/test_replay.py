"""`replay`: each verdict and exit code, and the nearest case that must not give it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from harness.cli import main
from tests.judged.rows import Gives, Row, both, nothing
from tests.parity.traces.rings import recorded
from tests.parity.traces.test_reading import changed

SAME, DIFFERS = Gives(True, 0), Gives(False, 1)
NOT_COMPARED, REFUSED = Gives(None, 125), Gives(None, 2)


class Played:
    """A trace of a pipeline, and the options of its replay."""

    def __init__(self, root: Path) -> None:
        self.root, self.path, self.options = root, recorded(root / "a"), list[str]()

    def said(self) -> Gives:
        report = self.root / "r.json"
        result = CliRunner().invoke(main, ["replay", str(self.path), *self.options, "--json", str(report)])
        return Gives(json.loads(report.read_text())["same"] if report.exists() else None, result.exit_code)


def header(**fields: Any) -> Callable[[Played], None]:
    return lambda played: void(changed(played.path, 0, lambda d: {**d, **fields}))


def event(number: int, change: Callable[[Any], Any]) -> Callable[[Played], None]:
    return lambda played: void(changed(played.path, number, change))


def cut(count: int) -> Callable[[Played], None]:
    return lambda played: void(played.path.write_bytes(played.path.read_bytes()[:count]))


def options(*words: str) -> Callable[[Played], None]:
    return lambda played: played.options.extend(words)


def void(_: object) -> None:
    return None


def other_digest(document: Any) -> Any:
    return {**document, "made": [[name, what[:-1] + "x"] for name, what in document["made"]]}


def flipped(played: Played) -> None:
    data = played.path.read_bytes()
    played.path.write_bytes(data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])


ROWS = [
    Row("a digest differs in its last letter", event(-2, other_digest), DIFFERS, "nothing differs", nothing, SAME),
    Row("a value is missing", event(-2, lambda d: {**d, "made": d["made"][:1]}), DIFFERS,
        "all are there", event(-2, lambda d: {**d, "made": list(d["made"])}), SAME),
    Row("other hardware", header(fingerprint={"torch": "0.1"}), NOT_COMPARED, "other hints", header(hints={
        "decoder": "affine", "ring": "mine"}), SAME),
    Row("a byte is altered", flipped, NOT_COMPARED, "the last bytes are cut off", cut(-40), SAME),
    Row("only the first bytes are there", cut(100), NOT_COMPARED, "the end alone is cut off", cut(-1), SAME),
    Row("another format", header(format=2), NOT_COMPARED, "another version", header(harness="0.0.1"), SAME),
    Row("an unknown decoder", options("--decoder", "none"), REFUSED, "the recorded one", options("--decoder", "affine"),
        SAME),
    Row("fewer rows at most", options("--decoder", "affine", "--pin-rows", "4"), DIFFERS,
        "the same rows", options("--pin-rows", "8"), SAME),
]  # fmt: skip


@both(ROWS)
def test_a_cause_gives_its_verdict_and_its_neighbour_does_not(
    act: Callable[[Played], None], gives: Gives, tmp_path: Path
) -> None:
    played = Played(tmp_path)
    act(played)
    assert played.said() == gives

"""Lines of a command: which are taken, and by which words each other one is refused."""

from __future__ import annotations

import json

import pytest

from harness.files import FileRefused
from harness.rails.compare import printed
from harness.rails.compare.printed import Printed, parsed

DIGEST, OTHER = "a" * 64, "b" * 64


def output(name: str, digest: str = DIGEST) -> str:
    return json.dumps({"output": name, "sha256": digest})


def sample(value: object = 1.5, name: object = "tick_ms") -> str:
    return json.dumps({"metric": name, "value": value})


def test_outputs_and_samples_are_kept_by_name_and_in_order() -> None:
    lines = [output("latents"), sample(), output("state", OTHER), sample(2), sample(0.5, "load s"), sample(1)]
    found = parsed(("\n".join(lines) + "\n").encode(), "A")
    assert found == Printed({"latents": DIGEST, "state": OTHER}, {"tick_ms": (1.5, 2.0, 1.0), "load s": (0.5,)})


REFUSED = {
    "nothing": ("", "A: got nothing printed, expected one JSON object a line"),
    "outputs alone": (output("a"), "A: got 0 metrics, expected 1 to 64"),
    "a table": ("tick 3 ms", "A, line 1: got Expecting value"),
    "an empty line": (f"{sample()}\n\n{sample()}", "A, line 2: got Expecting value"),
    "a list": (f"{sample()}\n[1]", "A, line 2: got a list of 1, expected a mapping"),
    "a number": ("3", "A, line 1: got 3, expected a mapping"),
    "no value": ('{"metric": "a"}', "A, line 1: value: got no such field"),
    "no digest": ('{"output": "a"}', "A, line 1: sha256: got no such field"),
    "a short digest": (output("a", "abc"), "A, line 1: sha256: got 'abc', expected a text of at most 64 characters"),
    "a field more": ('{"metric": "a", "value": 1, "unit": "ms"}', "A, line 1: unit: got an unknown field"),
    "a value of 0": (sample(0), "A, line 1: value: got 0, expected a number from 1e-300 to 1e+300"),
    "a value below 0": (sample(-1), "A, line 1: value: got -1, expected a number from"),
    "no number": (sample(float("nan")), "A, line 1: value: got NaN, expected a finite number"),
    "a value that is a text": (sample("1"), "A, line 1: value: got '1', expected a number"),
    "a value that is a bool": (sample(True), "A, line 1: value: got True, expected a number"),
    "a name that is none": (sample(name=""), "A, line 1: metric: got '', expected a text of at most 200 characters"),
    "a name that is long": (sample(name="a" * 201), "A, line 1: metric: got "),
    "an output twice": (f"{output('a')}\n{output('a')}", "A, line 2: output: got 'a' a second time, expected each"),
    "a metric twice in a line": ('{"metric": "a", "metric": "b", "value": 1}', "A, line 1: metric: got the name twice"),
    "a long line": (sample(name="a" * 5000), "A, line 1: got 5028 characters, expected at most 4096"),
    "a deep line": ("[" * 3000, "A, line 1: "),
    "many metrics": ("\n".join(sample(name=f"m{n}") for n in range(65)), "A: got 65 metrics, expected 1 to 64"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_anything_else_is_refused_by_its_line(what: str) -> None:
    text, said = REFUSED[what]
    with pytest.raises(FileRefused) as refused:
        parsed(text.encode(), "A")
    assert str(refused.value).startswith(said)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(FileRefused, match="A: got the byte 0xff at 0, expected text in UTF-8"):
        parsed(b"\xff\n", "A")


def test_more_bytes_or_lines_than_the_limits_are_refused_and_as_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [sample()] * 3
    data = "\n".join(lines).encode()
    monkeypatch.setattr(printed, "LINES", 3)
    monkeypatch.setattr(printed, "LIMIT", len(data))
    assert parsed(data, "A").metrics == {"tick_ms": (1.5,) * 3}
    with pytest.raises(FileRefused, match=f"A: got over {len(data)} bytes, expected at most"):
        parsed(data + b"\n", "A")
    monkeypatch.setattr(printed, "LINES", 2)
    with pytest.raises(FileRefused, match="A: got 3 lines, expected at most 2 lines"):
        parsed(data, "A")

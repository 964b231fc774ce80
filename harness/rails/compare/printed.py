"""What a command prints that is compared: digests of outputs and samples of metrics, one JSON object a line.

    {"output": "latents", "sha256": "64 hexadecimal digits"}
    {"metric": "tick_ms", "value": 1.23}

Of a metric less is better, and every value is above 0. Any other line is refused by its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from harness.files import FileRefused, documents, reading
from harness.files.schema import Sha256, Text, Within, fit

LIMIT = 4 * reading.MIB
"""Most bytes of one run's standard output."""
LINES = 100_000
"""Most lines of one run."""
METRICS = 64
"""Most metrics of one run."""
LONGEST = 4096
"""Most characters of a line."""
_VALUES = 8
"""Most values of a line's object, the object included."""

_Named = Annotated[str, Text(200, r"\S(?:.*\S)?")]


@dataclass(frozen=True)
class _Output:
    output: _Named
    sha256: Sha256


@dataclass(frozen=True)
class _Sample:
    metric: _Named
    value: Annotated[float, Within(1e-300, 1e300)]


@dataclass(frozen=True)
class Printed:
    """Output of one run of a command.

    Attributes:
        outputs: digests by name.
        metrics: samples by metric, in the order of the lines; at least one of each.
    """

    outputs: Mapping[str, str]
    metrics: Mapping[str, tuple[float, ...]]


def parsed(data: bytes, what: str) -> Printed:
    """Read the standard output of a run.

    Args:
        data: the output, at most `LIMIT` bytes.
        what: the run's name in messages.

    Raises:
        FileRefused: the output is empty, too large or no text in UTF-8; a line is none of the two objects; an output is
            named twice; or there is no metric.
    """
    if len(data) > LIMIT:
        raise FileRefused(what, "", f"over {LIMIT} bytes", f"at most {LIMIT} bytes")
    lines = reading.decoded(what, data).splitlines()
    if len(lines) > LINES:
        raise FileRefused(what, "", f"{len(lines)} lines", f"at most {LINES} lines")
    if not lines:
        raise FileRefused(what, "", "nothing printed", "one JSON object a line")
    outputs: dict[str, str] = {}
    metrics: dict[str, list[float]] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{what}, line {number}"
        found = _line(line, where)
        if isinstance(found, _Sample):
            metrics.setdefault(found.metric, []).append(found.value)
        elif found.output in outputs:
            raise FileRefused(where, "output", f"{found.output!r} a second time", "each output once")
        else:
            outputs[found.output] = found.sha256
    if not 1 <= len(metrics) <= METRICS:
        raise FileRefused(what, "", f"{len(metrics)} metrics", f"1 to {METRICS}")
    return Printed(outputs, {name: tuple(values) for name, values in metrics.items()})


def _line(line: str, where: str) -> _Output | _Sample:
    if len(line) > LONGEST:
        raise FileRefused(where, "", f"{len(line)} characters", f"at most {LONGEST}")
    document = documents.parse(line, where, _VALUES)
    is_output = isinstance(document, dict) and "output" in document
    found: _Output | _Sample = fit(_Output if is_output else _Sample, document, where)
    return found

"""The tests of `tests/gpu` in shards, and the proof that the shards together ran every test.

    python -m tests.gpu.shards run 1/4     runs the first of four shards
    python -m tests.gpu.shards check       says whether the shards that ran are all of them, and passed

A shard writes what it collected and how each test ended to `build/gpu/`. Without a GPU, `run` lists what is not tested;
with HARNESS_REQUIRE_GPU=1 that is a failure.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parent
BUILT = FOLDER.parent.parent / "build" / "gpu"


def parsed(shard: str) -> tuple[int, int]:
    """The number of a shard, from 1, and the number of shards, of `2/4`.

    Raises:
        ValueError: another form, or a number out of range.
    """
    number, _, of = shard.partition("/")
    if not (number.isdigit() and of.isdigit()) or not 1 <= int(number) <= int(of):
        raise ValueError(f"shard {shard!r}: expected NUMBER/OF, such as 1/4")
    return int(number), int(of)


def is_in(name: str, number: int, of: int) -> bool:
    """Say whether a test belongs to a shard. It depends on the test's name alone, so every machine agrees."""
    return zlib.crc32(name.encode()) % of == number - 1


def declared(folder: Path = FOLDER) -> dict[str, list[str]]:
    """The test functions of each file, read without importing it."""
    found = {}
    for file in sorted(folder.glob("test_*.py")):
        functions = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
        found[file.name] = [node.name for node in functions if node.name.startswith("test_")]
    return found


class Recorder:
    """A plugin of pytest that runs one shard and writes down how its tests ended."""

    def __init__(self, number: int, of: int, folder: Path) -> None:
        self.shard = (number, of)
        self.collected: list[str] = []
        self.ended: dict[str, str] = {}
        self._folder = folder

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the shard's tests."""
        self.collected = sorted(item.nodeid for item in items)
        others = [item for item in items if not is_in(item.nodeid, *self.shard)]
        items[:] = [item for item in items if is_in(item.nodeid, *self.shard)]
        config.hook.pytest_deselected(items=others)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the worst outcome of a test's phases."""
        if report.when == "call" or report.outcome != "passed":
            before = self.ended.get(report.nodeid, "passed")
            self.ended[report.nodeid] = report.outcome if before == "passed" else before

    def pytest_sessionfinish(self) -> None:
        """Write the shard's file."""
        number, of = self.shard
        self._folder.mkdir(parents=True, exist_ok=True)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        document = {"number": number, "of": of, "gpu": gpu, "collected": self.collected, "ended": self.ended}
        (self._folder / f"shard-{number}-of-{of}.json").write_text(json.dumps(document, indent=1))


def faults(shards: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Say what keeps some shards from being one whole run in which every test passed."""
    if not shards:
        yield "no shard has run"
        return
    of, collected = shards[0]["of"], set(shards[0]["collected"])
    for shard in shards:
        if shard["of"] != of or set(shard["collected"]) != collected:
            yield f"shard {shard['number']}/{shard['of']} is of another run than shard {shards[0]['number']}/{of}"
    absent = sorted(set(range(1, of + 1)) - {shard["number"] for shard in shards})
    yield from (f"shard {number}/{of} has not run" for number in absent)
    ended: dict[str, str] = {}
    for shard in shards:
        ended |= shard["ended"]
    if not collected:
        yield "the shards have no test"
    yield from (f"{name}: did not run" for name in sorted(collected - ended.keys()))
    yield from (f"{name}: {outcome}" for name, outcome in sorted(ended.items()) if outcome != "passed")


def run(shard: str, arguments: Sequence[str] = (), folder: Path = BUILT) -> int:
    """Run a shard; the exit code is pytest's. Without a GPU list what is not tested."""
    number, of = parsed(shard)
    if not torch.cuda.is_available():
        required = bool(os.environ.get("HARNESS_REQUIRE_GPU"))
        for file, names in declared().items():
            print(f"not tested, no GPU: {file}, {len(names)} test functions")  # noqa: T201 - a command
        return 1 if required else 0
    return int(pytest.main([str(FOLDER), *arguments], plugins=[Recorder(number, of, folder)]))


def check(folder: Path = BUILT) -> int:
    """Print what is missing of a whole run; exit code 1 if anything is."""
    shards = [json.loads(file.read_text()) for file in sorted(folder.glob("shard-*.json"))]
    found = list(faults(shards))
    for line in found:
        print(line)  # noqa: T201 - a command
    if not found:
        where = ", ".join(sorted({str(shard["gpu"]) for shard in shards}))
        print(f"{len(shards[0]['collected'])} tests passed in {len(shards)} shards on {where}")  # noqa: T201 - a command
    return 1 if found else 0


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    if arguments[:1] == ["check"]:
        return check()
    if arguments[:1] == ["run"]:
        return run(arguments[1] if len(arguments) > 1 else "1/1", arguments[2:])
    print(__doc__)  # noqa: T201 - a command
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

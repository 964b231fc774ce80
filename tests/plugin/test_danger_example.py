"""The example of dangerous decoders in the plugin's page: green on a right ring, red on a wrong one."""

from __future__ import annotations

import re

import pytest

from harness.parity.baselines import platform
from tests.plugin.test_plugin import Outside, _imported, _outside, green, red

__all__ = ["_imported", "_outside"]

pytestmark = pytest.mark.no_cover

PAGE = (platform.ROOT / "docs" / "plugin.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE.split("## Make your decoder dangerous")[1], re.DOTALL)[0]

ENGINE = """
    import torch

    def decoder(x):
        return x * 0.5 + 1

    class Ring:
        def __init__(self, decoder):
            self.decoder, self.x, self.last = decoder, torch.ones(3, 4), torch.zeros(3, 4)

        def tick(self):
            v = self.decoder(self.x)
            getattr(self.decoder, "wait", lambda: None)()
            self.x, self.last = self.x + v - 0.5 * self.last, v.clone()
            return self.x
"""


@pytest.fixture(name="project")
def _project(outside: Outside) -> Outside:
    outside.write("my_engine.py", ENGINE)
    outside.write("tests/test_engine.py", EXAMPLE)
    return outside


def test_the_example_passes_on_a_right_ring(project: Outside) -> None:
    assert "exact: 4 lockstep" in green(project.run(), passed=4)


@pytest.mark.parametrize(
    ("right", "wrong", "failed"),
    [
        ("v.clone()", "v", ["SharedOutput", "Poisoned"]),
        ('            getattr(self.decoder, "wait", lambda: None)()\n', "", ["Deferred"]),
    ],
)
def test_the_example_is_red_on_a_wrong_ring(project: Outside, right: str, wrong: str, failed: list[str]) -> None:
    right, wrong = right.replace("            ", "        "), wrong
    project.edit("my_engine.py", right, wrong)
    named = [f"_keep[{name}]" for name in failed]
    red(project.run(), *named, failed=len(failed), passed=4 - len(failed))


def test_the_example_is_red_where_rows_depend_on_each_other(project: Outside) -> None:
    project.edit("my_engine.py", "return x * 0.5 + 1", "return x * 0.5 + x.mean(0)")
    red(project.run(), "EnginesParted", failed=1, passed=3)

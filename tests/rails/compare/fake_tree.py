"""Trees that answer `_digests` and `bench` as a file in them says: what is compared without an engine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

# The process's clock moves on by a microsecond when it is read, so that a busy wait comes to its end, and by a tick.
PIPELINE = """
import time

class Clock:
    now = 0.0

    def __call__(self):
        self.now += 1e-6
        return self.now

time.perf_counter = clock = Clock()

class StreamPipeline:
    busy_ms = 0.0

    def tick(self):
        clock.now += self.busy_ms / 1e3
"""

# What a tick is to have taken is added to what it was busy and waited for.
MAIN = """
import json
import sys
import time
from pathlib import Path

from harness.engine.pipeline import StreamPipeline

says = json.loads(Path(__file__).with_name("says.json").read_text())
with open(says["log"], "a+") as log:
    log.seek(0)
    runs = sum(line.startswith(says["name"] + " bench") for line in log)
    log.write(" ".join([says["name"], *sys.argv[1:]]) + "\\n")

if says["fails_at"] == sys.argv[1]:
    sys.exit("the decoder broke")
if sys.argv[1] == "_digests":
    print(json.dumps(says["digests"]))
    sys.exit(0)

def option(name):
    return sys.argv[len(sys.argv) - sys.argv[::-1].index(name)]

warmup, ticks, report = int(option("--warmup")), int(option("--ticks")), option("--json")
pipeline, ms = StreamPipeline(), says["ms"][min(runs, len(says["ms"]) - 1)]
pipeline.busy_ms = says["busy_ms"]
samples = []
for _ in range(warmup + ticks):
    started = time.perf_counter()
    if says["ticks_at_all"]:
        pipeline.tick()
    samples.append(1e3 * (time.perf_counter() - started) + ms)
Path(report).write_text(json.dumps({"samples": {"tick_ms": samples[warmup:]}, "outputs": says["latents"]}))
print("a table for people")
"""

# It takes longer than any tick: so whoever forgets to subtract it sees it.
CONTROL = """
import json
import time
from pathlib import Path

ms = json.loads(Path("harness/says.json").read_text())["control"]

def control(device):
    def run():
        time.perf_counter.now += 0.05
        return ms
    return run
"""

SAYS = {
    "name": "base",
    "ms": [10.0],
    "busy_ms": 0.0,
    "control": 1.0,
    "digests": {"one": {"content": "aa", "ticks": ["1", "2"]}, "two": {"content": "bb", "ticks": ["1"]}},
    "latents": "cc",
    "fails_at": None,
    "ticks_at_all": True,
}


def write(folder: Path, log: Path, **says: Any) -> Path:
    """Make or change a tree; `says` is what differs from `SAYS`."""
    files = {
        "__init__.py": "",
        "__main__.py": MAIN,
        "engine/__init__.py": "",
        "engine/pipeline.py": PIPELINE,
        "says.json": json.dumps({**SAYS, "log": str(log), **says}),
    }
    for name, text in files.items():
        (folder / "harness" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "harness" / name).write_text(text)
    return folder


def git(root: Path, *arguments: str) -> str:
    """What git prints."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path, message: str) -> str:
    """Commit everything, in a repository that is made where there is none; its id."""
    if not (root / ".git").exists():
        git(root, "init", "-q", "-b", "main")
        (root / ".gitignore").write_text("__pycache__/\nignored\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)
    return git(root, "rev-parse", "HEAD")

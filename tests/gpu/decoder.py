"""Times and errors of the decoder's accelerations: `python -m tests.gpu.decoder times --out FOLDER`.

`times` needs a GPU and about eight minutes. On a CPU it shows with `--preset tiny --device cpu` that it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.gpu import decoder_times
from tests.gpu.decoder_times import Size


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.gpu.decoder")
    commands = made.add_subparsers(dest="command", required=True)
    times = commands.add_parser("times")
    times.add_argument("--out", type=Path, required=True)
    times.add_argument("--preset", default="2b")
    times.add_argument("--device", default="cuda")
    times.add_argument("--frames", type=int, nargs="+", default=[750, 1500])
    times.add_argument("--rows", type=int, nargs="+", default=[8, 4])
    times.add_argument("--tokens", type=int, default=200)
    times.add_argument("--seconds", type=float, default=450.0)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    sizes = [Size(rows, frames, asked.tokens) for frames in asked.frames for rows in asked.rows]
    found = decoder_times.run(asked.out, asked.preset, asked.device, sizes, asked.seconds)
    return 1 if any("failed" in each for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())

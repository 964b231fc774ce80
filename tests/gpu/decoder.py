"""Times and errors of the decoder's accelerations: `python -m tests.gpu.decoder times --out FOLDER`.

`times` needs a GPU and about eight minutes. On a CPU it shows with `--preset tiny --device cpu` that it runs. `parity`
compares errors against float64: `python -m tests.gpu.decoder parity --out FOLDER`, with `--device cpu` on a CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.parity.proofs.decoder_error import INPUTS, Lengths
from tests.gpu import decoder_parity, decoder_times
from tests.gpu.decoder_parity import Asked
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
    parity = commands.add_parser("parity")
    parity.add_argument("--out", type=Path, required=True)
    parity.add_argument("--preset", default="2b")
    parity.add_argument("--device", default="cuda")
    parity.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parity.add_argument("--frames", type=int, nargs="+", default=[750])
    parity.add_argument("--rows", type=int, nargs="+", default=[4])
    parity.add_argument("--tokens", type=int, default=200)
    parity.add_argument("--inputs", type=int, default=INPUTS)
    parity.add_argument("--compiled", action="store_true")
    parity.add_argument("--lengths", nargs="+", default=list(Lengths), choices=list(Lengths))
    parity.add_argument("--variants", nargs="+", default=[], help="names in the table; all without this option")
    parity.add_argument("--seconds", type=float, default=450.0)
    parity.add_argument("--threads", type=int, default=0, help="of a CPU; one is the fastest where others use it too")
    parity.add_argument("--resume", action="store_true", help="go on with the findings that are kept in the folder")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.command == "parity":
        options = {name: value for name, value in vars(asked).items() if name not in ("command", "out")}
        return int(decoder_parity.failed(decoder_parity.run(asked.out, Asked(**options))))
    sizes = [Size(rows, frames, asked.tokens) for frames in asked.frames for rows in asked.rows]
    found = decoder_times.run(asked.out, asked.preset, asked.device, sizes, asked.seconds)
    return 1 if any("failed" in each for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.fuzz --seed 0 --files 20000`: mutated files of every kind, in processes that may hang or die."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import click

from tests.fuzz.worker import Worker


def main() -> int:
    """Judge the files, print what became of them, and return 1 where one failed."""
    options = argparse.ArgumentParser(prog="tests.fuzz")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--files", type=int, default=2000)
    asked = options.parse_args()
    started = time.monotonic()
    worker = Worker(asked.seed)
    found = []
    for index in range(asked.files):
        found.append((index, worker.judged(index)))
        if not found[-1][1].passes:
            each = found[-1][1]
            click.echo(f"file {index} of seed {asked.seed}, {each.kind}: {each.verdict}, {each.seconds:.1f} s, "
                  f"{each.mib:.0f} MiB\n{each.detail[-1500:]!r}")  # fmt: skip
    worker.end()
    table = Counter((each.kind, each.verdict) for _, each in found)
    for (kind, verdict), count in sorted(table.items()):
        click.echo(f"{kind:25} {verdict:10} {count}")
    failed = sum(not each.passes for _, each in found)
    verdicts = Counter(each.verdict for _, each in found)
    slowest = max((each for _, each in found), key=lambda each: each.seconds)
    largest = max((each for _, each in found), key=lambda each: each.mib)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    click.echo(f"{len(found)} files of seed {asked.seed} in {time.monotonic() - started:.0f} s: {counts}")
    worst = f"{slowest.seconds:.2f} s ({slowest.kind}), worst memory {largest.mib:.0f} MiB ({largest.kind})"
    click.echo(f"tracebacks {verdicts['traceback']}, failed {failed}; worst time {worst}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

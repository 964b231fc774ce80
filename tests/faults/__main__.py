"""`python -m tests.faults`: thousands of faults by a seed, and calls from many threads; says what was lost."""

from __future__ import annotations

import sys
import time

import click

from tests.faults.crowd import Crowd
from tests.faults.script import Script, Told


@click.command()
@click.option("--seed", default=0, show_default=True, help="Seed of the first script; each script has the next one.")
@click.option("--count", default=20_000, show_default=True, type=click.IntRange(0), help="Faults to inject.")
@click.option("--calls", default=100_000, show_default=True, type=click.IntRange(0), help="Calls from all threads.")
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1), help="Threads that call.")
def main(seed: int, count: int, calls: int, threads: int) -> None:
    """Inject faults and call from many threads; exits with 0 where nothing was lost, came twice or came wrong."""
    told, start = Told(), time.perf_counter()
    while told.faults < count:
        made = Script(seed).run()
        if not made.passes:
            click.echo(f"seed {seed}: {made.lost} lost, {made.twice} twice, {made.wrong} wrong")
        told.add(made)
        seed += 1
    click.echo(f"{told}\n{'lines and runs hit:':26}{len(told.by_place):>8,}")
    click.echo(f"{'next seed:':26}{seed:>8,}\n{'seconds:':26}{time.perf_counter() - start:>8.1f}\n")
    crowded, start = Told(), time.perf_counter()
    if calls:
        crowded = Crowd(seed, calls, threads).run()
        click.echo(f"{f'calls from {threads} threads:':26}{calls:>8,}\n" + str(crowded).split("\n", 1)[1])
        click.echo(f"{'seconds:':26}{time.perf_counter() - start:>8.1f}")
    sys.exit(0 if told.passes and crowded.passes else 1)


if __name__ == "__main__":
    main()

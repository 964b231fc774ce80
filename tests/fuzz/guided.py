"""`python -m tests.fuzz.guided --kind contract --seconds 60`: one kind of files, mutated towards new lines.

Needs atheris, which the tests do not install: `make fuzz-guided` does. Coverage is that of `harness.files` and of the
modules that read through it. The first file that is not judged to pass ends the run, and is printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.kinds import KINDS

READERS = ("harness.files", "harness.parity.baselines", "harness.engine.aot", "harness.rails")


class NotPassed(AssertionError):
    """A file that is neither refused by name nor read, in time and within the memory."""


def main() -> None:
    """Fuzz until the time is over; atheris ends the process, with 0 where every file passed."""
    kinds = {kind.name: kind for kind in KINDS}
    options = argparse.ArgumentParser(prog="tests.fuzz.guided")
    options.add_argument("--kind", choices=kinds, required=True)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()

    import atheris  # noqa: PLC0415 - optional

    for name in [name for name in sys.modules if name.startswith(READERS)]:
        for function in list(vars(sys.modules[name]).values()):
            if callable(function) and getattr(function, "__module__", "") == name and hasattr(function, "__code__"):
                function.__code__ = atheris.instrument_func(function).__code__
    from tests.fuzz.judge import Judge  # noqa: PLC0415 - after the functions that it calls are instrumented

    kind = kinds[asked.kind]
    judge = Judge({kind.name: kind})
    corpus = tempfile.TemporaryDirectory(prefix="harness-corpus-")
    (Path(corpus.name) / "whole").write_bytes(judge.whole(kind))

    def one(data: bytes) -> None:
        found = judge.read(kind, data, renewed=True)
        if not found.passes:
            raise NotPassed(
                f"{found.kind}: {found.verdict}, {found.seconds:.1f} s, {found.mib:.0f} MiB\n{found.detail}"
            )

    limits = [f"-max_total_time={asked.seconds}", f"-seed={asked.seed}", "-rss_limit_mb=8192", "-timeout=60"]
    atheris.Setup([sys.argv[0], *limits, corpus.name], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

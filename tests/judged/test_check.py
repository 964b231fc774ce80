"""`check` against captures: each verdict and exit code, and the nearest case that must not give it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.parity.baselines import platform, store
from harness.parity.baselines.verdicts import Verdict
from tests.judged.conftest import UNIT, K, Made, report
from tests.judged.rows import CODES, Gives, Row, both, nothing, without_row

EXACT, TOLERANCE = Gives(Verdict.EXACT, 0), Gives(Verdict.TOLERANCE, 0)
MOVED, DIGEST = Gives(Verdict.MOVED, 1), Gives(Verdict.DIGEST_DIFFERS, 1)
MISSING, ORPHAN, CORRUPT = (Gives(v, 1) for v in (Verdict.MISSING, Verdict.ORPHAN, Verdict.CORRUPT))
NO_REPORT, USAGE = Gives(None, 125), Gives(None, 2)

Options = list[str]


def by(*steps: float) -> Callable[[Made, Options], None]:
    """Elsewhere, alpha's first elements are so many units away."""

    def act(made: Made, _: Options) -> None:
        made.elsewhere()
        made.nudge(*steps)

    return act


def last_bit(made: Made, _: Options) -> None:
    made.nudge(1)


def sign_of_zero(made: Made, _: Options) -> None:
    made.finished["alpha"]["r1"].neg_()


def zero_again(made: Made, _: Options) -> None:
    made.finished["alpha"]["r1"].add_(0.0)


def turned(made: Made, _: Options) -> None:
    made.finished["alpha"] = dict(reversed(made.finished["alpha"].items()))


def ticks(*digests: str) -> Callable[[Made, Options], None]:
    def act(made: Made, _: Options) -> None:
        made.ticks["alpha"] = list(digests)

    return act


def small_beside_large(small: float) -> Callable[[Made, Options], None]:
    """Elsewhere: a large tensor moves by 3 and is within its bound; a small one moves by `small` of its own bound."""

    def act(made: Made, _: Options) -> None:
        large, little = torch.full((4,), 2.0**23), torch.full((4,), 2.0)
        with_two(made, large, little)
        made.finished["alpha"] = {"r0": large + 3, "r1": little + small * K * UNIT}

    return act


def at_a_zero(step: float) -> Callable[[Made, Options], None]:
    """Elsewhere: an element of 0 moves by `step`; the rms is 2, so the bound is `K * UNIT`."""

    def act(made: Made, _: Options) -> None:
        with_two(made, torch.tensor([0.0, 0.0, 0.0, 4.0]), torch.ones(1))
        made.finished["alpha"] = {"r0": torch.tensor([0.0, step, 0.0, 4.0]), "r1": torch.ones(1)}

    return act


def with_two(made: Made, large: torch.Tensor, small: torch.Tensor) -> None:
    """Replace alpha's capture by one of two tensors with the same k, of another machine."""
    made.elsewhere()
    tensors, manifest = {"r0": large, "r1": small}, store.read_manifest(made.own)
    entry = store.entry("alpha", tensors, ("aa", "bb", "cc"), K, "two")
    made.file().write_bytes(store.serialize(tensors))
    store.write_manifest(made.own, replace(manifest, scenarios={**manifest.scenarios, "alpha": entry}))


def within_k_here(made: Made, _: Options) -> None:
    made.nudge(1)


def within_k_elsewhere(made: Made, _: Options) -> None:
    made.nudge(1)
    made.elsewhere(environment="MKL_CBWR=COMPATIBLE")


def edited(change: Callable[[Made], Any], *only: str) -> Callable[[Made, Options], None]:
    """Change the folder; with `only`, check these scenarios alone."""

    def act(made: Made, options: Options) -> None:
        change(made)
        options += [word for name in only for word in ("--only", name)]

    return act


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def with_metadata(path: Path) -> None:
    save_file(store.deserialize(path.read_bytes()), path, {"format": "pt"})


def never_blessed(made: Made, _: Options) -> None:
    """Neither here nor on the reference platform."""
    made.with_reference()
    new = SimpleNamespace(name="gamma")
    made.scenarios["gamma"], made.ticks["gamma"] = new, ("aa",)
    made.finished["gamma"] = {"r0": torch.ones(1)}


def never_blessed_here(made: Made, _: Options) -> None:
    made.with_reference()
    forget(made)


def forget(made: Made) -> None:
    """Take alpha out of this machine's folder."""
    manifest = store.read_manifest(made.own)
    store.write_manifest(made.own, replace(manifest, scenarios={"beta": manifest.scenarios["beta"]}))
    made.file().unlink()


def damaged_beside_the_reference(made: Made, _: Options) -> None:
    made.with_reference()
    rewrite(made.file(), lambda data: data[:-1])


def crash(*names: str, only: tuple[str, ...] = ()) -> Callable[[Made, Options], None]:
    def act(made: Made, options: Options) -> None:
        made.crashes |= set(names)
        options += [word for name in only for word in ("--only", name)]

    return act


def named(*words: str) -> Callable[[Made, Options], None]:
    def act(_: Made, options: Options) -> None:
        options += words

    return act


def gone(made: Made, _: Options) -> None:
    shutil.rmtree(made.captures)


def emptied(made: Made, _: Options) -> None:
    made.with_reference()
    shutil.rmtree(made.own)
    made.own.mkdir()


def only_beta(made: Made) -> None:
    del made.scenarios["alpha"]


def unwritable(made: Made, options: Options) -> None:
    (made.root / "file").touch()
    options += ["--json", str(made.root / "file" / "r.json")]


TABLE = [
    # On the machine that blessed: bits.
    Row("one float's last bit", last_bit, MOVED, "nothing", nothing, EXACT),
    Row("the sign of a zero", sign_of_zero, MOVED, "zero added to it", zero_again, EXACT),
    Row("another dtype", lambda m, _: m.r0(lambda x: x.double()), MOVED,
        "the same dtype", lambda m, _: m.r0(lambda x: x.float()), EXACT),
    Row("another shape", lambda m, _: m.r0(lambda x: x[None]), MOVED,
        "other strides", lambda m, _: m.r0(lambda x: x.T.contiguous().T), EXACT),
    Row("a tensor too many", lambda m, _: m.finished["alpha"].update(r2=torch.ones(1)), MOVED,
        "the same tensors in another order", turned, EXACT),
    Row("the last tick's digest", ticks("aa", "bb", "cd"), DIGEST, "the same digests", ticks("aa", "bb", "cc"), EXACT),
    Row("one tick more", ticks("aa", "bb", "cc", "dd"), DIGEST, "the same digests", ticks("aa", "bb", "cc"), EXACT),
    Row("within k on the machine that blessed", within_k_here, MOVED,
        "one variable of the environment differs", within_k_elsewhere, TOLERANCE),
    # On another machine: the bound.
    Row("the next float above the bound", by(K + 1), MOVED, "the bound exactly reached", by(K), TOLERANCE),
    Row("the bound exactly reached from above", by(-K), TOLERANCE, "the next float", by(-K - 1), MOVED),
    Row("a zero that moves by the next float above the bound", at_a_zero(K * UNIT * (1 + 2.0**-23)),
        MOVED, "by the bound", at_a_zero(K * UNIT), TOLERANCE),
    Row("one element beyond, hidden in a mean", by(K + 1, *[0.0] * 11), MOVED,
        "every element at the bound", by(*[K] * 12), TOLERANCE),
    Row("a small tensor beyond its bound beside a large one that moves more", small_beside_large(1.125), MOVED,
        "the small one at its bound", small_beside_large(1.0), TOLERANCE),
    Row("a NaN elsewhere", by(float("nan")), MOVED, "no difference elsewhere", by(0.0), EXACT),
    Row("another state elsewhere, with other bits", lambda m, o: (by(1.0)(m, o), ticks("xx")(m, o)), TOLERANCE,
        "another state on the machine that blessed", ticks("xx"), DIGEST),
    # Captures that cannot be used.
    Row("a file that is gone", edited(lambda m: m.file().unlink()), MISSING,
        "and that was not asked for", edited(lambda m: m.file().unlink(), "beta"), EXACT),
    Row("a scenario that was never blessed", never_blessed, MISSING,
        "and that the reference platform has", never_blessed_here, EXACT),
    Row("a manifest that is gone", edited(lambda m: m.manifest.unlink()), MISSING,
        "one that is written again", edited(lambda m: store.write_manifest(m.own, store.read_manifest(m.own))), EXACT),
    Row("no scenario comparable", edited(lambda m: [m.file(n).unlink() for n in m.scenarios]), MISSING,
        "one of them not asked for, the other there", edited(lambda m: m.file().unlink(), "beta"), EXACT),
    Row("one bit of a file", edited(lambda m: flip(m.file())), CORRUPT,
        "another time of its last change", edited(lambda m: m.file().touch()), EXACT),
    Row("the same tensors in other bytes", edited(lambda m: with_metadata(m.file())), CORRUPT,
        "the same bytes written again", edited(lambda m: rewrite(m.file(), bytes)), EXACT),
    Row("a file one byte short", edited(lambda m: rewrite(m.file(), lambda data: data[:-1])), CORRUPT,
        "another file", edited(lambda m: rewrite(m.file(), lambda data: data[:-1]), "beta"), EXACT),
    Row("a damaged file beside the reference platform's", damaged_beside_the_reference, CORRUPT,
        "the file and its entry gone", never_blessed_here, EXACT),
    Row("an edited manifest", edited(lambda m: rewrite(m.manifest, lambda d: d.replace(b"the first", b"a better"))),
        CORRUPT, "the same JSON in one line",
        edited(lambda m: rewrite(m.manifest, lambda data: json.dumps(json.loads(data)).encode())), EXACT),
    Row("a stray file", edited(lambda m: (m.own / "stray").touch()), ORPHAN,
        "one in the folder above", edited(lambda m: (m.captures / platform.name() / "stray").touch()), EXACT),
    Row("a capture of no scenario", edited(only_beta), ORPHAN, "where one scenario is asked for",
        edited(only_beta, "beta"), EXACT),
    # No comparison.
    Row("no folder of captures", gone, NO_REPORT, "an empty one beside the reference platform's", emptied, EXACT),
    Row("a crash", crash("beta"), NO_REPORT,
        "of a scenario that is not asked for", crash("beta", only=("alpha",)), EXACT),
    Row("a report that cannot be written", unwritable, NO_REPORT, "no report asked for", nothing, EXACT),
    Row("an unknown scenario", named("--only", "alphabet"), USAGE, "a known one", named("--only", "alpha"), EXACT),
]  # fmt: skip


def said(made: Made, *options: str) -> Gives:
    """The one verdict beside `exact`, and the exit code."""
    path = made.root / "report.json"
    result = made.invoke("check", *(["--json", str(path)] if "--json" not in options else []), *options)
    found = {Verdict(each["verdict"]) for each in report(path).get("scenarios", [])}
    (verdict,) = (found - {Verdict.EXACT}) or found or {None}
    return Gives(verdict, result.exit_code)


@both(TABLE)
def test_check(made: Made, act: Callable[[Made, Options], Any], gives: Gives) -> None:
    options: Options = []
    act(made, options)
    assert said(made, *options) == gives


NOT_OF_CAPTURES = {Verdict.NOT_GATED, Verdict.OUTSIDE_PROFILE}
"""Verdicts of switches and of compiled decoders, see `test_check_others.py`."""


def test_every_verdict_and_exit_code_has_a_row() -> None:
    assert without_row(TABLE, set(Verdict) - NOT_OF_CAPTURES) == set()


def test_a_verdict_and_an_exit_code_without_a_row_would_be_red() -> None:
    left = [row for row in TABLE if Verdict.ORPHAN not in (row.gives.verdict, row.instead.verdict)]
    assert without_row(left, Verdict) == {Verdict.ORPHAN, *NOT_OF_CAPTURES}
    assert without_row(TABLE[:1], [], CODES | {7}) == {2, 7, 125}


FIELDS = sorted(platform.fingerprint())


@pytest.mark.parametrize("field", FIELDS)
def test_a_fingerprint_that_differs_in_one_field_is_another_machine(made: Made, field: str) -> None:
    made.nudge(1)
    assert said(made) == MOVED
    made.elsewhere(**{field: "another"})
    assert said(made) == TOLERANCE
    assert field in made.invoke("check").stdout.splitlines()[-1]


def test_a_fingerprint_that_lacks_a_field_is_another_machine(made: Made) -> None:
    made.nudge(1)
    manifest = store.read_manifest(made.own)
    fewer = {name: value for name, value in manifest.fingerprint.items() if name != "environment"}
    store.write_manifest(made.own, replace(manifest, fingerprint=fewer))
    assert said(made) == TOLERANCE


@pytest.mark.parametrize("count", [1, 2])
def test_what_was_not_compared_is_counted_in_the_last_line(made: Made, count: int) -> None:
    for name in list(made.scenarios)[:count]:
        made.file(name).unlink()
    result = made.invoke("check")
    exact = "" if count == 2 else "1 exact, "
    assert result.stdout.splitlines()[-1].startswith(f"2 scenarios: {exact}{count} missing (")
    assert result.exit_code == 1

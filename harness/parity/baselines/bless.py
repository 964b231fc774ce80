"""Bless captures: the explicit act that says the engine's present results are the right ones.

Nothing is written before every scenario was replayed three times with the same bytes, once of them in a fresh process,
and only captures that drifted are rewritten.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import registry
from harness.checkout import PACKAGE
from harness.engine import atomic
from harness.files import FileRefused, documents, reading
from harness.parity.baselines import platform, store
from harness.parity.baselines.captures import CAPTURES, Play, select
from harness.parity.baselines.changes import Change, drift, of_manifest, with_k
from harness.parity.baselines.refusals import BlessRefused, alone, refuse_unless_explicit
from harness.parity.baselines.verdicts import distance, tolerance
from harness.parity.battery.player import Played
from harness.parity.battery.scenarios import SCENARIOS, Scenario, play
from harness.parity.compare import digest_tree

ENGINE = PACKAGE / "engine"
MARGIN = 4.0
"""A scenario's tolerance is this many times what plain scalar kernels move it by."""

_PLAIN = {"ATEN_CPU_CAPABILITY": "default"}


class ReplayFailed(RuntimeError):
    """A replay in a fresh process did not end well."""


@dataclass(frozen=True)
class Digests:
    """Digests that a replay must reproduce: `digest_tree` of the finished tensors, and one digest a tick."""

    content: str
    ticks: tuple[str, ...]


@dataclass(frozen=True)
class Blessed:
    """Result of blessing in `folder`: every change, and the number of scenarios without one; no change, no write."""

    folder: Path
    changes: tuple[Change, ...]
    identical: int

    def document(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"changes": [asdict(change) for change in self.changes], "identical": self.identical}

    def summary(self) -> str:
        """Every change, then the count of those without one, in one line."""
        if not self.changes:
            return f"all {self.identical} identical, nothing written"
        others = f"; the others identical ({self.identical})" if self.identical else ""
        return "; ".join(map(str, self.changes)) + others


def fresh_digests(names: Sequence[str], device: str = "cpu") -> dict[str, Digests]:
    """Digests of the named scenarios, replayed on a device in a new interpreter.

    Raises:
        ReplayFailed: it failed.
    """
    found = documents.parse(_harness(["_digests", "--device", device, *names], {}), "harness _digests")
    return {name: Digests(each["content"], tuple(each["ticks"])) for name, each in found.items()}


def plain_tensors(names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Finished tensors of the named scenarios from a new interpreter whose operators use no vector instructions.

    Raises:
        ReplayFailed: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="harness-plain-") as folder:
        _harness(["_tensors", folder, *names], _PLAIN)
        return {name: _load(Path(folder) / store.file_name(name)) for name in names}


@dataclass(frozen=True)
class Battery:
    """The scenarios and the ways to replay them, together so that tests can bring small ones.

    Attributes:
        scenarios: the scenarios by name, each with the device that it is played on.
        play: plays one in this process.
        fresh: plays the named ones in a new process, on `device`; `on` gives it a device by this name.
        plain: plays the named ones on the CPU with its plain kernels.
        device: the device of all scenarios: the CPU or a CUDA device.
    """

    scenarios: Mapping[str, Scenario]
    play: Play
    fresh: Callable[..., Mapping[str, Digests]]
    plain: Callable[[Sequence[str]], Mapping[str, Mapping[str, Tensor]]]
    device: str = "cpu"

    def on(self, device: str) -> Battery:
        """The same battery on another device."""
        if device == self.device:
            return self
        moved = {name: replace(scenario, device=device) for name, scenario in self.scenarios.items()}
        return replace(self, scenarios=moved, fresh=partial(self.fresh, device=device), device=device)

    @property
    def on_cpu(self) -> bool:
        """True where the scenarios are played on the CPU."""
        return not platform.on_gpu(self.device)


BATTERY = Battery(SCENARIOS, play, fresh_digests, plain_tensors)


def digests(played: Played) -> Digests:
    """The digests of one replay."""
    return Digests(digest_tree(played.finished), played.ticks)


@alone
def bless(
    reason: str,
    battery: Battery = BATTERY,
    captures: Path = CAPTURES,
    only: Sequence[str] = (),
    engine: Path = ENGINE,
) -> Blessed:
    """Make the engine's present results this platform's captures.

    On a GPU every tolerance is 0: captures of another GPU are never compared, so no bound is measured.

    Args:
        reason: why they may change; kept with each capture that is written.
        battery: what is replayed, how, and on which device.
        captures: the folder that holds one folder a platform, in a git checkout.
        only: names to bless; empty blesses all, and removes captures of scenarios that are no more.
        engine: the package whose sources' digest is kept.

    Raises:
        BlessRefused: under continuous integration, without a reason, with uncommitted captures or no checkout, with
            captures that git does not see, where a scenario does not reproduce, or where `only` would mix captures of
            two machines or forget the others.
        ReplayFailed: a fresh process failed.
        InvalidInput: `only` names no scenario of the battery, or the battery's device is not there.
    """
    refuse_unless_explicit(reason, captures)
    chosen = select(battery.scenarios, only)
    registry.check_here(battery.device)
    folder = captures / platform.name(battery.device) / "scenarios"
    with platform.one_thread():
        here = platform.of_captures(battery.device)
        known = _known(folder)
        old = None if isinstance(known, store.CapturesError) else known
        same_machine = old is not None and not platform.differing(here, old.fingerprint)
        if only and not same_machine:
            _refuse_beside_others(folder, old)
        played = {name: replayed(battery, name, scenario) for name, scenario in chosen.items()}
    _compare_fresh(battery, played)
    entries = dict(old.scenarios) if old is not None else {}
    drifted = {name: drift(folder, name, p.finished, p.ticks, entries.get(name)) for name, p in played.items()}
    gone = [] if only else sorted(_gone(folder, entries, battery.scenarios))
    # A tolerance measured on another machine says nothing here, so all of them are measured again there.
    measured = [name for name, change in drifted.items() if change] if same_machine else list(chosen)
    if not measured and not gone:
        return Blessed(folder, (), len(chosen))
    ks = _bound_factors(battery, {name: played[name] for name in measured})
    digest = store.engine_digest(engine)
    written = _write(folder, here, digest, entries, {name: played[name] for name in ks}, ks, gone, reason)
    changes = [change for name in chosen if (change := with_k(name, drifted[name], entries, ks))]
    removed = [Change(name, "removed") for name in gone]
    return Blessed(folder, (*of_manifest(known, written), *changes, *removed), len(chosen) - len(changes))


def replayed(battery: Battery, name: str, scenario: Scenario) -> Played:
    """One replay, after a second one gave the same bytes.

    Raises:
        BlessRefused: the two differ, or nothing was finished.
    """
    first = battery.play(scenario)
    if not any(tensor.numel() for tensor in first.finished.values()):
        raise BlessRefused(f"{name} finishes no tensor with an element: there is nothing to capture")
    if digests(battery.play(scenario)) != digests(first):
        raise BlessRefused(f"{name} is not reproducible: two replays in one process differ")
    return first


def bound_factor(name: str, blessed: Mapping[str, Tensor], plain: Mapping[str, Tensor]) -> float:
    """k: `MARGIN` times the largest |Δ| / (eps * rms) over the tensors; 0 where plain kernels move nothing.

    Raises:
        BlessRefused: the two runs are not alike in names, dtypes and shapes, or the distance is not finite.
    """
    if distance(plain, blessed) is None:
        raise BlessRefused(f"{name}: plain kernels give other tensors, or values that are not finite")
    ratios = [0.0]
    for each, tensor in blessed.items():
        moved, unit = tolerance(plain[each], tensor)
        if moved:
            ratios.append(moved / unit if unit else math.inf)
    if not math.isfinite(max(ratios)):
        raise BlessRefused(
            f"{name}: plain kernels move a tensor whose rms is 0 or not finite, no bound relative to it exists"
        )
    return MARGIN * max(ratios)


def _bound_factors(battery: Battery, played: Mapping[str, Played]) -> dict[str, float]:
    """k of every scenario in `played`; 0 on a GPU."""
    if not battery.on_cpu:
        return dict.fromkeys(played, 0.0)
    plain = battery.plain(list(played)) if played else {}
    return {name: bound_factor(name, each.finished, plain[name]) for name, each in played.items()}


def _compare_fresh(battery: Battery, played: Mapping[str, Played]) -> None:
    fresh = battery.fresh(list(played))
    for name, each in played.items():
        if fresh.get(name) != digests(each):
            raise BlessRefused(f"{name} is not reproducible: a fresh process gives other bytes")


def _known(folder: Path) -> store.Manifest | store.CapturesError | None:
    """The manifest that is there, the error where it cannot be used, and None where the folder is empty or missing."""
    if not _filled(folder):
        return None
    try:
        return store.read_manifest(folder)
    except store.CapturesError as error:
        return error


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _refuse_beside_others(folder: Path, old: store.Manifest | None) -> None:
    """Refuse to bless some scenarios into a folder with captures that this machine cannot answer for."""
    if old is not None:
        raise BlessRefused(f"--only would mix captures of two machines in {folder}: bless all of them")
    if _filled(folder):
        raise BlessRefused(
            f"--only would forget the others in {folder}, whose manifest cannot be used: bless all of them"
        )


def _gone(folder: Path, entries: Mapping[str, store.Entry], scenarios: Mapping[str, Scenario]) -> set[str]:
    files = {path.name.removesuffix(store.SUFFIX) for path in folder.glob(f"*{store.SUFFIX}")}
    return (files | entries.keys()) - scenarios.keys()


def _write(
    folder: Path,
    here: Mapping[str, str],
    engine: str,
    entries: Mapping[str, store.Entry],
    played: Mapping[str, Played],
    ks: Mapping[str, float],
    gone: Sequence[str],
    reason: str,
) -> store.Manifest:
    """Files first and the manifest last: stopped in between, the next check fails instead of passing."""
    kept = {name: entry for name, entry in entries.items() if name not in gone}
    for name, each in played.items():
        new = store.entry(name, each.finished, each.ticks, ks[name], reason)
        before = kept.get(name)
        path = folder / new.file
        if not _holds(path, store.serialize(each.finished)):
            atomic.write(path, store.serialize(each.finished))
        same = before is not None and (before.content, before.ticks) == (new.content, new.ticks)
        kept[name] = store.entry(name, each.finished, new.ticks, new.k, before.reason) if before and same else new
    for name in gone:
        (folder / f"{name}{store.SUFFIX}").unlink(missing_ok=True)
    made = store.Manifest(dict(here), engine, str(torch.__version__), kept)
    store.write_manifest(folder, made)
    return made


def _harness(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """The standard output of `python -m harness` in a new interpreter, this very package first on its path."""
    result = subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=PACKAGE.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise ReplayFailed(f"harness {arguments[0]} exited with {result.returncode}:\n{result.stderr.strip()}")
    return result.stdout


def _holds(path: Path, data: bytes) -> bool:
    try:
        return reading.whole(path, len(data)) == data
    except FileRefused:
        return False


def _load(path: Path) -> dict[str, Tensor]:
    return store.deserialize(reading.whole(path, reading.LARGE), path)

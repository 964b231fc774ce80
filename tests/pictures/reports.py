"""The numbers of the pictures, as the kept reports have them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from harness.engine import Condition, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.parity.baselines.platform import ROOT

CAPTURES = ROOT / "captures"
H100, H200, CPU = "cuda-nvidia-h100-80gb-hbm3", "cuda-nvidia-h200", "cpu-x86_64-avx512"
LOADED = "cpu-x86_64-avx2"
"""A machine with other work beside that of the report."""


def kept(machine: str, name: str) -> Any:
    """The content of a report."""
    return json.loads((CAPTURES / machine / f"{name}.json").read_text())


@dataclass(frozen=True)
class Tick:
    """A tick's ms beside those of its bare decoder, for a load with shared prompts at T = 750."""

    where: str
    load: str
    tick_ms: float
    decoder_ms: float


def ticks() -> list[Tick]:
    """Every load on every machine, and over the fast decoder."""
    sources = (("H100", H100, "steady"), ("H200", H200, "steady"), ("H200, fast decoder", H200, "fast"))
    return [
        Tick(where, each["load"].replace("both", "cfg and dcw"), each["tick_ms"], each["bare_ms"])
        for where, machine, name in sources
        for each in kept(machine, f"bench/{name}")["found"]
        if each["frames"] == 750 and not each["fresh"]
    ]


@dataclass(frozen=True)
class Saving:
    """What a switch saves of a tick and of the host's time, in ms, with its 95 % interval."""

    switch: str
    tick: tuple[float, float, float]
    host: tuple[float, float, float]


def savings() -> list[Saving]:
    """The switches in their order, after the difference of two equal loads, which is noise."""
    return [
        Saving(
            each["switch"],
            (each["saved_tick_ms"], *each["tick_interval"]),
            (each["saved_host_ms"], *each["host_interval"]),
        )
        for each in kept(H200, "bench/ablate")["found"]
    ]


def operators() -> dict[str, list[tuple[int, float]]]:
    """Operators outside the decoder in a tick, by kind of ring and depth, on a CPU."""
    (counts,) = kept(CPU, "costs")["torch"].values()
    kinds = {"plain": "plain", "cfg_full": "full guidance", "dcw": "wavelet correction"}
    found: dict[str, list[tuple[int, float]]] = {}
    for kind, title in kinds.items():
        rails = [(depth, counts[f"{kind}/{depth}"]) for depth in (1, 4, 8)]
        found[title] = [(depth, rail["operators"] / rail["ticks"]) for depth, rail in rails]
    return found


def launches() -> dict[str, list[tuple[int, float]]]:
    """Launches in a tick, by load and depth, on an H100."""
    found: dict[str, list[tuple[int, float]]] = {"dcw": [], "cfg and dcw": []}
    for each in kept(H100, "bench/depth")["found"]:
        found[each["load"].replace("both", "cfg and dcw")].append((each["depth"], each["launches"]))
    for each in kept(H100, "bench/steady")["found"]:
        name = each["load"].replace("both", "cfg and dcw")
        if name in found and each["frames"] == 750 and not each["fresh"]:
            found[name].append((4, each["launches"]))
    return {name: sorted(points) for name, points in found.items()}


PROPERTIES = ("fused", "rows_alone", "permutation", "neighbours", "duplicates", "padding", "rerun")


@dataclass(frozen=True)
class Guarantee:
    """What a contract says of a decoder: for each property "exact", "some" (numbers of rows) or "no"."""

    subject: str
    said: tuple[str, ...]


def guarantees() -> list[Guarantee]:
    """The contracts of the CPU, the H100 and the H200; decoders at one length each."""
    asked = [
        (CPU, "CPU", "affine/eager/float32/T75"),
        (CPU, "CPU", "tiny/eager/float32/T75"),
        (CPU, "CPU", "tiny/onnx/float32/T75"),
        (H100, "H100", "2b/compiled_graph/bfloat16/T750"),
        (H200, "H200", "2b/compiled_graph/bfloat16/T750"),
        (H200, "H200", "2b/cuda_graph/bfloat16/T750"),
    ]
    found = []
    for machine, short, subject in asked:
        subjects = kept(machine, "contract")["subjects"]
        for rows in ("pinned8", "max8"):
            entry = subjects[f"{subject}/{rows}"]
            said = tuple(_said(entry["holds"][each], entry["fails"][each]) for each in PROPERTIES)
            decoder, executor, dtype, _frames = subject.split("/")
            freedom = "pinned to 8" if rows == "pinned8" else "free rows"
            found.append(Guarantee(f"{decoder}, {executor}, {dtype}, {short}, {freedom}", said))
    return found


def _said(holds: str, fails: str) -> str:
    return "exact" if not fails else "some" if holds else "no"


@dataclass(frozen=True)
class Step:
    """What a place of the ring did in a tick: a request's step."""

    tick: int
    place: int
    request: str
    step: int


SUBMITTED = {0: "a", 1: "b", 3: "c", 4: "d", 6: "e"}
"""Request by the tick before which it is submitted."""


def ring() -> list[Step]:
    """The steps of five requests in a ring of depth 3, five steps each, as the engine runs them."""
    decoder = AffineDecoder(encoder_dim=4)
    prompt = Condition(noise(1, Purpose.INITIAL, 0, (1, 3, 4)))
    found = []
    with StreamPipeline(EagerExecutor(decoder), PipelineConfig(depth=3, steps=5)) as pipeline:
        for tick in range(16):
            before = pipeline.slots
            if tick in SUBMITTED:
                pipeline.submit(Request([prompt], noise(2, Purpose.INITIAL, 0, (1, 4, 4)), tick, SUBMITTED[tick]))
            done = {each.id for each in pipeline.tick()}
            for place, (old, new) in enumerate(zip(before, pipeline.slots, strict=True)):
                if new is not None:
                    found.append(Step(tick, place, str(new.id), new.step - 1))
                elif old is not None and old.id in done:
                    found.append(Step(tick, place, str(old.id), old.step))
    return found


@dataclass(frozen=True)
class Ratio:
    """The verdict of `compare` on a load: a ratio of two revisions, its interval, and the limit of "same"."""

    load: str
    ratio: float
    low: float
    high: float
    limit: float
    verdict: str


def ratios() -> list[Ratio]:
    """The ratios of a comparison by a command: of each metric those of the last draw, with the verdict of all draws."""
    found = []
    for load, metric in kept(LOADED, "compare/decoder_rows")["metrics"].items():
        last = metric["draws"][-1]
        ratio = last["ratio"]
        found.append(Ratio(load, ratio["value"], ratio["low"], ratio["high"], last["limit"], metric["verdict"]))
    return found

"""Errors of the decoder's accelerations against float64: what is exact, and the ratios of what is not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.engine.decoders import AceStepDecoder, Decoder
from harness.engine.decoders.accelerated import AcceleratedDecoder, accelerated
from harness.engine.decoders.decoder_switches import ACCELERATIONS, ALL, PLAIN, BandForm, DecoderSwitches, FullForm
from harness.engine.executors.compiled import compiled
from harness.parity.baselines import platform
from harness.parity.proofs.decoder_error import Case, Lengths, Verdict, drawn, measure

PARITY = "decoder_parity.json"
UNKNOWN = "there is no such variant here"
ON_GPU = ("kernels of fused_norms", "band cudnn", "full cudnn", "full flash")
"""What only a GPU can compute: untested on a CPU."""


@dataclass(frozen=True)
class Asked:
    """What is compared: every case with every dtype, on one device; `variants` by name, or all where none is named."""

    preset: str
    device: str
    dtypes: Sequence[str]
    frames: Sequence[int]
    rows: Sequence[int]
    tokens: int
    inputs: int
    compiled: bool
    seconds: float
    lengths: Sequence[str] = tuple(Lengths)
    variants: Sequence[str] = ()


def variants(*, on_gpu: bool) -> dict[str, DecoderSwitches]:
    """Every acceleration alone, all together, and all with each other form."""
    found = {name: PLAIN.turned_on(name) for name in ACCELERATIONS}
    found["all"] = ALL
    found["all, norms compiler"] = replace(ALL, norms="compiler")
    bands = [form for form in BandForm if form != ALL.band and (on_gpu or form != BandForm.CUDNN)]
    found |= {f"all, band {form}": replace(ALL, band=form) for form in bands}
    full = [form for form in FullForm if form != ALL.full and on_gpu]
    return found | {f"all, full {form}": replace(ALL, full=form) for form in full}


def judged(decoder: AceStepDecoder, switches: DecoderSwitches, *, compile_it: bool) -> Decoder:
    """An accelerated decoder that takes encoder states, and keeps nothing of them from call to call."""
    fast = accelerated(decoder, switches)
    run = compiled(fast) if compile_it else fast
    if not isinstance(fast, AcceleratedDecoder) or not switches.kept_condition:
        return run

    def call(**inputs: Tensor) -> Tensor:
        return run(**inputs | {"encoder_hidden_states": fast.condition(inputs["encoder_hidden_states"])})

    return call


def compared(asked: Asked) -> Iterator[dict[str, Any]]:
    """A finding for each acceleration, dtype and case; what has no time left is named as such."""
    started = time.perf_counter()
    for dtype in asked.dtypes:
        decoder = AceStepDecoder.preset(asked.preset, 0, dtype=getattr(torch, dtype), device=asked.device)
        for frames in asked.frames:
            for rows in asked.rows:
                for lengths in asked.lengths:
                    case = Case(rows, frames, asked.tokens, Lengths(lengths))
                    named = {"preset": asked.preset, "dtype": dtype, **asdict(case)}
                    if time.perf_counter() - started > asked.seconds:
                        yield {**named, "left_out": f"the {asked.seconds:.0f} s were over"}
                        continue
                    made = {name: make() for name, make in _makers(decoder, asked).items()}
                    for name in asked.variants:
                        if name not in made:
                            yield {**named, "variant": name, "failed": UNKNOWN}
                    for name, why in _failures(decoder, made, case).items():
                        del made[name]
                        yield {**named, "variant": name, "failed": why}
                    for name, finding in measure(decoder, made, case, asked.inputs).items():
                        yield {**named, "variant": name, **asdict(finding)}


def _makers(decoder: AceStepDecoder, asked: Asked) -> dict[str, Callable[[], Decoder]]:
    """What makes the variants that were asked for, by name."""
    found = {
        name: partial(judged, decoder, each, compile_it=False)
        for name, each in variants(on_gpu=torch.device(asked.device).type == "cuda").items()
    }
    if asked.compiled:
        found["diffusers, compiled"] = partial(judged, decoder, PLAIN, compile_it=True)
        found["all, compiled"] = partial(judged, decoder, ALL, compile_it=True)
        found["all, band flex, compiled"] = partial(judged, decoder, replace(ALL, band="flex"), compile_it=True)
    return {name: make for name, make in found.items() if not asked.variants or name in asked.variants}


def _failures(plain: AceStepDecoder, decoders: Mapping[str, Decoder], case: Case) -> dict[str, str]:
    """Decoders that do not run at all, with the error: a kernel of cuDNN takes no float32."""
    found = {}
    for name, decoder in decoders.items():
        try:
            with torch.no_grad():
                decoder(**drawn(case, 0, plain))
        except Exception as error:  # noqa: BLE001 - a variant that cannot run is a finding
            found[name] = f"{type(error).__name__}: {error}"[:300]
    return found


HEADER = (
    "dtype     T     rows  lengths  verdict  velocity: error  ratio (95 %)            latent: ratio (95 %)    variant"
)


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    head = f"{found['dtype']:<9} {found['frames']:<5} {found['rows']:<5} {found['lengths']:<8}"
    if "failed" in found:
        return f"{head} {found['variant']} failed: {found['failed']}"
    if "left_out" in found:
        return f"{head} left out: {found['left_out']}"
    velocity, latent = (
        f"{each['ratio']:.4f} ({each['low']:.4f} to {each['high']:.4f})"
        for each in (found["velocity"], found["latent"])
    )
    error = f"{found['velocity']['error']:.3e}"
    return (
        f"{head} {found['verdict']:<8} {error:<16} {velocity:<23} {latent:<23} {found['variant']}"
        f"{'' if found['apart'] else ' (a row depends on others)'}"
    )


def run(out: Path, asked: Asked, say: Callable[[str], object] | None = None) -> list[dict[str, Any]]:
    """Compare everything, print the table and write `decoder_parity.json`."""

    def shown(words: str) -> None:
        sys.stdout.write(words + "\n")
        sys.stdout.flush()

    say = say or shown
    on_gpu = torch.device(asked.device).type == "cuda"
    where = {"name": platform.name(asked.device), "torch": torch.__version__, "measured": time.strftime("%Y-%m-%d")}
    say(f"{where['name']}, torch {torch.__version__}, {asked.preset}, {asked.inputs} inputs\n{HEADER}")
    found: list[dict[str, Any]] = []
    untested = [] if on_gpu else list(ON_GPU)
    for each in compared(asked):
        found.append(each)
        say(line(each))
        document = {"platform": where, "inputs": asked.inputs, "untested": untested, "found": found}
        (out / PARITY).write_text(json.dumps(document, indent=1) + "\n")
    for name in untested:
        say(f"untested on a CPU: {name}")
    return found


MUST_RUN = (*ACCELERATIONS, "all", "diffusers, compiled", "all, compiled")
"""Variants that run on every device in every dtype; a form of attention may take fewer."""


def failed(found: Sequence[dict[str, Any]]) -> bool:
    """Say whether an acceleration does not run, exceeds its bound, or lets a row depend on others."""
    compared_ones = [each for each in found if "verdict" in each]
    wrong = [each["verdict"] == Verdict.EXCEEDS or not each["apart"] for each in compared_ones]
    absent = ["failed" in each and (each["variant"] in MUST_RUN or each["failed"] == UNKNOWN) for each in found]
    return not compared_ones or any(wrong) or any(absent)

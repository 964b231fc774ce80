"""Errors of the decoder's accelerations against float64: what is exact, and the ratios of what is not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.engine import atomic
from harness.engine.decoders import AceStepDecoder, Decoder
from harness.engine.decoders.accelerated import AcceleratedDecoder, accelerated
from harness.engine.decoders.decoder_switches import ACCELERATIONS, ALL, PLAIN, BandForm, DecoderSwitches, FullForm
from harness.engine.executors.compiled import compiled
from harness.parity.baselines import platform, store
from harness.parity.proofs.decoder_error import Case, Lengths, Verdict, Yardstick, judge, yardstick

PARITY = "decoder_parity.json"
UNKNOWN = "there is no such variant here"
ON_GPU = ("kernels of fused_norms", "band cudnn", "full cudnn", "full flash")
"""What only a GPU can compute: untested on a CPU."""


@dataclass(frozen=True)
class Asked:
    """What is compared: every case with every dtype, on one device; `variants` by name, or all where none is named.

    With `threads` 0 there are as many threads as torch chooses. With `resume` an interrupted run goes on.
    """

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
    threads: int = 0
    resume: bool = False


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


def compared(asked: Asked, kept: Sequence[dict[str, Any]] = ()) -> Iterator[dict[str, Any]]:
    """A finding for each acceleration, dtype and case, as soon as it is made; those in `kept` are not made again.

    What has no time left is named as such.
    """
    end = time.perf_counter() + asked.seconds
    known = [_named(each) for each in kept]
    for dtype in asked.dtypes:
        decoder = AceStepDecoder.preset(asked.preset, 0, dtype=getattr(torch, dtype), device=asked.device)
        makers = _makers(decoder, asked)
        for case in _cases(asked):
            named = {"preset": asked.preset, "dtype": dtype, **asdict(case)}
            for name in asked.variants:
                if name not in makers:
                    yield {**named, "variant": name, "failed": UNKNOWN}
            wanted = {name: make for name, make in makers.items() if {**named, "variant": name} not in known}
            for name, found in _of_case(decoder, wanted, case, asked, end):
                yield {**named, "variant": name, **found}


def _cases(asked: Asked) -> Iterator[Case]:
    for frames, rows, lengths in product(asked.frames, asked.rows, asked.lengths):
        yield Case(rows, frames, asked.tokens, Lengths(lengths))


def _named(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a finding is of: case, dtype and variant."""
    names = ("preset", "dtype", *(each.name for each in fields(Case)), "variant")
    return {name: found[name] for name in names}


def _of_case(
    decoder: AceStepDecoder, makers: Mapping[str, Callable[[], Decoder]], case: Case, asked: Asked, end: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The finding for each variant, by one yardstick; none is made after the time `end`."""
    by: Yardstick | None = None
    for name, make in makers.items():
        if time.perf_counter() > end:
            yield name, {"left_out": f"the {asked.seconds:.0f} s were over"}
            continue
        by = by or yardstick(decoder, case, asked.inputs)
        made = make()
        why = _failure(made, by)
        yield name, {"failed": why} if why else asdict(judge(made, by))


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


def _failure(decoder: Decoder, by: Yardstick) -> str:
    """The error of a decoder that does not run at all, else nothing: a kernel of cuDNN takes no float32."""
    try:
        with torch.no_grad():
            decoder(**by.inputs[0])
    except Exception as error:  # noqa: BLE001 - a variant that cannot run is a finding
        return f"{type(error).__name__}: {error}"[:300]
    return ""


HEADER = (
    "dtype     T     rows  lengths  verdict  velocity: error  ratio (95 %)            latent: ratio (95 %)    variant"
)


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    head = f"{found['dtype']:<9} {found['frames']:<5} {found['rows']:<5} {found['lengths']:<8}"
    if "failed" in found:
        return f"{head} {found['variant']} failed: {found['failed']}"
    if "left_out" in found:
        return f"{head} {found['variant']} left out: {found['left_out']}"
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
    """Compare everything, print the table and keep each finding in `decoder_parity.json` as soon as it is made.

    Raises:
        ValueError: `asked.resume`, and the kept file is of another machine, torch, code or number of inputs.
    """

    def shown(words: str) -> None:
        sys.stdout.write(words + "\n")
        sys.stdout.flush()

    say = say or shown
    on_gpu = torch.device(asked.device).type == "cuda"
    untested = [] if on_gpu else list(ON_GPU)
    with platform.threads(asked.threads or torch.get_num_threads()):
        head = _head(asked)
        found = _kept(out / PARITY, head) if asked.resume else []
        say(f"{head['platform']['name']}, torch {torch.__version__}, {asked.preset}, {asked.inputs} inputs\n{HEADER}")
        for each in chain(list(found), compared(asked, found)):
            if each not in found:
                found.append(each)
            say(line(each))
            measured = {"measured": time.strftime("%Y-%m-%d")}
            document = {**head, "platform": head["platform"] | measured, "untested": untested, "found": found}
            atomic.write(out / PARITY, (json.dumps(document, indent=1) + "\n").encode())
    for name in untested:
        say(f"untested on a CPU: {name}")
    return found


def _head(asked: Asked) -> dict[str, Any]:
    """What all findings of a file share. Threads of a CPU share the additions of a product, whose order is in its bits.

    The digest is of the sources of decoders and of the comparison.
    """
    where = {"name": platform.name(asked.device), "torch": torch.__version__}
    if torch.device(asked.device).type == "cpu":
        where["threads"] = str(torch.get_num_threads())
    code = [store.engine_digest(platform.ROOT / "harness" / each) for each in ("engine", "parity/proofs")]
    return {"platform": where, "inputs": asked.inputs, "code": code}


def _kept(path: Path, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings of an interrupted run with the same head; what failed or was left out is tried again."""
    if not path.exists():
        return []
    document = json.loads(path.read_text())
    document["platform"].pop("measured")
    for name, value in head.items():
        if document.get(name) != value:
            raise ValueError(f"{path}: {name} was {document.get(name)} and is {value} now; run without --resume")
    return [each for each in document["found"] if "verdict" in each]


MUST_RUN = (*ACCELERATIONS, "all", "diffusers, compiled", "all, compiled")
"""Variants that run on every device in every dtype; a form of attention may take fewer."""


def failed(found: Sequence[dict[str, Any]]) -> bool:
    """Say whether an acceleration does not run, exceeds its bound, or lets a row depend on others."""
    compared_ones = [each for each in found if "verdict" in each]
    wrong = [each["verdict"] == Verdict.EXCEEDS or not each["apart"] for each in compared_ones]
    absent = ["failed" in each and (each["variant"] in MUST_RUN or each["failed"] == UNKNOWN) for each in found]
    return not compared_ones or any(wrong) or any(absent)

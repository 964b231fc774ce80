"""Times of a recorded decoder: diffusers' forward, every acceleration, and the sum of the decoder's products."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._inductor import config as inductor
from torch.nn import functional

from harness import registry
from harness.engine.decoders import AceStepDecoder, Decoder
from harness.engine.decoders.accelerated import AcceleratedDecoder, accelerated
from harness.engine.decoders.decoder_switches import (
    ACCELERATIONS,
    ALL,
    PLAIN,
    BandForm,
    DecoderSwitches,
    FullForm,
    NormForm,
)
from harness.engine.executors import Shape
from harness.engine.executors.compiled import OPTIONS, compiled
from harness.rails.bench.bare import captured
from harness.rails.bench.clocks import EventClock, HostClock
from tests.gpu.decoder_kernels import profiled

Say = Callable[[str], object]
Call = Callable[[], object]

ROUNDS, REPLAYS = 6, 5
"""A variant and the products are replayed in turn, `ROUNDS` times `REPLAYS` replays each."""


FORMS = ("band", "full", "norms")
"""Fields of `DecoderSwitches` that name a form."""


@dataclass(frozen=True)
class Variant:
    """What is timed.

    Attributes:
        name: shown.
        switches: the accelerations.
        options: of torch's compiler, beside those of the harness; None takes one of the harness's away.
        best: take the forms that were the fastest before, in place of those of `switches`.
        streams: number of parts of the rows, each of which runs in a stream of its own.
    """

    name: str
    switches: DecoderSwitches
    options: Mapping[str, Any] = field(default_factory=dict)
    best: bool = False
    streams: int = 1


@dataclass(frozen=True)
class Size:
    """Sizes of a run: rows N, frames T and tokens L."""

    rows: int
    frames: int
    tokens: int = 200


def cumulative() -> list[Variant]:
    """The accelerations one after the other, each with all before it; the last one has all."""
    names = ACCELERATIONS
    return [Variant(f"+ {name}", PLAIN.turned_on(*names[: n + 1]), best=True) for n, name in enumerate(names)]


def forms() -> list[Variant]:
    """All accelerations with every form of attention."""
    bands = [Variant(f"all, band {form}", replace(ALL, band=form)) for form in BandForm]
    full = [
        Variant(f"all, full {form}", replace(ALL, full=form), best=True) for form in FullForm if form != FullForm.AUTO
    ]
    norms = Variant("all, norms compiler", replace(ALL, norms=NormForm.COMPILER), best=True)
    return [*bands, *full, norms]


def extras() -> list[Variant]:
    """All accelerations with other options of the compiler."""
    made = [Variant(f"all, {n} streams", ALL, best=True, streams=n) for n in (2,)]
    made.append(Variant("all, timed kernels", ALL, {"deterministic": None}, best=True))
    if hasattr(inductor.triton, "enable_pdl"):
        made.insert(0, Variant("all, dependent launches", ALL, {"triton.enable_pdl": True}, best=True))
    return made


PLAIN_VARIANT = Variant("diffusers", PLAIN)
ALL_VARIANT = Variant("all", ALL, best=True)


def plan(sizes: Sequence[Size]) -> list[tuple[Size, Variant]]:
    """What is timed, in the order of its weight: what does not fit the time is left out from the end."""
    first, *others = sizes
    work = [(first, each) for each in (*forms(), PLAIN_VARIANT)]
    work += [(size, each) for size in others for each in (ALL_VARIANT, PLAIN_VARIANT)]
    return work + [(first, each) for each in (*extras(), *cumulative())]


def products(decoder: AceStepDecoder, size: Size, *, joined: bool) -> list[tuple[Tensor, Tensor]]:
    """Inputs and weights of every product of a forward, in order, without those that depend on the condition alone.

    Args:
        decoder: the plain decoder.
        size: of the run.
        joined: queries, keys and values as one product, gate and up too, and the second time kept; else the products
            are those of diffusers.
    """
    model: Any = decoder.transformer
    tokens = size.rows * -(-size.frames // model.patch_size)
    draw = torch.Generator().manual_seed(0)
    made: dict[tuple[int, int], Tensor] = {}

    def given(rows: int, width: int) -> Tensor:
        if (rows, width) not in made:
            made[rows, width] = torch.randn(rows, width, generator=draw).to(decoder.device, decoder.dtype)
        return made[rows, width]

    found: list[tuple[int, Tensor]] = []
    for embed in (model.time_embed,) if joined else (model.time_embed, model.time_embed_r):
        found += [(size.rows, each.weight) for each in (embed.linear_1, embed.linear_2, embed.time_proj)]
    found.append((tokens, model.proj_in_conv.weight.flatten(1)))
    fused = AcceleratedDecoder(decoder, PLAIN.turned_on("fused_products"))._parts.layers
    for layer, block in zip(fused, model.layers, strict=True):
        own, cross, mlp = block.self_attn, block.cross_attn, block.mlp
        apart = ([own.to_q.weight, own.to_k.weight, own.to_v.weight], [mlp.gate_proj.weight, mlp.up_proj.weight])
        qkv, gate_up = ([layer.qkv.weight], [layer.gate_up.weight]) if joined else apart
        attention = [*qkv, own.to_out[0].weight, cross.to_q.weight, cross.to_out[0].weight]
        found += [(tokens, each) for each in (*attention, *gate_up, mlp.down_proj.weight)]
    found.append((tokens, model.proj_out_conv.weight.flatten(1).t()))
    return [(given(rows, weight.shape[1]), weight) for rows, weight in found]


def flops(work: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Floating point operations of products."""
    return float(sum(2 * x.shape[0] * weight.numel() for x, weight in work))


class Bench:
    """Times variants of one decoder.

    Args:
        preset: name of the decoder.
        device: where.
        say: called with each figure in words.
    """

    def __init__(self, preset: str, device: str, say: Say) -> None:
        dtype = torch.bfloat16
        self.decoder = AceStepDecoder.preset(preset, 0, dtype=dtype, device=device)
        self.on_gpu = torch.device(device).type == "cuda"
        self.say = say
        self._sums: dict[Size, tuple[Call, Call, float]] = {}
        self._held: list[object] = []
        self.fastest: dict[str, Any] = {}
        """Forms that were the fastest so far."""
        self._least = float("inf")

    def time(self, size: Size, variant: Variant) -> dict[str, Any]:
        """Figures of one variant at one size."""
        started = time.perf_counter()
        switches = replace(variant.switches, **self.fastest) if variant.best else variant.switches
        for name in FORMS:
            if variant.name.startswith(f"all, {name}"):
                switches = replace(switches, **{name: getattr(variant.switches, name)})
        inputs, expected = self._inputs(size)
        decoder = accelerated(self.decoder, switches)
        if isinstance(decoder, AcceleratedDecoder) and switches.kept_condition:
            inputs["encoder_hidden_states"] = decoder.condition(inputs["encoder_hidden_states"])
        made = _apart(self._compiled(decoder, variant.options), variant.streams)
        velocity = made(**inputs).double()
        distance = float((velocity - expected).norm() / expected.norm())
        call = self._recorded(lambda: made(**inputs))
        ready = time.perf_counter() - started
        separate, joined, work = self._products(size)
        ms, sum_ms, joined_ms = self._in_turn([call, separate, joined])
        self._note(variant, switches, ms)
        forms = {name: str(getattr(switches, name)) for name in FORMS}
        found: dict[str, Any] = {
            **asdict(size), "variant": variant.name, "on": switches.on, **forms, "ms": ms, "products_ms": sum_ms,
            "joined_products_ms": joined_ms, "ratio": ms / sum_ms, "ratio_joined": ms / joined_ms,
            "products_tflops": work / sum_ms / 1e9, "from_eager": distance, "ready_s": ready,
        }  # fmt: skip
        if self.on_gpu:
            found["kernels"] = asdict(profiled(call))
        return found

    def _note(self, variant: Variant, switches: DecoderSwitches, ms: float) -> None:
        """Keep the forms of the fastest variant of those that compare forms."""
        if any(variant.name.startswith(f"all, {name}") for name in FORMS) and ms < self._least:
            self._least = ms
            self.fastest = {name: getattr(switches, name) for name in FORMS}

    def _inputs(self, size: Size) -> tuple[dict[str, Tensor], Tensor]:
        shape = Shape(size.frames, size.tokens, self.decoder.channels, self.decoder.encoder_dim)
        inputs = shape.example(size.rows, self.decoder.device).tensors()
        return inputs, self.decoder(**inputs).double()

    def _compiled(self, decoder: Decoder, options: Mapping[str, Any]) -> Decoder:
        if not self.on_gpu:
            return decoder
        changed = {**OPTIONS, **options}
        with mock.patch.dict(OPTIONS, {k: v for k, v in changed.items() if v is not None}, clear=True):
            return compiled(decoder)

    def _recorded(self, call: Call) -> Call:
        return captured(call) if self.on_gpu else call  # type: ignore[arg-type]

    def _products(self, size: Size) -> tuple[Call, Call, float]:
        if size not in self._sums:
            apart, joined = (products(self.decoder, size, joined=each) for each in (False, True))
            calls = [self._recorded(_multiplied(each)) for each in (apart, joined)]
            self._held += [apart, joined]  # a recorded run holds addresses, and no tensors
            self._sums[size] = calls[0], calls[1], flops(apart)
        return self._sums[size]

    def _in_turn(self, calls: Sequence[Call]) -> list[float]:
        """Median ms of each call, over `ROUNDS` rounds in which the calls take turns."""
        times: list[list[float]] = [[] for _ in calls]
        for turn in range(ROUNDS if self.on_gpu else 1):
            for index in range(len(calls)) if turn % 2 else reversed(range(len(calls))):
                clock = EventClock() if self.on_gpu else HostClock()
                calls[index]()
                clock.mark()
                for _ in range(REPLAYS if self.on_gpu else 1):
                    calls[index]()
                    clock.mark()
                times[index] += clock.between()
        return [median(each) for each in times]


def _apart(decoder: Decoder, streams: int) -> Decoder:
    """The decoder on equal parts of the rows, on a GPU each in a stream of its own: one fills the gaps of another."""
    if streams == 1:
        return decoder

    def call(**inputs: Tensor) -> Tensor:
        parts = [
            dict(zip(inputs, each, strict=True))
            for each in zip(*(value.chunk(streams) for value in inputs.values()), strict=True)
        ]
        if not inputs["hidden_states"].is_cuda:
            return torch.cat([decoder(**part) for part in parts])
        current = torch.cuda.current_stream()
        sides = [_stream(number) for number in range(1, streams)]
        for side in sides:
            side.wait_stream(current)
        made = []
        for stream, part in zip((current, *sides), parts, strict=True):
            with torch.cuda.stream(stream):
                made.append(decoder(**part))
        for side in sides:
            current.wait_stream(side)
        return torch.cat(made)

    return call


@lru_cache
def _stream(_number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _multiplied(work: Sequence[tuple[Tensor, Tensor]]) -> Call:
    def multiply() -> Tensor:
        made = torch.empty(0)
        for x, weight in work:
            made = functional.linear(x, weight)
        return made

    return multiply


def timed(bench: Bench, work: Sequence[tuple[Size, Variant]], seconds: float) -> Iterator[dict[str, Any]]:
    """Figures of each variant; one that fails or has no time left is named as such."""
    started = time.perf_counter()
    for size, variant in work:
        named = {**asdict(size), "variant": variant.name}
        if time.perf_counter() - started > seconds:
            yield {**named, "left_out": f"the {seconds:.0f} s were over"}
            continue
        try:
            found = bench.time(size, variant)
        except Exception as error:  # noqa: BLE001 - a variant that cannot run is a finding
            torch._dynamo.reset()
            found = {**named, "failed": f"{type(error).__name__}: {error}"[:600]}
        yield found


HEADER = "T     rows  ms      / sum  / joined  from eager  product attention norm  elementw. gap    kernels  variant"


def line(found: Mapping[str, Any]) -> str:
    """One row of the table."""
    head = f"{found['frames']:<5} {found['rows']:<5}"
    if "ms" not in found:
        why = found.get("failed") or found["left_out"]
        return f"{head} {found['variant']}: {'failed' if 'failed' in found else 'left out'}: {why}"
    kernels = found.get("kernels", {"ms": {}, "launches": {}})
    parts = [kernels["ms"].get(name, 0.0) for name in ("product", "attention", "norm", "elementwise", "gap")]
    where = " ".join(f"{part:<7.2f}" for part in parts)
    count = round(sum(kernels["launches"].values()))
    ratios = f"{found['ratio']:<6.3f} {found['ratio_joined']:<9.3f} {found['from_eager']:<11.2e}"
    return (
        f"{head} {found['ms']:<7.3f} {ratios} {where} {count:<8} {found['variant']} "
        f"(band {found['band']}, full {found['full']}, norms {found['norms']}; sum {found['products_ms']:.3f}, "
        f"joined {found['joined_products_ms']:.3f}, {found['products_tflops']:.0f} TFLOP/s, "
        f"ready in {found['ready_s']:.0f} s)"
    )


def run(out: Path, preset: str, device: str, sizes: Sequence[Size], seconds: float) -> list[dict[str, Any]]:
    """Time everything, print the table and write `decoder_times.json`."""

    def say(words: str) -> None:
        sys.stdout.write(words + "\n")
        sys.stdout.flush()

    registry.check_here(device)
    found: list[dict[str, Any]] = []
    where = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else "CPU"
    say(f"{where}, torch {torch.__version__}, {preset}, bfloat16\n{HEADER}")
    with torch.no_grad():
        for each in timed(Bench(preset, device, say), plan(sizes), seconds):
            found.append(each)
            say(line(each))
            document = {"device": where, "torch": torch.__version__, "preset": preset, "found": found}
            (out / "decoder_times.json").write_text(json.dumps(document, indent=1) + "\n")
    return found

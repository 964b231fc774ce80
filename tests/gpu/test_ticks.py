"""Ticks on a GPU: each optimization changes no bit there either, and none of them makes the host wait."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from harness import registry
from harness.engine import DCW, Guidance, LatentMask, PipelineConfig, Request, StreamPipeline, X0Target
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor, Executor
from harness.engine.switches import SWITCHES
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.battery.scripts import Script
from harness.parity.proofs.lockstep import acted, run
from harness.parity.proofs.switches import check_switches, pairs
from harness.rails.bench.throughput import Load, bench
from harness.registry import compared
from tests.engine.builders import D, T, condition, fixed
from tests.gpu.waits import waiting_is_an_error
from tests.parity.journal import JournaledPipeline
from tests.parity.proofs.test_lockstep import BUSY
from tests.parity.strategies import CASES, Case, scripts

CUDA = "cuda"
KINDS = [kind for kind in map(str, compared(CUDA)) if kind != "compiled_graph"]
"""Compiled code is asked with pinned rows, in `test_graphs`: every number of rows would be compiled anew."""
FEW = settings(max_examples=30)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_no_bit_on_a_gpu(switch: str, kind: str) -> None:
    done = run(BUSY, switch, executor=kind, device=CUDA)
    if switch != "joined_stream" or kind != "eager":
        assert acted(switch, done.first.stats(), done.second.stats())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("switch", SWITCHES)
@given(case=CASES)
@FEW
def test_off_equals_on_whatever_happens_on_a_gpu(switch: str, kind: str, case: Case) -> None:
    run(case.script, switch, executor=kind, others=case.others, max_rows=case.max_rows, device=CUDA)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_no_bit_of_the_real_architecture_with_pinned_rows(switch: str) -> None:
    script = Script(BUSY.events, channels=8, encoder_dim=32, frames=40)
    run(script, switch, "tiny", "static", pin_rows=8, device=CUDA)


def test_the_battery_is_the_same_with_every_switch_on_and_off_on_a_gpu() -> None:
    results = check_switches(pairs(decoders=["affine"], device=CUDA))
    assert [r for r in results if not r.verdict.passes] == []
    assert {r.scenario for r in results} == set(SCENARIOS)


@pytest.mark.filterwarnings("ignore")  # what torch.compile imports and generates warns of itself
@pytest.mark.parametrize("cfg", [None, "full"])
@pytest.mark.parametrize("kind", [*KINDS, "compiled_graph"])
def test_a_bench_times_the_gpu_and_the_decoder_in_every_form(kind: str, cfg: str | None) -> None:
    m = bench(Load(decoder="tiny", executor=kind, device=CUDA, duration=1.6, ticks=16, warmup=8, cfg=cfg))
    assert set(m.bare.forms) == {"eager", "graph", "compiled graph"}
    assert 0 < m.bare.ms < m.tick.median
    assert (m.latents, m.dropped, m.bare.rows) == (8, 0, 8 if cfg else 4)


@pytest.mark.parametrize("kind", KINDS)
@given(script=scripts(rewrites=False))
@FEW
def test_a_request_has_the_bits_it_has_alone_on_a_gpu(kind: str, script: Script) -> None:
    pipeline = JournaledPipeline(registry.executor(kind, AffineDecoder(), device=CUDA), script.config())
    script.play(pipeline, CUDA)
    pipeline.assert_oracle_agrees(EagerExecutor(AffineDecoder(), max_rows=1))


def on_gpu(value: Any) -> Any:
    return value.to(CUDA) if isinstance(value, torch.Tensor) else value


PROMPT, NEGATIVE = condition(1, 5), condition(2, 3)
BUSY_REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "full": {"guidance": {"scale": 3.0, "rescale": 0.5, "eta": 0.3}},
    "a curve": {"guidance": {"scale": torch.linspace(1, 4, T)}},
    "initialize": {"guidance": {"scale": 3.0, "mode": "initialize"}},
    "self": {"guidance": {"scale": 3.0, "mode": "self"}},
    "scaled and injected": {"velocity_scale": 0.9, "noise_injection": torch.linspace(0, 0.3, T)},
    "from a source by a curve": {"source": fixed(5), "sde_curve": torch.linspace(0, 1, T)},
    "masked": {"masked": True},
    "targeted": {"targeted": True},
}


def request(seed: int, fields: dict[str, Any]) -> Request:
    made = {name: on_gpu(value) for name, value in fields.items() if name not in ("guidance", "masked", "targeted")}
    prompt, negative = (type(c)(c.encoder_hidden_states.to(CUDA)) for c in (PROMPT, NEGATIVE))
    if "guidance" in fields:
        negatives = () if fields["guidance"].get("mode") == "self" else (negative,)
        held = {name: on_gpu(value) for name, value in fields["guidance"].items()}
        made["guidance"] = Guidance(**held, negatives=negatives)
    if "masked" in fields:
        mask = (torch.arange(T, device=CUDA) % 2).float()
        made["latent_mask"] = LatentMask(mask, fixed(6).to(CUDA), lambda step, total: 1 - step / total)
    if "targeted" in fields:
        made["x0_target"] = X0Target(fixed(7).to(CUDA), strength=0.5)
    return Request([prompt], fixed(7, T, 2 * D).to(CUDA), seed, **made)


Watch = Callable[[], AbstractContextManager[None]]


def stream_of_two(
    executor: Executor, name: str, dcw: DCW | None, watch: Callable[[], AbstractContextManager[None]]
) -> int:
    """How many of two requests finished; every tick is watched."""
    finished = 0
    with StreamPipeline(executor, PipelineConfig(depth=2, steps=4, dcw=dcw)) as pipeline:
        for seed in range(2):
            pipeline.submit(request(seed, BUSY_REQUESTS[name]))
            with watch():
                finished += len(pipeline.tick() + pipeline.tick())
        while pipeline.stats().in_flight:
            with watch():
                finished += len(pipeline.tick())
    return finished


CORRECTIONS = {
    "none": None,
    "haar": DCW(),
    "pix": DCW("pix"),
    "a curve": DCW(a=torch.linspace(0, 0.1, T), wavelet="db3"),
}


@pytest.mark.parametrize("dcw", CORRECTIONS.values(), ids=CORRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BUSY_REQUESTS)
def test_no_tick_makes_the_host_wait(name: str, kind: str, dcw: DCW | None) -> None:
    """torch raises where an operation would wait for the GPU. A first round makes what is made once."""
    executor = registry.executor(kind, AffineDecoder(), device=CUDA)
    for watch in (nullcontext, waiting_is_an_error):
        assert stream_of_two(executor, name, dcw, watch) == 2


def test_a_wait_would_be_seen() -> None:
    with pytest.raises(RuntimeError, match="synchronizing"), waiting_is_an_error():
        bool(torch.ones(1, device=CUDA).all())

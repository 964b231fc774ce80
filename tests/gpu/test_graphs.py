"""Recorded runs on a real GPU: their bits, their order, what they must not do in a tick, and what ends them."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import fresh_cache
from torch.profiler import ProfilerActivity, profile

from harness import registry
from harness.engine import InvalidInput, PipelineConfig, StreamPipeline, Switches
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.errors import NotPrepared, RecordingFailed
from harness.engine.executors import Batch, CudaGraphExecutor, EagerExecutor, Executor, Shape
from harness.engine.executors.compiled import compiled as compile_decoder
from harness.engine.executors.recorded import CudaRecorder
from harness.engine.switches import SWITCHES
from harness.parity.baselines import platform
from harness.parity.battery import scenarios
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.battery.scripts import Script
from harness.parity.compare import assert_identical
from harness.parity.proofs.lockstep import run
from tests.engine.builders import D, E, T
from tests.gpu.test_streams import BUSY as STREAMED
from tests.gpu.test_streams import latents
from tests.gpu.test_submit import NEW, copied, request
from tests.gpu.waits import waiting_is_an_error
from tests.parity.proofs.test_lockstep import BUSY

CUDA = torch.device("cuda:0")
SLEEP = 100_000_000
"""Clock cycles, some fifty milliseconds: far longer than the host takes for a tick."""

SHAPE = Shape(40, 16, 8, 32)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """No graph of another test is freed in the middle of this one."""
    gc.collect()
    yield
    gc.collect()


def tiny(dtype: torch.dtype = torch.float32) -> AceStepDecoder:
    return AceStepDecoder.preset("tiny", 0, dtype=dtype, device=CUDA)


def made(decoder: Any = None, *shapes: Shape, **options: Any) -> CudaGraphExecutor:
    executor = CudaGraphExecutor(decoder or tiny(), device=CUDA, **options)
    executor.prepare(shapes)
    return executor


def velocity(executor: Executor, shape: Shape, rows: int, batch: Batch | None = None) -> Tensor:
    found = executor.run(batch or shape.example(rows, CUDA))
    if executor.stream is not None:
        executor.stream.join()
    return found.clone()


# Bits.


@pytest.mark.parametrize("frames", [40, 41, 750, 1500])
@pytest.mark.parametrize("name", ["affine", "float32", "bfloat16"])
def test_a_replay_has_the_bits_of_the_unrecorded_decoder_with_the_bucket_s_rows(name: str, frames: int) -> None:
    decoder = AffineDecoder(32) if name == "affine" else tiny(getattr(torch, name))
    shape = replace(SHAPE, frames=frames)
    executor = made(decoder, shape)
    for rows in (3, 8, 1, 5, 2):
        bucket = next(each for each in executor.row_buckets if each >= rows)
        eager = velocity(EagerExecutor(decoder, pin_rows=bucket), shape, rows).float()
        assert_identical(velocity(executor, shape, rows), eager)
    executor.close()


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize(("kind", "pinned"), [("cuda_graph", None), ("cuda_graph", 8), ("compiled_graph", 8)])
def test_a_switch_changes_no_bit_of_a_recorded_decoder(kind: str, switch: str, pinned: int | None) -> None:
    """Compiled code is asked with pinned rows alone: every number of rows is compiled anew."""
    script = Script(BUSY.events, channels=8, encoder_dim=32, frames=40)
    run(script, switch, "affine" if pinned is None else "tiny", kind, pin_rows=pinned, device="cuda")


@pytest.mark.filterwarnings("ignore")  # what torch.compile imports and generates warns of itself
def test_compiled_code_is_near_the_decoder_and_rounds_as_it_does() -> None:
    shape = replace(SHAPE, frames=750)
    executor = made(tiny(torch.bfloat16), shape, row_buckets=(4,), compiled=True)
    exact = velocity(EagerExecutor(tiny(torch.bfloat16)), shape, 4).float()
    found = velocity(executor, shape, 4)
    assert 0 < float((found - exact).norm() / exact.norm()) < 0.02


@pytest.mark.filterwarnings("ignore")  # as above
def test_compiled_layers_multiply_contiguous_rows() -> None:
    """Batched products would read rows that are not aligned, by kernels that take twice as long."""
    run = compile_decoder(tiny(torch.bfloat16))
    inputs = replace(SHAPE, frames=750).example(4, CUDA).tensors()
    with torch.no_grad():
        run(**inputs)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiled:
            run(**inputs)
            torch.cuda.synchronize()
    events: Any = profiled.events()
    names = Counter(str(event.name) for event in events)
    assert names["aten::mm"] >= 20 and names["aten::bmm"] == 0, names


@pytest.mark.filterwarnings("ignore")  # as above
def test_compiled_code_makes_the_same_bits_when_it_is_compiled_again_under_other_conditions() -> None:
    inputs, found = replace(SHAPE, frames=750).example(4, CUDA).tensors(), []
    for threads in (1, 2):
        torch._dynamo.reset()
        with fresh_cache(), platform.threads(threads), torch.no_grad():
            found.append(compile_decoder(tiny(torch.bfloat16))(**inputs).clone())
    assert_identical(found[0], found[1], "compiled twice")


@pytest.mark.parametrize("name", [name for name in SCENARIOS if SCENARIOS[name].decoder == "affine"])
def test_a_scenario_makes_the_same_bytes_twenty_times(name: str) -> None:
    executor = registry.executor("cuda_graph", AffineDecoder(16), device="cuda")
    scenario = replace(SCENARIOS[name], device="cuda")
    played = {scenarios.play(scenario, on=executor).ticks for _ in range(20)}
    assert len(played) == 1


# Order.


def ring(executor: Executor, **config: Any) -> StreamPipeline:
    return StreamPipeline(executor, PipelineConfig(**{"depth": 3, "steps": 4, **config}))


def ended(pipeline: StreamPipeline) -> list[Tensor]:
    return [each.latent for each in pipeline.drain()]


def graphs(slow: bool = False) -> CudaGraphExecutor:
    def held_up(**inputs: Tensor) -> Tensor:
        torch.cuda._sleep(SLEEP // 10)
        return AffineDecoder(E)(**inputs)

    return made(held_up if slow else AffineDecoder(E), Shape(T, 64, D, E))


def expected(name: str, seeds: int = 4) -> list[Tensor]:
    plain, found = ring(EagerExecutor(AffineDecoder(E))), []
    for seed in range(seeds):
        plain.submit(request(seed, name))
        found += plain.tick()
    return [each.latent for each in found] + ended(plain)


@pytest.mark.parametrize("name", NEW)
def test_a_slow_replay_is_never_read_too_early_nor_fed_too_late(name: str) -> None:
    wanted, pipeline = expected(name), ring(graphs(slow=True))
    given = [request(seed, name) for seed in range(4)]
    torch.cuda.synchronize()
    found = []
    for each in given:
        torch.cuda._sleep(SLEEP // 10)
        pipeline.submit(copied(each))
        found += pipeline.tick()
    # `.cpu()` follows at once: it waits for the current stream alone.
    latent = [each.latent.cpu() for each in found]
    latent += [each.cpu() for each in ended(pipeline)]
    assert_identical(latent, [each.cpu() for each in wanted])


@pytest.mark.parametrize("name", ["guided", "masked", "by a curve"])
def test_submissions_and_ticks_may_run_on_any_stream(name: str) -> None:
    wanted, pipeline = expected(name), ring(graphs())
    given = [request(seed, name) for seed in range(4)]
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    found = []
    for seed in range(4):
        with torch.cuda.stream(streams[seed % 3]):
            torch.cuda._sleep(SLEEP // 4)
            pipeline.submit(copied(given[seed]))
        with torch.cuda.stream(streams[(seed + 1) % 3]):
            found += pipeline.tick()
    with torch.cuda.stream(streams[2]):
        found += pipeline.drain()
    torch.cuda.synchronize()
    assert_identical([each.latent for each in found], wanted)


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_under_contention_from_another_stream_no_bit_changes(joined: bool, fused: bool) -> None:
    wanted = latents(EagerExecutor(AffineDecoder()), Switches())
    other, a = torch.cuda.Stream(), torch.randn(2048, 2048, device=CUDA)
    executor = registry.executor("cuda_graph", AffineDecoder(), device="cuda")
    with torch.cuda.stream(other):
        for _ in range(300):
            a = (a @ a).tanh()
    assert_identical(latents(executor, Switches(joined_stream=joined, fused_cfg=fused), STREAMED), wanted, "latents")


def test_two_rings_that_take_turns_on_one_executor_each_keep_their_conditions() -> None:
    names = ["guided", "plain"]
    wanted = [expected(name, 3) for name in names]
    executor = graphs()
    pipelines = [ring(executor) for _ in names]
    streams = [torch.cuda.Stream() for _ in names]
    given = [[request(seed, name) for seed in range(3)] for name in names]
    torch.cuda.synchronize()
    found: list[list[Tensor]] = [[], []]
    for tick in range(7):
        for number, (pipeline, stream) in enumerate(zip(pipelines, streams, strict=True)):
            with torch.cuda.stream(stream):
                if tick < 3:
                    pipeline.submit(copied(given[number][tick]))
                found[number] += [each.latent for each in pipeline.tick()]
    torch.cuda.synchronize()
    assert_identical(found[0], wanted[0], "guided")
    assert_identical(found[1], wanted[1], "plain")


# What a tick does not do.


def test_a_steady_ring_records_nothing_waits_for_nothing_and_replays_every_run() -> None:
    executor = graphs()
    pipeline = ring(executor, steps=8)
    for watched in (False, True):
        before = executor.stats()
        runs = pipeline.stats().decoder_runs
        for seed in range(16):
            given = request(seed, "guided") if seed % 2 == 0 else None
            if watched:
                with waiting_is_an_error():
                    if given is not None:
                        pipeline.submit(given)
                    pipeline.tick()
            else:
                if given is not None:
                    pipeline.submit(given)
                pipeline.tick()
            torch.cuda.synchronize()
        after = executor.stats()
    assert after.recorded == before.recorded == 4
    assert after.replays is not None and before.replays is not None
    assert after.replays - before.replays == after.runs - before.runs == pipeline.stats().decoder_runs - runs == 16


def test_conditions_that_stay_are_not_copied_again() -> None:
    executor = graphs()
    pipeline = ring(executor, depth=2, steps=8)
    for seed in range(2):
        pipeline.submit(request(seed, "plain"))
        pipeline.tick()
    before = executor.stats()
    for _ in range(5):
        pipeline.tick()
    after = executor.stats()
    assert (after.copied - before.copied, after.kept - before.kept) == (10, 15)


def test_an_unprepared_length_is_refused_while_the_ring_goes_on() -> None:
    pipeline = ring(graphs())
    pipeline.submit(request(0, "plain"))
    pipeline.tick()
    with pytest.raises(NotPrepared, match="T=17"):
        pipeline.submit(request(1, "plain", context_latents=torch.zeros(1, 17, 2 * D, device=CUDA)))
    assert len(ended(pipeline)) == 1


# What cannot be recorded.


def python_error(**inputs: Tensor) -> Tensor:
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("not while recording")
    return AffineDecoder(32)(**inputs)


def waiting(**inputs: Tensor) -> Tensor:
    found = AffineDecoder(32)(**inputs)
    return found * float(found.abs().max() >= 0)


def host_time(**inputs: Tensor) -> Tensor:
    """Copies from pageable memory, which ends a recording."""
    return AffineDecoder(32)(**inputs) * torch.ones(1).to(CUDA)


@pytest.mark.parametrize("unchecked", [False, True])
@pytest.mark.parametrize("decoder", [python_error, waiting, host_time])
def test_a_recording_that_fails_is_named_and_leaves_the_gpu_as_it_was(
    decoder: Callable[..., Tensor], unchecked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unchecked:
        monkeypatch.setattr(CudaRecorder, "refuse_waits", lambda self: torch.no_grad())
    executor = CudaGraphExecutor(decoder, row_buckets=(2,), device=CUDA)
    for _ in range(3):
        with pytest.raises(RecordingFailed, match="2 rows of T=40, L=16"):
            executor.prepare([SHAPE])
    assert executor.stats().graphs == 0
    for frames in (40, 400, 800):
        shape = replace(SHAPE, frames=frames)
        good = made(tiny(), shape, row_buckets=(2,))
        assert_identical(velocity(good, shape, 2), velocity(EagerExecutor(tiny()), shape, 2))
        good.close()
    x = torch.empty(1 << 20, device=CUDA)
    held = torch.cuda.memory_snapshot()
    (segment,) = [each for each in held if each["address"] <= x.data_ptr() < each["address"] + each["total_size"]]
    assert tuple(segment["segment_pool_id"]) == (0, 0), "memory of the failed recording's pool is used"


# Memory.


def test_bytes_are_the_reserved_memory_and_fall_after_an_eviction() -> None:
    shapes = [replace(SHAPE, frames=frames) for frames in (4000, 8000, 6000)]
    executor = made(row_buckets=(2,), on_demand=True)
    torch.cuda.empty_cache()
    empty, found = torch.cuda.memory_reserved(), []
    for shape in shapes:
        velocity(executor, shape, 2)
        torch.cuda.empty_cache()
        found.append(executor.stats().nbytes)
        reserved = torch.cuda.memory_reserved() - empty
        assert 0 <= reserved - found[-1] < 128 << 20, "beside it there are the buffers' segments alone"
    bounded = made(row_buckets=(2,), on_demand=True, max_bytes=found[1])
    for shape in shapes:
        velocity(bounded, shape, 2)
    assert bounded.stats().evicted >= 1
    assert bounded.stats().nbytes <= found[1]
    executor.close()
    bounded.close()
    del executor, bounded
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() - empty < min(128 << 20, found[0] // 2)


def test_shapes_that_do_not_fit_are_refused_and_their_memory_comes_back() -> None:
    executor = made(tiny(), SHAPE, row_buckets=(2,))
    executor._prepared._max_bytes = executor.stats().nbytes + 1000
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with pytest.raises(InvalidInput, match="at most max_bytes"):
        executor.prepare([replace(SHAPE, frames=9000)])
    assert torch.cuda.memory_reserved() <= before
    assert_identical(velocity(executor, SHAPE, 2), velocity(EagerExecutor(tiny()), SHAPE, 2))


# Weights.


def lora(decoder: AceStepDecoder, sign: float) -> None:
    """Fuse or unfuse a low-rank update of every query projection, in place."""
    generator = torch.Generator(device="cpu").manual_seed(1)
    for layer in decoder.transformer.layers:
        weight = layer.self_attn.to_q.weight
        down = torch.randn(4, weight.shape[1], generator=generator).to(CUDA)
        up = torch.randn(weight.shape[0], 4, generator=generator).to(CUDA)
        weight.add_((up @ down).to(weight.dtype), alpha=sign)


@pytest.mark.filterwarnings("ignore")  # what torch.compile imports and generates warns of itself
@pytest.mark.parametrize("compiled", [False, True])
def test_weights_are_replaced_between_ticks_and_the_bits_come_back_with_them(compiled: bool) -> None:
    decoder = tiny()
    executor = made(decoder, SHAPE, row_buckets=(2,), compiled=compiled)
    before = velocity(executor, SHAPE, 2)
    kept = {name: each.clone() for name, each in decoder.state_dict().items()}

    def eager() -> Tensor:
        return velocity(EagerExecutor(decoder, pin_rows=2), SHAPE, 2)

    executor.update(lambda: lora(decoder, 1.0))
    fused = velocity(executor, SHAPE, 2)
    assert not torch.equal(fused, before)
    torch.testing.assert_close(fused, eager(), rtol=0, atol=1e-3)
    executor.update(lambda: decoder.load_state_dict(kept))
    assert_identical(velocity(executor, SHAPE, 2), before)
    assert executor.stats().recorded == 1, "in place: nothing moved"

    def moved() -> None:
        for parameter in decoder.parameters():
            parameter.data = parameter.data * 1.5

    executor.update(moved)
    assert executor.stats().recorded == 2
    changed = velocity(executor, SHAPE, 2)
    assert not torch.equal(changed, before)
    torch.testing.assert_close(changed, eager(), rtol=0, atol=1e-3)
    if not compiled:
        assert_identical(changed, eager())


# The end.

LOST = """
import torch
from harness.engine.errors import ExecutorError
from harness.engine.executors import CudaGraphExecutor, Shape

table = torch.arange(4.0, device="cuda")

def decoder(**inputs):
    return inputs["hidden_states"] * table[(inputs["timestep"] * 1).long()][:, None, None]

shape = Shape(40, 16, 8, 32)
executor = CudaGraphExecutor(decoder, row_buckets=(2,), device="cuda")
executor.prepare([shape])
batch = shape.example(2, torch.device("cuda"))
executor.run(batch)
executor.stream.wait()
batch.timestep.fill_(1000.0)
said = []
for _ in range(4):
    try:
        executor.run(batch)
        executor.stream.wait()
    except ExecutorError as error:
        said.append(str(error).splitlines()[0])
    except RuntimeError:
        pass
assert len(said) == 3 and len(set(said[1:])) == 1 and all("device-side assert" in each for each in said), said
assert executor.stats().runs >= 2 and executor.stats().replays is None
executor.close()
print("closed")
"""


def test_after_a_sticky_error_every_run_names_it_and_the_executor_can_be_closed() -> None:
    child = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=120, check=False)
    assert child.stdout == "closed\n", child.stdout + child.stderr


class Interrupted:
    """A decoder that raises inside the first recording: where the current stream is being captured."""

    def __init__(self, error: BaseException) -> None:
        self.decoder, self.error, self.raised = tiny(), error, 0
        self.channels, self.encoder_dim, self.dtype = self.decoder.channels, self.decoder.encoder_dim, torch.float32

    def __call__(self, **inputs: Tensor) -> Tensor:
        if torch.cuda.is_current_stream_capturing() and not self.raised:
            self.raised += 1
            raise self.error
        return self.decoder(**inputs)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError], ids=lambda e: e.__name__)
def test_a_decoder_that_raises_inside_a_recording_leaves_an_executor_that_records_the_same_bits(error: Any) -> None:
    decoder = Interrupted(error("injected"))
    executor = CudaGraphExecutor(decoder, device=CUDA, on_demand=True)
    given, wanted = SHAPE.example(2, CUDA), EagerExecutor(tiny()).run(SHAPE.example(2, CUDA)).float()
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            executor.run(given)
        assert executor.stats().graphs == 0
    got = executor.run(given)
    executor.stream.wait()
    assert_identical(got, wanted)
    assert (decoder.raised, executor.stats().graphs) == (1, 1)
    executor.close()

"""The memory that recorded runs read, what may go on beside a recording, and what is compiled before the first tick."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, Guidance, PipelineConfig, Request, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import CudaGraphExecutor, CudaStream, EagerExecutor, Executor, Shape, StaticExecutor
from harness.parity.compare import assert_identical
from tests.engine.builders import E
from tests.gpu.test_graphs import CUDA, SHAPE, made, tiny, velocity
from tests.gpu.test_kept import scribble
from tests.gpu.test_kernels import variants
from tests.gpu.test_submit import prompt

SLEEP = 400_000_000
"""Clock cycles, about a fifth of a second."""


def over(*sizes: int) -> list[Tensor]:
    """Write NaN over the free memory of the current stream that tensors of so many bytes would get."""
    return scribble(*((size // 4,) for size in sizes))


def test_weights_that_move_without_an_update_stay_in_memory_while_graphs_read_them() -> None:
    decoder = tiny()
    executor = made(decoder, SHAPE, row_buckets=(2,))
    before = velocity(executor, SHAPE, 2)
    sizes = {parameter.nbytes for parameter in decoder.parameters()}
    for parameter in decoder.parameters():
        parameter.data = parameter.data.clone()
    torch.cuda.synchronize()
    kept = over(*sizes)
    assert_identical(velocity(executor, SHAPE, 2), before, "velocity")
    assert kept
    executor.close()


def test_a_batch_is_kept_until_its_run_has_read_it() -> None:
    """The run lies behind others of its own stream, and the caller drops the batch at once."""
    shape = Shape(4000, 16, 8, 32)
    executor = made(AffineDecoder(32), shape, row_buckets=(2,))
    wanted = velocity(executor, shape, 2)
    sizes = [each.nbytes for each in shape.example(2, CUDA).tensors().values()]
    executor.run(replaced(shape))
    assert executor.stream is not None
    executor.stream.wait()
    batch = shape.example(2, CUDA)
    torch.cuda.synchronize()
    with torch.cuda.stream(executor.stream._own):  # type: ignore[attr-defined]
        torch.cuda._sleep(SLEEP)
    found = executor.run(batch)
    del batch
    kept = over(*sizes)
    executor.stream.join()
    assert_identical(found.clone(), wanted, "velocity")
    assert kept
    executor.close()


KINDS: dict[str, Callable[[], Executor]] = {
    "recorded": lambda: made(AffineDecoder(32), SHAPE, row_buckets=(2,)),
    "static": lambda: StaticExecutor(AffineDecoder(32), stream=CudaStream(CUDA)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_starts_when_the_current_stream_has_made_its_inputs(kind: str) -> None:
    """Also where this stream never read one of its velocities."""
    wanted, executor = velocity(EagerExecutor(AffineDecoder(32)), SHAPE, 2), KINDS[kind]()
    given, batch = SHAPE.example(2, CUDA), replaced(SHAPE)
    velocity(executor, SHAPE, 2)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(SLEEP)
        for name, each in batch.tensors().items():
            each.copy_(given.tensors()[name])
        found = velocity(executor, SHAPE, 2, batch)
    torch.cuda.synchronize()
    assert_identical(found, wanted, "velocity")
    executor.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_starts_when_every_stream_has_read_the_velocity_before(kind: str) -> None:
    wanted, executor = velocity(EagerExecutor(AffineDecoder(32)), SHAPE, 2), KINDS[kind]()
    given, other, streams = SHAPE.example(2, CUDA), replaced(SHAPE), [torch.cuda.Stream() for _ in range(2)]
    velocity(executor, SHAPE, 2)
    torch.cuda.synchronize()
    assert executor.stream is not None
    with torch.cuda.stream(streams[0]):
        found = executor.run(given)
        executor.stream.join()
        torch.cuda._sleep(SLEEP)
        kept = found.clone()
    with torch.cuda.stream(streams[1]):
        executor.run(other)
        executor.stream.join()
    torch.cuda.synchronize()
    assert_identical(kept, wanted, "velocity")
    executor.close()


def test_a_graph_that_becomes_garbage_in_a_recording_does_no_harm() -> None:
    """With torch 2.11 this holds without the executor's guard too; CUDA says that such a recording may be lost."""
    wanted = velocity(EagerExecutor(tiny(), pin_rows=2), SHAPE, 2)
    old = [made(tiny(), SHAPE, row_buckets=(1, 2)) for _ in range(3)]
    decoder = tiny()

    def dropping(**inputs: Tensor) -> Tensor:
        first = decoder(**inputs)
        if torch.cuda.is_current_stream_capturing() and old:
            cycle: list[object] = [old.pop()]
            cycle.append(cycle)
            del cycle
            for _ in range(50):  # objects, after which Python would collect
                [].append([[]])
        return first + decoder(**inputs) * 0

    thresholds = gc.get_threshold()
    try:
        gc.set_threshold(1, 1, 1)
        executor = made(dropping, SHAPE, row_buckets=(2,))
    finally:
        gc.set_threshold(*thresholds)
    assert len(old) == 2
    assert_identical(velocity(executor, SHAPE, 2), wanted, "velocity")
    executor.close()


def replaced(shape: Shape) -> Any:
    """A batch of the shape with other values."""
    batch = shape.example(2, CUDA)
    return replace(batch, **{name: torch.zeros_like(each) for name, each in batch.tensors().items()})


def test_shapes_that_come_back_after_an_eviction_make_their_bits_again() -> None:
    shapes = [replace(SHAPE, frames=frames) for frames in (400, 800, 1200)]
    wanted = {shape: velocity(EagerExecutor(tiny(), pin_rows=2), shape, 2) for shape in shapes}
    alone = made(row_buckets=(2,), on_demand=True)
    velocity(alone, shapes[-1], 2)
    executor = made(row_buckets=(2,), on_demand=True, max_bytes=int(alone.stats().nbytes * 1.5))
    alone.close()
    kept: list[Tensor] = []
    for _ in range(3):
        for shape in shapes:
            assert_identical(velocity(executor, shape, 2), wanted[shape], str(shape))
            kept = over(1 << 20)
    assert executor.stats().evicted >= 3 and kept
    executor.close()


def test_another_thread_may_use_the_gpu_while_a_graph_is_recorded() -> None:
    wanted = velocity(EagerExecutor(tiny(), pin_rows=2), SHAPE, 2)
    ended, rounds, raised = threading.Event(), [], []

    def busy() -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                while not ended.is_set():
                    # Memory that CUDA itself must give. It must not wait: `prepare` refuses waits in every thread.
                    torch.cuda.empty_cache()
                    rounds.append(torch.ones(1 << (22 + len(rounds) % 4), device=CUDA).sum())
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(10):
            executor = made(tiny(), SHAPE, row_buckets=(2,))
            assert_identical(velocity(executor, SHAPE, 2), wanted, "velocity")
            executor.close()
    finally:
        ended.set()
        thread.join()
    assert not raised and len(rounds) > 10


CHANNELS = 5
"""Latent channels that no other test has, so that no other test has compiled the kernels for them."""

USES: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "guided": lambda: {"guidance": Guidance(3.0, [prompt(7, 3)], rescale=0.5)},
    "limited": lambda: {"guidance": Guidance(2.0, [prompt(7, 3)], norm_threshold=2.5, momentum=-0.5)},
}


@pytest.mark.parametrize("dcw", [DCW(), DCW("pix")], ids=["haar", "pix"])
def test_no_tick_compiles_a_kernel(dcw: DCW) -> None:
    executor = CudaGraphExecutor(AffineDecoder(E), device=CUDA)
    executor.prepare([Shape(24, 64, CHANNELS, E)])
    before = variants()
    with StreamPipeline(executor, PipelineConfig(depth=3, steps=4, dcw=dcw)) as pipeline:
        for seed, fields in enumerate(USES.values()):
            context = torch.zeros(1, 24, 2 * CHANNELS, device=CUDA)
            pipeline.submit(Request(conditions=[prompt(seed)], context_latents=context, seed=seed, **fields()))
            pipeline.tick()
        assert len(pipeline.drain()) == len(USES)
    assert variants() == before
    executor.close()

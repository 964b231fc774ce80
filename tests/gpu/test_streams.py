"""An executor's own stream, on a real one: nothing is read too early, and the host waits where it says so alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import Finished, StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import CudaStream, EagerExecutor, Executor, StaticExecutor
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import Correct, Drain, Guided, Masked, Script, Submit, Tick, Toward, Wavelets
from harness.parity.compare import assert_identical, difference

CUDA = "cuda"
SLEEP = 200_000_000
"""Clock cycles, about a tenth of a second: far longer than the host takes to launch a tick."""

BUSY = Script(
    (
        Submit(1, guided=Guided(3.0, rescale=0.5), noise_injection=(0.0, 0.2)),
        Tick(),
        Submit(2, source=5, toward=Toward(6, strength=0.5)),
        Submit(3, guided=Guided(2.0, mode="initialize"), masked=Masked(7, every=2, fading=True)),
        Tick(),
        Correct(Wavelets()),
        Drain(),
    ),
    frames=40,
    channels=8,
)


def slow(**inputs: Tensor) -> Tensor:
    torch.cuda._sleep(SLEEP)
    return AffineDecoder()(**inputs)


def static(decoder: Callable[..., Tensor] = slow) -> StaticExecutor:
    return StaticExecutor(decoder, stream=CudaStream(CUDA))


def latents(executor: Executor, switches: Switches, script: Script = BUSY) -> list[Tensor]:
    with StreamPipeline(executor, script.config(switches)) as pipeline:
        return [finished.latent for finished in script.play(pipeline, CUDA)]


@pytest.fixture(name="expected", scope="module")
def _expected() -> list[Tensor]:
    return latents(EagerExecutor(AffineDecoder()), Switches())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("joined", [True, False])
def test_a_slow_run_is_never_read_too_early(expected: list[Tensor], joined: bool, fused: bool) -> None:
    assert_identical(latents(static(), Switches(joined_stream=joined, fused_cfg=fused)), expected, "latents")


def test_without_joining_it_would_be(expected: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaStream, "join", lambda self: None)
    made = latents(static(), Switches(fused_cfg=False))
    # A velocity that is read too early may be anything, and one that is not finite fails its request.
    assert len(made) < len(expected) or any(difference(a, b) for a, b in zip(made, expected, strict=True))


def warm(script: Script, executor: Executor, switches: Switches) -> StreamPipeline:
    """A pipeline with requests in flight whose shapes have buffers already."""
    pipeline = StreamPipeline(executor, script.config(switches))
    props = Props(script, CUDA)
    for submit in (Submit(1, guided=Guided()), Submit(2, guided=Guided())):
        submit.happen(pipeline, props)
    for _ in range(2):
        pipeline.tick()
    torch.cuda.synchronize()
    return pipeline


@pytest.mark.parametrize(("joined", "still_running"), [(True, True), (False, False)])
def test_the_host_waits_for_the_decoder_in_the_plain_twin_alone(joined: bool, still_running: bool) -> None:
    executor = static()
    with warm(Script(steps=8), executor, Switches(joined_stream=joined)) as pipeline:
        pipeline.tick()
        assert (not executor.stream._own.query()) is still_running  # type: ignore[union-attr]
        torch.cuda.synchronize()


def test_two_pipelines_on_two_streams_share_an_executor() -> None:
    """One reads its velocities late: the other's run, on another current stream, must not overwrite them before."""
    executor = static(AffineDecoder())
    script = Script((Submit(1), Submit(2)), steps=3)
    alone = latents(EagerExecutor(AffineDecoder()), Switches(), Script((*script.events, Drain()), steps=3))
    pipelines = [StreamPipeline(executor, script.config()) for _ in range(2)]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    finished: list[list[Finished]] = [[], []]
    torch.cuda.synchronize()
    for pipeline, stream in zip(pipelines, streams, strict=True):
        with torch.cuda.stream(stream):
            script.play(pipeline, CUDA)
    for _ in range(3):
        for number, (pipeline, stream) in enumerate(zip(pipelines, streams, strict=True)):
            with torch.cuda.stream(stream):
                finished[number] += late(pipeline) if number == 0 else pipeline.tick()
    torch.cuda.synchronize()
    for made in finished:
        assert_identical([f.latent for f in made], alone, "latents")


def late(pipeline: StreamPipeline) -> list[Finished]:
    """A tick whose current stream is held up right after it joined the executor's."""
    stream: Any = pipeline.executor.stream
    join = stream.join

    def then_sleep() -> None:
        join()
        torch.cuda._sleep(SLEEP)

    stream.join = then_sleep
    try:
        return pipeline.tick()
    finally:
        stream.join = join

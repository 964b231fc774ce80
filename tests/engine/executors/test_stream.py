from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from harness.engine import Guidance, InvalidInput, PipelineConfig, StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, CudaStream, EagerExecutor, Executor, StaticExecutor
from harness.engine.executors.stream import joiner, run_to_end
from harness.parity.compare import assert_identical
from tests.engine.builders import condition, request
from tests.engine.executors.test_eager import batch
from tests.fakes import LoggedStream


class FakeCuda:
    """Takes the place of torch.cuda and writes down who waits for whom."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = "current"

    def Stream(self, device: Any = None) -> FakeStream:  # noqa: N802 torch's name
        return FakeStream(self.log, "own", device)

    def Event(self) -> FakeEvent:  # noqa: N802 torch's name
        return FakeEvent(self.log)

    def current_stream(self, device: Any = None) -> FakeStream:
        return FakeStream(self.log, self.current, device)

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self.log.append(f"enter {stream.name}")
        yield
        self.log.append(f"leave {stream.name}")


class FakeStream:
    def __init__(self, log: list[str], name: str, device: Any) -> None:
        self.log, self.name, self.device = log, name, device

    def wait_stream(self, other: FakeStream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event: FakeEvent) -> None:
        self.log.append(f"{self.name} waits for the event on {event.recorded_on}")

    def synchronize(self) -> None:
        self.log.append(f"the host waits for {self.name}")


class FakeEvent:
    def __init__(self, log: list[str]) -> None:
        self.log, self.recorded_on = log, "nothing"

    def record(self, stream: FakeStream) -> None:
        self.recorded_on = stream.name


@pytest.fixture(name="cuda")
def _cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(torch, "cuda", fake)
    return fake


def test_a_run_starts_after_what_the_current_stream_holds(cuda: FakeCuda) -> None:
    CudaStream().launch(lambda: cuda.log.append("work"))
    assert cuda.log == ["own waits for current", "enter own", "work", "leave own"]


def test_joining_makes_the_current_stream_wait_by_an_event_and_never_the_host(cuda: FakeCuda) -> None:
    CudaStream().join()
    assert cuda.log == ["current waits for the event on own"]


def test_waiting_makes_the_host_wait(cuda: FakeCuda) -> None:
    CudaStream().wait()
    assert cuda.log == ["the host waits for own"]


@pytest.mark.parametrize("how", ["join", "wait"])
def test_a_run_starts_after_whoever_read_the_last_one_even_on_another_stream(cuda: FakeCuda, how: str) -> None:
    stream = CudaStream()
    cuda.current = "reader"
    getattr(stream, how)()
    cuda.current = "current"
    cuda.log.clear()
    for _ in range(2):
        stream.launch(lambda: None)
    once = ["own waits for current", "own waits for reader", "enter own", "leave own"]
    assert cuda.log == [*once, *(line for line in once if "reader" not in line)]


@pytest.mark.parametrize(("joined", "expected"), [(True, "join"), (False, "wait")])
def test_a_pipeline_joins_or_waits_as_its_switch_says_after_every_run(joined: bool, expected: str) -> None:
    stream = LoggedStream()
    config = PipelineConfig(depth=2, steps=3, switches=Switches(joined_stream=joined, fused_cfg=False))
    with StreamPipeline(StaticExecutor(AffineDecoder(), stream=stream), config) as pipeline:
        pipeline.submit(request(guidance=Guidance(2.0, [condition(9)])))
        pipeline.tick()
        stream.log.clear()
        pipeline.tick()
    assert stream.log == ["launch", expected] * 2


class Wrapper:
    """Forgets the stream of what it wraps."""

    def __init__(self, inner: Executor) -> None:
        self.inner, self.max_rows, self.takes_mask = inner, inner.max_rows, inner.takes_mask

    def run(self, batch: Batch) -> torch.Tensor:
        return self.inner.run(batch)

    def close(self) -> None:
        self.inner.close()


def test_a_wrapper_that_forgets_the_stream_is_no_executor() -> None:
    with pytest.raises(InvalidInput, match="executor.*stream"):
        StreamPipeline(Wrapper(StaticExecutor(AffineDecoder(), stream=LoggedStream())))


def test_an_executor_without_a_stream_of_its_own_needs_no_joining() -> None:
    assert EagerExecutor(AffineDecoder()).stream is StaticExecutor(AffineDecoder()).stream is None
    assert joiner(EagerExecutor(AffineDecoder()), joined=True) is joiner(StaticExecutor(AffineDecoder()), joined=False)


def test_a_run_to_the_end_is_computed() -> None:
    expected = EagerExecutor(AffineDecoder()).run(batch(3))
    assert_identical(run_to_end(StaticExecutor(AffineDecoder(), stream=LoggedStream()), batch(3)), expected)


def test_every_question_is_about_the_gpu_of_the_stream(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    current = cuda.current_stream
    monkeypatch.setattr(cuda, "current_stream", lambda device=None: asked.append(device) or current(device))
    for device in ("cuda:1", None):
        asked.clear()
        stream = CudaStream(device)
        stream.launch(lambda: None)
        stream.join()
        stream.wait()
        stream.launch(lambda: None)
        assert asked
        assert set(asked) == {device}
        stream._own.cuda_stream = "17"
        assert stream.handle == 17


@pytest.mark.parametrize("ways", [("join", "join"), ("wait", "wait"), ("join", "wait"), ("wait", "join")])
def test_a_run_starts_after_all_who_read_the_last_one_and_not_after_the_last_reader_only(
    cuda: FakeCuda, ways: tuple[str, str]
) -> None:
    stream = CudaStream()
    for reader, way in zip(("first", "second"), ways, strict=True):
        cuda.current = reader
        getattr(stream, way)()
    cuda.current = "current"
    cuda.log.clear()
    stream.launch(lambda: None)
    waits = ["own waits for current", "own waits for first", "own waits for second"]
    assert cuda.log == [*waits, "enter own", "leave own"]

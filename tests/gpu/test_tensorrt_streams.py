"""The TensorRT executor on a real stream, with an engine that is a torch decoder launched on the raw handle.

The stand-in finds its tensors by the addresses that it was told, reads the inputs and writes the velocity late: it is
held up on its own stream first. So whatever does not wait for it, or for which it does not wait, shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, CudaStream, EagerExecutor, Executor, StaticExecutor, TensorRTExecutor
from harness.engine.executors.tensorrt.buffers import ALIGNMENT
from harness.engine.switches import SWITCHES
from harness.parity.compare import assert_identical, identical
from harness.parity.proofs.lockstep import run
from tests.engine.executors.tensorrt.fake_tensorrt import FakeRuntime, Made, plan, tiny
from tests.engine.executors.test_eager import batch
from tests.gpu.test_streams import BUSY
from tests.gpu.waits import waiting_is_an_error

CUDA = "cuda:0"
SLEEP = 50_000_000
"""Clock cycles, some 30 ms: far longer than the host takes to launch a run."""

MADE = Made(frames=(1, 40, 64), tokens=(1, 64, 512), encoder_dim=BUSY.encoder_dim)


@contextmanager
def launched_on(handle: int) -> Iterator[None]:
    with torch.cuda.stream(torch.cuda.ExternalStream(handle)):
        torch.cuda._sleep(SLEEP)
        yield


def engine(folder: Path, decoder: Any = None, made: Made = MADE, **options: Any) -> TensorRTExecutor:
    def stream(_tape: object) -> CudaStream:
        return CudaStream(CUDA)

    runtime = FakeRuntime(decoder or AffineDecoder(), device=CUDA, stream=stream, on=launched_on)
    file = plan(folder, made, frames_multiple=1 if decoder is None else 2)
    return TensorRTExecutor(file, runtime=runtime, **options)


@pytest.fixture(name="current", params=["default", "own"])
def _current(request: pytest.FixtureRequest) -> Iterator[str]:
    """The current stream: the default one, which orders itself with some others, or one that does not."""
    with torch.cuda.stream(torch.cuda.default_stream() if request.param == "default" else torch.cuda.Stream()):
        yield request.param
        torch.cuda.synchronize()


def on_gpu(given: Batch) -> Batch:
    return Batch(**{name: tensor.to(CUDA) for name, tensor in given.tensors().items()})


def flipped(given: Batch) -> Batch:
    return Batch(**{name: tensor.flip(0) for name, tensor in given.tensors().items()})


def truth(given: Batch, decoder: Any = None) -> Tensor:
    """What the decoder gives; everything is done when it returns."""
    velocity = EagerExecutor(decoder or AffineDecoder()).run(given).clone()
    torch.cuda.synchronize()
    return velocity


def narrow(rows: int) -> Batch:
    """A batch of the width that the engine takes."""
    given = batch(rows)
    states = given.encoder_hidden_states[:, :, : MADE.encoder_dim]
    return on_gpu(Batch(**{**given.tensors(), "encoder_hidden_states": states}))


@pytest.mark.usefixtures("current")
def test_a_slow_run_is_there_once_it_is_joined(tmp_path: Path) -> None:
    given = narrow(3)
    expected = truth(given)
    executor = engine(tmp_path)
    for _ in range(2):
        velocity = executor.run(given)
        executor.stream.join()
        assert_identical(velocity.clone(), expected)


@pytest.mark.usefixtures("current")
def test_without_joining_it_is_not(tmp_path: Path) -> None:
    """That the stand-in is slow enough to show a missing edge."""
    given = narrow(3)
    expected = truth(given)
    executor = engine(tmp_path)
    executor.run(given)
    executor.stream.wait()
    velocity = executor.run(flipped(given))
    early = velocity.clone()
    executor.stream.join()
    torch.cuda.synchronize()
    assert not identical(early, truth(flipped(given)))
    assert not identical(velocity, expected)


@pytest.mark.usefixtures("current")
def test_inputs_that_are_made_late_are_waited_for(tmp_path: Path) -> None:
    given = narrow(3)
    expected = truth(given)
    executor = engine(tmp_path)
    executor.run(flipped(given))
    executor.stream.join()
    torch.cuda._sleep(2 * SLEEP)
    late = Batch(**{name: tensor.clone() for name, tensor in given.tensors().items()})
    velocity = executor.run(late)
    executor.stream.join()
    assert_identical(velocity.clone(), expected)


@pytest.mark.usefixtures("current")
def test_inputs_that_the_caller_lets_go_are_not_overwritten(tmp_path: Path) -> None:
    """Memory that is freed at once is given out again at once: the executor keeps a batch while a run may read it."""
    given = narrow(3)
    expected = truth(given)
    executor = engine(tmp_path)
    for _ in range(3):
        velocity = executor.run(Batch(**{name: tensor.clone() for name, tensor in given.tensors().items()}))
        kept = [torch.full_like(tensor, 1) for tensor in given.tensors().values()]
        executor.stream.join()
        assert_identical(velocity.clone(), expected)
        del kept


def test_the_next_run_waits_for_whoever_reads_the_last_one_on_another_stream(tmp_path: Path) -> None:
    given, executor = narrow(3), engine(tmp_path)
    expected = truth(given)
    executor.run(given)
    executor.stream.wait()
    reader, other = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(reader):
        velocity = executor.run(given)
        executor.stream.join()
        torch.cuda._sleep(5 * SLEEP)
        read = velocity.clone()
    with torch.cuda.stream(other):
        executor.run(flipped(given))
        executor.stream.join()
    torch.cuda.synchronize()
    assert_identical(read, expected)


@pytest.mark.parametrize("shapes", [1, 8])
@pytest.mark.usefixtures("current")
def test_shapes_that_come_and_go_never_overwrite_a_run(tmp_path: Path, shapes: int) -> None:
    executor = engine(tmp_path, max_shapes=shapes)
    batches = [narrow(rows) for rows in (1, 3, 2, 3, 1)]
    expected = [truth(given) for given in batches]
    read = []
    for given in batches:
        velocity = executor.run(given)
        executor.stream.join()
        read.append(velocity.clone())
    torch.cuda.synchronize()
    assert_identical(read, expected)
    assert executor.shapes == min(shapes, 3)


@pytest.mark.usefixtures("current")
def test_a_close_waits_for_the_run(tmp_path: Path) -> None:
    given = narrow(3)
    expected = truth(given)
    executor = engine(tmp_path)
    velocity = executor.run(given)
    executor.close()
    assert_identical(velocity, expected)


@pytest.mark.usefixtures("current")
def test_a_swap_waits_for_the_run_and_the_new_engine_runs(tmp_path: Path) -> None:
    given = narrow(3)
    expected = truth(given)
    executor = engine(tmp_path)
    velocity = executor.run(given)
    executor.swap(plan(tmp_path, MADE, "other.plan", frames_multiple=1))
    assert_identical(velocity, expected)
    velocity = executor.run(flipped(given))
    executor.stream.join()
    assert_identical(velocity.clone(), truth(flipped(given)))


def test_addresses_are_aligned_and_the_handle_is_no_default_stream(tmp_path: Path) -> None:
    executor = engine(tmp_path)
    executor.run(narrow(3))
    executor.stream.wait()
    runtime: Any = executor._runtime
    addresses = [entry[2] for entry in runtime.tape if entry[0] == "set_tensor_address"]
    assert len(addresses) == 6
    assert {address % ALIGNMENT for address in addresses} == {0}
    assert executor.stream.handle not in (0, torch.cuda.default_stream().cuda_stream)


@pytest.mark.usefixtures("current")
def test_a_run_of_a_known_shape_makes_the_host_wait_for_nothing(tmp_path: Path) -> None:
    given = narrow(3)
    expected = truth(given)
    executor = engine(tmp_path)
    executor.run(given)
    executor.stream.wait()
    with waiting_is_an_error():
        velocity = executor.run(given)
        executor.stream.join()
        still_running = not executor.stream._own.query()  # type: ignore[attr-defined]
    assert still_running
    assert_identical(velocity.clone(), expected)


def static(decoder: Any) -> StaticExecutor:
    return StaticExecutor(decoder, 8, 8, stream=CudaStream(CUDA))


def latents(executor: Executor, switches: Switches) -> list[Tensor]:
    with StreamPipeline(executor, BUSY.config(switches)) as pipeline:
        return [finished.latent for finished in BUSY.play(pipeline, CUDA)]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.usefixtures("current")
def test_a_pipeline_has_the_bits_that_it_has_on_the_static_executor(tmp_path: Path, joined: bool, fused: bool) -> None:
    switches = Switches(joined_stream=joined, fused_cfg=fused)
    expected = latents(static(AffineDecoder()), switches)
    assert_identical(latents(engine(tmp_path, pin_rows=8), switches), expected, "latents")


@pytest.mark.usefixtures("current")
def test_the_transformer_with_an_odd_number_of_frames_has_its_bits(tmp_path: Path) -> None:
    given = on_gpu(batch(3))
    for name in ("hidden_states", "context_latents"):
        given = Batch(**{**given.tensors(), name: given.tensors()[name][:, :9]})
    executor = engine(tmp_path, tiny(CUDA), Made(), pin_rows=8)
    velocity = executor.run(given)
    executor.stream.join()
    expected = static(tiny(CUDA))
    again = expected.run(given)
    joined: Callable[[], None] = expected.stream.join  # type: ignore[union-attr]
    joined()
    assert_identical(velocity.clone(), again.clone())


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_off_equals_on(tmp_path: Path, switch: str) -> None:
    run(BUSY, switch, executor=lambda: engine(tmp_path, pin_rows=8), device=CUDA)

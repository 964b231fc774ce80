"""What the executor of recorded runs keeps, lets go of and counts; and shapes of mixed dtypes."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.errors import ExecutorError, NotPrepared
from harness.engine.executors import Batch, CudaGraphExecutor, EagerExecutor, Shape
from harness.engine.executors import compiled as compiling
from harness.engine.geometry import Geometry
from harness.parity.compare import assert_identical
from tests.engine.executors.test_cuda_graph import CPU, SHAPE, Lost, fresh, made, moved, scaled
from tests.engine.executors.test_eager import batch
from tests.fakes import LoggedStream


class Trained(torch.nn.Module):
    """A decoder whose weights want gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(8, 8)

    def forward(self, **inputs: Tensor) -> Tensor:
        made: Tensor = self.inner(inputs["hidden_states"])
        return made


def test_a_longer_view_at_the_same_address_is_copied() -> None:
    executor, given = made(None, SHAPE, pin_rows=2), batch(2)
    executor.run(Batch(**{name: tensor[:1] for name, tensor in given.tensors().items()}))
    both = Batch(**{name: tensor[:2] for name, tensor in given.tensors().items()})
    assert_identical(executor.run(both), EagerExecutor(AffineDecoder(), pin_rows=2).run(given))


def test_after_a_copy_that_failed_the_new_source_is_not_taken_for_copied() -> None:
    executor, given = made(None, SHAPE), batch(2)
    executor.run(given)
    other = fresh(given, encoder_hidden_states=given.encoder_hidden_states.flip(0))
    with pytest.raises(NotImplementedError):  # before the encoder states are copied
        executor.run(replace(other, hidden_states=other.hidden_states.to("meta")))
    assert_identical(executor.run(other), EagerExecutor(AffineDecoder()).run(other))


def test_a_launched_batch_is_kept_until_the_next_run() -> None:
    executor, given = made(None, SHAPE), batch(2)  # no stream: nothing else holds what was launched
    state = weakref.ref(given.hidden_states)
    executor.run(given)
    del given
    gc.collect()
    assert state() is not None
    executor.run(batch(2))
    gc.collect()
    assert state() is None


def test_a_look_at_the_counts_of_a_lost_gpu_keeps_the_first_error() -> None:
    class Broken(LoggedStream):
        def launch(self, work: Any) -> None:
            raise RuntimeError("CUDA error")

        def wait(self) -> None:
            raise RuntimeError("CUDA error")

    executor = made(None, SHAPE)
    executor.stream, recorder = Broken(), Lost()
    executor._recorder = recorder
    for why in ("the first", "the second"):
        recorder.why = why
        with pytest.raises(ExecutorError, match="the first"):
            executor.run(batch(2))
        recorder.why = "the second"
        assert executor.stats().replays is None


def test_runs_of_bare_count_every_batch() -> None:
    executor = made(None, SHAPE)
    executor.bare([batch(2), batch(1)])(3)
    stats = executor.stats()
    assert (stats.runs, stats.replays) == (8, 8)


def test_a_buffer_that_moves_is_held_and_recorded_anew() -> None:
    class Buffered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factor", torch.ones(8))

        def forward(self, **inputs: Tensor) -> Tensor:
            return inputs["hidden_states"] * self.factor

    decoder = Buffered()
    executor = made(decoder, SHAPE, pin_rows=2)
    executor.update(lambda: setattr(decoder, "factor", torch.ones(8)))  # equal bits at another address
    assert executor.stats().recorded == 2
    assert [each.data_ptr() for each in executor._weights.held] == [decoder.factor.data_ptr()]


def test_a_shape_prepared_in_inference_mode_runs_outside_it_at_once() -> None:
    with torch.inference_mode():
        executor = made(None, SHAPE)
    assert not executor._prepared.runs[0].output.is_inference()
    assert_identical(executor.run(batch(2)), EagerExecutor(AffineDecoder()).run(batch(2)))


def test_weights_of_a_shape_recorded_on_demand_are_held() -> None:
    call = Trained()
    executor = CudaGraphExecutor(call, on_demand=True, device="cpu")  # not `prepare`, which holds them as well
    executor.run(batch(2))
    assert len(executor._weights.held) == 2


def test_an_update_that_raises_is_followed_by_new_recordings_and_holds_the_new_weights() -> None:
    decoder, executor = scaled()

    def half() -> None:
        moved(decoder)
        raise OSError

    with pytest.raises(OSError):
        executor.update(half)
    assert executor.stats().recorded == 4
    assert [each.data_ptr() for each in executor._weights.held] == [decoder.weight.data_ptr()]


def test_a_closed_executor_lets_go_of_batch_and_sources() -> None:
    executor, given = made(None, SHAPE), batch(2)
    held = [weakref.ref(tensor) for tensor in given.tensors().values()]
    executor.run(given)
    runs = executor._prepared.runs  # as a benchmark may keep them
    executor.close()
    del given
    gc.collect()
    assert [each() for each in held] == [None] * 5
    assert len(runs) == 4


def test_an_update_leaves_no_graph_of_gradients() -> None:
    call = Trained()
    executor = made(call, SHAPE, pin_rows=2)
    executor.update(lambda: None)
    assert not executor._prepared.runs[0].output.requires_grad


@pytest.mark.parametrize("mixed", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_a_shape_of_mixed_dtypes_is_the_prepared_one(mixed: tuple[torch.dtype, torch.dtype]) -> None:
    geometry = Geometry(6, 32, mixed[0], 8, mixed[1], CPU, False)
    geometry.check_prepared(made(None, replace(SHAPE, encoder_dtype=mixed[0], context_dtype=mixed[1])), 10)
    with pytest.raises(NotPrepared):
        geometry.check_prepared(made(None, replace(SHAPE, encoder_dtype=mixed[1], context_dtype=mixed[0])), 10)


def test_layers_are_copies_that_share_every_weight() -> None:
    decoder = AceStepDecoder.preset("tiny")
    layers, seen = list(decoder.transformer.layers), []
    twin = decoder.with_layers(seen.append)
    assert list(decoder.transformer.layers) == layers and list(twin.transformer.layers) == seen
    assert not {id(each) for each in layers} & {id(each) for each in seen}
    assert [p.data_ptr() for p in twin.parameters()] == [p.data_ptr() for p in decoder.parameters()]
    inputs = Shape.of_decoder(decoder, 8, 5).example(2, CPU).tensors()
    assert_identical(twin(**inputs), decoder(**inputs))


def test_more_shapes_than_torch_s_own_default_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **_: real(call, fullgraph=True, dynamic=False, backend="eager"))
    run = compiling.compiled(lambda **inputs: inputs["hidden_states"] + 1)
    for length in range(1, 12):
        assert run(hidden_states=torch.zeros(length)).sum() == length

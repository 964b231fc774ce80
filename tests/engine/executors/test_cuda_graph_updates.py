"""What an update of the weights reaches, whatever changed and whatever was run last; and modes of the caller."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from harness.engine.decoders import AceStepDecoder
from harness.engine.errors import InvalidInput, NotPrepared, RecordingFailed
from harness.engine.executors import CudaGraphExecutor, Shape
from harness.engine.executors import compiled as compiling
from harness.parity.compare import assert_identical
from tests.engine.executors.test_cuda_graph import CPU, LONGER, SHAPE, Scaled, a_number, made, moved, scaled
from tests.engine.executors.test_eager import batch


@pytest.mark.parametrize("add", ["child of the transformer", "child of a layer"])
def test_an_update_that_replaces_a_module_reaches_compiled_layers(add: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def layer(each: nn.Module) -> None:
        each.compile(fullgraph=True, dynamic=False, backend="eager")

    monkeypatch.setattr(compiling, "_compiled_layer", layer)
    decoder = AceStepDecoder.preset("tiny")
    shape = Shape.of_decoder(decoder, 8, 5)
    executor = made(decoder, shape, pin_rows=2, compiled=True)

    class Lora(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.base(x) * 1.5
            return made

    t = decoder.transformer
    owner, name = (t, "proj_out_conv") if "transformer" in add else (t.layers[0], "mlp")
    executor.update(lambda: setattr(owner, name, Lora(getattr(owner, name))))
    given = shape.example(2, CPU)
    with torch.no_grad():
        assert_identical(executor.run(given), decoder(**given.tensors()))


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_an_update_is_seen_whatever_was_run_last(value: float) -> None:
    decoder, executor = scaled()
    for rows in (2, 4):
        executor.run(replace(batch(rows), hidden_states=torch.full_like(batch(rows).hidden_states, value)))
    executor.update(lambda: a_number(decoder))
    assert_identical(executor.run(batch(2)), batch(2).hidden_states * 3)


def test_an_update_after_which_the_decoder_fails_leaves_no_old_graphs() -> None:
    decoder, executor = scaled()

    class Broken(Scaled):
        def forward(self, **_inputs: Tensor) -> Tensor:
            raise RuntimeError("broken")

    with pytest.raises(RecordingFailed, match="broken"):
        executor.update(lambda: setattr(decoder, "__class__", Broken))
    with pytest.raises(NotPrepared):
        executor.check_shape(SHAPE)
    assert executor._weights.held


def test_a_shape_prepared_after_weights_moved_holds_the_weights_it_reads() -> None:
    decoder, executor = scaled()
    first = decoder.weight.data_ptr()
    moved(decoder)
    executor.prepare([LONGER])
    assert {each.data_ptr() for each in executor._weights.held} == {first, decoder.weight.data_ptr()}


def test_a_quantized_weight_that_moves_is_noticed() -> None:
    decoder = Scaled()

    def exchange() -> None:
        decoder.weight = nn.Parameter(TwoTensor(torch.ones(8), torch.ones(8)), requires_grad=False)

    exchange()
    executor = CudaGraphExecutor(decoder, device="cpu")
    before, kept = executor._weights.addresses(), decoder.weight
    exchange()
    assert before != executor._weights.addresses() and kept is not decoder.weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torch_s_default_dtype_does_not_matter(dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        executor = made(None, SHAPE)
        assert executor._prepared.runs[0].inputs.timestep.dtype == torch.float32
        assert executor.run(batch(2)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_caller_s_modes_do_not_matter() -> None:
    class Trained(nn.Linear):
        def forward(self, **inputs: Tensor) -> Tensor:
            return super().forward(inputs["hidden_states"])

    executor = made(Trained(8, 8), SHAPE)
    plain = executor.run(batch(2)).clone()
    assert not plain.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_identical(executor.run(batch(2)), plain)


def test_a_shape_that_cannot_fit_evicts_nothing() -> None:
    one = made(None, SHAPE, pin_rows=1).stats().nbytes
    executor = made(None, pin_rows=1, on_demand=True, max_bytes=3 * one)
    executor.run(SHAPE.example(1, CPU))
    with pytest.raises(InvalidInput, match="max_bytes"):
        executor.run(replace(SHAPE, frames=1000).example(1, CPU))
    assert executor._prepared.shapes == (SHAPE,)


def test_a_shape_that_cannot_fit_beside_what_was_prepared_evicts_nothing() -> None:
    larger, smaller = replace(SHAPE, frames=40), replace(SHAPE, frames=11)
    executor = made(None, SHAPE, pin_rows=1, on_demand=True, max_bytes=made(None, larger, pin_rows=1).stats().nbytes)
    executor.run(smaller.example(1, CPU))
    with pytest.raises(InvalidInput, match="max_bytes"):
        executor.run(larger.example(1, CPU))
    assert executor._prepared.shapes == (SHAPE, smaller)


def test_a_shape_that_is_asked_for_makes_no_room_for_another_one() -> None:
    asked, other, new = (replace(SHAPE, frames=10 + each) for each in range(3))
    one = made(None, new, pin_rows=1).stats().nbytes
    executor = made(None, pin_rows=1, on_demand=True, max_bytes=2 * one)
    for each in (asked, other):
        executor.run(each.example(1, CPU))
    executor.prepare([asked, new])
    assert executor._prepared.shapes == (asked, new)


def test_inputs_that_runs_left_as_they_were_are_counted_after_their_graph_was_freed() -> None:
    executor, given = made(None, SHAPE, pin_rows=1), SHAPE.example(1, CPU)
    for _ in range(2):
        executor.run(given)
    before = executor.stats()
    executor.close()
    after = executor.stats()
    assert (after.copied, after.kept) == (before.copied, before.kept) == (7, 3)


def test_more_shapes_than_torch_s_accumulated_limit_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **_: real(call, fullgraph=True, dynamic=False, backend="eager"))
    run = compiling.compiled(lambda **inputs: inputs["hidden_states"] + 2)
    with torch._dynamo.config.patch(accumulated_recompile_limit=3):  # not monkeypatch, which removes the option
        for length in range(1, 8):
            run(hidden_states=torch.zeros(length))


def test_a_failed_update_holds_the_weights_of_what_stays() -> None:
    decoder = Scaled()
    executor = made(decoder, SHAPE, pin_rows=2, on_demand=True)
    executor.run(LONGER.example(2, CPU))

    class Picky(Scaled):
        def forward(self, **inputs: Tensor) -> Tensor:
            if inputs["hidden_states"].shape[1] == 20:
                raise RuntimeError("no")
            return super().forward(**inputs)

    def change() -> None:
        decoder.__class__ = Picky
        moved(decoder)

    with pytest.raises(RecordingFailed):
        executor.update(change)
    assert [each.data_ptr() for each in executor._weights.held] == [decoder.weight.data_ptr()]

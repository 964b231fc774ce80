from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from harness.engine import BatchTooLarge, ExecutorError, InvalidInput, PipelineClosed
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.executors import Batch, EagerExecutor, Executor, StaticExecutor
from harness.parity.compare import assert_identical
from tests.engine.executors.test_eager import batch
from tests.fakes import LoggedStream


def decoders() -> list[AffineDecoder | AceStepDecoder]:
    return [AffineDecoder(), AceStepDecoder.preset("tiny", 0)]


def longer(rows: int) -> Batch:
    tensors = batch(rows).tensors()
    for name in ("hidden_states", "context_latents"):
        tensors[name] = torch.cat([tensors[name], tensors[name]], dim=1)
    return Batch(**tensors)


@pytest.mark.parametrize("decoder", decoders(), ids=["affine", "tiny"])
@pytest.mark.parametrize("pin_rows", [None, 8])
def test_it_has_the_bits_of_the_eager_executor(decoder: AffineDecoder | AceStepDecoder, pin_rows: int | None) -> None:
    eager, static = (kind(decoder, 8, pin_rows) for kind in (EagerExecutor, StaticExecutor))
    for rows in (3, 8, 1, 3):
        assert_identical(static.run(batch(rows)), eager.run(batch(rows)))


def test_it_is_an_executor() -> None:
    assert isinstance(StaticExecutor(AffineDecoder()), Executor)


def test_a_velocity_that_was_not_copied_is_overwritten_by_the_next_run_of_its_shape() -> None:
    static = StaticExecutor(AffineDecoder())
    first = static.run(batch(2))
    second = static.run(Batch(**{name: tensor.flip(0) for name, tensor in batch(2).tensors().items()}))
    assert first.data_ptr() == second.data_ptr()
    assert_identical(first, second)


def test_a_velocity_that_was_not_copied_is_poisoned_by_the_next_run_of_another_shape() -> None:
    static = StaticExecutor(AffineDecoder())
    first = static.run(batch(2))
    static.run(batch(3))
    assert first.isnan().all()


def test_a_velocity_may_be_the_input_of_the_next_run() -> None:
    static, eager, given = StaticExecutor(AffineDecoder()), EagerExecutor(AffineDecoder()), batch(2)
    expected = eager.run(replace(given, hidden_states=eager.run(given)))
    assert_identical(static.run(replace(given, hidden_states=static.run(given))), expected)


def test_an_output_is_poisoned_before_each_run() -> None:
    seen: list[Tensor] = []

    def decoder(**inputs: Tensor) -> Tensor:
        seen.extend(each.output.clone() for each in static._buffers.values())
        return inputs["hidden_states"]

    static = StaticExecutor(decoder)
    for _ in range(2):
        static.run(batch(2))
    assert [bool(output.isnan().all()) for output in seen] == [True, True]


@pytest.mark.parametrize("pin_rows", [None, 4])
def test_the_decoder_always_reads_the_same_memory(pin_rows: int | None) -> None:
    pointers = set()

    def decoder(**inputs: Tensor) -> Tensor:
        pointers.add(tuple(tensor.data_ptr() for tensor in inputs.values()))
        return inputs["hidden_states"]

    static = StaticExecutor(decoder, pin_rows=pin_rows)
    static.run(batch(2))
    pointers.clear()
    kept = [batch(2) for _ in range(3)]
    for each in kept:
        static.run(each)
    assert len(pointers) == 1


def test_with_pinned_rows_every_number_of_rows_is_one_shape() -> None:
    static = StaticExecutor(AffineDecoder(), pin_rows=4)
    for rows in (1, 2, 3, 4):
        assert_identical(static.run(batch(rows)), EagerExecutor(AffineDecoder()).run(batch(rows)))
    assert static.shapes == 1


def test_a_velocity_is_poisoned_when_its_buffer_is_evicted() -> None:
    static = StaticExecutor(AffineDecoder(), max_shapes=1)
    first = static.run(batch(2))
    static.run(batch(3))
    assert first.isnan().all()


@pytest.mark.parametrize("change", ["dtype", "rows"])
def test_an_output_unlike_the_first_is_refused(change: str) -> None:
    calls = []

    def decoder(**inputs: Tensor) -> Tensor:
        calls.append(1)
        out = inputs["hidden_states"] * 1
        if len(calls) < 3:
            return out
        return out.half() if change == "dtype" else out[:1]

    static = StaticExecutor(decoder)
    static.run(batch(2))
    with pytest.raises(ExecutorError, match="the decoder returned a torch.float"):
        static.run(batch(2))


def test_buffers_made_in_inference_mode_serve_outside_it() -> None:
    static = StaticExecutor(AffineDecoder())
    with torch.inference_mode():
        static.run(batch(2))
    assert_identical(static.run(batch(2)), EagerExecutor(AffineDecoder()).run(batch(2)))


def test_a_close_that_fails_still_closes() -> None:
    class Failing(LoggedStream):
        def wait(self) -> None:
            if self.failing:
                raise MemoryError("out of memory")
            super().wait()

    stream = Failing()
    stream.failing = False
    static = StaticExecutor(AffineDecoder(), stream=stream)
    static.run(batch(2))
    stream.failing = True
    with pytest.raises(MemoryError):
        static.close()
    assert static.shapes == 0
    with pytest.raises(PipelineClosed):
        static.run(batch(2))


def test_inputs_are_never_written_to_and_never_kept() -> None:
    given = batch(3)
    copies = {name: tensor.clone() for name, tensor in given.tensors().items()}
    static = StaticExecutor(AffineDecoder())
    out = static.run(given).clone()
    assert_identical(given.tensors(), copies)
    for tensor in given.tensors().values():
        tensor.zero_()
    assert_identical(static.run(Batch(**copies)), out)


def test_the_shape_used_longest_ago_loses_its_buffers() -> None:
    static = StaticExecutor(AffineDecoder(), max_shapes=2)
    kept = static.run(batch(1)).data_ptr()
    static.run(batch(2))
    static.run(batch(1))
    static.run(batch(3))
    assert static.shapes == 2
    assert static.run(batch(1)).data_ptr() == kept


def test_length_and_dtype_are_part_of_the_shape() -> None:
    static = StaticExecutor(AffineDecoder())
    half = Batch(**{**batch(2).tensors(), "context_latents": batch(2).context_latents.half()})
    for each in (batch(2), longer(2), half):
        assert_identical(static.run(each), EagerExecutor(AffineDecoder()).run(each))
    assert static.shapes == 3


# A new shape: drained, its buffers made on the executor's own stream, drained again, and then the run itself.
MAKES_BUFFERS = ["wait", "launch", "wait", "launch"]


@pytest.mark.parametrize("max_shapes", [8, 1], ids=["new shape", "eviction"])
def test_buffers_are_made_and_freed_only_when_no_run_uses_them(max_shapes: int) -> None:
    stream = LoggedStream()
    static = StaticExecutor(AffineDecoder(), max_shapes=max_shapes, stream=stream)
    for rows in (2, 3):
        static.run(batch(rows))
        assert stream.log == MAKES_BUFFERS
        assert stream.pending == 1
        stream.log.clear()


def test_where_memory_is_out_the_buffers_are_freed_only_when_no_run_uses_them() -> None:
    class Full(LoggedStream):
        full = False

        def launch(self, work: Callable[[], None]) -> None:
            if self.full:
                self.full = False
                raise MemoryError("out of memory")
            super().launch(work)

    stream = Full()
    static = StaticExecutor(AffineDecoder(), stream=stream)
    static.run(batch(2))
    stream.log.clear()
    stream.full = True
    static.run(batch(2))
    assert stream.log == ["wait", *MAKES_BUFFERS]


def test_closing_waits_for_the_run_that_uses_the_buffers() -> None:
    stream = LoggedStream()
    static = StaticExecutor(AffineDecoder(), stream=stream)
    out = static.run(batch(2))
    static.close()
    assert_identical(out, EagerExecutor(AffineDecoder()).run(batch(2)))


def test_a_run_on_a_stream_of_its_own_is_there_once_it_is_joined() -> None:
    stream = LoggedStream()
    static = StaticExecutor(AffineDecoder(), stream=stream)
    static.run(batch(2))
    stream.join()
    out = static.run(longer(2))
    stream.join()
    assert_identical(out, EagerExecutor(AffineDecoder()).run(longer(2)))


def test_more_rows_than_allowed_and_a_closed_executor_are_refused() -> None:
    static = StaticExecutor(AffineDecoder(), max_rows=2)
    with pytest.raises(BatchTooLarge, match="3 rows"):
        static.run(batch(3))
    static.close()
    static.close()
    with pytest.raises(PipelineClosed):
        static.run(batch(1))


def test_pinned_rows_bound_the_rows_of_a_run_and_shapes_are_counted() -> None:
    assert StaticExecutor(AffineDecoder(), pin_rows=4).max_rows == 4
    with pytest.raises(InvalidInput, match="max_shapes"):
        StaticExecutor(AffineDecoder(), max_shapes=0)


def test_the_defaults_are_those_of_the_reference() -> None:
    static, eager = StaticExecutor(AffineDecoder()), EagerExecutor(AffineDecoder())
    assert static.max_rows == eager.max_rows == 8
    for given in (*(batch(rows) for rows in range(1, 9)), longer(1)):
        static.run(given)
    assert static.shapes == 8


def test_a_decoder_without_a_mask_is_called_without_it() -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        assert "encoder_mask" not in inputs
        return inputs["hidden_states"]

    decoder.takes_mask = False
    assert not StaticExecutor(decoder).takes_mask
    assert_identical(StaticExecutor(decoder).run(batch(2)), batch(2).hidden_states)


class Immediate:
    """A stream that begins every launch at once and may read its inputs later, as a GPU does."""

    def launch(self, work: Callable[[], None]) -> None:
        work()

    def join(self) -> None:
        pass

    wait = join


@pytest.mark.parametrize("pin_rows", [None, 4])
def test_a_batch_is_kept_until_the_next_run_or_the_end(pin_rows: int | None) -> None:
    """A run on another stream may still read it when nobody else has it."""
    static = StaticExecutor(AffineDecoder(), 4, pin_rows, stream=Immediate())
    alive = []
    for ends in (static.run, static.run, lambda _batch: static.close()):
        given = batch(3)
        ends(given)
        alive.append([weakref.ref(tensor) for tensor in given.tensors().values()])
        del given
        # With pinned rows it is the padded batch that is read.
        assert [ref() is not None for refs in alive for ref in refs].count(True) == (
            5 if pin_rows is None and not static._eager._closed else 0
        )
        assert (static._running is None) is static._eager._closed
        assert static._running is None or static._running.rows == (pin_rows or 3)


def test_inputs_are_copied_to_buffers_on_their_own_device() -> None:
    seen: list[str] = []

    def decoder(**inputs: Tensor) -> Tensor:
        seen.extend(str(tensor.device) for tensor in inputs.values())
        return inputs["hidden_states"]

    meta = Batch(**{name: tensor.to("meta") for name, tensor in batch(2).tensors().items()})
    assert StaticExecutor(decoder).run(meta).device.type == "meta"
    assert set(seen) == {"meta"}


def test_a_stream_on_which_nothing_is_pending_is_a_stream_all_the_same() -> None:
    class Falsy(LoggedStream):
        def __len__(self) -> int:
            return self.pending

    stream = Falsy()
    static = StaticExecutor(AffineDecoder(), stream=stream)
    static.close()
    assert stream.log == ["wait"]


def test_a_dtype_of_each_single_input_is_a_shape_of_its_own() -> None:
    seen: list[list[torch.dtype]] = []

    def decoder(**inputs: Tensor) -> Tensor:
        seen.append([tensor.dtype for tensor in inputs.values()])
        return AffineDecoder()(**inputs)

    static, tensors = StaticExecutor(decoder), batch(2).tensors()
    static.run(batch(2))
    for shapes, name in enumerate(tensors, start=2):
        other = torch.int64 if name == "encoder_mask" else torch.float64
        given = Batch(**{**tensors, name: tensors[name].to(other)})
        assert_identical(static.run(given), EagerExecutor(AffineDecoder()).run(given))
        assert seen[-1] == [tensor.dtype for tensor in given.tensors().values()]
        assert static.shapes == shapes


def test_the_same_sizes_on_another_device_are_a_shape_of_their_own() -> None:
    static = StaticExecutor(lambda **inputs: inputs["hidden_states"] * 1)
    meta = Batch(**{name: tensor.to("meta") for name, tensor in batch(2).tensors().items()})
    for given in (batch(2), meta, batch(2)):
        assert static.run(given).device == given.hidden_states.device
    assert static.shapes == 2


def test_buffers_are_contiguous_whatever_the_strides_of_the_first_batch() -> None:
    seen: list[bool] = []

    def decoder(**inputs: Tensor) -> Tensor:
        seen.extend(tensor.is_contiguous() for tensor in inputs.values())
        return AffineDecoder()(**inputs)

    strided = {name: t.transpose(0, -1).contiguous().transpose(0, -1) for name, t in batch(3).tensors().items()}
    static = StaticExecutor(decoder)
    static.run(Batch(**strided))
    seen.clear()
    assert_identical(static.run(Batch(**strided)), EagerExecutor(AffineDecoder()).run(batch(3)))
    assert seen == [True] * 5


def test_an_output_unlike_the_first_is_described_beside_it_and_no_velocity_is_left() -> None:
    static = StaticExecutor(AffineDecoder())
    first = static.run(batch(2))
    static._eager.decoder = lambda **inputs: inputs["hidden_states"].half()[:, :3]
    with pytest.raises(ExecutorError) as refused:
        static.run(batch(2))
    assert str(refused.value) == (
        "the decoder returned a torch.float16 tensor of [2, 3, 8] for rows of [2, 10, 8], "
        "expected a torch.float32 tensor"
    )
    assert first.isnan().all()


@pytest.mark.parametrize("name", ["hidden_states", "timestep", "encoder_hidden_states", "context_latents"])
def test_an_input_with_gradients_leaves_none_in_the_buffers(name: str) -> None:
    static, tensors = StaticExecutor(AffineDecoder()), batch(2).tensors()
    given = Batch(**{**tensors, name: tensors[name].clone().requires_grad_()})
    for _ in range(2):
        assert not static.run(given).requires_grad
    (buffers,) = static._buffers.values()
    assert not any(tensor.requires_grad for tensor in buffers.inputs.tensors().values())
    assert_identical(static.run(batch(2)), EagerExecutor(AffineDecoder()).run(batch(2)))

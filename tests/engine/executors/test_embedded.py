"""Decoders that compute ahead what depends on a condition alone: recorded runs embed it once for each change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.engine import StreamPipeline
from harness.engine.decoders import AceStepDecoder
from harness.engine.decoders.accelerated import accelerated
from harness.engine.decoders.decoder_switches import ALL, PLAIN
from harness.engine.errors import RecordingFailed
from harness.engine.executors import Batch, CudaGraphExecutor, EagerExecutor, Shape
from harness.engine.executors.recorded import HostRecorder
from harness.parity.battery.scripts import Drain, Guided, Script, Submit, Text, Tick
from harness.parity.compare import assert_identical
from tests.engine.executors.test_cuda_graph import CPU, SHAPE, fresh, made
from tests.engine.executors.test_eager import batch


class Keeping(nn.Module):
    """A decoder whose conditions are twice as wide as encoder states, and depend on a weight."""

    keeps_condition = True

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor), requires_grad=False)
        self.embedded: list[int] = []
        self.taken: list[int] = []

    def condition(self, encoder_hidden_states: Tensor) -> Tensor:
        self.embedded.append(len(encoder_hidden_states))
        return torch.cat([self.times_factor(encoder_hidden_states), encoder_hidden_states], -1)

    def times_factor(self, states: Tensor) -> Tensor:
        """A product of matrices, which autocast would compute in another dtype."""
        return states @ (torch.eye(states.shape[-1]) * self.factor)

    def forward(self, **inputs: Tensor) -> Tensor:
        states = inputs["encoder_hidden_states"]
        self.taken.append(states.shape[-1])
        if states.shape[-1] == SHAPE.encoder_dim:
            states = torch.cat([self.times_factor(states), states], -1)
        return inputs["hidden_states"] * states.mean(dim=(1, 2))[:, None, None]


def ready(**options: int) -> tuple[Keeping, CudaGraphExecutor]:
    decoder = Keeping()
    executor = made(decoder, SHAPE, **options)
    decoder.embedded.clear()
    decoder.taken.clear()
    return decoder, executor


def plain(given: Batch, factor: float = 2.0) -> Tensor:
    return EagerExecutor(Keeping(factor)).run(given)


def test_a_condition_is_embedded_once_and_the_decoder_takes_it_in_place_of_the_states() -> None:
    decoder, executor = ready()
    given = batch(2)
    for each in (given, fresh(given), fresh(fresh(given))):
        assert_identical(executor.run(each), plain(each))
    assert decoder.embedded == [2]
    assert set(decoder.taken) == {2 * SHAPE.encoder_dim}


def test_it_is_embedded_with_the_rows_of_the_recorded_run() -> None:
    """With the rows that were given, a row's bits could depend on their number, within one bucket."""
    decoder, executor = ready()
    for rows in (3, 1, 4, 2, 7):
        assert_identical(executor.run(batch(rows)), plain(batch(rows)))
    assert decoder.embedded == [4, 1, 4, 2, 8]


@pytest.mark.parametrize("change", ["another tensor", "a write"])
def test_it_is_embedded_again_where_the_states_changed_and_only_there(change: str) -> None:
    decoder, executor = ready()
    given = batch(2)
    executor.run(given)
    executor.run(fresh(given, encoder_mask=given.encoder_mask.clone(), context_latents=given.context_latents + 1))
    assert decoder.embedded == [2]
    if change == "a write":
        given.encoder_hidden_states.mul_(3)
        other = fresh(given)
    else:
        other = fresh(given, encoder_hidden_states=given.encoder_hidden_states * 3)
    assert_identical(executor.run(other), plain(other))
    assert decoder.embedded == [2, 2]


@pytest.mark.parametrize("moved", [False, True])
def test_after_an_update_no_condition_of_the_old_weights_is_read(moved: bool) -> None:
    decoder, executor = ready()
    given = batch(2)
    executor.run(given)

    def change() -> None:
        if moved:
            decoder.factor.data = torch.tensor(5.0)
        else:
            decoder.factor.fill_(5.0)

    executor.update(change)
    assert_identical(executor.run(given), plain(given, 5.0))


def test_a_condition_that_changes_from_call_to_call_is_refused_where_it_is_recorded() -> None:
    class Counting(Keeping):
        def condition(self, encoder_hidden_states: Tensor) -> Tensor:
            return super().condition(encoder_hidden_states) + len(self.embedded)

    executor = CudaGraphExecutor(Counting(), pin_rows=2, device="cpu")
    marked = executor._prepared._recorder = executor._recorder = Marked(executor._recorder)
    with pytest.raises(RecordingFailed, match="embeds encoder states in other bits"):
        executor.prepare([SHAPE])
    assert (len(marked.replayed), marked.freed) == (1, 1)


def test_a_recorded_embedding_that_makes_nothing_is_refused_though_its_conditions_are_there_already() -> None:
    class Idle(HostRecorder):
        def record(self, call: Callable[[], None], pool: Any) -> Any:  # noqa: ARG002 - nothing of it is recorded
            return super().record(lambda: None, pool)

    executor = CudaGraphExecutor(Keeping(), pin_rows=2, device="cpu")
    executor._prepared._recorder = executor._recorder = Idle()
    with pytest.raises(RecordingFailed, match="embeds encoder states in other bits"):
        executor.prepare([SHAPE])


class Marked:
    """A recorder that marks what the replays of its recordings make, so that nothing else can have made it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.freed = 0
        self.replayed: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def record(self, call: Callable[[], None], pool: Any) -> Any:
        number, recording, outer = len(self.replayed), self.inner.record(call, pool), self
        self.replayed.append(0)

        class Noted:
            def replay(self) -> None:
                outer.replayed[number] += 1
                recording.replay()

            def reset(self) -> None:
                outer.freed += 1
                recording.reset()

        return Noted()


def test_conditions_are_embedded_by_recordings_of_their_own_and_these_are_freed_too() -> None:
    executor = CudaGraphExecutor(Keeping(), pin_rows=2, device="cpu")
    marked = executor._prepared._recorder = executor._recorder = Marked(executor._recorder)
    executor.prepare([SHAPE])
    before = list(marked.replayed)
    given = batch(2)
    executor.run(given)
    executor.run(given)
    executor.run(fresh(given, encoder_hidden_states=given.encoder_hidden_states * 3))
    assert [now - then for now, then in zip(marked.replayed, before, strict=True)] == [2, 3]
    executor.close()
    assert marked.freed == 2


def test_after_an_update_a_recorded_embedding_that_reads_old_memory_is_recorded_anew() -> None:
    """The weight that the condition reads is no weight of the module, so that its address says nothing."""

    class Hidden(Keeping):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [torch.tensor(2.0)]

        def condition(self, encoder_hidden_states: Tensor) -> Tensor:
            return torch.cat([encoder_hidden_states * self.hidden[0], encoder_hidden_states], -1)

    class AtItsAddress(HostRecorder):
        """As a graph: a replay reads the memory that the recording read."""

        def record(self, call: Callable[[], None], pool: Any) -> Any:
            recording, read = super().record(call, pool), decoder.hidden[0]

            class Fixed:
                def replay(self) -> None:
                    now, decoder.hidden[0] = decoder.hidden[0], read
                    recording.replay()
                    decoder.hidden[0] = now

                def reset(self) -> None:
                    recording.reset()

            return Fixed()

    decoder = Hidden()
    executor = CudaGraphExecutor(decoder, pin_rows=2, device="cpu")
    executor._prepared._recorder = executor._recorder = AtItsAddress()
    executor.prepare([SHAPE])
    given = batch(2)
    assert_identical(executor.run(given), plain(given))
    executor.update(lambda: decoder.hidden.__setitem__(0, torch.tensor(5.0)))
    assert_identical(executor.run(given), plain(given, 5.0))


def test_the_bytes_of_states_and_conditions_are_both_reported() -> None:
    _decoder, keeping = ready(pin_rows=4)
    without = made(None, SHAPE, pin_rows=4)
    wide = 4 * SHAPE.tokens * 2 * SHAPE.encoder_dim * 4
    assert keeping.stats().nbytes == without.stats().nbytes + wide


def test_the_caller_s_modes_change_no_condition() -> None:
    _decoder, executor = ready()
    given = batch(2)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = executor.run(given)
    assert_identical(found, plain(given))


SCRIPT = Script(
    (
        Submit(1, texts=(Text(1, 5),), guided=Guided(3.0)),
        Tick(),
        Submit(2, texts=(Text(2, 7),)),
        Tick(),
        Submit(3, texts=(Text(1, 5), Text(3, 4)), guided=Guided(2.0, mode="initialize")),
        Drain(),
    ),
    depth=3,
    steps=4,
    encoder_length=7,
    frames=26,
    channels=8,
    encoder_dim=32,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_ring_over_kept_conditions_makes_the_bits_of_diffusers_forward(dtype: torch.dtype) -> None:
    """On a CPU this acceleration alone is exact."""
    decoder = AceStepDecoder.preset("tiny", 0, dtype=dtype)
    shape = replace(Shape.of_decoder(decoder, SCRIPT.frames, 7))
    latents = []
    for executor in (
        EagerExecutor(decoder, pin_rows=8),
        made(accelerated(decoder, PLAIN.turned_on("kept_condition")), shape, pin_rows=8),
    ):
        with StreamPipeline(executor, SCRIPT.config()) as pipeline:
            latents.append([each.latent for each in SCRIPT.play(pipeline)])
    assert len(latents[0]) == 3
    assert_identical(latents[1], latents[0])


def test_a_recorded_run_of_all_accelerations_is_the_decoder_s_own() -> None:
    decoder = accelerated(AceStepDecoder.preset("tiny", 0), ALL)
    shape = Shape(26, 7, 8, 32)
    given = shape.example(2, CPU)
    with torch.no_grad():
        assert_identical(made(decoder, shape, pin_rows=2).run(given), decoder(**given.tensors()))

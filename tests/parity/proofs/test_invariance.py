"""The probe finds what a decoder's rows depend on, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import registry
from harness.engine.decoders import AffineDecoder
from harness.engine.errors import OutsideProfile
from harness.engine.executors import Batch, EagerExecutor, StaticExecutor
from harness.engine.noise import Purpose, noise
from harness.parity.compare import assert_identical
from harness.parity.proofs import invariance
from harness.parity.proofs.invariance import LENGTH, Property, Rows, Subject, measure

PURE = AffineDecoder(16)
ROWS = Rows(4, 16, 6, torch.device("cpu"))
CALLS: list[int] = []


def unpadded(**inputs: Tensor) -> Tensor:
    """Row-pure, and blind to how much padding there is."""
    states, mask = inputs.pop("encoder_hidden_states")[:, :64], inputs.pop("encoder_mask")[:, :64]
    return PURE(encoder_hidden_states=states, encoder_mask=mask, **inputs)


def by_count(**inputs: Tensor) -> Tensor:
    out = unpadded(**inputs)
    return out * (1.0 + 1e-6 * out.shape[0])


def by_place(**inputs: Tensor) -> Tensor:
    out = unpadded(**inputs)
    return out * (1.0 + 1e-6 * torch.arange(out.shape[0]).view(-1, 1, 1))


def by_neighbours(**inputs: Tensor) -> Tensor:
    out = unpadded(**inputs)
    return out * (1.0 + 1e-6 * out.abs().mean())


def by_history(**inputs: Tensor) -> Tensor:
    CALLS.append(1)
    return unpadded(**inputs) * (1.0 + 1e-6 * (len(CALLS) % 7))


def by_the_last_row(**inputs: Tensor) -> Tensor:
    out = unpadded(**inputs)
    out[-1] *= 1.0 + 1e-6 * out.shape[0]
    return out


P = Property
DECODERS: list[tuple[Callable[..., Tensor], set[Property]]] = [
    (unpadded, set()),
    (PURE, {P.PADDING}),
    (by_count, {P.FUSED, P.ROWS_ALONE}),
    (by_place, {P.FUSED, P.ROWS_ALONE, P.PERMUTATION, P.DUPLICATES}),
    (by_neighbours, {P.FUSED, P.ROWS_ALONE, P.NEIGHBOURS}),
    (by_the_last_row, {P.FUSED, P.ROWS_ALONE, P.PERMUTATION, P.DUPLICATES}),
]


@pytest.mark.parametrize("kind", [EagerExecutor, StaticExecutor])
@pytest.mark.parametrize(("decoder", "lost"), DECODERS)
def test_the_probe_names_what_does_not_hold(
    kind: type[EagerExecutor], decoder: Callable[..., Tensor], lost: set[Property]
) -> None:
    held = measure(kind(decoder, 4), ROWS)
    assert {asked for asked, at in held.items() if not all(at.values())} == lost


def test_a_decoder_with_a_memory_does_not_rerun() -> None:
    held = measure(EagerExecutor(by_history, 3), ROWS)
    assert not any(held[Property.RERUN].values())


def test_every_number_of_rows_is_measured_and_fused_where_both_passes_fit() -> None:
    held = measure(EagerExecutor(PURE, 5), ROWS)
    assert list(held[Property.FUSED]) == [1, 2]
    assert all(list(held[asked]) == [1, 2, 3, 4, 5] for asked in Property if asked is not Property.FUSED)


def by_five_rows_or_more(**inputs: Tensor) -> Tensor:
    out = unpadded(**inputs)
    return out * (1.0 + 1e-6 * (out.shape[0] >= 5))


@pytest.mark.parametrize("asked", [1, 2, 3, 4, 7, 8, None])
def test_up_to_the_asked_rows_all_is_measured_and_fused_wherever_both_passes_fit_the_executor(
    asked: int | None,
) -> None:
    held = measure(EagerExecutor(by_five_rows_or_more, 8), ROWS, asked)
    counts = range(1, (asked or 8) + 1)
    assert held.pop(P.FUSED) == {count: count < 3 for count in counts if count <= 4}
    assert held.pop(P.ROWS_ALONE) == {count: count < 5 for count in counts}
    assert held == {other: dict.fromkeys(counts, True) for other in held}
    assert {P.FUSED, P.ROWS_ALONE, *held} == set(Property)


def test_a_run_of_one_row_has_no_neighbour_to_lose_it_by() -> None:
    held = measure(EagerExecutor(by_neighbours, 4), ROWS)
    assert held[Property.NEIGHBOURS] == {1: True, 2: False, 3: False, 4: False}


@pytest.mark.parametrize("pin_rows", [2, 4])
def test_pinned_rows_cure_what_the_count_does(pin_rows: int) -> None:
    held = measure(EagerExecutor(by_count, 4, pin_rows), ROWS)
    assert all(all(at.values()) for at in held.values())


def test_where_an_engine_has_one_encoder_length_padding_is_not_measured() -> None:
    class OneLength(EagerExecutor):
        def run(self, batch: Batch) -> Tensor:
            if batch.encoder_hidden_states.shape[1] != LENGTH:
                raise OutsideProfile("tokens L")
            return super().run(batch)

    held = measure(OneLength(PURE, 2), ROWS)
    assert held.pop(P.PADDING) == {}
    assert all(at and all(at.values()) for at in held.values())


def test_an_output_that_is_not_finite_is_no_measurement() -> None:
    def broken(**inputs: Tensor) -> Tensor:
        return inputs["hidden_states"] * float("nan")

    with pytest.raises(ArithmeticError, match="not finite"):
        measure(EagerExecutor(broken, 2), ROWS)


def test_a_subject_s_name_says_everything_but_the_device() -> None:
    assert Subject("tiny", "static", "bfloat16", 40, 8, device="cuda").name == "tiny/static/bfloat16/T40/pinned8"
    assert Subject("2b", "eager", "float32", 750, None, 4).name == "2b/eager/float32/T750/max4"


def test_no_two_rows_are_alike() -> None:
    batch = ROWS.batch(range(40))
    for name, tensor in batch.tensors().items():
        if name != "encoder_mask":
            assert len({row.numpy().tobytes() for row in tensor}) == 40, name
    assert batch.encoder_mask.sum(1).unique().numel() == 40


def test_a_subject_of_a_named_file_has_its_content_in_its_name(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    first, same, other = (Subject("tiny", "onnx", "float32", 16, 8, engine=tmp_path / n).name for n in "abc")
    assert first == same
    assert first.startswith("tiny/onnx/float32/T16/pinned8/")
    assert other != first
    assert Subject("tiny", "onnx", "float32", 16, 8).name == "tiny/onnx/float32/T16/pinned8"


def test_a_subject_has_eight_rows_where_it_is_not_said_otherwise() -> None:
    executor, _ = Subject("affine", "eager", "float32", 16).make()
    assert executor.max_rows == 8


def test_a_subject_s_engine_is_made_in_its_dtype_and_for_the_length_of_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(registry, "engine_for", lambda *words, **more: asked.append((words, more)))
    Subject("affine", "eager", "float16", 16).make()
    assert asked == [(("eager", "affine"), {"dtype": "float16", "tokens": LENGTH})]


ONE_RING = Rows(4, 16, 2, torch.device("cpu"))


def at_one_place(place: int) -> Callable[..., Tensor]:
    """Another result at one place of a run, whatever the row."""

    def decode(**inputs: Tensor) -> Tensor:
        out = unpadded(**inputs)
        out[place : place + 1] *= 1.0 + 1e-6
        return out

    return decode


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_one_place_that_computes_otherwise_is_found_wherever_it_is(place: int) -> None:
    held = measure(EagerExecutor(at_one_place(place), 4), ONE_RING)
    for asked in (P.PERMUTATION, P.DUPLICATES):
        assert held[asked] == {count: count == 1 or count <= place for count in (1, 2, 3, 4)}, asked
    for asked in (P.NEIGHBOURS, P.PADDING, P.RERUN):
        assert all(held[asked].values()), asked
    # Alone, a row is at place 0.
    assert held[P.ROWS_ALONE] == {count: count == 1 or (0 < count <= place) for count in (1, 2, 3, 4)}
    assert held[P.FUSED] == {1: place > 1, 2: place > 3}


def of_one_row(reader: int, read: int) -> Callable[..., Tensor]:
    """The result at one place depends on the latent at another place."""

    def decode(**inputs: Tensor) -> Tensor:
        out = unpadded(**inputs)
        if max(reader, read) < out.shape[0]:
            out[reader] *= 1.0 + 1e-3 * inputs["hidden_states"][read].mean()
        return out

    return decode


@pytest.mark.parametrize(("reader", "read"), [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)])
def test_one_place_that_reads_one_other_is_found_whichever_they_are(reader: int, read: int) -> None:
    held = measure(EagerExecutor(of_one_row(reader, read), 3), ONE_RING)
    whole = {count: count <= max(reader, read) for count in (1, 2, 3)}
    assert held[P.NEIGHBOURS] == held[P.ROWS_ALONE] == whole


def padded_at(place: int) -> Callable[..., Tensor]:
    def decode(**inputs: Tensor) -> Tensor:
        length = inputs["encoder_hidden_states"].shape[1]
        out = unpadded(**inputs)
        out[place : place + 1] *= 1.0 + 1e-6 * (length - LENGTH)
        return out

    return decode


@pytest.mark.parametrize("place", [0, 1, 2])
def test_padding_that_changes_one_row_is_found_wherever_it_is(place: int) -> None:
    held = measure(EagerExecutor(padded_at(place), 3), ONE_RING)
    assert held[P.PADDING] == {count: count <= place for count in (1, 2, 3)}
    assert all(all(at.values()) for asked, at in held.items() if asked is not P.PADDING)


def test_more_padding_is_zero_and_masked_and_changes_nothing_else() -> None:
    batch, padded = ROWS.batch(range(8)), ROWS.batch(range(8), LENGTH + 17)
    for made, length in ((batch, LENGTH), (padded, LENGTH + 17)):
        states, mask = made.encoder_hidden_states, made.encoder_mask
        assert states.shape[1] == mask.shape[1] == length
        assert states[~mask].eq(0).all() and mask.dtype is torch.bool
        assert mask.sum(1).tolist() == [1 + number * 7 % 40 for number in range(8)]
        assert states[mask].ne(0).any(1).all()
    for name in ("hidden_states", "timestep", "context_latents"):
        assert torch.equal(getattr(batch, name), getattr(padded, name))
    assert torch.equal(padded.encoder_hidden_states[:, :LENGTH], batch.encoder_hidden_states)
    assert torch.equal(padded.encoder_mask[:, :LENGTH], batch.encoder_mask)


def test_a_batch_has_the_asked_rows_in_their_order() -> None:
    whole, some = ROWS.batch(range(6)).tensors(), ROWS.batch([5, 0, 3, 3]).tensors()
    assert all(torch.equal(some[name], whole[name][[5, 0, 3, 3]]) for name in whole)


@pytest.mark.parametrize("number", [1, 19, 20, 21])
def test_twenty_more_runs_are_compared_and_no_more(number: int) -> None:
    """`number`: of the run, counted from 0, that gives another result."""
    asked: list[int] = []

    def decode(**inputs: Tensor) -> Tensor:
        asked.append(1)
        return unpadded(**inputs) * (1.0 + 1e-6 * (len(asked) - 1 == number))

    assert invariance._Probe(EagerExecutor(decode, 1), ONE_RING).rerun(1) is (number > 20)


@pytest.mark.parametrize("row", [0, 1])
def test_a_rerun_is_of_every_row(row: int) -> None:
    asked: list[int] = []

    def decode(**inputs: Tensor) -> Tensor:
        asked.append(1)
        out = unpadded(**inputs)
        out[row] *= 1.0 + 1e-6 * (len(asked) == 3)
        return out

    assert not invariance._Probe(EagerExecutor(decode, 2), ONE_RING).rerun(2)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_value_that_is_not_finite_is_no_measurement(value: str) -> None:
    def decode(**inputs: Tensor) -> Tensor:
        out = unpadded(**inputs)
        out[-1, -1, -1] = float(value)
        return out

    with pytest.raises(ArithmeticError, match="not finite"):
        measure(EagerExecutor(decode, 2), ONE_RING)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_orders_are_the_reverse_every_rotation_and_even_before_odd(count: int) -> None:
    numbers = list(range(count))
    rotations = [numbers[turn:] + numbers[:turn] for turn in range(1, count)]
    evens = [n for n in numbers if n % 2 == 0] + [n for n in numbers if n % 2]
    assert list(invariance._orders(count)) == [numbers[::-1], *rotations, evens]


def test_a_subject_is_made_with_all_that_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that is named is used, and none is made."""
    made: list[Any] = []
    monkeypatch.setattr(registry, "engine_for", lambda *_, **_more: tmp_path / "default")
    monkeypatch.setattr(registry, "executor", lambda *words: made.append(words))
    monkeypatch.setattr(registry, "decoder", lambda *words, **more: made.append((words, more)) or AffineDecoder(16))
    named = Subject("affine", "eager", "float16", 9, 3, 5, "meta", tmp_path / "named")
    rows = [each.make()[1] for each in (named, replace(named, engine=None))]
    assert made[0] == (("affine",), {"dtype": torch.float16, "device": "meta"})
    assert [made[1][0], *made[1][2:]] == ["eager", 5, 3, "meta", tmp_path / "named"]
    assert made[3][-1] == tmp_path / "default"
    assert rows == [Rows(4, 16, 9, torch.device("meta"))] * 2


class Logged(EagerExecutor):
    """Notes the numbers of the rows of each run, which their times tell, and the encoder length."""

    def __init__(self, max_rows: int) -> None:
        super().__init__(unpadded, max_rows)
        self.log: list[tuple[list[int], int]] = []

    def run(self, batch: Batch) -> Tensor:
        numbers = [round(float(t) * 65) - 1 for t in batch.timestep]
        self.log.append((numbers, batch.encoder_hidden_states.shape[1]))
        return super().run(batch)


RUNS: dict[Property, list[list[int]]] = {
    P.FUSED: [[0, 1, 2, 3, 4, 5], [0, 1, 2], [3, 4, 5]],
    P.ROWS_ALONE: [[0, 1, 2], [0], [1], [2]],
    P.PERMUTATION: [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1], [0, 2, 1]],
    P.NEIGHBOURS: [[0, 1, 2], [0, 33, 34], [32, 1, 34], [32, 33, 2]],
    P.DUPLICATES: [[0, 0, 0]],
    P.PADDING: [[0, 1, 2], [0, 1, 2]],
    P.RERUN: [[0, 1, 2]] * 21,
}


@pytest.mark.parametrize("asked", Property)
def test_a_property_is_measured_on_these_runs_of_three_rows(asked: Property) -> None:
    executor = Logged(6)
    assert getattr(invariance._Probe(executor, ONE_RING), asked.value)(3)
    lengths = [LENGTH, LENGTH + 17] if asked is P.PADDING else [LENGTH] * len(RUNS[asked])
    assert sorted(executor.log) == sorted(zip(RUNS[asked], lengths, strict=True))


def test_a_measurement_has_every_property_in_order_and_asks_first_whether_more_padding_is_taken() -> None:
    executor = Logged(3)
    held = measure(executor, ONE_RING)
    assert executor.log[0] == ([0], LENGTH + 17)
    assert list(held) == list(Property)
    assert held == {asked: {1: True} if asked is P.FUSED else dict.fromkeys((1, 2, 3), True) for asked in Property}
    assert all(list(at) == sorted(at) for at in held.values())


def test_the_properties_of_a_ring_are_all_but_that_of_the_padding() -> None:
    names = ["fused", "rows_alone", "permutation", "neighbours", "duplicates", "padding", "rerun"]
    assert [str(asked) for asked in Property] == names
    assert list(invariance.RING) == [asked for asked in Property if asked is not P.PADDING]


def signed_zero(where: Callable[[int, Batch], bool]) -> EagerExecutor:
    """Zeros, of which those of one row are negative in some runs: equal as numbers, and other bits."""

    class Zeros(EagerExecutor):
        runs = 0

        def run(self, batch: Batch) -> Tensor:
            out = torch.zeros_like(batch.hidden_states)
            if where(self.runs, batch):
                out[-1] = -out[-1]
            self.runs += 1
            return out

    return Zeros(PURE, 4)


@pytest.mark.parametrize(("asked", "where"), [
    (P.FUSED, lambda run, batch: batch.rows == 4),
    (P.ROWS_ALONE, lambda run, batch: batch.rows == 2),
    (P.PERMUTATION, lambda run, batch: run > 0),
    (P.NEIGHBOURS, lambda run, batch: run > 0),
    (P.DUPLICATES, lambda run, batch: True),
    (P.PADDING, lambda run, batch: batch.encoder_mask.shape[1] > LENGTH),
    (P.RERUN, lambda run, batch: run == 20),
])  # fmt: skip
def test_a_property_is_one_of_bits_and_not_of_numbers(asked: Property, where: Callable[[int, Batch], bool]) -> None:
    measured = [getattr(invariance._Probe(signed_zero(each), ONE_RING), asked.value)(2)
                for each in (where, lambda run, batch: False)]  # fmt: skip
    assert measured == [False, True]


def test_a_run_in_a_stream_of_its_own_is_waited_for() -> None:
    held = measure(registry.executor("deferred", unpadded, 3), ONE_RING)
    assert all(all(at.values()) for at in held.values())


def test_a_row_has_the_noise_of_its_number_and_of_what_it_is_for() -> None:
    numbers = [0, 63, 5]
    batch = Rows(4, 16, 6, torch.device("cpu")).batch(numbers)

    def drawn(offset: int, length: int, width: int) -> Tensor:
        return torch.cat([noise(offset + number, Purpose.INITIAL, 0, (1, length, width)) for number in numbers])

    tokens = [1, 2, 36]
    mask = torch.tensor([[place < count for place in range(64)] for count in tokens])
    assert_identical(
        batch.tensors(),
        {
            "hidden_states": drawn(0, 6, 4),
            "timestep": torch.tensor([1 / 65, 64 / 65, 6 / 65]),
            "encoder_hidden_states": drawn(100, 64, 16) * mask[:, :, None],
            "encoder_mask": mask,
            "context_latents": drawn(200, 6, 8),
        },
    )


def test_what_a_run_does_to_its_rows_changes_no_later_rows() -> None:
    before = {name: tensor.clone() for name, tensor in ROWS.batch([3]).tensors().items()}
    for tensor in ROWS.batch([3]).tensors().values():
        tensor.zero_()
    assert_identical(ROWS.batch([3]).tensors(), before)


def test_the_rows_of_an_output_that_is_not_finite_are_named() -> None:
    def decode(**inputs: Tensor) -> Tensor:
        return unpadded(**inputs) * (float("inf") if inputs["timestep"][0] == inputs["timestep"].max() else 1.0)

    with pytest.raises(ArithmeticError) as caught:
        invariance._Probe(EagerExecutor(decode, 4), ONE_RING).permutation(3)
    assert str(caught.value) == "the decoder's output for rows [2, 1, 0] is not finite: nothing to compare"


def test_only_what_is_outside_the_profile_says_that_a_length_is_not_taken() -> None:
    class Failing(EagerExecutor):
        def run(self, batch: Batch) -> Tensor:
            if batch.encoder_hidden_states.shape[1] != LENGTH:
                raise RuntimeError("out of memory")
            return super().run(batch)

    with pytest.raises(RuntimeError, match="out of memory"):
        measure(Failing(PURE, 2), ROWS)

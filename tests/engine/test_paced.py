"""Where a pipeline tells its pace what comes after what: asked of a pace that writes down what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, Guidance, InvalidInput, LatentMask, Session, StreamPipeline, X0Target, records
from harness.engine import pipeline as module
from harness.engine.conditioning import ConditioningCache
from harness.engine.decoders import AffineDecoder
from harness.engine.transfer import to_device
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request

Told = list[tuple[Any, ...]]


class Pace:
    """Writes down what it is told, and the tensors that it is given."""

    def __init__(self, told: Told) -> None:
        self.waits = 7
        self.told = told

    def mark(self, held: Iterable[Tensor]) -> None:
        self.told.append(("mark", list(held)))

    def wait(self) -> None:
        self.told.append(("wait",))

    def begin(self, held: Callable[[], Iterable[Tensor]]) -> None:
        self.told.append(("begin", held))

    def end(self) -> None:
        self.told.append(("end",))


@pytest.fixture(name="told")
def _told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    told: Told = []

    def paced(device: torch.device, ahead: int) -> Pace:
        told.append(("paced", device, ahead))
        return Pace(told)

    monkeypatch.setattr(module, "pace", paced)
    monkeypatch.setattr(module.transfer, "catch_up", lambda device: told.append(("catch up", device)))
    yield told


def names(told: Told) -> list[str]:
    return [each[0] for each in told]


def test_a_submission_catches_up_before_it_looks_at_a_tensor_and_marks_what_it_made(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.once, "unread", lambda tensors: told.append(("looked", list(tensors))))
    p = pipeline(max_ticks_ahead=3)
    p.set_dcw(DCW())
    assert told == [], "nothing is known of a device before the first request"
    fields = {
        "source": fixed(4),
        "guidance": Guidance(2.0, [condition(3, 2)]),
        "latent_mask": LatentMask(0.5, fixed(5)),
        "x0_target": X0Target(fixed(6), 0.5),
    }
    made = request(**fields)
    p.submit(made)
    assert names(told) == ["paced", "catch up", "looked", "mark"]
    assert told[0][1:] == (torch.device("cpu"), 3)
    held = set(map(id, told[-1][1]))
    assert {id(tensor) for tensor in made.tensors().values()} <= held
    assert made.guidance is not None
    assert id(made.guidance.scale.values) in held  # type: ignore[union-attr]
    assert {id(scaler.values) for scaler in p._state.controls.dcw.scalers} <= held  # type: ignore[union-attr]
    told.clear()
    p.submit(request())
    assert names(told) == ["catch up", "looked", "mark"], "one pace for the pipeline's life"


def test_a_refused_submission_marks_nothing(told: Told) -> None:
    p = pipeline()
    p.submit(request())
    told.clear()
    with pytest.raises(InvalidInput):
        p.submit(request(conditions=[condition(1, 200)]))
    assert told == []


CONTROLS: dict[str, Callable[[StreamPipeline], None]] = {
    "shared curve": lambda p: p.set_shared_curve("velocity_scale", torch.linspace(0, 1, T)),
    "gain": lambda p: p.set_channel_gain(torch.full((1, 1, D), 0.5)),
    "wavelets": lambda p: p.set_dcw(DCW(a=torch.linspace(0, 1, T))),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_marks_what_the_next_tick_reads(told: Told, name: str) -> None:
    p = pipeline()
    p.submit(request())
    told.clear()
    CONTROLS[name](p)
    ((what, held),) = told
    assert what == "mark"
    assert set(map(id, records.tensors(p._state.controls))) == set(map(id, held)) != set()


def test_a_tick_begins_and_ends_once_and_one_that_fails_marks_instead(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = pipeline()
    p.submit(request())
    told.clear()
    p.tick()
    assert names(told) == ["wait", "begin", "end"]
    told.clear()

    def fails(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "execute", fails)
        with pytest.raises(KeyboardInterrupt):
            p.tick()
    assert names(told) == ["wait", "begin", "mark"]
    assert p.stats().waits == 7


def test_a_gpu_that_is_lost_hides_no_error_of_a_tick(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pipeline()
    p.submit(request())

    def lost(*_arguments: Any) -> None:
        raise RuntimeError("lost")

    def fails(*_arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(p._pace, "mark", lost)
    monkeypatch.setattr(module, "execute", fails)
    with pytest.raises(MemoryError):
        p.tick()


def test_what_a_tick_may_read_is_every_tensor_that_the_pipeline_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    p = pipeline(depth=2)
    for seed in range(3):
        p.submit(request(seed=seed, source=fixed(seed)))
        p.tick()
    p.set_channel_gain(torch.full((1, 1, D), 0.5))
    monkeypatch.setattr(Tensor, "is_cuda", True)
    held = set(map(id, p._held(p._state)))
    monkeypatch.undo()
    wanted: list[object] = [p.slots, p._state.queue, p._state.controls]
    assert held == {id(tensor) for each in wanted for tensor in records.tensors(each)} | {
        id(tensor) for made in p._cache.held() for tensor in vars(made).values()
    }
    assert list(p._held(p._state)) == [], "of the CPU nothing has to be held"


def test_a_cache_gives_the_conditioning_of_all_its_entries() -> None:
    cache = ConditioningCache()
    made = [cache([condition(seed, 3)], [fixed(seed)], 8) for seed in range(3)]
    assert cache.held() == made


def test_tensors_are_found_through_fields_tuples_lists_and_mappings_and_not_in_classes() -> None:
    first, second, third = (torch.ones(1) for _ in range(3))
    found = list(records.tensors(((first, [None, {"a": second, "b": 3.0}]), DCW, third, "text")))
    assert [id(each) for each in found] == [id(first), id(second), id(third)]


def test_a_null_condition_is_noted_for_every_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.engine import session  # noqa: PLC0415 its name is that of a test's helper elsewhere

    noted: list[torch.device] = []
    monkeypatch.setattr(session, "note", noted.append)
    made = Session(AffineDecoder(E))
    for tokens in (5, 5, 6):
        made.null_condition(condition(1, tokens))
    assert noted == [torch.device("cpu")] * 2


def test_a_wavelet_s_filters_are_placed_with_the_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.engine import controls  # noqa: PLC0415

    placed: list[str] = []
    first, second = DCW(wavelet="db2"), DCW(wavelet="sym4")
    p = pipeline(dcw=first)
    plain = controls.wavelet.prepare

    def prepare(wavelet: str, device: torch.device, move: Any) -> None:
        if move is to_device:
            placed.append(wavelet)
        plain(wavelet, device, move)

    monkeypatch.setattr(controls.wavelet, "prepare", prepare)
    p.submit(request())
    assert placed == ["db2"]
    p.set_dcw(second)
    assert set(placed) == {"db2", "sym4"}

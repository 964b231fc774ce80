"""A player makes what it is asked for in its sizes and on its device, and keeps what a pipeline hands out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness import registry
from harness.engine import Outcomes, Request, StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.parity.battery import scenarios
from harness.parity.battery.player import Player, Sizes
from harness.parity.battery.props import Props
from harness.parity.battery.scenarios import SCENARIOS, Scenario
from harness.parity.battery.scripts import Script
from harness.parity.compare import digest_tree

SIZES = Sizes(6, 4, 16)


class Taking:
    """In place of a pipeline: keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[Request] = []

    def submit(self, request: Request) -> Any:
        self.taken.append(request)
        return "a submission"


def player() -> Player:
    return Player(StreamPipeline(EagerExecutor(AffineDecoder(16)), Script().config()), SIZES)


def test_every_tensor_of_a_player_is_on_its_device() -> None:
    p = Player(Taking(), replace(SIZES, device="meta"))  # type: ignore[arg-type]
    made = [p.latent(1), p.ramp(0.0, 1.0), p.frames(), p.full((2, 3), 0.5)]
    assert [tensor.device.type for tensor in made] == ["meta"] * len(made)


def test_a_submission_has_the_request_s_name_seed_and_fields_and_its_result_is_returned() -> None:
    taking = Taking()
    p = Player(taking, SIZES)  # type: ignore[arg-type]
    own = (p.condition(1, 3),)
    assert [p.submit("a", 1, frames=9), p.submit("b", 2, conditions=own, source=p.latent(3), denoise=0.0)] == [
        "a submission"
    ] * 2
    first, second = taking.taken
    assert [(r.id, r.seed, r.frames, r.denoise) for r in taking.taken] == [("a", 1, 9, 1.0), ("b", 2, 6, 0.0)]
    assert first.conditions[0].length == 7
    assert second.conditions == own


def test_a_player_s_tensors_have_its_sizes_or_the_asked_frames() -> None:
    p = player()
    shapes = [p.latent(1), p.latent(1, 9), p.ramp(0.0, 1.0), p.ramp(0.0, 1.0, 9), p.frames(), p.full((2, 3), 0.5)]
    assert [tuple(tensor.shape) for tensor in shapes] == [(1, 6, 4), (1, 9, 4), (6,), (9,), (6,), (2, 3)]
    assert p.condition(1, 3).encoder_hidden_states.shape == (1, 3, 16)
    assert p.frames().tolist() == [0, 1, 2, 3, 4, 5]


def test_what_finished_is_kept_by_name_and_a_tick_has_a_digest_of_every_slot_and_latent() -> None:
    p = player()
    for id_, seed in (("a", 1), ("b", 2)):
        assert p.submit(id_, seed).id == id_
        p.tick()
    wanted = {f"{i}/{n}": t for i, slot in enumerate(p.pipeline.slots) if slot for n, t in slot.state().items()}
    assert {name.split("/")[0] for name in wanted} == {"0", "1"}
    assert p.ticks[-1] == digest_tree(wanted)
    p.tick(2)
    assert list(p.finished) == ["a"]
    (slot,) = [slot for slot in p.pipeline.slots if slot is not None]
    place = p.pipeline.slots.index(slot)
    state = {f"{place}/{name}": tensor for name, tensor in slot.state().items()}
    assert p.ticks[-1] == digest_tree({**state, "finished/a": p.finished["a"]})
    p.drain()
    assert (list(p.finished), len(p.ticks)) == (["a", "b"], 5)


def test_a_request_named_by_a_number_is_kept_by_its_text() -> None:
    p = player()
    p.submit(7, 1)  # type: ignore[arg-type]
    p.drain()
    assert list(p.finished) == ["7"]


def test_a_scenario_s_sizes_and_executor_have_its_device_and_its_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(registry, "engine_for", lambda *words, **more: made.append((words, more)))
    monkeypatch.setattr(registry, "executor", lambda *words: made.append(words))
    monkeypatch.setattr(registry, "decoder", lambda *words, **more: made.append((words, more)) or AffineDecoder(16))
    scenario = replace(SCENARIOS["ace_tiny_plain"], device="meta", dtype="bfloat16")
    assert scenario.sizes == Sizes(16, 4, 16, "meta")
    scenarios.executor(scenario, "static")
    asked = (("tiny",), {"dtype": torch.bfloat16, "device": "meta"})
    assert made[:3] == [asked, (("static", "tiny"), {"dtype": "bfloat16"}), asked]
    assert (made[3][0], *made[3][2:]) == ("static", 8, 8, "meta", None)


def test_an_engine_s_file_that_is_named_is_used_and_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(registry, "engine_for", lambda *_, **_more: "default")
    monkeypatch.setattr(registry, "executor", lambda *words: made.append(words[-1]))
    for named in ("named", None):
        scenarios.executor(SCENARIOS["ode_plain"], "eager", named)  # type: ignore[arg-type]
    assert made == ["named", "default"]


@pytest.mark.parametrize("fields", [{}, {"depth": 1}, {"steps": 2}, {"depth": 2, "steps": 1, "solver": "sde"}])
def test_a_scenario_s_own_fields_of_the_configuration_come_first(fields: dict[str, Any]) -> None:
    config = scenarios.configuration(Scenario("s", "", lambda _p: None, fields))
    assert {name: getattr(config, name) for name in fields} == fields
    assert (config.depth, config.steps) == (fields.get("depth", 3), fields.get("steps", 4))


@pytest.mark.parametrize("fails", [False, True])
def test_a_scenario_s_pipeline_is_closed_when_it_was_played(fails: bool) -> None:
    kept: list[Any] = []

    def script(p: Player) -> None:
        kept.append(p.pipeline)
        if fails:
            raise MemoryError

    try:
        scenarios.play(Scenario("s", "", script))
    except MemoryError:
        assert fails
    with pytest.raises(RuntimeError, match="closed"):
        kept[0].tick()


def test_a_script_s_props_are_on_the_device_that_it_is_played_on() -> None:
    class Keeping:
        def happen(self, driven: Any, props: Props) -> Outcomes:
            del driven
            kept.append(props)
            return Outcomes()

    kept: list[Props] = []
    script = Script((Keeping(), Keeping()))
    for device in ((), ("cpu",), ("meta",)):
        script.play(None, *device)  # type: ignore[arg-type]
    assert [props.device.type for props in kept] == ["cpu"] * 4 + ["meta"] * 2
    assert kept[0] is kept[1]
    assert kept[0].script is script


def test_a_scenario_is_played_with_its_own_switches_unless_others_are_named() -> None:
    seen: list[Switches] = []
    own, named = Switches(fused_cfg=False), Switches(host_gates=False)
    scenario = Scenario("s", "", lambda p: seen.append(p.pipeline.config.switches), switches=own)  # type: ignore[attr-defined]
    scenarios.play(scenario)
    scenarios.play(scenario, switches=named)
    assert seen == [own, named]

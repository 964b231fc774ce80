"""What each event of a script does to a pipeline, and that a script's text makes the script again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engine import PLAIN_PATH, Outcomes, Switches
from harness.engine.config import DCW, PipelineConfig
from harness.engine.request import Request, required
from harness.parity.battery import scripts
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import (
    Control,
    Correct,
    Depth,
    Drain,
    Gain,
    Guided,
    Masked,
    Rewrite,
    Script,
    Submit,
    Text,
    Tick,
    Toward,
    Wavelets,
)
from harness.parity.compare import assert_identical

TEXT = Text(3, 6, (0.2, 0.8), (0.0, 0.5), 2)
EVERY = Script(
    (
        Submit(7, (TEXT,), 10, 0.75, 50, Guided(2.0, (TEXT,), "self", 0.5, 0.1, None, 0.25), masked=Masked(71, 0.5, 3)),
        Submit(toward=Toward(61, curve=(0.25, 0.75), gate=0.5)),
        Tick(3),
        Control("rescale", (0.1, 0.5)),
        Control("rescale", None),
        Gain((0.5, 1.5)),
        Correct(Wavelets("pix", 0.1, (0.0, 0.2), "db2")),
        Depth(5),
        Rewrite(TEXT, 9),
        Drain(),
    ),
    solver="sde",
    encoder_length=16,
)
WRITTEN = {
    Text(): "Text(seed=1, tokens=5, weight=None, span=None, hidden=0)",
    Guided(): "Guided(scale=2.5, negatives=(Text(seed=90, tokens=3, weight=None, span=None, hidden=0),), mode='full', "
    "momentum=-0.75, rescale=None, threshold=2.5, eta=0.0)",
    Toward(): "Toward(seed=60, strength=0.0, curve=None, gate=0.0)",
    Masked(): "Masked(seed=70, level=1.0, every=0, fading=False)",
    Wavelets(): "Wavelets(mode='double', a=0.05, b=0.02, wavelet='haar')",
    Submit(): "Submit(seed=1, texts=(Text(seed=1, tokens=5, weight=None, span=None, hidden=0),), frames=None, "
    "denoise=1.0, source=None, guided=None, velocity_scale=None, noise_injection=None, sde_curve=None, "
    "initial_noise=None, toward=None, masked=None)",
    Tick(): "Tick(count=1)",
    Drain(): "Drain()",
    Script(): "Script(events=(), depth=3, steps=4, shift=3.0, solver='ode', encoder_length=None, dcw=None, frames=12, "
    "channels=4, encoder_dim=8)",
}


@pytest.mark.parametrize(("record", "text"), WRITTEN.items(), ids=lambda value: type(value).__name__)
def test_a_record_s_text_says_every_field_and_its_defaults_are_these(record: object, text: str) -> None:
    assert repr(record) == text


def test_a_script_s_text_makes_the_script_again_with_what_a_star_imports() -> None:
    names = {name: getattr(scripts, name) for name in scripts.__all__}
    assert eval(repr(EVERY), names) == EVERY
    assert {type(event).__name__ for event in EVERY.events} <= names.keys()
    assert scripts.__all__ == sorted(scripts.__all__)


class Driven:
    """In place of a pipeline: notes what is called, and hands out two numbers a tick and three when it is drained."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.ticks = 0

    def submit(self, request: Request) -> None:
        self.calls.append(("submit", request))

    def tick(self) -> Outcomes:
        self.ticks += 1
        self.calls.append(("tick",))
        return Outcomes([10 * self.ticks, 10 * self.ticks + 1])  # type: ignore[list-item]

    def drain(self) -> Outcomes:
        self.calls.append(("drain",))
        return Outcomes([-1, -2, -3])  # type: ignore[list-item]

    def set_shared_curve(self, name: str, value: Any) -> None:
        self.calls.append(("control", name, value))

    def set_channel_gain(self, gain: Any) -> None:
        self.calls.append(("gain", gain))

    def set_dcw(self, dcw: Any) -> None:
        self.calls.append(("dcw", dcw))

    def set_depth(self, depth: int) -> None:
        self.calls.append(("depth", depth))


def played(*events: Any, **fields: Any) -> tuple[list[Any], list[tuple[Any, ...]]]:
    driven = Driven()
    return Script(events, **fields).play(driven), driven.calls  # type: ignore[arg-type]


def test_what_finishes_is_handed_out_by_every_tick_and_drain_in_order() -> None:
    out, calls = played(Tick(), Submit(), Tick(3), Depth(2), Drain(), Tick(0), Tick(2))
    assert out == [10, 11, 20, 21, 30, 31, 40, 41, -1, -2, -3, 50, 51, 60, 61]
    assert [call[0] for call in calls] == ["tick", "submit", *["tick"] * 3, "depth", "drain", "tick", "tick"]


def test_every_event_is_the_call_that_it_names_with_what_it_names() -> None:
    out, calls = played(
        Submit(4, denoise=1.0),
        Control("rescale", 0.5),
        Control("momentum", (0.0, 1.0)),
        Control("rescale", None),
        Gain((0.5, 1.5)),
        Gain(0.0),
        Gain(None),
        Correct(Wavelets("low", 0.25)),
        Correct(None),
        Depth(7),
        frames=5,
        channels=3,
    )
    assert out == []
    names = ["submit", *["control"] * 3, *["gain"] * 3, "dcw", "dcw", "depth"]
    assert [call[0] for call in calls] == names
    assert calls[0][1].seed == 4
    assert calls[1] == ("control", "rescale", 0.5) and calls[3] == ("control", "rescale", None)
    assert calls[2][:2] == ("control", "momentum")
    assert_identical(calls[2][2], torch.linspace(0.0, 1.0, 5))
    assert_identical(calls[4][1], torch.tensor([[[0.5, 1.0, 1.5]]]))
    assert_identical(calls[5][1], torch.zeros(1, 1, 3))
    assert calls[6] == ("gain", None)
    assert isinstance(calls[7][1], DCW) and calls[7][1].mode == "low"
    assert calls[8] == ("dcw", None) and calls[9] == ("depth", 7)


def test_a_text_that_is_used_again_is_the_same_condition_in_every_event() -> None:
    other = Text(2)
    _, calls = played(Submit(1), Submit(2, (Text(), other)), Submit(3, (other,), guided=Guided(negatives=(Text(),))))
    first, second, third = (call[1] for call in calls)
    assert second.conditions[0] is first.conditions[0] is third.guidance.negatives[0]
    assert second.conditions[1] is third.conditions[0]


def test_a_rewrite_writes_into_the_condition_in_place_and_into_nothing_else() -> None:
    driven, script = Driven(), Script((Submit(1, (Text(5, 3), Text(6, 3))),))
    props = Props(script)
    assert script.events[0].happen(driven, props) == []  # type: ignore[arg-type]
    written, other = driven.calls[0][1].conditions
    states, kept = written.encoder_hidden_states, other.encoder_hidden_states.clone()
    assert Rewrite(Text(5, 3), 9).happen(driven, props) == []  # type: ignore[arg-type]
    assert written.encoder_hidden_states is states
    assert_identical(states, props.drawn(9, 3, 8))
    assert_identical(other.encoder_hidden_states, kept)
    assert len(driven.calls) == 1


def test_a_configuration_has_the_named_switches_and_else_the_default_ones() -> None:
    assert Script().config().switches == Switches()
    assert Script().config(PLAIN_PATH).switches == PLAIN_PATH
    assert Script().config(Switches(fused_cfg=False)).switches == Switches(fused_cfg=False)
    said = PipelineConfig(depth=3, steps=4)
    made = Script().config()
    for name in ("depth", "steps", "shift", "solver", "encoder_length", "dcw"):
        assert getattr(made, name) == getattr(said, name), name


# Props.


def test_equal_draws_are_one_tensor_and_each_of_seed_length_and_width_makes_another() -> None:
    props = Props(Script(channels=3))
    made = [props.drawn(*key) for key in ((1, 4, 3), (2, 4, 3), (1, 5, 3), (1, 4, 2), (4, 1, 3))]
    assert [tuple(tensor.shape) for tensor in made] == [(1, 4, 3), (1, 4, 3), (1, 5, 3), (1, 4, 2), (1, 1, 3)]
    assert not torch.equal(made[0], made[1])
    assert props.drawn(1, 4, 3) is made[0] is props.latent(1, 4)
    assert props.drawn(1, 5, 3) is made[2]
    assert_identical(Props(Script()).drawn(1, 4, 3), made[0])


def test_a_condition_is_one_for_each_text_and_length_and_shares_no_memory() -> None:
    props = Props(Script())
    plain, weighted = Text(1, 5), Text(1, 5, weight=(0.0, 1.0))
    made = [props.condition(plain, 12), props.condition(plain, 9), props.condition(weighted, 12)]
    made += [props.condition(weighted, 9), props.condition(Text(1, 5, hidden=1), 12)]
    drawn = props.drawn(1, 5, 8)
    assert props.condition(plain, 12) is made[0] and props.condition(weighted, 9) is made[3]
    assert len({condition.encoder_hidden_states.data_ptr() for condition in made} | {drawn.data_ptr()}) == 6
    assert [required(c.temporal_weight).frames for c in (made[2], made[3])] == [12, 9]
    assert [condition.encoder_mask is None for condition in made] == [True, True, True, True, False]


def test_a_rewrite_reaches_the_condition_of_every_length_and_no_other_text_nor_the_draw() -> None:
    props = Props(Script())
    texts = [(Text(1, 5), 12), (Text(1, 5), 9), (Text(1, 5, hidden=1), 12), (Text(2, 5), 12)]
    made = [props.condition(*key) for key in texts]
    before = [condition.encoder_hidden_states.clone() for condition in made]
    drawn = props.drawn(1, 5, 8).clone()
    props.rewrite(Text(1, 5), 2)
    for condition in made[:2]:
        assert_identical(condition.encoder_hidden_states, props.drawn(2, 5, 8))
    for condition, was in zip(made[2:], before[2:], strict=True):
        assert_identical(condition.encoder_hidden_states, was)
    assert_identical(props.drawn(1, 5, 8), drawn)
    props.rewrite(Text(77), 3)  # nothing was made from it


def test_requests_whose_seeds_are_equal_modulo_three_share_their_context() -> None:
    props = Props(Script(frames=5, channels=3))
    contexts = [props.request(Submit(seed)).context_latents for seed in range(7)]
    for seed, context in enumerate(contexts):
        assert context is props.drawn(200 + seed % 3, 5, 6) is contexts[seed % 3]
    assert len({id(context) for context in contexts}) == 3


def test_a_seed_of_0_is_a_seed_and_a_level_of_0_is_a_level() -> None:
    props = Props(Script())
    made = props.request(Submit(0, source=0, velocity_scale=0.0, toward=Toward(0), masked=Masked(0, 0.0)))
    assert made.seed == 0 and made.source is props.latent(0, 12)
    assert required(made.velocity_scale).uniform == 0.0
    assert made.x0_target is not None and made.x0_target.latent is props.latent(0, 12)
    assert made.latent_mask is not None and required(made.latent_mask.mask).uniform == 0.0
    gain = props.gain(0.0)
    assert gain is not None
    assert_identical(gain, torch.zeros(1, 1, 4))


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_guidance_s_threshold_may_be_none(threshold: float | None) -> None:
    made = Props(Script()).request(Submit(guided=Guided(threshold=threshold))).guidance
    assert made is not None and made.norm_threshold == threshold


@pytest.mark.parametrize(("level", "every", "values"), [
    (0.5, 0, [0.5]),
    ((0.0, 1.0), 0, [0.0, 0.25, 0.5, 0.75, 1.0]),
    (1.0, 1, [0.0] * 5),
    (1.0, 2, [0.0, 1.0, 0.0, 1.0, 0.0]),
    (0.5, 4, [0.0, 0.5, 0.5, 0.5, 0.0]),
])  # fmt: skip
@pytest.mark.parametrize("fading", [False, True])
def test_a_mask_is_its_level_but_0_at_every_so_manyth_frame_and_fades_where_it_says(
    level: Any, every: int, values: list[float], fading: bool
) -> None:
    made = Props(Script(frames=5)).mask(Masked(70, level, every, fading), 5)
    found = required(made.mask).values.flatten().tolist()
    assert found == values or (len(set(values)) == 1 and set(found) == set(values))
    assert (made.strength_at is None) == (not fading)
    if made.strength_at is not None:
        assert [made.strength_at(step, 4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_submission_without_frames_has_those_of_the_script_everywhere_and_one_with_frames_its_own() -> None:
    script = Script(frames=6, channels=3)
    for frames, wanted in ((None, 6), (9, 9)):
        made = Props(script).request(
            Submit(frames=frames, source=1, texts=(Text(weight=(0.0, 1.0)),), velocity_scale=(0.0, 1.0))
        )
        assert (made.frames, tuple(made.context_latents.shape)) == (wanted, (1, wanted, 6))
        assert made.source is not None and made.source.shape == (1, wanted, 3)
        assert required(made.velocity_scale).frames == required(made.conditions[0].temporal_weight).frames == wanted

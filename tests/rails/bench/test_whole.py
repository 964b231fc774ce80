"""A bench as a whole: every field of its report, every call of its stream, every clock; no decoder works."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness import registry
from harness.engine import DCW, Guidance, Outcomes, Switches
from harness.engine.conditioning import CacheCounts
from harness.engine.curve import Curve
from harness.engine.decoders.decoder_switches import ACCELERATIONS, PLAIN, DecoderSwitches
from harness.engine.errors import InvalidInput
from harness.engine.executors import Batch, EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.engine.results import Finished, Stats
from harness.engine.switches import PLAIN_PATH, SWITCHES
from harness.rails.bench import ablation, bare, clocks, throughput
from harness.rails.bench.ablation import FLOOR, Difference, Saving, Says, ablate, ablated_ticks, between
from harness.rails.bench.bare import Bare, Tap, back_to_back
from harness.rails.bench.clocks import EventClock
from harness.rails.bench.throughput import Driver, Latency, Load, Measured, Window, bench
from harness.rails.profile.sources import batch
from tests.fakes import StillClock

SMALL = Load(decoder="affine", duration=0.64, ticks=16, warmup=8)


# The report.

LOAD = Load(
    decoder="mid",
    duration=12.5,
    depth=3,
    steps=5,
    cfg="self",
    dcw=False,
    fresh=True,
    max_ticks_ahead=1,
    switches=PLAIN_PATH,
    decoder_switches=DecoderSwitches(kept_time=True, band="flex"),
)
SAMPLES = {"tick_ms": [float(ms) for ms in range(200, -1, -1)], "host_ms": [3.0, 1.0, 2.0, 8.0]}
BARE = Bare(7, {"eager": 80.0, "graph": 40.0, "engine": 64.0})
MEASURED = Measured(LOAD, SAMPLES, 10, 4.0, "digest", 6, 1.25, 8.5, Latency(1.0, 2.0, 3.0, 4.0), BARE)


def test_the_report_holds_every_measurement_and_what_follows_from_it() -> None:
    assert json.loads(json.dumps(MEASURED.document())) == {
        "load": {
            "decoder": "mid",
            "executor": "eager",
            "dtype": "float32",
            "device": "cpu",
            "engine": None,
            "duration": 12.5,
            "depth": 3,
            "steps": 5,
            "denoise": 1.0,
            "ticks": 200,
            "warmup": 30,
            "cfg": "self",
            "guidance_scale": 2.5,
            "dcw": False,
            "fresh": True,
            "max_ticks_ahead": 1,
            "switches": {name: getattr(PLAIN_PATH, name) for name in SWITCHES},
            "decoder_switches": {
                **dict.fromkeys(ACCELERATIONS, False),
                "kept_time": True,
                "band": "flex",
                "full": "auto",
                "norms": "kernels",
            },
            "code": None,
        },
        "samples": SAMPLES,
        "latents": 10,
        "seconds": 4.0,
        "outputs": "digest",
        "dropped": 6,
        "runs": 1.25,
        "rows": 8.5,
        "control": {"touched_ticks": 1.0, "touched_ms": 2.0, "whole_ticks": 3.0, "whole_ms": 4.0},
        "bare": {"rows": 7, "forms": {"eager": 80.0, "graph": 40.0, "engine": 64.0}, "fastest": "graph", "ms": 40.0},
        "tick": {"median": 100.0, "p95": 190.0, "p99": 198.0},
        "host": {"median": 2.5, "p95": 8.0, "p99": 8.0},
        "beyond_ms": {"eager": 20.0, "graph": 60.0, "engine": 36.0},
        "latents_per_second": 2.5,
        "realtime": 31.25,
        "overhead_ms": 60.0,
        "overhead_ratio": 1.5,
    }


@pytest.mark.parametrize(("more", "words"), [
    ({"ticks": 0}, "ticks: got 0, expected at least 1"),
    ({"warmup": 7}, "warmup: got 7, expected at least steps, 8: before that the ring is not full"),
    ({"duration": 0.0399}, "duration: got 0.0399, expected at least one frame, 0.04 s"),
])  # fmt: skip
def test_a_load_says_what_it_needs(more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{words}"):
        replace(SMALL, **more)
    least = replace(SMALL, ticks=1, warmup=8, duration=0.04)
    assert (least.frames, replace(SMALL, duration=0.1).frames, Load().frames) == (1, 2, 750)
    assert [Load(depth=depth).max_rows for depth in (1, 4, 5, 16)] == [8, 8, 10, 32]


# What is driven.


class Stream:
    """A stream whose requests are due at every second tick; it finishes at every third and drops at every fifth."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.pipeline = SimpleNamespace(stats=Stats)
        self.last_submission: Any = SimpleNamespace(dropped=("of before",))

    def tick(self, **given: Any) -> Outcomes:
        guidance = given.get("guidance")
        if isinstance(guidance, Guidance):
            assert isinstance(guidance.scale, Curve)
            given["guidance"] = (guidance.scale.uniform, str(guidance.mode))
        self.calls.append(given)
        number = len(self.calls)
        self.last_submission = SimpleNamespace(dropped=("a", "b")[: 2 * (number % 5 == 0)])
        made = Finished(f"latent {number}", torch.empty(0), number, 6, 1.0, 6)
        return Outcomes([made] if number % 3 == 0 else [])


def driven(load: Load, patch: pytest.MonkeyPatch) -> tuple[Driver, Stream, list[Any]]:
    driver, stream, asked, numbers = Driver.__new__(Driver), Stream(), [], count()
    driver.load, driver.submitted, driver.dropped = load, 0, 0
    driver.stream, driver.tap = stream, SimpleNamespace(batches=["of the last tick"])  # type: ignore[assignment]

    def due(*given: Any) -> bool:
        asked.append(given)
        return next(numbers) % 2 == 0

    patch.setattr(throughput, "is_due", due)
    return driver, stream, asked


@pytest.mark.parametrize(("more", "guidance"), [
    ({}, None),
    ({"guidance_scale": 9.0}, None),
    ({"cfg": "self", "guidance_scale": 1.5}, (1.5, "self")),
    ({"cfg": "full"}, (2.5, "full")),
])  # fmt: skip
def test_a_request_has_the_next_seed_and_what_the_load_says(
    more: dict[str, Any], guidance: tuple[float, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, stream, asked = driven(replace(SMALL, denoise=0.5, depth=3, steps=6, **more), monkeypatch)
    finished = [[each.id for each in driver.tick()] for _ in range(6)]
    assert finished == [[], [], ["latent 3"], [], [], ["latent 6"]]
    requests = [{"seed": seed, "denoise": 0.5, "guidance": guidance} for seed in (1, 2, 3)]
    assert stream.calls == [requests[0], {}, requests[1], {}, requests[2], {}]
    assert asked == [(Stats(), submitted, 3, 6) for submitted in (0, 1, 1, 2, 2, 3)]
    assert (driver.submitted, driver.dropped, driver.tap.batches) == (3, 2, [])


@pytest.mark.parametrize("more", [
    {},
    {"dcw": False},
    {"depth": 2, "steps": 6},
    {"switches": PLAIN_PATH},
    {"denoise": 0.5},
])  # fmt: skip
def test_a_stream_is_made_as_the_load_says(more: dict[str, Any]) -> None:
    load = replace(SMALL, **more)
    driver = Driver(load)
    config, request = driver.stream.pipeline.config, driver.stream._template
    assert (config.depth, config.steps, config.encoder_length) == (load.depth, load.steps, 200)
    assert repr(config.dcw) == repr(DCW() if load.dcw else None)
    assert config.switches == load.switches
    assert (request.source is None) == (load.denoise >= 1.0)
    channels = request.context_latents.shape[2] // 2
    assert request.context_latents.shape == (1, 16, 2 * channels)
    assert bool((request.context_latents[..., channels:] == 1).all())
    (prompt,) = request.conditions
    assert prompt.encoder_hidden_states.shape[:2] == (1, 200)
    driver.session.close()


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_window_times_each_tick_its_host_part_and_all_of_it_until_the_device_is_done(
    on_gpu: bool, monkeypatch: pytest.MonkeyPatch, still_clock: StillClock
) -> None:
    driver, _, _ = driven(replace(SMALL, device="cuda:1" if on_gpu else "cpu"), monkeypatch)
    log: list[Any] = []

    def tick(_self: Driver) -> list[Any]:
        still_clock.sleep(0.02)
        log.append("tick")
        return [f"latent {len(log)}"]

    def advance(what: str) -> None:
        still_clock.sleep(0.5)
        log.append(what)

    def wait(device: str) -> None:
        still_clock.sleep(4.0)
        log.append(device)

    monkeypatch.setattr(Driver, "tick", tick)
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    monkeypatch.setattr(throughput, "EventClock", clocks.HostClock)
    found = driver.window(3, advance)
    assert found.host_ms == pytest.approx((20.0,) * 3)
    assert found.tick_ms == pytest.approx((20.0, 520.0, 520.0)), "from the end of each tick to the end of the next"
    assert found.seconds == pytest.approx(3 * 0.52 + 4.0 * on_gpu)
    assert found.finished == ("latent 1", "latent 3", "latent 5")
    assert log == ["tick", "ticks"] * 3 + ["cuda:1"] * on_gpu
    log.clear()
    driver.load = replace(driver.load, warmup=8)
    driver.warm_up(advance)
    assert log == ["tick", "warm-up"] * 8 + ["cuda:1"] * on_gpu


@pytest.mark.parametrize(("device", "clock"), [("cpu", "host"), ("cuda", "events"), ("cuda:1", "events")])
def test_a_window_is_timed_by_events_on_a_gpu_and_else_by_the_host(
    device: str, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, _, _ = driven(replace(SMALL, device=device), monkeypatch)
    for name, of in (("HostClock", "host"), ("EventClock", "events")):
        made = SimpleNamespace(mark=lambda: None, between=lambda of=of: [of])
        monkeypatch.setattr(throughput, name, lambda made=made: made)
        monkeypatch.setattr(bare, name, lambda made=made, of=of: SimpleNamespace(mark=made.mark, between=lambda: [of]))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    assert driver.window(1).tick_ms == (clock,)


def test_events_are_recorded_at_marks_and_read_when_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            self.number = len(log)
            log.append(enable_timing)

        def record(self) -> None:
            log.append(f"record {self.number}")

        def elapsed_time(self, end: Event) -> float:
            log.append("read")
            return float(10 * self.number + end.number)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("wait"))
    clock = EventClock()
    for _ in range(3):
        clock.mark()
    assert clock.between() == [2.0, 24.0]
    assert log == [True, "record 0", True, "record 2", True, "record 4", "wait", "read", "read"]


def test_a_control_is_set_at_every_phase_and_taken_back_and_its_wait_is_timed(
    monkeypatch: pytest.MonkeyPatch, still_clock: StillClock
) -> None:
    """A depth of 2 and 8 steps have four phases; a latent finishes at every fourth tick, after 8 in flight."""
    driver, _, _ = driven(replace(SMALL, depth=2), monkeypatch)
    log: list[Any] = []
    numbers = count(1)

    def tick(_self: Driver) -> list[Any]:
        still_clock.sleep(0.01)
        log.append("tick")
        return [SimpleNamespace(ticks_in_flight=8)] if next(numbers) % 4 == 0 else []

    monkeypatch.setattr(Driver, "tick", tick)
    driver.stream.pipeline.set_shared_curve = lambda *given: log.append(given)  # type: ignore[method-assign]
    found = driver.latency()
    assert [getattr(found, field.name) for field in fields(Latency)] == pytest.approx([2.5, 25.0, 9.5, 95.0])
    on, off = ("velocity_scale", 0.9), ("velocity_scale", None)
    assert [entry for entry in log if entry != "tick"] == [on, off] * 4
    sets = [i for i, entry in enumerate(log) if entry == on]
    ticks = [log[:at].count("tick") % 4 for at in sets]
    assert ticks == [0, 1, 2, 3], "at another phase each time"


# The whole.


def test_a_bench_counts_what_was_done_within_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made of parts that say what they were given, in this order: window, control, decoder alone."""
    log: list[Any] = []
    stats = iter([Stats(decoder_runs=7, decoder_rows=9), Stats(decoder_runs=27, decoder_rows=49)])

    class Session:
        def __enter__(self) -> None:
            log.append("open")

        def __exit__(self, *_error: object) -> None:
            log.append("close")

    class Driven:
        def __init__(self, load: Load) -> None:
            self.load, self.session, self.dropped, self.on_gpu, self.decoder = load, Session(), 0, True, "decoder"
            self.tap = SimpleNamespace(batches=[], inner="inner")
            self.stream = SimpleNamespace(pipeline=SimpleNamespace(stats=lambda: next(stats)))

        def warm_up(self, advance: Any) -> None:
            advance("warm-up")
            self.dropped += 3

        def window(self, ticks: int, advance: Any) -> Window:
            log.append(ticks)
            self.dropped += 2
            self.tap.batches[:] = ["first", "second"]
            return Window((1.0, 2.0), (0.5, 0.25), ("a", "b", "c"), 8.0)  # type: ignore[arg-type]

        def latency(self) -> Latency:
            self.tap.batches[:] = ["of a control"]
            log.append("control")
            return Latency(1.0, 2.0, 3.0, 4.0)

    def alone(*given: Any, **more: Any) -> Bare:
        log.append((given, more))
        return BARE

    monkeypatch.setattr(throughput, "Driver", Driven)
    monkeypatch.setattr(throughput, "digest", lambda finished: f"digest of {finished}")
    monkeypatch.setattr(throughput, "merged", lambda batches: f"merged {batches}")
    monkeypatch.setattr(throughput, "runs", lambda *given: f"runs {given}")
    monkeypatch.setattr(throughput, "bare", alone)
    load = replace(SMALL, executor="onnx")
    both = ("first", "second")
    assert bench(load, log.append) == Measured(
        load,
        {"tick_ms": (1.0, 2.0), "host_ms": (0.5, 0.25)},
        3,
        8.0,
        "digest of ('a', 'b', 'c')",
        2,
        20 / 16,
        40 / 16,
        Latency(1.0, 2.0, 3.0, 4.0),
        BARE,
    )
    of_bare = (("decoder", f"merged {both}"), {"on_gpu": True, "engine": f"runs {('inner', both)}"})
    assert log == ["open", "warm-up", 16, "control", of_bare, "close"]


# The decoder alone.


def test_the_fastest_form_is_the_one_that_takes_least() -> None:
    assert [(BARE.fastest, BARE.ms), (Bare(1, {"eager": 1.0, "graph": 1.0}).fastest)] == [("graph", 40.0), "eager"]


def test_a_tap_is_its_executor_and_keeps_its_batches_in_order() -> None:
    log: list[Any] = []
    inner: Any = SimpleNamespace(
        max_rows=5, takes_mask=False, stream="its stream", run=lambda x: (log.append(x), f"velocity of {x}")[1],
        close=lambda: log.append("closed"),
    )  # fmt: skip
    tap: Any = Tap(inner)
    assert (tap.max_rows, tap.takes_mask, tap.stream, tap.inner) == (5, False, "its stream", inner)
    assert [tap.run(each) for each in ("a", "b")] == ["velocity of a", "velocity of b"]
    tap.close()
    assert (tap.batches, log) == (["a", "b"], ["a", "b", "closed"])


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_form_is_warmed_up_and_then_timed_in_seven_groups_of_ten_of_which_the_median_counts(
    on_gpu: bool, monkeypatch: pytest.MonkeyPatch, still_clock: StillClock
) -> None:
    calls = count()
    used: list[str] = []

    class Host(clocks.HostClock):
        def __init__(self) -> None:
            super().__init__()
            used.append("host")

    class Events(clocks.HostClock):
        def __init__(self) -> None:
            super().__init__()
            used.append("events")

    def call() -> None:
        number = next(calls) - 3
        group = [1, 9, 2, 8, 4, 7, 3][number // 10] if number >= 0 else 1000
        still_clock.sleep(group * 1e-3 * (1.5 if number % 10 == 0 else 1.0))

    monkeypatch.setattr(bare, "HostClock", Host)
    monkeypatch.setattr(bare, "EventClock", Events)
    assert back_to_back(call, on_gpu=on_gpu) == pytest.approx(4 * 1.05)
    assert next(calls) == 3 + 70
    assert used == (["events"] if on_gpu else ["host"])


class Given:
    """A decoder that says what it was given."""

    def __init__(self, **has: bool) -> None:
        self.calls: list[Any] = []
        self.__dict__.update(has)

    def __call__(self, **inputs: Tensor) -> Tensor:
        self.calls.append(([*inputs], torch.is_grad_enabled()))
        return torch.zeros(())


@pytest.mark.parametrize(("has", "masked"), [({}, True), ({"takes_mask": True}, True), ({"takes_mask": False}, False)])
def test_every_form_that_the_device_has_is_timed_on_all_inputs_that_the_decoder_takes(
    has: dict[str, bool], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = batch((3, 4, 2), channels=2, encoder_dim=4)
    names = [name for name in rows.tensors() if masked or name != "encoder_mask"]
    decoder: Any = Given(**has)
    engine = object()

    def compiled(forward: Callable[[], Tensor], **options: Any) -> Any:
        assert options == {"dynamic": False}
        return ("compiled", forward)

    def timed(call: Any, *, on_gpu: bool) -> Any:
        if callable(call):
            call()
        return (call if call is engine or isinstance(call, tuple) else "forward", on_gpu)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(bare, "captured", lambda call: ("captured", *(call[:1] if isinstance(call, tuple) else ())))
    monkeypatch.setattr(bare, "back_to_back", timed)
    found: Any = [
        bare.bare(decoder, rows, on_gpu=False),
        bare.bare(decoder, rows, on_gpu=True),
        bare.bare(decoder, rows, on_gpu=False, engine=engine),  # type: ignore[arg-type]
    ]
    graphs = {"graph": (("captured",), True), "compiled graph": (("captured", "compiled"), True)}
    assert [(one.rows, one.forms) for one in found] == [
        (3, {"eager": ("forward", False)}),
        (3, {"eager": ("forward", True), **graphs}),
        (3, {"eager": ("forward", False), "engine": (engine, False)}),
    ]
    assert decoder.calls == [(names, False)] * 3


# Ablation.


@pytest.mark.parametrize(("ticks", "turns"), [(1, 1), (7, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_a_window_is_rounded_up_to_whole_turns(ticks: int, turns: int) -> None:
    assert ablated_ticks(replace(SMALL, ticks=ticks)) == (len(SWITCHES) + 2) * (8 + turns * 8)


COUNTS = st.integers(0, 50)
STATS = st.builds(
    Stats,
    **{field.name: COUNTS for field in fields(Stats) if field.name != "conditioning"},
    conditioning=st.builds(CacheCounts, COUNTS, COUNTS, COUNTS),
)


@settings(max_examples=8)
@given(STATS, STATS)
def test_counts_are_those_of_after_less_those_of_before_and_levels_those_of_after(before: Stats, after: Stats) -> None:
    found = between(before, after)
    for field in fields(Stats):
        old, new, made = (getattr(each, field.name) for each in (before, after, found))
        if field.name == "conditioning":
            assert made == CacheCounts(
                new.hits - old.hits, new.misses - old.misses, new.evictions - old.evictions
            )  # fmt: skip
        else:
            assert made == (new if field.name in ("depth", "in_flight", "queued") else new - old), field.name


@pytest.mark.parametrize(("low", "high", "turns", "says"), [
    (0.6, 0.9, 6, Says.BEYOND),
    (0.5, 0.9, 6, Says.WITHIN),
    (-0.9, -0.6, 6, Says.BEYOND),
    (-0.9, -0.5, 6, Says.WITHIN),
    (-0.9, 0.9, 6, Says.WITHIN),
    (0.6, 0.9, 5, Says.WITHIN),
])  # fmt: skip
@pytest.mark.parametrize("noise", [(-0.5, 0.1), (-0.1, 0.5), (0.2, 0.5), (-0.5, -0.2)])
def test_a_difference_is_beyond_noise_where_all_of_it_is_wider_than_the_widest_of_noise(
    low: float, high: float, turns: int, says: Says, noise: tuple[float, float]
) -> None:
    found, of_noise = Difference(9.0, low, high, turns), Difference(0.0, *noise, 6)
    assert found.says(of_noise, acted=True) is says
    assert found.says(of_noise, acted=False) is Says.IDLE


class Turned:
    """A driver whose ticks take what a test says, by its switches and by the turn."""

    made: list[Turned] = []
    log: list[Any] = []

    def __init__(self, load: Load) -> None:
        self.load, self.turn, self.name = load, 0, len(self.made)
        self.made.append(self)
        self.stream = SimpleNamespace(pipeline=SimpleNamespace(stats=self.stats))
        self.session = SimpleNamespace(close=lambda: self.log.append(("close", self.name)))

    def stats(self) -> Stats:
        # Conditions are found again where they are cached; nothing else differs.
        hits = 5 * self.turn if self.load.switches.cached_conditioning else 0
        return Stats(ticks=self.turn, conditioning=CacheCounts(hits, 100 - hits, 0))

    def warm_up(self, advance: Any) -> None:
        self.log.append(("warm-up", self.name))
        advance("warm-up")

    def window(self, ticks: int, advance: Any) -> Window:
        self.log.append(("turn", self.name, ticks))
        advance("ticks")
        self.turn += 1
        slower = 0.0 if self.load.switches.cached_conditioning else 10.0 + self.turn
        tick, host = 30.0 * self.turn + slower, 3.0 * self.turn + 2 * slower
        return Window((tick - 1.0, tick + 1.0), (host - 1.0, host + 1.0), (), 0.0)


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Turned]]:
    monkeypatch.setattr(Turned, "made", [])
    monkeypatch.setattr(Turned, "log", [])
    monkeypatch.setattr(ablation, "Driver", Turned)
    yield Turned


def test_all_loads_run_in_turn_and_every_other_time_backwards_and_all_are_closed(turned: type[Turned]) -> None:
    load, seen = replace(SMALL, ticks=3 * 8 - 1), []
    ablate(load, seen.append)
    names = list(range(2 + len(SWITCHES)))
    assert [made.load for made in turned.made] == [
        load, load, *(replace(load, switches=Switches().turned_off(switch)) for switch in SWITCHES),
    ]  # fmt: skip
    turns = [("turn", name, 8) for name in (*names, *names[::-1], *names)]
    assert turned.log == [("warm-up", name) for name in names] + turns + [("close", name) for name in names]
    assert seen == ["warm-up"] * len(names) + ["ticks"] * len(turns)


def test_a_saving_is_what_a_turn_takes_less_and_its_times_are_medians_with_the_switch_off(
    turned: type[Turned],
) -> None:
    found = ablate(replace(SMALL, ticks=7 * 8))
    assert [saving.switch for saving in found] == [FLOOR, *SWITCHES]
    for saving in found:
        if saving.switch == "cached_conditioning":
            low, high = saving.tick_interval
            assert 11.0 <= low <= 14.0 <= high <= 17.0
            wanted = Saving(
                "cached_conditioning", 7, 134.0, 40.0, 14.0, 28.0, (low, high), (2 * low, 2 * high),
                Says.BEYOND, Says.BEYOND,
            )  # fmt: skip
        else:
            says = Says.WITHIN if saving.switch == FLOOR else Says.IDLE
            wanted = Saving(saving.switch, 7, 120.0, 12.0, 0.0, 0.0, (0.0, 0.0), (0.0, 0.0), says, says)
        assert saving == wanted


def test_a_batch_of_several_is_of_all_their_rows() -> None:
    first, second = batch((1, 4, 2), channels=2, encoder_dim=4), batch((2, 4, 2), channels=2, encoder_dim=4)
    made: Batch = bare.merged([first, second, first])
    assert made.rows == 4
    for name, tensor in made.tensors().items():
        assert torch.equal(tensor, torch.cat([each.tensors()[name] for each in (first, second, first)])), name


class Registry:
    """A registry that says what it was asked for; its decoder is a real one."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        decoder = registry.decoder("affine")

        def asked(name: str, gives: Callable[[], Any]) -> None:
            def call(*given: Any, **more: Any) -> Any:
                self.asked.append((name, given, more))
                return gives()

            patch.setattr(registry, name, call)

        self.decoder, self.executor = decoder, EagerExecutor(decoder, 8)
        asked("decoder", lambda: decoder)
        asked("executor", lambda: self.executor)
        asked("engine_for", lambda: "made.engine")


@pytest.mark.parametrize(("engine", "file"), [(None, "made.engine"), ("given.engine", "given.engine")])
def test_a_decoder_and_its_executor_are_those_that_the_load_names(
    engine: str | None, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = Registry(monkeypatch)
    load = replace(SMALL, executor="onnx", decoder="tiny", dtype="bfloat16", depth=6, engine=engine)
    driver = Driver(load)
    asked_for_it = [("engine_for", ("onnx", "tiny"), {"dtype": "bfloat16", "tokens": 200})]
    assert of.asked == [
        ("decoder", ("tiny",), {"dtype": torch.bfloat16, "device": "cpu", "switches": PLAIN}),
        *(asked_for_it if engine is None else []),
        ("executor", ("onnx", of.decoder, 12, None, "cpu", Path(file), None), {}),
    ]
    assert (driver.tap.inner, driver.session.executor, driver.decoder) == (of.executor, driver.tap, of.decoder)
    driver.session.close()


@pytest.mark.parametrize("own", [False, True])
def test_what_a_request_is_made_of_is_drawn_by_seeds(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int, length: int, width: int) -> Tensor:
        return noise(seed, Purpose.INITIAL, 0, (1, length, width), torch.device("cpu"))

    of = Registry(monkeypatch)
    channels, width = registry.widths(of.decoder)
    monkeypatch.setattr(of.decoder, "null_embedding", torch.zeros(1, 1, width) if own else None, raising=False)
    driver = Driver(replace(SMALL, denoise=0.5))
    request = driver.stream._template
    assert torch.equal(request.conditions[0].encoder_hidden_states, drawn(1, 200, width))
    assert torch.equal(request.context_latents, torch.cat([drawn(2, 16, channels), torch.ones(1, 16, channels)], 2))
    assert request.source is not None and torch.equal(request.source, drawn(3, 16, channels))
    null = driver.session.null_embedding
    assert null is not None and torch.equal(null, torch.zeros(1, 1, width) if own else drawn(4, 1, width))
    driver.session.close()


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0.5, 12), (1.0, 25), (1.16, 29), (2.3, 57), (30.0, 750), (30.11, 753)]
)
def test_a_duration_is_the_nearest_number_of_frames(seconds: float, frames: int) -> None:
    assert replace(SMALL, duration=seconds).frames == frames

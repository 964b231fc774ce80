"""The battery: small scripts that together use every feature of the engine, each played on a pipeline of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from harness import registry
from harness.engine.config import DCW, PipelineConfig, Solver
from harness.engine.decoders import Decoder
from harness.engine.executors import Executor
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Condition, Guidance, LatentMask, X0Target
from harness.engine.switches import PLAIN_PATH, Switches
from harness.parity.battery.player import Played, Player, Sizes

AFFINE_FRAMES, ACE_STEP_FRAMES = 12, 16


@dataclass(frozen=True)
class Scenario:
    """A script, with the pipeline and the decoder that run it.

    Attributes:
        name: name of the scenario and of its capture.
        summary: the features that the scenario covers, in one line.
        script: function that drives the player.
        config: fields of the pipeline's configuration that differ from the battery's defaults.
        decoder: name of the decoder; see `registry.decoder`. Captures are of `"affine"` and `"tiny"`.
        switches: switches that the capture is blessed with.
        dtype: name of the dtype in which the decoder computes; not read for `"affine"`.
        device: device of the decoder and of all tensors.
    """

    name: str
    summary: str
    script: Callable[[Player], None]
    config: Mapping[str, Any] = field(default_factory=dict)
    decoder: str = "affine"
    switches: Switches = field(default_factory=Switches)
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def sizes(self) -> Sizes:
        """Sizes of the scenario's tensors."""
        frames = AFFINE_FRAMES if self.decoder == registry.AFFINE else ACE_STEP_FRAMES
        return Sizes(frames, *registry.widths(decoder(self)), self.device)


def decoder(scenario: Scenario) -> Decoder:
    """Make the decoder of a scenario."""
    return registry.decoder(scenario.decoder, dtype=getattr(torch, scenario.dtype), device=scenario.device)


def executor(
    scenario: Scenario, kind: registry.ExecutorKind | str = registry.ExecutorKind.EAGER, engine: Path | None = None
) -> Executor:
    """Make an executor for a scenario, with pinned rows for the ACE-Step architecture.

    Args:
        scenario: the scenario that the executor will run.
        kind: kind of the executor; captures are blessed with `eager`.
        engine: file of the compiled decoder, for a kind that runs one; None is the default of `registry.engine_for`.
    """
    engine = engine or registry.engine_for(kind, scenario.decoder, dtype=scenario.dtype)
    return registry.executor(kind, decoder(scenario), 8, pinned(scenario), scenario.device, engine)


def pinned(scenario: Scenario) -> int | None:
    """Number of rows to which a scenario's runs are padded; None for `affine`, whose rows depend on no other row."""
    return None if scenario.decoder == registry.AFFINE else 8


def configuration(scenario: Scenario) -> PipelineConfig:
    """Configuration of a scenario's pipeline, with the switches that the capture is blessed with."""
    return PipelineConfig(**{"depth": 3, "steps": 4, **scenario.config}, switches=scenario.switches)


def play(scenario: Scenario, *, switches: Switches | None = None, on: Executor | None = None) -> Played:
    """Run a scenario on a new pipeline.

    Args:
        scenario: the scenario.
        switches: switches of the pipeline; None is the scenario's own.
        on: the executor; None is the one that captures are blessed with.
    """
    config = replace(configuration(scenario), switches=switches or scenario.switches)
    with StreamPipeline(on or executor(scenario), config) as pipeline:
        player = Player(pipeline, scenario.sizes)
        scenario.script(player)
        return Played({id: latent.cpu() for id, latent in player.finished.items()}, tuple(player.ticks))


# Scripts of the scenarios.


def _plain(p: Player) -> None:
    p.submit("a", 1)
    p.tick()
    p.submit("b", 2)
    p.submit("c", 3)
    p.drain()


def _partial_denoise(p: Player) -> None:
    for index, denoise in enumerate((0.5, 0.3, 0.0)):
        p.submit(f"denoise-{denoise}", 10 + index, source=p.latent(40 + index), denoise=denoise)
    p.drain()


def _sde_curve(p: Player) -> None:
    p.submit("ramp", 1, source=p.latent(40), sde_curve=p.ramp(0.0, 1.0))
    p.submit("partial", 2, source=p.latent(41), sde_curve=0.7, denoise=0.6)
    p.tick()
    p.submit("no-curve", 3)
    p.drain()


def _multi_cond(p: Player) -> None:
    weighted = (p.condition(1, 3, temporal_weight=p.ramp(1.0, 0.0)), p.condition(2, 9), p.condition(3, 5))
    ranged = (p.condition(4, 6, step_range=(0.0, 0.5)), p.condition(5, 8, step_range=(0.25, 1.0), temporal_weight=0.5))
    masked = (p.condition(6, 6, encoder_mask=torch.tensor([[1, 1, 1, 1, 0, 0]], device=p.sizes.device)),)
    p.submit("weighted", 1, conditions=weighted)
    p.submit("ranged", 2, conditions=ranged)
    p.submit("masked", 3, conditions=masked)
    p.drain()


def _guided(mode: str, **fields: Any) -> Callable[[Player], None]:
    def script(p: Player) -> None:
        for index, length in enumerate((3, 2, 5)):
            negatives = (p.condition(50 + index, length),)
            p.submit(f"r{index}", 1 + index, guidance=Guidance(2.5 + index, negatives, mode, **fields))
            p.tick()
        p.drain()

    return script


def _cfg_null(p: Player) -> None:
    null = Condition(p.full((1, 7, p.sizes.encoder_dim), 0.125))
    p.submit("null", 1, guidance=Guidance(4.0, (null,)))
    p.submit("unguided", 2)
    p.drain()


def _cfg_curve_rescale(p: Player) -> None:
    negatives = (p.condition(50, 4), p.condition(51, 2, temporal_weight=p.ramp(0.0, 2.0)))
    p.submit("curve", 1, guidance=Guidance(p.ramp(1.0, 5.0), negatives, rescale=0.7, momentum=0.5))
    p.submit("eta", 2, guidance=Guidance(3.0, negatives, eta=0.5, norm_threshold=None))
    p.tick()
    p.pipeline.set_shared_curve("guidance_scale", 1.0)
    p.tick()
    p.pipeline.set_shared_curve("guidance_scale", None)
    p.pipeline.set_shared_curve("rescale", p.ramp(0.0, 1.0))
    p.pipeline.set_shared_curve("momentum", 0.0)
    p.drain()


def _x0_target_shared(p: Player) -> None:
    p.submit("fixed", 1, x0_target=X0Target(p.latent(60), strength=0.4))
    p.submit("live", 2, x0_target=X0Target(p.latent(61)))
    p.submit("none", 3)
    p.tick(2)
    p.pipeline.set_shared_curve("x0_strength", p.ramp(0.0, 0.8))
    p.pipeline.set_shared_curve("velocity_scale", p.ramp(0.8, 1.2))
    p.tick()
    p.pipeline.set_shared_curve("x0_strength", None)
    p.drain()


def _latent_mask(p: Player) -> None:
    half = (p.frames() % 4 < 2).to(torch.int64)
    p.submit("hard", 1, latent_mask=LatentMask(half, p.latent(70)))
    p.submit("fading", 2, latent_mask=LatentMask(half.bool(), p.latent(71), lambda step, total: 1 - step / total))
    p.submit("neutral", 3, latent_mask=LatentMask(1.0, p.latent(72)), denoise=0.5)
    p.drain()


def _x0_gated(p: Player) -> None:
    p.submit("gated", 1, x0_target=X0Target(p.latent(60), curve=p.ramp(0.0, 1.0), gate=0.4))
    p.submit("open", 2, x0_target=X0Target(p.latent(61), curve=0.3))
    p.drain()


def _x0_odd_steps(p: Player) -> None:
    p.submit("strength", 1, x0_target=X0Target(p.latent(60), strength=0.4))
    p.submit("gated", 2, x0_target=X0Target(p.latent(61), curve=p.ramp(0.2, 0.8), gate=0.5))
    p.drain()


def _x0_masked(p: Player) -> None:
    mask = p.ramp(0.2, 0.8)
    p.submit("strength", 1, x0_target=X0Target(p.latent(60), strength=0.4), latent_mask=LatentMask(mask, p.latent(70)))
    p.submit("gated", 2, x0_target=X0Target(p.latent(61), curve=0.3), latent_mask=LatentMask(mask, p.latent(71)))
    p.drain()


def _dcw_modes(p: Player) -> None:
    p.submit("a", 1)
    p.submit("b", 2, guidance=Guidance(2.0, (p.condition(50, 4),)))
    for dcw in (DCW("low"), DCW("high", a=0.1), DCW("pix", a=0.02, wavelet="db2"), DCW("double", 0.1, 0.0, "sym4")):
        p.pipeline.set_dcw(dcw)
        p.tick()
    p.submit("curve", 3)
    p.pipeline.set_dcw(DCW("double", a=p.ramp(0.0, 0.1), b=torch.tensor([0.0, 0.05, 0.02], device=p.sizes.device)))
    p.drain()


def _noise_injection(p: Player) -> None:
    p.submit("ramp", 1, noise_injection=p.ramp(0.0, 0.3))
    p.submit("scalar", 2, noise_injection=0.1, velocity_scale=0.9)
    p.submit("off", 3, noise_injection=0.0)
    p.tick(2)
    p.pipeline.set_shared_curve("noise_injection", 0.2)
    p.drain()


def _initial_noise(p: Player) -> None:
    p.submit("ramp", 1, source=p.latent(40), initial_noise=p.ramp(0.0, 1.0))
    p.submit("scalar", 2, source=p.latent(41), initial_noise=0.5, denoise=0.7)
    p.drain()


def _channel_gain(p: Player) -> None:
    p.submit("a", 1)
    p.submit("b", 2, guidance=Guidance(2.0, (p.condition(50, 4),)))
    p.tick()
    p.pipeline.set_channel_gain(p.ramp(0.5, 1.5, p.sizes.channels).reshape(1, 1, -1))
    p.tick()
    p.pipeline.set_channel_gain(1.0 + 0.25 * p.latent(80))
    p.tick()
    p.pipeline.set_channel_gain(None)
    p.drain()


def _mixed_ring(p: Player) -> None:
    negatives = (p.condition(50, 3), p.condition(51, 9))
    mask = LatentMask((p.frames() > 4).float(), p.latent(70))
    target = X0Target(p.latent(60), strength=0.3)
    p.submit("full", 1, guidance=Guidance(3.0, negatives, rescale=0.3), velocity_scale=p.ramp(0.9, 1.1))
    p.submit("plain", 2)
    p.tick()
    p.submit("self", 3, guidance=Guidance(2.0, mode="self"), noise_injection=0.1, x0_target=target)
    p.submit("masked", 4, latent_mask=mask, denoise=0.6, conditions=(p.condition(7, 4), p.condition(8, 11)))
    p.tick()
    p.pipeline.set_dcw(DCW())
    p.pipeline.set_shared_curve("velocity_scale", 1.05)
    p.submit("init", 5, guidance=Guidance(p.ramp(1.0, 4.0), negatives[:1], "initialize"), source=p.latent(42))
    p.tick(2)
    p.pipeline.set_shared_curve("sde_curve", p.ramp(0.2, 0.9))
    p.pipeline.set_shared_curve("guidance_scale", 2.2)
    p.submit("gated", 6, x0_target=X0Target(p.latent(62), curve=0.5, gate=0.2), source=p.latent(43), denoise=0.4)
    p.tick(2)
    p.pipeline.set_channel_gain(p.full((1, 1, p.sizes.channels), 1.1))
    p.pipeline.set_shared_curve("sde_curve", None)
    p.drain()


def _many_runs(p: Player) -> None:
    positives, negatives = (tuple(p.condition(seed, 1 + seed % 5) for seed in seeds) for seeds in ((1, 2, 3), (50, 51)))
    for index in range(3):
        p.submit(f"r{index}", 1 + index, conditions=positives, guidance=Guidance(2.0 + index, negatives))
    p.drain()


def _odd_length(p: Player) -> None:
    p.submit("odd", 1, frames=11, guidance=Guidance(2.0, (p.condition(50, 4),)))
    p.submit("plain", 2, frames=11)
    p.drain()


def _depth_change(p: Player) -> None:
    for index in range(3):
        p.submit(f"r{index}", 1 + index)
    p.tick(2)
    p.pipeline.set_depth(1)
    p.submit("waits", 4)
    p.tick(3)
    p.pipeline.set_depth(6)
    for index in range(5, 9):
        p.submit(f"r{index}", index)
    p.drain()


def _length_change(p: Player) -> None:
    p.submit("displaced", 1)
    p.tick(2)
    p.submit("longer", 2, frames=17, guidance=Guidance(2.0, mode="self"))
    p.tick()
    p.submit("beside", 3, frames=17)
    p.drain()


def _ace_cfg(p: Player) -> None:
    p.submit("full", 1, guidance=Guidance(3.0, (p.condition(50, 3),)))
    p.submit("plain", 2, conditions=(p.condition(5, 12),))
    p.tick()
    p.submit("initialize", 3, guidance=Guidance(2.0, (p.condition(51, 9),), "initialize"))
    p.drain()


_SDE = {"solver": Solver.SDE}
_MIXED = {"depth": 4, "steps": 6}

_BATTERY = (
    Scenario("ode_plain", "Euler steps, a late arrival", _plain),
    Scenario("ode_partial_denoise", "starts from a source, down to a denoise of 0", _partial_denoise),
    Scenario("sde_plain", "the SDE solver with each step's own noise", _plain, _SDE),
    Scenario("sde_curve", "the SDE curve beside a plain slot", _sde_curve),
    Scenario("multi_cond_padded", "conditions of many lengths: weights, ranges, a caller's mask", _multi_cond),
    Scenario("cfg_full", "full guidance, negatives shorter than positives", _guided("full")),
    Scenario("cfg_null", "full guidance against a null condition beside an unguided slot", _cfg_null),
    Scenario("rcfg_initialize", "the negative velocity of step 0, kept", _guided("initialize")),
    Scenario("rcfg_self", "the initial noise as negative velocity", _guided("self")),
    Scenario("cfg_curve_rescale", "a guidance curve, rescale, eta, live scale and momentum", _cfg_curve_rescale),
    Scenario("x0_target_shared_curves", "an x0 target under a live strength and velocity scale", _x0_target_shared),
    Scenario("latent_mask_inpaint", "a latent mask: hard, fading, neutral", _latent_mask),
    Scenario("latent_mask_sde", "a latent mask under the SDE solver", _latent_mask, _SDE),
    Scenario("x0_gated_curve", "an x0 target behind a gate", _x0_gated),
    Scenario("x0_target_odd_steps", "x0 targets where a step lies in the middle", _x0_odd_steps, {"steps": 5}),
    Scenario("x0_target_masked", "an x0 target and a latent mask in one request", _x0_masked),
    Scenario("dcw_double", "wavelet correction of both bands", _guided("full"), {"dcw": DCW()}),
    Scenario("dcw_modes", "each mode, four wavelets, curve scalers, changed live", _dcw_modes, {"steps": 6}),
    Scenario("noise_injection", "noise after Euler steps, own and shared", _noise_injection),
    Scenario("initial_noise_curve", "noise and source mixed by a curve at the start", _initial_noise),
    Scenario("channel_gain", "gain on the decoder's input alone, changed live", _channel_gain),
    Scenario("mixed_ring", "every feature in flight at once", _mixed_ring, _MIXED),
    Scenario("plain_path", "the mixed ring with every switch off", _mixed_ring, _MIXED, switches=PLAIN_PATH),
    Scenario("many_runs", "the rows of a tick do not fit two runs", _many_runs, {"steps": 2}),
    Scenario(
        "odd_length", "an odd number of frames, with wavelet correction", _odd_length, {"dcw": DCW(wavelet="db3")}
    ),
    Scenario("depth_change", "the ring shrinks and grows", _depth_change),
    Scenario("length_change", "another length displaces what is in flight", _length_change),
    Scenario("ace_tiny_plain", "the ACE-Step architecture, plain", _plain, decoder="tiny"),
    Scenario("ace_tiny_cfg", "the ACE-Step architecture, guided", _ace_cfg, decoder="tiny"),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _BATTERY}
"""The battery by name, in order."""

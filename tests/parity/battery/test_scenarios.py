from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.engine import PLAIN_PATH, Switches
from harness.parity.baselines.captures import check
from harness.parity.battery.scenarios import SCENARIOS, decoder, executor, play
from harness.parity.compare import assert_identical
from harness.registry import LIVE

SEED_DESIGN = [
    "ode_plain",
    "ode_partial_denoise",
    "sde_plain",
    "sde_curve",
    "multi_cond_padded",
    "cfg_full",
    "rcfg_self",
    "x0_target_shared_curves",
]  # noqa: SIM905 a list of quoted names is a screen long
ADDED = [
    "cfg_null",
    "rcfg_initialize",
    "cfg_curve_rescale",
    "latent_mask_inpaint",
    "x0_gated_curve",
    "dcw_double",
    "dcw_modes",
    "noise_injection",
    "initial_noise_curve",
    "channel_gain",
    "mixed_ring",
    "odd_length",
    "depth_change",
    "length_change",
    "ace_tiny_plain",
    "ace_tiny_cfg",
]  # noqa: SIM905 as above


def test_the_battery_has_every_scenario_it_promises() -> None:
    assert set(SEED_DESIGN + ADDED) <= set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_makes_what_was_blessed(name: str) -> None:
    """Bit for bit on the machine that blessed it, within its measured bound on another one."""
    (result,) = check(only=[name]).results
    assert result.verdict.passes, f"{result.verdict}: {result.detail}"


@pytest.mark.parametrize("kind", LIVE)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_plain_path_makes_the_same_bits_at_every_tick(name: str, kind: str) -> None:
    fast = play(SCENARIOS[name], switches=Switches(), on=executor(SCENARIOS[name], kind))
    plain = play(SCENARIOS[name], switches=PLAIN_PATH)
    assert_identical(fast.finished, plain.finished, name)
    assert fast.ticks == plain.ticks


def test_a_scenario_s_decoder_is_on_its_device() -> None:
    made = decoder(replace(SCENARIOS["ace_tiny_plain"], device="meta"))
    assert isinstance(made, torch.nn.Module)
    assert {weight.device.type for weight in made.parameters()} == {"meta"}


def test_the_mixed_ring_really_mixes() -> None:
    played = play(SCENARIOS["mixed_ring"])
    assert set(played.finished) == {"full", "plain", "self", "masked", "init", "gated"}

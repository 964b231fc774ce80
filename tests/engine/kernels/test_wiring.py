"""How a ring uses its kernels, with torch's own formulas in their place: everything but the kernels themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, PipelineConfig, StreamPipeline, guidance, kernels, solver, wavelet
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import CudaGraphExecutor, EagerExecutor, Shape
from harness.engine.kernels import Corrected, Guided
from harness.engine.switches import PLAIN_PATH, Switches
from harness.engine.wavelet import DCWMode
from harness.parity.battery import scenarios
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.battery.scripts import Drain, Script, Submit, Tick
from harness.parity.battery.scripts import Guided as Asked
from harness.parity.compare import assert_identical

CPU = torch.device("cpu")


class Stand:
    """Stand-ins for the kernels, and the sizes of their launches."""

    def __init__(self) -> None:
        self.guided: list[int] = []
        self.corrected: list[int] = []
        self.prepared: list[tuple[torch.device, int]] = []

    def guide(self, slots: list[Guided]) -> list[tuple[Tensor, Tensor]]:
        self.guided.append(len(slots))
        return [self._guide(slot) for slot in slots]

    def _guide(self, slot: Guided) -> tuple[Tensor, Tensor]:
        average = guidance.running_average(slot.v_pos - slot.v_neg, slot.average, slot.momentum)
        v = guidance.guide(slot.v_pos, average, slot.scale, slot.norm_threshold, slot.eta)
        return v if slot.rescale is None else guidance.rescale(v, slot.v_pos, slot.rescale), average

    def correct(self, slots: list[Corrected]) -> list[Tensor]:
        self.corrected.append(len(slots))
        return [self._correct(slot) for slot in slots]

    def _correct(self, slot: Corrected) -> Tensor:
        clean = solver.denoised(slot.x, slot.velocity, slot.t)
        if slot.pix is not None:
            assert slot.low is None and slot.high is None
            return wavelet.correct(DCWMode.PIX, slot.stepped, clean, slot.t, slot.pix, None, "haar")
        assert (slot.low_factor, slot.high_factor) == (slot.t, 1.0 - slot.t)
        return wavelet.correct(DCWMode.DOUBLE, slot.stepped, clean, slot.t, slot.low, slot.high, "haar")

    def prepare(self, device: torch.device, channels: int) -> None:
        self.prepared.append((device, channels))


@pytest.fixture(name="stand")
def _stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    stand = Stand()
    monkeypatch.setattr(kernels, "here", lambda device: True)
    for name in ("guide", "correct", "prepare"):
        monkeypatch.setattr(kernels, name, getattr(stand, name))
    for name in ("guide", "correct"):
        monkeypatch.setattr(kernels.plain, name, getattr(stand, name))
    yield stand


def test_on_a_cpu_no_kernel_runs() -> None:
    assert not kernels.here(CPU)
    kernels.prepare(CPU, 8)


EXPECTED = {name: scenarios.play(scenario) for name, scenario in SCENARIOS.items() if scenario.decoder == "affine"}


@pytest.mark.parametrize("switches", [Switches(), PLAIN_PATH], ids=["on", "off"])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_scenario_has_the_same_bits_through_the_kernels(name: str, switches: Switches, stand: Stand) -> None:
    found, expected = scenarios.play(SCENARIOS[name], switches=switches), EXPECTED[name]
    assert_identical(found.finished, expected.finished, "latents")
    assert found.ticks == expected.ticks
    assert stand.prepared


def test_the_scenarios_guide_and_correct_in_kernels(stand: Stand) -> None:
    for name in ("cfg_full", "dcw_double", "mixed_ring"):
        scenarios.play(SCENARIOS[name])
    assert stand.guided and stand.corrected


BUSY = Script(
    (
        Submit(1, guided=Asked(3.0)),
        Tick(),
        Submit(2),
        Submit(3, guided=Asked(2.0, mode="self")),
        Tick(2),
        Drain(),
    ),
    steps=4,
)


def sizes(stand: Stand, switches: Switches, dcw: DCW | None = None) -> tuple[list[int], list[int]]:
    config = PipelineConfig(depth=3, steps=4, dcw=dcw, switches=switches)
    with StreamPipeline(EagerExecutor(AffineDecoder()), config) as pipeline:
        BUSY.play(pipeline, "cpu")
    return stand.guided, stand.corrected


def test_all_slots_share_a_launch_and_on_the_plain_path_each_is_computed_alone(stand: Stand) -> None:
    guided, corrected = sizes(stand, Switches(), DCW())
    assert guided == [1, 2, 2, 2, 1]
    assert corrected == [1, 3, 3, 3, 2]
    stand.guided.clear()
    stand.corrected.clear()
    guided, corrected = sizes(stand, Switches(integrator="per_slot"), DCW())
    assert guided == [1] * 8
    assert corrected == [1] * 12


@pytest.mark.parametrize(("dcw", "corrected"), [(None, False), (DCW(wavelet="db2"), False), (DCW(), True)])
def test_only_haar_is_corrected_in_kernels(stand: Stand, dcw: DCW | None, corrected: bool) -> None:
    assert bool(sizes(stand, Switches(), dcw)[1]) is corrected


@pytest.mark.parametrize("mode", DCWMode)
@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("neutral", ["", "a", "b"])
def test_every_mode_reaches_the_kernel_with_its_own_scalers(
    mode: DCWMode, curved: bool, neutral: str, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"a": torch.linspace(0.0, 0.2, 5) if curved else 0.1, "b": 0.3}
    dcw = DCW(mode, **{name: 0.0 if name == neutral else value for name, value in given.items()})
    script = Script((Submit(1), Submit(2), Drain()), steps=3)
    latents = []
    for patched in (True, False):
        if not patched:
            monkeypatch.setattr(kernels, "here", lambda device: False)
        with StreamPipeline(EagerExecutor(AffineDecoder()), PipelineConfig(depth=2, steps=3, dcw=dcw)) as pipeline:
            latents.append([finished.latent for finished in script.play(pipeline, "cpu")])
    assert_identical(latents[0], latents[1], "latents")


def test_kernels_are_prepared_by_the_first_request_and_with_the_executor_s_shapes(stand: Stand) -> None:
    shape = Shape(10, 6, 8, 32)
    CudaGraphExecutor(AffineDecoder(), device="cpu", row_buckets=(1,)).prepare([shape])
    assert stand.prepared == [(CPU, 8)]
    sizes(stand, Switches())
    assert len(stand.prepared) == 2

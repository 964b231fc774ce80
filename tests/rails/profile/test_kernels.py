"""Kernels of a GPU from made-up events: times by name, categories, and the gaps between them."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from harness import registry
from harness.engine.aot.layers import Layer
from harness.engine.executors import CudaGraphExecutor
from harness.rails.profile import kernels
from harness.rails.profile.kernels import RUN, Interval, by_name, gaps, on_device, starts
from harness.rails.profile.report import Breakdown, Gaps, NoLayers, Profile
from harness.rails.profile.rules import KERNEL, Category, Facts, categorise
from harness.rails.profile.sources import SeesGaps, TorchSubject, batch, profiled
from harness.rails.profile.tables import tables

KERNELS = [  # Of two runs, in microseconds: the second stream's kernel overlaps the first and fills a gap in part.
    Interval("nvjet_tst_128x256", 1000.0, 1100.0),
    Interval("triton_poi_fused_add_0", 1150.0, 1200.0),
    Interval("Memset (Device)", 1090.0, 1120.0),
    Interval("nvjet_tst_128x256", 5000.0, 5200.0),
    Interval("triton_poi_fused_add_0", 5200.0, 5260.0),
]
BEGAN = [990.0, 4990.0]


def event(name, start, end, device="CUDA", **more):
    times = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(
        name=name, time_range=times, device_type=SimpleNamespace(name=device), cpu_parent=None, **more
    )


EVENTS = [
    event(RUN, 990.0, 1300.0, "CPU"),
    event(RUN, 990.0, 1300.0, is_user_annotation=True),
    *(event(*each) for each in KERNELS),
    event("cudaGraphLaunch", 991.0, 992.0, "CPU"),
    event(RUN, 4990.0, 5300.0, "CPU"),
]


def test_kernels_are_told_from_marks_and_from_what_the_host_does():
    assert (on_device(EVENTS), starts(reversed(EVENTS))) == (KERNELS, BEGAN)


def test_a_gap_is_time_of_a_run_in_which_no_stream_works():
    found = gaps(KERNELS, BEGAN)
    # 30 of 200 us in the first run, none of 260 in the second; what lies between the runs is no gap.
    assert (found.ms, found.span_ms) == pytest.approx((0.015, 0.230))
    assert found.share == pytest.approx(15 / 230)


def test_the_order_of_kernels_does_not_matter():
    assert gaps(KERNELS[::-1], BEGAN) == gaps(KERNELS, BEGAN)


def test_a_long_kernel_hides_the_ends_of_short_ones():
    short = [Interval("short", 10.0, 20.0), Interval("short", 50.0, 60.0)]
    found = gaps([Interval("long", 0.0, 100.0), *short, Interval("late", 120.0, 130.0)], [-5.0])
    assert (found.ms, found.span_ms) == pytest.approx((0.020, 0.130))


def test_a_kernel_that_seems_to_begin_before_its_run_belongs_to_the_first_one():
    assert gaps([Interval("a", 0.0, 10.0), Interval("b", 15.0, 20.0)], [5.0]).ms == pytest.approx(0.005)


def test_without_kernels_there_are_no_gaps_and_one_kernel_has_none():
    assert gaps([], BEGAN) is None
    assert gaps([Interval("a", 1000.0, 1010.0)], BEGAN) == Gaps(0.0, 0.01)
    assert Gaps(0.0, 0.0).share == 0.0


def test_kernels_are_layers_by_name_with_times_and_calls_of_a_run():
    found = [(each.facts.layer.name, each.facts.layer.kind, each.ms, each.calls) for each in by_name(KERNELS, 2)]
    assert found == [
        ("nvjet_tst_128x256", KERNEL, pytest.approx(0.150), 1.0),
        ("Memset (Device)", KERNEL, pytest.approx(0.015), 0.5),
        ("triton_poi_fused_add_0", KERNEL, pytest.approx(0.055), 1.0),
    ]
    with pytest.raises(NoLayers, match="no kernel in 2 runs"):
        by_name([], 2)


def test_the_rules_of_kernels_match_no_layer_of_another_profiler():
    assert categorise(Facts(Layer("my_memcpy_softmax_norm_elementwise")))[0] is Category.OTHER


class Traced(TorchSubject):
    """A recorded executor's subject, with a profile that a GPU would give."""

    on_gpu = True

    def run(self):
        pass


def subject(monkeypatch, kind=CudaGraphExecutor):
    seen = SimpleNamespace(events=lambda: EVENTS)
    monkeypatch.setattr(torch.profiler, "profile", lambda **_options: nullcontext(seen))
    return Traced(object.__new__(kind), None, None)


def test_a_recorded_run_on_a_gpu_is_profiled_by_its_kernels_with_their_gaps(monkeypatch):
    found = Breakdown(profiled(subject(monkeypatch), 2, 1, {}))
    assert {row.timed.facts.layer.name: str(row.category) for row in found.rows} == {
        "nvjet_tst_128x256": "gemm", "triton_poi_fused_add_0": "pointwise", "Memset (Device)": "copy-reformat",
    }  # fmt: skip
    document = found.document()["gaps"]
    assert document == {"ms": pytest.approx(0.015), "span_ms": pytest.approx(0.23), "share": pytest.approx(15 / 230)}


def test_the_gaps_are_a_line_of_their_own():
    timed = by_name(KERNELS, 2)
    facts, *_ = tables(Breakdown(Profile("torch", timed, 2, (0.3,), gaps=Gaps(0.015, 0.230))), 3)
    rows = dict(zip(*(list(column.cells) for column in facts.columns), strict=True))
    said = rows["gaps between kernels, ms per run"]
    assert said == "0.015 (6.5% of 0.230 ms from the first kernel to the last)"
    facts, *_ = tables(Breakdown(Profile("torch", timed, 2, (0.3,))), 3)
    assert "gaps between kernels, ms per run" not in list(facts.columns[0].cells)


def test_a_profile_of_a_cpu_has_no_gaps_and_its_runs_are_marked(monkeypatch):
    decoder = registry.decoder("affine")
    made = TorchSubject(registry.executor("cuda_graph", decoder), decoder, batch((2, 16, 5), *registry.widths(decoder)))
    marks = []
    monkeypatch.setattr(kernels, "starts", lambda events: marks.extend(starts(events)) or marks)
    found = profiled(made, 3, 1, {})
    assert (found.gaps, len(marks)) == (None, 3)
    assert isinstance(made, SeesGaps) and made.recorded


def test_the_modules_of_a_recorded_run_are_not_marked(monkeypatch):
    marked = []
    monkeypatch.setattr("harness.rails.profile.sources.scopes", lambda decoder: marked.append(decoder) or nullcontext())
    profiled(subject(monkeypatch), 1, 1, {})
    assert marked == [None]

"""Profiles from runs: the order of things, TensorRT's reports from a small fake, torch's profiler for real."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from harness import registry
from harness.engine.aot.layers import Layer
from harness.engine.executors import Batch
from harness.rails.profile.report import Breakdown, NoLayers, OtherEngine, Timed
from harness.rails.profile.rules import Facts
from harness.rails.profile.sources import EngineSubject, TorchSubject, batch, operators, profiled, scopes
from tests.fakes import LoggedStream


class FakeSubject:
    source, provenance = "fake", {}

    def __init__(self):
        self.log = []

    def run(self):
        self.log.append("run")

    def layers(self, runs, warmup):
        self.log.append((runs, warmup))
        return [Timed(Facts(Layer("Conv_1")), 1.0)], True


def test_the_wall_time_is_taken_before_any_profiler_is_on():
    subject = FakeSubject()
    found = profiled(subject, 3, 2, {"device": "cpu"})
    assert subject.log == ["run"] * 5 + [(3, 2)]
    assert len(found.wall_ms) == 3
    assert (found.source, found.runs, found.resolved, found.provenance) == ("fake", 3, True, {"device": "cpu"})


def test_a_wall_time_is_of_one_run_in_milliseconds(monkeypatch):
    ticks = iter([1.0, 1.002, 2.0, 2.004])
    monkeypatch.setattr("harness.rails.profile.sources.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert profiled(FakeSubject(), 2, 1, {}).wall_ms == pytest.approx((2.0, 4.0))


def test_a_batch_has_the_shapes_that_were_asked_for():
    made = batch((3, 10, 5), channels=4, encoder_dim=16)
    assert {name: tuple(tensor.shape) for name, tensor in made.tensors().items()} == {
        "hidden_states": (3, 10, 4),
        "timestep": (3,),
        "encoder_hidden_states": (3, 5, 16),
        "encoder_mask": (3, 5),
        "context_latents": (3, 10, 8),
    }
    assert made.encoder_mask.all()
    assert made.timestep.tolist() == pytest.approx([1.0, 2 / 3, 1 / 3])
    assert not torch.equal(made.hidden_states[0], made.hidden_states[1])


def test_no_two_rows_of_a_batch_are_drawn_alike():
    made = batch((3, 6, 6), channels=4, encoder_dim=4)
    drawn = (made.hidden_states, made.encoder_hidden_states, made.context_latents[..., :4])
    assert len({tuple(row.flatten().tolist()) for rows in drawn for row in rows}) == 9


class FakeEngine:
    """Reports its layers when its stream comes to the run, as an engine does that is not made synchronous."""

    def __init__(self, reports, layers=()):
        self.reports, self.listener, self.runs = reports, None, 0
        self.stream = LoggedStream()
        fields = dict.fromkeys(("compute_capability", "gpu", "driver", "verbosity"))
        self.sidecar = SimpleNamespace(layers=layers, flavour="tensorrt-rtx", version="1.7", dtypes={}, **fields)

    def run(self, _batch: Batch):
        self.runs += 1
        listener = self.listener

        def work():
            for name, ms in self.reports if listener else ():
                listener(name, ms * self.runs)

        self.stream.launch(work)

    @contextmanager
    def profiling(self, listener):
        self.listener = listener
        yield
        self.listener = None


def test_an_engines_layers_are_averaged_over_the_profiled_runs_and_not_over_those_that_warm_up():
    engine = FakeEngine([("a", 1.0), ("b", 0.5), ("a", 1.0)], (Layer("a", "gemm"), Layer("c")))
    found, resolved = EngineSubject(engine, None).layers(2, 3)
    assert engine.runs == 5
    # Runs four and five, whose layers take four and five times as long as the first one's.
    assert [(each.facts.layer, each.ms, each.calls) for each in found] == [
        (Layer("a", "gemm"), 9.0, 2.0),
        (Layer("b"), 2.25, 1.0),
    ]
    assert resolved


def test_a_run_of_an_engine_is_waited_for():
    engine = FakeEngine([])
    EngineSubject(engine, None).run()
    assert engine.stream.pending == 0


def test_an_engine_whose_layers_nothing_lists_is_known_by_names_alone():
    found, resolved = EngineSubject(FakeEngine([("a", 1.0)]), None).layers(1, 0)
    assert (found[0].facts.layer, resolved) == (Layer("a"), False)


def test_an_engine_that_reports_nothing_is_refused():
    with pytest.raises(NoLayers, match="the profiler reported no layer in 2 runs"):
        EngineSubject(FakeEngine([]), None).layers(2, 0)


def test_an_engine_that_is_not_the_one_of_its_metadata_is_refused():
    with pytest.raises(OtherEngine):
        EngineSubject(FakeEngine([("a", 1.0)], (Layer("b"),)), None).layers(1, 0)


def test_an_engines_provenance_is_what_its_metadata_says():
    names = ("flavour", "version", "compute_capability", "gpu", "driver", "dtypes", "verbosity")
    engine, says = FakeEngine([]), {name: f"its {name}" for name in names}
    engine.sidecar = SimpleNamespace(**says, layers=(), profile={})
    assert EngineSubject(engine, None).provenance == says


def event(name, cpu_us, parent=None, device="CPU", device_us=0.0):
    return SimpleNamespace(
        name=name,
        cpu_parent=parent,
        device_type=SimpleNamespace(name=device),
        self_cpu_time_total=cpu_us,
        self_device_time_total=device_us,
    )


def test_operators_are_told_apart_by_the_module_that_calls_them():
    block = event("module: layers.0", 900.0)
    query = event("module: layers.0.to_q", 900.0, block)
    linear = event("aten::linear", 10.0, query)
    events = [block, query, linear, event("aten::mm", 400.0, linear), event("aten::mm", 600.0, linear)]
    found = operators([*events, event("aten::add", 50.0, block), event("aten::add", 30.0)], 2, on_gpu=False)
    assert [(each.facts.layer.name, each.ms, each.calls) for each in found] == [
        ("layers.0.to_q/aten::linear", 0.005, 0.5),
        ("layers.0.to_q/aten::mm", 0.5, 1.0),
        ("layers.0/aten::add", 0.025, 0.5),
        ("aten::add", 0.015, 0.5),
    ]


def test_what_is_no_operator_or_took_no_time_is_no_layer():
    events = [
        event("aten::mm", 4.0),
        event("aten::view", 0.0),
        event("ProfilerStep#1", 50.0),
        event("aten::mm", 70.0, device="CUDA"),
    ]
    (layer,) = operators(events, 1, on_gpu=False)
    assert (layer.facts.layer.name, layer.ms) == ("aten::mm", 0.004)


def test_on_a_gpu_an_operator_takes_what_its_kernels_take():
    events = [event("aten::mm", 40.0, device_us=8.0), event("aten::empty", 9.0), event("gemm", 0.0, None, "CUDA", 8.0)]
    (layer,) = operators(events, 1, on_gpu=True)
    assert (layer.facts.layer.name, layer.ms) == ("aten::mm", 0.008)


@pytest.mark.parametrize("kind", ["eager", "static"])
def test_torchs_profile_of_a_decoder_is_attributed_and_counts_only_the_profiled_runs(kind):
    decoder = registry.decoder("tiny")
    rows = batch((2, 16, 5), *registry.widths(decoder))
    found = Breakdown(profiled(TorchSubject(registry.executor(kind, decoder), decoder, rows), 2, 1, {}))
    calls = {row.timed.facts.layer.name: row.timed.calls for row in found.rows}
    # A square root of a norm's mean, once a run.
    assert calls["transformer.layers.0.mlp_norm/aten::rsqrt"] == 1.0
    assert calls["transformer.layers.1.mlp/aten::silu"] == 1.0
    assert found.unattributed.share < 0.02
    assert all(found.categories[name].layers for name in ("attention", "gemm", "norm", "pointwise", "copy-reformat"))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in decoder.transformer.modules()
                   if module not in decoder.transformer.layers)  # fmt: skip


@pytest.mark.parametrize(("on_gpu", "recorded"), [(False, {"CPU"}), (True, {"CPU", "CUDA"})])
def test_what_a_gpu_does_is_recorded_only_of_a_batch_that_is_there(on_gpu, recorded, monkeypatch):
    def recording(*, activities=None, **_options):
        # What torch itself would record of a machine that has a GPU.
        both = (torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA)
        seen.update(each.name for each in (both if activities is None else activities))
        return nullcontext(SimpleNamespace(events=lambda: [event("aten::mm", 4.0, device_us=8.0)]))

    seen = set()
    monkeypatch.setattr(torch.profiler, "profile", recording)
    monkeypatch.setattr(TorchSubject, "on_gpu", on_gpu)
    monkeypatch.setattr(TorchSubject, "run", lambda _self: None)
    TorchSubject(None, None, None).layers(1, 1)
    assert seen == recorded


def test_a_decoder_that_is_no_module_has_operators_without_a_module():
    decoder = registry.decoder("affine")
    rows = batch((2, 16, 5), *registry.widths(decoder))
    found, _ = TorchSubject(registry.executor("eager", decoder), decoder, rows).layers(1, 1)
    assert "aten::mul" in {each.facts.layer.name for each in found}


def test_a_module_that_fails_leaves_no_scope_open():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            return self.inner(x)

    model = Failing()
    recorded = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True)
    with recorded as found, scopes(model):
        with pytest.raises(RuntimeError):
            model(torch.zeros(3, 5))
        torch.zeros(2) + 1
    (addition,) = [each for each in found.events() if each.name == "aten::add"]
    assert addition.cpu_parent is None

"""A decoder compiled by torch, on a CPU: its trace is whole, and its kernels are those of the decoder itself.

torch's own compiler makes other kernels, and so other bits; `tests/gpu` asks those.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AceStepTransformer1DModel
from diffusers.models.transformers import ace_step_transformer
from torch import Tensor
from torch._dynamo import config as dynamo

from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.decoders.ace_step import PRESETS
from harness.engine.executors import CudaGraphExecutor, EagerExecutor, Shape
from harness.engine.executors import compiled as module
from harness.engine.executors.compiled import LIMITS, OPTIONS, compiled
from harness.parity.compare import assert_identical

SHAPE = Shape(frames=10, tokens=6, channels=8, encoder_dim=32)
CPU = torch.device("cpu")
DIFFUSERS = ace_step_transformer._get_current_attention_backend


class Traced:
    """What torch's compiler was asked for, and each trace that it made: a graph runs as torch runs it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        plain = torch.compile
        self.asked: list[dict[str, Any]] = []
        self.graphs: list[torch.fx.GraphModule] = []
        self.inside: Callable[[], object] = lambda: None
        """Called at each trace."""

        def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
            self.graphs.append(graph)
            self.inside()
            return graph.forward

        def compiling(model: Callable[..., Any], **options: Any) -> Any:
            self.asked.append(options)
            kept = {name: value for name, value in options.items() if name != "options"}
            return plain(model, backend=backend, **kept)

        patch.setattr(torch, "compile", compiling)


@pytest.fixture(name="traced")
def _traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield Traced(monkeypatch)
    torch._dynamo.reset()


@pytest.fixture(name="tiny", scope="module")
def _tiny() -> AceStepDecoder:
    return AceStepDecoder.preset("tiny", 0)


def given(rows: int = 2, shape: Shape = SHAPE) -> dict[str, Tensor]:
    return shape.example(rows, CPU).tensors()


def layered(layers: int) -> AceStepDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = AceStepTransformer1DModel(**{**PRESETS["tiny"], "num_hidden_layers": layers})
    return AceStepDecoder(transformer.eval().requires_grad_(False))


# What is compiled.


def test_a_decoder_with_layers_is_compiled_layer_by_layer_and_another_one_as_a_whole(
    traced: Traced, tiny: AceStepDecoder
) -> None:
    whole = {"fullgraph": True, "dynamic": False, "options": OPTIONS}
    compiled(AffineDecoder(32))
    assert traced.asked == [whole]
    compiled(tiny)
    assert traced.asked == [whole] * (1 + len(tiny.transformer.layers))
    assert traced.graphs == [], "nothing is compiled before the first call"


def test_every_cast_rounds_as_the_decoder_rounds_and_no_kernel_is_chosen_by_its_time() -> None:
    assert OPTIONS == {"emulate_precision_casts": True, "deterministic": True}
    assert set(OPTIONS) <= set(torch._inductor.list_options())


@pytest.mark.parametrize("name", ["affine", "tiny", "bfloat16"])
def test_a_trace_is_whole_for_every_shape_and_makes_the_bits_of_the_decoder(name: str, traced: Traced) -> None:
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    decoder: Any = AffineDecoder(32) if name == "affine" else AceStepDecoder.preset("tiny", 0, dtype=dtype)
    made, parts = compiled(decoder), 1 if name == "affine" else len(decoder.transformer.layers)
    for count, (rows, frames) in enumerate(((1, 10), (2, 13)), 1):
        inputs = given(rows, replace(SHAPE, frames=frames))
        expected = decoder(**inputs)
        assert_identical(made(**inputs), expected)
        assert_identical(made(**inputs), expected)
        assert len(traced.graphs) == parts * count, "one for each shape and part, and none for a second call"


def test_a_decoder_that_no_trace_can_hold_is_refused_and_not_cut_in_pieces(traced: Traced) -> None:
    def decoder(**inputs: Tensor) -> Tensor:
        state = inputs["hidden_states"] * 2
        torch._dynamo.graph_break()
        return state + 1

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(decoder)(**given())
    assert traced.graphs == []


def test_the_code_of_one_layer_serves_all_of_its_kind(traced: Traced) -> None:
    decoder = layered(6)
    made, inputs = compiled(decoder), given()
    assert_identical(made(**inputs), decoder(**inputs))
    kinds = {layer.self_attn.sliding_window for layer in decoder.transformer.layers}
    assert len(traced.graphs) == len(kinds) == 2


def test_more_shapes_are_compiled_than_torch_compiles_by_itself(traced: Traced) -> None:
    before, decoder = dynamo.recompile_limit, AffineDecoder(32)
    made = compiled(decoder)
    for frames in range(1, before + 4):
        inputs = given(1, replace(SHAPE, frames=frames))
        assert_identical(made(**inputs), decoder(**inputs))
    assert before < LIMITS["recompile_limit"]
    assert dynamo.recompile_limit == before, "torch's own limit is what it was"


def test_warnings_of_the_compiler_are_not_shown_and_filters_are_as_before(traced: Traced) -> None:
    traced.inside = lambda: warnings.warn("of generated code", stacklevel=1)
    filters = list(warnings.filters)
    compiled(AffineDecoder(32))(**given())
    assert len(traced.graphs) == 1
    assert list(warnings.filters) == filters


# Weights.


def test_a_weight_that_is_written_in_place_is_seen_and_nothing_is_compiled_anew(traced: Traced) -> None:
    decoder = AceStepDecoder.preset("tiny", 0)
    made, inputs = compiled(decoder), given()
    before, graphs = made(**inputs).clone(), len(traced.graphs)
    for layer in decoder.transformer.layers:
        layer.mlp.gate_proj.weight.mul_(1.5)
    decoder.transformer.proj_in_conv.weight.mul_(0.5)
    assert_identical(made(**inputs), decoder(**inputs))
    assert not torch.equal(made(**inputs), before)
    assert len(traced.graphs) == graphs


@pytest.mark.parametrize("assigned", [False, True])
def test_weights_that_are_loaded_are_seen(assigned: bool, traced: Traced) -> None:
    decoder, other = AceStepDecoder.preset("tiny", 0), AceStepDecoder.preset("tiny", 1)
    made, inputs = compiled(decoder), given()
    before = made(**inputs).clone()
    decoder.load_state_dict(other.state_dict(), assign=assigned)
    assert_identical(made(**inputs), other(**inputs))
    assert not torch.equal(made(**inputs), before)


def test_the_decoder_itself_stays_as_it_is(traced: Traced) -> None:
    decoder = AceStepDecoder.preset("tiny", 0)
    names, expected = list(decoder.state_dict()), decoder(**given())
    compiled(decoder)(**given())
    graphs = len(traced.graphs)
    assert [layer._compiled_call_impl for layer in decoder.transformer.layers] == [None, None]
    assert_identical(decoder(**given()), expected)
    decoder(**given(3, replace(SHAPE, frames=14)))
    assert len(traced.graphs) == graphs, "its calls are compiled by nobody"
    assert list(decoder.state_dict()) == names


# Attention of diffusers.


def test_diffusers_function_is_back_after_every_call(traced: Traced, tiny: AceStepDecoder) -> None:
    seen: list[bool] = []
    traced.inside = lambda: seen.append(ace_step_transformer._get_current_attention_backend is DIFFUSERS)
    made = compiled(tiny)
    made(**given())
    assert seen == [False, False], "another function is traced"
    assert ace_step_transformer._get_current_attention_backend is DIFFUSERS
    traced.inside = lambda: (_ for _ in ()).throw(MemoryError("in the compiler"))
    with pytest.raises(Exception, match="in the compiler"):
        made(**given(3))
    assert ace_step_transformer._get_current_attention_backend is DIFFUSERS


def test_a_decoder_that_needs_a_block_to_be_traced_is_called_in_it(traced: Traced) -> None:
    log: list[str] = []

    class Needy(AffineDecoder):
        @contextmanager
        def traceable(self) -> Iterator[None]:
            log.append("enter")
            yield
            log.append("leave")

    traced.inside = lambda: log.append("trace")
    made = compiled(Needy(32))
    assert log == []
    made(**given())
    made(**given())
    assert log == ["enter", "trace", "leave", "enter", "leave"]


# An executor.


def test_an_executor_of_compiled_runs_compiles_while_it_prepares_and_never_in_a_run(
    traced: Traced, tiny: AceStepDecoder
) -> None:
    executor = CudaGraphExecutor(tiny, row_buckets=(1, 2), compiled=True, device="cpu")
    assert traced.graphs == []
    executor.prepare([SHAPE])
    prepared = len(traced.graphs)
    assert prepared == 2 * len(tiny.transformer.layers)
    for rows in (2, 1, 2):
        batch = SHAPE.example(rows, CPU)
        assert_identical(executor.run(batch), EagerExecutor(tiny).run(batch))
    assert len(traced.graphs) == prepared


def test_a_decoder_is_compiled_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tiny: AceStepDecoder
) -> None:
    monkeypatch.setattr(module, "compiled", None)
    CudaGraphExecutor(tiny, row_buckets=(1,), device="cpu").prepare([SHAPE])
    assert [layer._compiled_call_impl for layer in tiny.transformer.layers] == [None, None]

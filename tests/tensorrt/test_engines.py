"""Engines that are built here and run here: how near they are, the same bits again, every switch, and bad plans.

`make test-tensorrt` runs these. Without TensorRT and a GPU they are skipped, and the report says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.engine.aot import sidecar
from harness.engine.aot.build import Asked, Sizes, build
from harness.engine.aot.closeness import FACTOR
from harness.engine.aot.export import export
from harness.engine.decoders import AceStepDecoder
from harness.engine.errors import BatchTooLarge, OutsideProfile, PlanCorrupt, PlanMismatch
from harness.engine.executors import Batch, TensorRTExecutor
from harness.engine.executors.stream import run_to_end
from harness.engine.noise import Purpose, noise
from harness.engine.switches import SWITCHES
from harness.parity.compare import assert_identical
from harness.parity.proofs.lockstep import acted, run
from tests.engine.executors.tensorrt import test_pipelines as odd
from tests.gpu.waits import waiting_is_an_error

pytestmark = pytest.mark.tensorrt

DTYPES = ("float32", "float16", "bfloat16")
ROWS, FRAMES, TOKENS = 8, 64, 64
CUDA = "cuda"
ASKED = Asked(max_rows=ROWS, frames=Sizes(2, 32, FRAMES), tokens=Sizes(1, 32, TOKENS))
SHAPES = ((1, 2, 1), (3, 40, 12), (2, 33, 64), (8, 64, 33))
"""Rows, frames and tokens; one of them has an odd number of frames."""

BUSY = replace(odd.BUSY, frames=41)


def decoder(dtype: str) -> AceStepDecoder:
    return AceStepDecoder.preset("tiny", 0, dtype=getattr(torch, dtype), device=CUDA)


Plans = Callable[[str], Path]


@pytest.fixture(name="plans", scope="module")
def _plans(tmp_path_factory: pytest.TempPathFactory) -> Plans:
    """A plan of the tiny decoder by dtype, or without a mask, built once."""
    folder = tmp_path_factory.mktemp("plans")

    def made(name: str) -> Path:
        plan, onnx = folder / f"{name}.plan", folder / f"{name}.onnx"
        if not plan.exists():
            dtype = "float32" if name == "maskless" else name
            tiny = AceStepDecoder.preset("tiny", 0, dtype=getattr(torch, dtype))
            build(export(tiny, onnx, mask=name != "maskless").path, plan, ASKED)
        return plan

    return made


@pytest.fixture(name="opened")
def _opened(plans: Plans) -> Iterator[Callable[..., TensorRTExecutor]]:
    made: list[TensorRTExecutor] = []

    def opened(name: str = "float32", **options: int) -> TensorRTExecutor:
        made.append(TensorRTExecutor(plans(name), **options))  # type: ignore[arg-type]
        return made[-1]

    yield opened
    for executor in made:
        executor.close()


Opened = Callable[..., TensorRTExecutor]


def batch(rows: int, frames: int, tokens: int, *, padded: bool = True) -> Batch:
    def drawn(step: int, length: int, width: int) -> Tensor:
        return torch.cat([noise(row, Purpose.STEP, step, (1, length, width)) for row in range(rows)]).to(CUDA)

    lengths = torch.tensor([1 + row * tokens // rows if padded else tokens for row in range(rows)])
    return Batch(
        hidden_states=drawn(0, frames, 8),
        timestep=torch.linspace(1.0, 0.1, rows).to(CUDA),
        encoder_hidden_states=drawn(1, tokens, 32),
        encoder_mask=(torch.arange(tokens) < lengths[:, None]).to(CUDA),
        context_latents=drawn(2, frames, 16),
    )


def computed(executor: TensorRTExecutor, given: Batch) -> Tensor:
    return run_to_end(executor, given).clone()


def rms(differences: list[Tensor]) -> float:
    return float(torch.cat([d.flatten() for d in differences]).pow(2).mean().sqrt())


@pytest.mark.parametrize("name", [*DTYPES, "maskless"])
@torch.no_grad()
def test_an_engine_is_at_most_twice_as_far_from_float64_as_torch_is(opened: Opened, name: str) -> None:
    own = decoder("float32" if name == "maskless" else name)
    exact, executor = copy.deepcopy(own).double(), opened(name)
    given = [batch(*shape, padded=name != "maskless") for shape in SHAPES]
    truth = [exact(**each.tensors()) for each in given]
    engine = rms([computed(executor, each).double() - true for each, true in zip(given, truth, strict=True)])
    torchs = rms([own(**each.tensors()).double() - true for each, true in zip(given, truth, strict=True)])
    print(f"{name}: the engine is {engine:.3g} from float64, torch {torchs:.3g}")  # noqa: T201 - what a user wants to know
    assert engine <= FACTOR * torchs


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_engine_says_what_it_takes(opened: Opened, dtype: str) -> None:
    executor = opened(dtype)
    assert (executor.max_rows, executor.takes_mask) == (ROWS, True)
    kinds = {name: str(kind).removeprefix("torch.") for name, kind in executor.signature.dtypes.items()}
    assert kinds == {
        "hidden_states": dtype, "timestep": "float32", "encoder_hidden_states": dtype, "context_latents": dtype,
        "encoder_mask": "bool", "velocity": dtype,
    }  # fmt: skip
    assert not opened("maskless").takes_mask


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_input_has_the_same_bits_again_whatever_ran_in_between(opened: Opened, dtype: str) -> None:
    executor = opened(dtype)
    first = {shape: computed(executor, batch(*shape)) for shape in SHAPES}
    for _ in range(3):
        for shape, bits in first.items():
            assert_identical(computed(executor, batch(*shape)), bits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_with_pinned_rows_a_row_s_bits_do_not_depend_on_how_many_run_with_it(opened: Opened, dtype: str) -> None:
    executor = opened(dtype, pin_rows=ROWS)
    whole = batch(ROWS, 40, 12)
    alone = computed(executor, Batch(**{name: tensor[:1] for name, tensor in whole.tensors().items()}))
    for rows in range(2, ROWS + 1):
        part = Batch(**{name: tensor[:rows] for name, tensor in whole.tensors().items()})
        assert_identical(computed(executor, part)[:1], alone)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_off_equals_on_with_pinned_rows(plans: Plans, dtype: str, switch: str) -> None:
    plan = plans(dtype)
    done = run(BUSY, switch, executor=lambda: TensorRTExecutor(plan, pin_rows=ROWS), device=CUDA)
    assert acted(switch, done.first.stats(), done.second.stats())


@pytest.mark.parametrize("current", ["default", "own"])
def test_inputs_may_be_made_late_and_velocities_read_late(opened: Opened, current: str) -> None:
    """The current stream is held up before it makes a run's inputs, and after it has joined the run."""
    executor = opened()
    given = batch(4, 40, 12)
    other = Batch(**{name: tensor.flip(0) for name, tensor in given.tensors().items()})
    expected = [computed(executor, each) for each in (given, other)]
    torch.cuda.synchronize()
    stream = torch.cuda.current_stream() if current == "default" else torch.cuda.Stream()
    with torch.cuda.stream(stream):
        kept = []
        for each in (given, other):
            torch.cuda._sleep(200_000_000)
            velocity = executor.run(Batch(**{name: tensor.clone() for name, tensor in each.tensors().items()}))
            executor.stream.join()
            torch.cuda._sleep(200_000_000)
            kept.append(velocity.clone())
    torch.cuda.synchronize()
    assert_identical(kept, expected)


def test_a_run_of_a_known_shape_makes_the_host_wait_for_nothing(opened: Opened) -> None:
    executor, given = opened(), batch(4, 40, 12)
    expected = computed(executor, given)
    with waiting_is_an_error():
        velocity = executor.run(given)
        executor.stream.join()
    assert_identical(velocity.clone(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_profiling_names_layers_of_the_plan_and_changes_no_bit(opened: Opened, dtype: str) -> None:
    executor, given = opened(dtype), batch(4, 40, 12)
    expected = computed(executor, given)
    told: dict[str, float] = {}
    with executor.profiling(lambda name, milliseconds: told.update({name: milliseconds})):
        assert_identical(computed(executor, given), expected)
    assert sum(told.values()) > 0
    known = {layer.name for layer in executor.sidecar.layers}
    assert told.keys() & known, f"of {list(told)[:5]} the metadata lists none"
    assert_identical(computed(executor, given), expected)


def test_what_the_engine_was_not_built_for_is_refused_and_it_goes_on(opened: Opened) -> None:
    executor, given = opened(), batch(2, 40, 12)
    expected = computed(executor, given)
    for wrong, kind in (((9, 40, 12), BatchTooLarge), ((1, 66, 12), OutsideProfile), ((1, 40, 65), OutsideProfile)):
        with pytest.raises(kind):
            executor.run(batch(*wrong))
    assert_identical(computed(executor, given), expected)


@pytest.mark.parametrize("field", ["gpu", "driver", "version", "compute_capability"])
def test_a_plan_for_something_else_is_refused(plans: Plans, tmp_path: Path, field: str) -> None:
    file = copied(plans("float32"), tmp_path)
    sidecar.write(file, replace(sidecar.read(file), **{field: "another"}))
    with pytest.raises(PlanMismatch, match=f"{field}: the plan was built for another"):
        TensorRTExecutor(file)


def test_a_truncated_plan_is_refused(plans: Plans, tmp_path: Path) -> None:
    file = copied(plans("float32"), tmp_path)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(PlanCorrupt):
        TensorRTExecutor(file)


def copied(plan: Path, folder: Path) -> Path:
    for file in (plan, sidecar.path(plan)):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / plan.name


def test_a_swapped_engine_runs_and_the_first_one_again(plans: Plans, opened: Opened) -> None:
    executor, given = opened("float32"), batch(4, 40, 12)
    first = computed(executor, given)
    executor.swap(plans("float16"))
    assert_identical(computed(executor, given), computed(opened("float16"), given))
    executor.swap(plans("float32"))
    assert_identical(computed(executor, given), first)

"""What times and errors of the decoder are made of, without a GPU."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from harness.engine.decoders import AceStepDecoder
from harness.engine.decoders.decoder_switches import ACCELERATIONS, ALL, BandForm, DecoderSwitches
from harness.engine.executors import Shape
from harness.parity.baselines.platform import ROOT
from harness.parity.proofs.decoder_error import BOUND, Lengths
from tests.gpu import decoder, decoder_parity, decoder_times
from tests.gpu.decoder_kernels import Kernel, busy, category
from tests.gpu.decoder_times import Size, Variant, products

SIZE = Size(rows=2, frames=13, tokens=5)


class Linear(TorchFunctionMode):
    """Count the products of a forward by rows, inputs and outputs; those of the condition are left out."""

    def __init__(self, condition: int) -> None:
        super().__init__()
        self.seen: Counter[tuple[int, int, int]] = Counter()
        self._condition = condition

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear and args[0].shape[-2] != self._condition:
            outputs, inputs = args[1].shape
            self.seen[args[0].numel() // inputs, inputs, outputs] += 1
        return func(*args, **(kwargs or {}))


def multiplied(*, joined: bool) -> Counter[tuple[int, int, int]]:
    tiny = AceStepDecoder.preset("tiny")
    return Counter((x.shape[0], x.shape[1], weight.shape[0]) for x, weight in products(tiny, SIZE, joined=joined))


def test_the_products_are_those_of_the_forward_of_diffusers() -> None:
    tiny = AceStepDecoder.preset("tiny")
    with torch.no_grad(), Linear(condition=SIZE.tokens) as mode:
        tiny(**Shape(13, 5, 8, 32).example(2, torch.device("cpu")).tensors())
    patches = Counter([(14, 48, 64), (14, 64, 16)])
    assert multiplied(joined=False) == mode.seen + patches


def test_joined_products_do_the_same_work_without_the_second_time() -> None:
    apart, joined = multiplied(joined=False), multiplied(joined=True)
    second = 2 * (256 * 64 + 64 * 64 + 64 * 384)

    def work(counted: Counter[tuple[int, int, int]]) -> int:
        return sum(rows * inputs * outputs * count for (rows, inputs, outputs), count in counted.items())

    assert work(apart) - work(joined) == second
    assert joined.total() == apart.total() - 3 - 2 * 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_TNT", "product"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "product"),
        ("void cutlass::Kernel2<cutlass_75_tensorop_bf16_s1688gemm_align1>", "product"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128>>", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", "attention"),
        ("triton_tem_fused_flex_attention_0", "attention"),
        ("triton_per_fused__to_copy_add_mean_mul_pow_rsqrt_3", "norm"),
        ("triton_red_fused_mean_1", "norm"),
        ("triton_poi_fused_mul_silu_7", "elementwise"),
        ("void at::native::vectorized_elementwise_kernel<4>", "elementwise"),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("something", "other"),
    ],
)
def test_a_kernel_s_category_is_told_by_its_name(name: str, expected: str) -> None:
    assert category(name) == expected


def test_gaps_are_the_time_in_which_no_kernel_runs() -> None:
    kernels = [
        Kernel("nvjet", 0, 1000),
        Kernel("triton_poi_a", 1500, 2000),
        Kernel("triton_poi_b", 1800, 1900),
        Kernel("nvjet", 2250, 4250),
    ]
    found = busy(kernels[::-1], runs=2)
    assert found.ms == {"product": 1.5, "elementwise": 0.3, "gap": 0.375}
    assert found.launches == {"product": 1, "elementwise": 1}
    assert found.slowest[0] == ("nvjet", 1.5, 1.0)


def test_every_acceleration_every_form_and_every_size_is_timed() -> None:
    sizes = [Size(8, 750), Size(4, 750), Size(8, 1500)]
    work = decoder_times.plan(sizes)
    assert len(work) == len({(size, variant.name) for size, variant in work}), "each once"
    assert {size for size, _variant in work} == set(sizes)
    for size in sizes[1:]:
        assert [variant.switches.on for at, variant in work if at == size] == [ACCELERATIONS, ()]
    first = [variant.switches for size, variant in work if size == sizes[0]]
    assert {each.band for each in first if each == each.turned_on(*ACCELERATIONS)} == set(BandForm)
    for n in range(len(ACCELERATIONS) + 1):
        assert any(each.on == ACCELERATIONS[:n] for each in first)


def timed(seconds: float, *variants: Variant) -> list[dict[str, Any]]:
    bench = decoder_times.Bench("tiny", "cpu", lambda _words: None)
    with torch.no_grad():
        return list(decoder_times.timed(bench, [(SIZE, each) for each in variants], seconds))


def test_a_variant_that_fails_or_has_no_time_is_said_and_the_others_are_timed() -> None:
    cudnn = Variant("all, band cudnn", DecoderSwitches(banded_attention=True, band="cudnn"))
    failed, made = timed(60, cudnn, Variant("all", ALL))
    assert failed["failed"].startswith("NotImplementedError")
    assert made["ms"] > 0 and made["products_ms"] > 0 and made["from_eager"] < 1e-2
    assert made["ratio"] == made["ms"] / made["products_ms"]
    (late,) = timed(-1, Variant("all", ALL))
    assert "left_out" in late and "ms" not in late
    assert [decoder_times.line(each)[:8].split() for each in (failed, made, late)] == [["13", "2"]] * 3


def test_rows_in_parts_are_the_same_rows() -> None:
    (made,) = timed(60, Variant("all, 2 streams", ALL, streams=2))
    assert made["from_eager"] < 1e-2


def test_the_fastest_forms_are_those_that_later_variants_get() -> None:
    bench = decoder_times.Bench("tiny", "cpu", lambda _words: None)
    for band, ms in (("bias", 3.0), ("flex", 1.0), ("repeated", 2.0)):
        bench._note(Variant(f"all, band {band}", ALL), replace(ALL, band=band), ms)
    assert bench.fastest == {"band": BandForm.FLEX, "full": "auto", "norms": "kernels"}
    bench._note(Variant("all, full flash", ALL), replace(ALL, band="flex", full="flash"), 1.5)
    bench._note(Variant("all", ALL), replace(ALL, full="flash"), 0.1)
    assert bench.fastest["full"] == "auto", "slower, or no variant that compares forms"
    bench._note(Variant("all, full cudnn", ALL), replace(ALL, band="flex", full="cudnn"), 0.5)
    assert bench.fastest == {"band": BandForm.FLEX, "full": "cudnn", "norms": "kernels"}


def test_the_command_writes_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_times, "plan", lambda sizes: [(sizes[0], Variant("all", ALL))])
    command = ["times", "--out", str(tmp_path / "new"), "--preset", "tiny", "--device", "cpu"]
    assert decoder.main([*command, "--frames", "13", "--rows", "2", "--tokens", "7"]) == 0
    document = json.loads((tmp_path / "new/decoder_times.json").read_text())
    assert document["device"] == "CPU"
    (found,) = document["found"]
    assert (found["variant"], found["rows"], found["frames"], found["tokens"]) == ("all", 2, 13, 7)


def parity(folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    command = ["parity", "--out", str(folder), "--preset", "tiny", "--device", "cpu", "--frames", "13", "--rows", "2"]
    code = decoder.main([*command, "--tokens", "5", "--inputs", "2", "--dtypes", "float32", *more])
    return code, json.loads((folder / "decoder_parity.json").read_text())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_acceleration_is_compared_and_what_a_cpu_cannot_run_is_said(tmp_path: Path) -> None:
    code, document = parity(tmp_path)
    assert code == 0
    assert document["untested"] == list(decoder_parity.ON_GPU)
    for lengths in Lengths:
        found = {each["variant"]: each for each in document["found"] if each["lengths"] == lengths}
        assert set(ACCELERATIONS) < set(found)
        assert {name for name, each in found.items() if each["verdict"] == "exact"} >= {"fused_products", "fused_norms"}
        assert found["all"]["verdict"] == "within" and found["all"]["velocity"]["high"] <= 1.1


def test_a_case_and_variants_can_be_chosen_and_a_variant_that_there_is_not_is_no_success(tmp_path: Path) -> None:
    code, document = parity(tmp_path, "--lengths", "mixed", "--variants", "all", "kept_time")
    chosen = [(each["lengths"], each["variant"]) for each in document["found"]]
    assert (code, chosen) == (0, [("mixed", "kept_time"), ("mixed", "all")])
    code, document = parity(tmp_path, "--lengths", "mixed", "--variants", "kept_time", "kept_tmie")
    assert code == 1 and document["found"][0]["failed"] == "there is no such variant here"


def test_a_comparison_that_fails_or_compares_nothing_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parity(tmp_path, "--seconds", "-1")[0] == 1
    monkeypatch.setattr(decoder_parity, "variants", lambda on_gpu: {"wrong": ALL})
    monkeypatch.setattr(
        decoder_parity, "judged", lambda plain, *_switches, **_how: lambda **given: plain(**given) * 1.01
    )
    code, document = parity(tmp_path)
    assert (code, document["found"][0]["verdict"]) == (1, "exceeds")


def test_a_variant_that_does_not_run_is_said_and_the_others_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn = DecoderSwitches(banded_attention=True, full="cudnn")
    monkeypatch.setattr(decoder_parity, "variants", lambda on_gpu: {"cudnn": cudnn, "all": ALL})
    code, document = parity(tmp_path)
    first, second, *_ = document["found"]
    assert first["variant"] == "cudnn" and first["failed"].startswith("NotImplementedError")
    assert (code, second["variant"], second["verdict"]) == (0, "all", "within")


def test_an_acceleration_that_does_not_run_is_a_failure() -> None:
    right = {"verdict": "exact", "apart": True, "variant": "all"}
    assert not decoder_parity.failed([right, {"variant": "all, full cudnn", "failed": "no float32"}])
    assert decoder_parity.failed([right, {"variant": "fused_norms", "failed": "no kernel"}])
    assert decoder_parity.failed([right, {**right, "apart": False}])


def chosen(folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    return parity(folder, "--lengths", "mixed", "--variants", "kept_time", "patch_products", "all", *more)


class Counted:
    """A function whose calls are counted; a call beyond the last that is allowed is an interrupt."""

    def __init__(self, function: Callable[..., Any], last: int = 99) -> None:
        self.function, self.calls, self.last = function, 0, last

    def __call__(self, *given: Any) -> Any:
        self.calls += 1
        if self.calls > self.last:
            raise KeyboardInterrupt
        return self.function(*given)


def test_the_reference_is_computed_once_for_all_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_parity, "yardstick", counted := Counted(decoder_parity.yardstick))
    _code, document = chosen(tmp_path)
    assert (len(document["found"]), counted.calls) == (3, 1)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chosen(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(decoder_parity, "judge", Counted(decoder_parity.judge, last=2))
        chosen(tmp_path / "parts")
    kept = json.loads((tmp_path / "parts/decoder_parity.json").read_text())["found"]
    assert [each["variant"] for each in kept] == ["patch_products", "kept_time"]
    monkeypatch.setattr(decoder_parity, "judge", counted := Counted(decoder_parity.judge))
    assert (chosen(tmp_path / "parts", "--resume"), counted.calls) == (whole, 1)
    assert (chosen(tmp_path / "parts", "--resume"), counted.calls) == (whole, 1)
    assert (chosen(tmp_path / "parts"), counted.calls) == (whole, 4)


def test_what_was_left_out_or_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, late = chosen(tmp_path, "--seconds", "-1")
    assert (code, ["left_out" in each for each in late["found"]]) == (1, [True] * 3)
    with monkeypatch.context() as patch:
        patch.setattr(decoder_parity, "_failure", lambda *_given: "no kernel")
        assert chosen(tmp_path)[0] == 1
    code, document = chosen(tmp_path, "--resume")
    assert (code, ["verdict" in each for each in document["found"]]) == (0, [True] * 3)


def test_no_run_goes_on_with_findings_of_other_inputs_threads_or_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _code, document = chosen(tmp_path, "--threads", "1")
    assert document["platform"]["threads"] == "1"
    with pytest.raises(ValueError, match="inputs was 2 and is 3 now; run without --resume"):
        chosen(tmp_path, "--threads", "1", "--resume", "--inputs", "3")
    with pytest.raises(ValueError, match="platform was .*'threads': '1'.* and is .*'threads': '2'"):
        chosen(tmp_path, "--threads", "2", "--resume")
    monkeypatch.setattr(decoder_parity.store, "engine_digest", lambda _package: "other")
    with pytest.raises(ValueError, match="code was .* and is .*other"):
        chosen(tmp_path, "--threads", "1", "--resume")


REPORTS = sorted((ROOT / "captures").glob("*/decoder_parity/*.json"))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_kept_report_has_every_acceleration_and_its_verdicts_are_those_of_its_ratios(path: Path) -> None:
    document = json.loads(path.read_text())
    assert document["inputs"] >= 16 and not decoder_parity.failed(document["found"])
    cases: dict[tuple[Any, ...], set[str]] = {}
    for each in document["found"]:
        assert each["preset"] == path.stem
        if "verdict" in each:
            cases.setdefault(tuple(each[name] for name in ("dtype", "frames", "rows", "lengths")), set()).add(
                each["variant"]
            )
            ratios = each["velocity"], each["latent"]
            assert max(ratio["high"] for ratio in ratios) <= BOUND
            assert each["verdict"] != "exact" or {ratio["ratio"] for ratio in ratios} == {1.0}
    assert all(names >= {*ACCELERATIONS, "all"} for names in cases.values())
    # On a GPU only conditions of full length were measured; the page says so.
    expected = set(Lengths) if path.parts[-3].startswith("cpu-") else {Lengths.FULL}
    assert {lengths for *_, lengths in cases} == expected


def test_a_report_is_kept() -> None:
    assert "tiny" in {path.stem for path in REPORTS}

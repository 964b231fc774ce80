"""A fingerprint differs wherever a setting differs that decides bits, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.parity.baselines import flags, kernels_digest, platform

CPU_VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
GPU_VARIABLES = (
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE",
    "TORCH_BLAS_PREFER_CUBLASLT",
)  # fmt: skip


@pytest.fixture(name="gpu")
def _gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """The fingerprint of a GPU that is made up, on a machine without one."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Board")
    monkeypatch.setattr(platform, "driver", lambda: "1")
    monkeypatch.setattr(kernels_digest, "digest", lambda _device: "feed")
    return lambda: platform.gpu_fingerprint("cuda")


def differing(first: dict[str, str], second: dict[str, str]) -> tuple[str, ...]:
    return platform.differing(first, second)


@pytest.mark.parametrize("variable", CPU_VARIABLES)
def test_a_variable_that_chooses_other_bits_is_in_the_fingerprint(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in [name for name in os.environ if name.startswith(flags.PREFIXES)]:
        monkeypatch.delenv(each)
    monkeypatch.setattr(flags, "fresh_probe", lambda: "other bits")
    without = platform.fingerprint(), platform.of_device()
    monkeypatch.setenv("NEIGHBOUR_OF_MKL_CBWR", "1")
    assert without == (platform.fingerprint(), platform.of_device())
    seen = [without[0]["environment"]]
    for value in ("1", "2"):
        monkeypatch.setenv(variable, value)
        assert differing(without[0], platform.fingerprint()) == ("environment",)
        assert differing(without[1], platform.of_device()) == ("environment",)
        seen.append(platform.fingerprint()["environment"])
    assert len(set(seen)) == 3


@pytest.mark.parametrize("variable", GPU_VARIABLES)
def test_a_variable_that_chooses_kernels_of_a_gpu_is_in_its_fingerprint(
    variable: str, gpu: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in GPU_VARIABLES:
        monkeypatch.delenv(each, raising=False)
    without = gpu()
    monkeypatch.setenv(variable, "1")
    assert differing(without, gpu()) == ("environment",)


def test_the_variables_are_those_of_this_table() -> None:
    assert all(name.startswith(flags.PREFIXES) for name in CPU_VARIABLES)
    assert platform.GPU_ENVIRONMENT == GPU_VARIABLES


def threads() -> Callable[[], Any]:
    torch.set_num_threads(2)
    return lambda: torch.set_num_threads(1)


def precision() -> Callable[[], Any]:
    torch.set_float32_matmul_precision("medium")
    return lambda: torch.set_float32_matmul_precision("highest")


def tf32() -> Callable[[], Any]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = not before
    return lambda: setattr(torch.backends.cudnn, "allow_tf32", before)


def deterministic() -> Callable[[], Any]:
    # The public function imports a compiler first, which takes seconds.
    torch._C._set_deterministic_algorithms(True)
    return lambda: torch._C._set_deterministic_algorithms(False)


def autocast() -> Callable[[], Any]:
    torch.set_autocast_enabled("cpu", True)
    return lambda: torch.set_autocast_enabled("cpu", False)


def default_dtype() -> Callable[[], Any]:
    torch.set_default_dtype(torch.float64)
    return lambda: torch.set_default_dtype(torch.float32)


def flush_denormal() -> Callable[[], Any]:
    torch.set_flush_denormal(True)
    return lambda: torch.set_flush_denormal(False)


FLAGS: list[tuple[Callable[[], Callable[[], Any]], set[str]]] = [
    (threads, {"threads"}),
    (precision, {"matmul_precision"}),
    (tf32, {"tf32"}),
    (deterministic, {"deterministic"}),
    (autocast, {"autocast"}),
    (default_dtype, {"default_dtype"}),
    (flush_denormal, {"flush_denormal"}),
]


@pytest.mark.parametrize(("change", "fields"), FLAGS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_flag_that_decides_bits_is_in_the_fingerprint_and_it_alone_differs(
    change: Callable[[], Callable[[], Any]], fields: set[str]
) -> None:
    before = platform.fingerprint()
    back = change()
    try:
        now = platform.fingerprint()
    finally:
        back()
    # Torch derives one of these two flags from the other.
    assert set(differing(before, now)) - {"matmul_precision", "tf32"} | fields == fields
    assert fields <= set(differing(before, now))
    assert platform.fingerprint() == before


def test_a_field_that_only_one_side_has_differs_and_the_order_of_fields_does_not() -> None:
    here = {"a": "1", "b": "2"}
    assert differing(here, {"b": "2", "a": "1"}) == ()
    assert differing(here, {"a": "1"}) == ("b",)
    assert differing({"a": "1"}, here) == ("b",)
    assert differing(here, {"a": "1", "b": "3"}) == ("b",)


def reduced_precision() -> Callable[[], Any]:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_bf16_reduced_precision_reduction = not before
    return lambda: setattr(matmul, "allow_bf16_reduced_precision_reduction", before)


def gpu_autocast() -> Callable[[], Any]:
    torch.set_autocast_enabled("cuda", True)
    return lambda: torch.set_autocast_enabled("cuda", False)


def attention(kind: str) -> Callable[[], Callable[[], Any]]:
    """One kernel less, or more, for attention to choose from."""
    backends = torch.backends.cuda
    enabled, enable = getattr(backends, f"{kind}_sdp_enabled"), getattr(backends, f"enable_{kind}_sdp")

    def change() -> Callable[[], Any]:
        before = enabled()
        enable(not before)
        return lambda: enable(before)

    change.__name__ = kind
    return change


KERNELS = [attention(kind) for kind in ("flash", "mem_efficient", "math", "cudnn")]
GPU_FLAGS: list[tuple[Callable[[], Callable[[], Any]], str]] = [
    (precision, "matmul_precision"),
    (tf32, "tf32"),
    (deterministic, "deterministic"),
    (reduced_precision, "reduced_precision"),
    (gpu_autocast, "autocast"),
    *((kernel, "attention") for kernel in KERNELS),
]


@pytest.mark.parametrize(("change", "field"), GPU_FLAGS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_flag_that_decides_bits_of_a_gpu_is_in_its_fingerprint_and_it_alone_differs(
    change: Callable[[], Callable[[], Any]], field: str, gpu: Callable[[], dict[str, str]]
) -> None:
    before = gpu()
    back = change()
    try:
        now = gpu()
    finally:
        back()
    # Torch derives one of these two flags from the other.
    assert set(differing(before, now)) - {"matmul_precision", "tf32"} | {field} == {field}
    assert field in differing(before, now)
    assert gpu() == before


def test_a_flag_of_the_cpu_alone_is_in_no_fingerprint_of_a_gpu(gpu: Callable[[], dict[str, str]]) -> None:
    before = gpu()
    for change in (autocast, threads):
        back = change()
        try:
            assert gpu() == before
        finally:
            back()


def test_one_kernel_of_attention_instead_of_another_is_another_fingerprint(gpu: Callable[[], dict[str, str]]) -> None:
    seen = []
    for kernel in KERNELS:
        back = kernel()
        seen.append(gpu()["attention"])
        back()
    assert len(set(seen)) == len(KERNELS)

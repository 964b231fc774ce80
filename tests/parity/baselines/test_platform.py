"""A fingerprint holds every fact that decides bits."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from harness.parity.baselines import flags, kernels_digest, platform

GPU_FACTS = {
    "gpu", "capability", "driver", "torch", "cuda", "cudnn", "triton", "matmul_precision", "tf32", "reduced_precision",
    "attention", "deterministic", "autocast", "environment", "kernels",
}  # fmt: skip


def test_every_fact_of_a_gpu_is_in_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Board")
    monkeypatch.setattr(platform, "driver", lambda: "1")
    monkeypatch.setattr(platform, "_version", lambda package: f"{package} 2")
    monkeypatch.setattr(kernels_digest, "digest", lambda device: "feed")
    found = platform.gpu_fingerprint("cuda")
    assert found.keys() == GPU_FACTS
    facts = [found[name] for name in ("gpu", "capability", "driver", "torch", "triton")]
    assert facts == ["Board", "9.0", "1", torch.__version__, "triton 2"]


# Values of a fingerprint.

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R): 8481C
power management:

processor\t: 1
vendor_id\t: Other
cpu family\t: 7
model\t\t: 1
model name\t: Other
"""
CONFIG = """PyTorch built with:
  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605
  - Intel(R) MKL-DNN v3.7.1 (Git Hash 8d263e693366ef8db40acc569cc7d8edf644556d)
"""


def test_a_processor_is_the_first_one_that_linux_lists(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    assert platform._cpu(tmp_path / "cpuinfo") == {
        "processor": "0",
        "vendor_id": "GenuineIntel",
        "cpu family": "6",
        "model": "143",
        "model name": "Intel(R) Xeon(R): 8481C",
        "power management": "",
    }


def test_elsewhere_than_on_linux_a_processor_has_a_model_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.host, "processor", lambda: "arm")
    assert platform._cpu(tmp_path / "cpuinfo") == {"model name": "arm"}


def chosen() -> list[str]:
    return [name for name in os.environ if name.startswith(flags.PREFIXES)]


def test_a_fingerprint_says_every_fact_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    cpu = platform._cpu(tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "_cpu", lambda: cpu)
    monkeypatch.setattr(platform.host, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.__config__, "show", lambda: CONFIG)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for variable in chosen():
        monkeypatch.delenv(variable)
    monkeypatch.setattr(flags, "fresh_probe", lambda: "other bits")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("MKL_CBWR", "AUTO")
    with platform.one_thread():
        found = platform.fingerprint()
    assert found == {
        "machine": "x86_64",
        "cpu_vendor": "GenuineIntel",
        "cpu_family": "6",
        "cpu_model": "143",
        "cpu_name": "Intel(R) Xeon(R): 8481C",
        "capability": "AVX512",
        "mkl": "2024.2-Product",
        "mkldnn": "v3.7.1",
        "torch": "2.13.0+cpu",
        "executor": "eager",
        "dtype": "float32",
        "threads": "1",
        "matmul_precision": "highest",
        "tf32": "false",
        "deterministic": "false",
        "autocast": "false",
        "default_dtype": "torch.float32",
        "flush_denormal": "false",
        "environment": "MKL_CBWR=AUTO ONEDNN_MAX_CPU_ISA=AVX2",
    }
    with platform.one_thread():
        assert platform.of_device() == {name: found[name] for name in found if name not in ("executor", "dtype")}


def test_a_variable_that_is_empty_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in chosen():
        monkeypatch.delenv(variable)
    monkeypatch.setattr(flags, "fresh_probe", lambda: "other bits")
    without = platform.fingerprint()
    monkeypatch.setenv("MKL_CBWR", "")
    assert platform.fingerprint() == without
    assert without["environment"] == ""


@pytest.mark.parametrize(("show", "available", "found"), [
    (CONFIG, True, ("2024.2-Product", "v3.7.1")), (CONFIG, False, ("none", "none")),
    ("", True, ("unknown", "unknown")), ("", False, ("none", "none")),
])  # fmt: skip
def test_a_library_of_torch_has_its_version_or_says_that_there_is_none(
    show: str, available: bool, found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.__config__, "show", lambda: show)
    for name in ("mkl", "mkldnn"):
        monkeypatch.setattr(getattr(torch.backends, name), "is_available", lambda: available)
    fingerprint = platform.fingerprint()
    assert (fingerprint["mkl"], fingerprint["mkldnn"]) == found


def test_one_library_may_be_there_without_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.__config__, "show", lambda: CONFIG)
    for mkl in (True, False):
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda mkl=mkl: mkl)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda mkl=mkl: not mkl)
        found = platform.fingerprint()
        assert (found["mkl"], found["mkldnn"]) == (("2024.2-Product", "none") if mkl else ("none", "v3.7.1"))


@pytest.mark.parametrize("driver", [None, "", "570.1"])
def test_a_gpu_s_fingerprint_says_every_fact_under_its_own_name(
    driver: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (asked.append(device), (10, 3))[1])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: (asked.append(device), "NVIDIA B300")[1])
    monkeypatch.setattr(platform, "driver", lambda: driver)
    monkeypatch.setattr(platform, "_version", lambda package: f"{package} 2")
    monkeypatch.setattr(kernels_digest, "digest", lambda device: f"digest of {device}")
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(platform, "_attention", lambda: {"flash": True, "math": False, "cudnn": True})
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    for variable in platform.GPU_ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    found = platform.of_device("cuda:1")
    precision = found.pop("matmul_precision")
    assert precision == torch.get_float32_matmul_precision()
    assert found == {
        "gpu": "NVIDIA B300",
        "capability": "10.3",
        "driver": driver or "unknown",
        "torch": "2.11.0+cu130",
        "cuda": "13.0",
        "cudnn": "91002",
        "triton": "triton 2",
        "tf32": "true",
        "reduced_precision": str(torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction).lower(),
        "attention": "flash cudnn",
        "deterministic": "false",
        "autocast": "true",
        "environment": "CUBLAS_WORKSPACE_CONFIG=:4096:8",
        "kernels": "digest of cuda:1",
    }
    assert asked == ["cuda:1", "cuda:1"]


def test_a_cpu_s_fingerprint_says_whether_the_cpu_s_operators_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, said in (("cpu", "true"), ("cuda", "false")):
        monkeypatch.setattr(torch, "is_autocast_enabled", device.__eq__)
        assert platform.fingerprint()["autocast"] == said


def test_a_field_that_one_fingerprint_alone_has_is_one_in_which_the_two_differ() -> None:
    more, less = {"machine": "a", "attention": "math"}, {"machine": "a"}
    assert platform.differing(more, less) == platform.differing(less, more) == ("attention",)


def test_attention_s_kernels_are_asked_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("flash", "mem_efficient", "math", "cudnn")
    for chosen in kinds:
        for kind in kinds:
            monkeypatch.setattr(torch.backends.cuda, f"{kind}_sdp_enabled", lambda on=kind == chosen: on)
        assert platform._attention() == {kind: kind == chosen for kind in kinds}


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert platform._version("no-such-package-here") == "none"
    assert platform._version("torch").split("+")[0] == torch.__version__.split("+")[0]


# Names.


@pytest.mark.parametrize(("gpu", "name"), [
    ("NVIDIA H200", "cuda-nvidia-h200"), ("NVIDIA H100 80GB HBM3", "cuda-nvidia-h100-80gb-hbm3"),
    ("Tesla_V100/SXM2", "cuda-tesla_v100-sxm2"),
])  # fmt: skip
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_gpu_s_folder_has_its_name(
    gpu: str, name: str, device: str | torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda found: gpu if found is device else "another")
    assert platform.name(device) == name


@pytest.mark.parametrize(("machine", "capability", "name"), [
    ("x86_64", "AVX2", "cpu-x86_64-avx2"), ("x86_64", "AVX512", "cpu-x86_64-avx512"),
    ("arm64", "NO AVX", "cpu-arm64-no-avx"), ("aarch64", "DEFAULT", "cpu-aarch64-default"),
])  # fmt: skip
def test_a_cpu_s_folder_has_its_machine_and_its_vector_instructions(
    machine: str, capability: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.host, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert platform.name() == platform.name("cpu") == name


@pytest.mark.parametrize(("settings", "said"), [
    (None, "missing"), ("", "no reference-platform in [tool.harness]"),
    ("reference-platform = 'a'", "no reference-platform in [tool.harness]"),
    ("[tool.other]\nreference-platform = 'a'", "no reference-platform in [tool.harness]"),
])  # fmt: skip
def test_a_project_that_names_no_reference_platform_says_so_by_its_file(
    settings: str | None, said: str, tmp_path: Path
) -> None:
    if settings is not None:
        (tmp_path / "pyproject.toml").write_text(settings)
    with pytest.raises(platform.NoReferencePlatform) as error:
        platform.reference_platform(tmp_path)
    assert str(error.value) == f"{tmp_path / 'pyproject.toml'}: {said}"


def test_the_reference_platform_is_that_of_the_project_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.harness]\nreference-platform = 'board'\n")
    assert platform.reference_platform(tmp_path) == "board"
    assert platform.reference_platform() == platform.reference_platform(platform.ROOT) != "board"


# Threads.


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_are_so_many_inside_and_the_caller_s_after_whatever_happens(count: int) -> None:
    before = torch.get_num_threads()
    for error in (None, ValueError, KeyboardInterrupt):
        with suppress(BaseException), platform.threads(count):
            assert torch.get_num_threads() == count
            with platform.one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == count
            if error:
                raise error
        assert torch.get_num_threads() == before


def test_a_processor_whose_name_is_no_ascii_or_no_text_keeps_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_bytes("model name: Made-up \u2122: 1\nflags\t: avx2 ".encode() + b"\xff\n\nflags: other\n")
    assert platform._cpu(path) == {"model name": "Made-up \u2122: 1", "flags": "avx2 \ufffd"}


def test_cpuinfo_is_utf_8_whatever_the_locale_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    (tmp_path / "cpuinfo").write_bytes(b"model name : \xc3\xa9\xff\n\nmodel name : other")
    assert platform._cpu(tmp_path / "cpuinfo") == {"model name": "\u00e9\ufffd"}

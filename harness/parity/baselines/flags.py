"""Settings of torch, and variables of its libraries, that may change bits on a CPU: one table.

A fingerprint says what differs from a fresh process. A setting that chooses kernels counts only where the kernels that
it chooses make other bits: `probe` runs some of them here, and in a process without such settings. A variable that the
libraries do not heed therefore changes no fingerprint, and no check becomes a comparison within a bound because of it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

PREFIXES = ("MKL_", "ONEDNN_", "DNNL_", "ATEN_")
"""Beginnings of the names of variables that torch's libraries read. `DIFFUSERS_ATTN_BACKEND` is a row of its own."""

SHAPES = ((1, 8, 32), (4, 64, 64), (8, 256, 2048), (50, 96, 33))
"""Rows, depth and columns of the products that are probed."""


def _lower(value: object) -> str:
    return str(value).lower()


def _variables() -> str:
    found = (name for name in sorted(os.environ) if name.startswith(PREFIXES) and os.environ[name])
    return " ".join(f"{name}={os.environ[name]}" for name in found)


def _attention() -> str:
    b = torch.backends.cuda
    on = {"flash": b.flash_sdp_enabled(), "mem_efficient": b.mem_efficient_sdp_enabled(), "math": b.math_sdp_enabled()}  # type: ignore[no-untyped-call]
    return " ".join(name for name, enabled in on.items() if enabled)


def matmul_precision() -> str:
    """Torch's precision of float32 products; `mixed` where torch refuses to say, as its newer settings were used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "mixed"


@dataclass(frozen=True)
class Flag:
    """A setting that no manifest names where it has the value of a fresh process.

    Attributes:
        read: returns its value now.
        fresh: its value in a fresh process.
        probed: it chooses kernels, and counts only where the probe finds other bits.
    """

    read: Callable[[], str]
    fresh: str
    probed: bool = False


FLAGS: Mapping[str, Flag] = {
    "environment": Flag(_variables, "", probed=True),
    "mkldnn_enabled": Flag(lambda: _lower(torch.backends.mkldnn.enabled), "true", probed=True),
    "mkldnn_deterministic": Flag(lambda: _lower(torch.backends.mkldnn.deterministic), "false", probed=True),
    "attention": Flag(_attention, "flash mem_efficient math", probed=True),
    "fp32_precision": Flag(lambda: str(getattr(torch.backends, "fp32_precision", "none")), "none", probed=True),
    "default_device": Flag(lambda: str(torch.get_default_device()), "cpu"),
    "diffusers_attention": Flag(lambda: os.environ.get("DIFFUSERS_ATTN_BACKEND", "native"), "native"),
}
"""Every flag by its field of the fingerprint; `platform.fingerprint` has the fields that manifests always name."""


def unlike_fresh() -> dict[str, str]:
    """The flags that differ from a fresh process and count, with their values."""
    found = {name: flag.read() for name, flag in FLAGS.items() if flag.read() != flag.fresh}
    probed = [name for name in found if FLAGS[name].probed]
    if probed and probe() == fresh_probe():
        return {name: value for name, value in found.items() if name not in probed}
    return found


def probe() -> str:
    """A digest of what this process makes of fixed inputs with one thread: products, convolutions, attentions, sums."""
    before, digest = torch.get_num_threads(), hashlib.sha256()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for made in _results():
                digest.update(made.contiguous().view(torch.uint8).numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def fresh_probe() -> str:
    """The probe in a process that has none of the variables and no setting; it takes seconds.

    Raises:
        CalledProcessError: the process fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
    # As `capability` is a field by itself.
    environment |= {name: os.environ[name] for name in ("ATEN_CPU_CAPABILITY",) if name in os.environ}
    code = f"from {__name__} import probe; print(probe())"
    command, where = [sys.executable, "-c", code], Path(__file__).parents[3]
    return subprocess.run(
        command, env=environment, cwd=where, check=True, capture_output=True, text=True
    ).stdout.strip()


def _results() -> Iterator[Tensor]:
    generator = torch.Generator(device="cpu").manual_seed(1)

    def drawn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float32, device="cpu")

    for rows, depth, columns in SHAPES:
        yield functional.linear(drawn(rows, depth), drawn(columns, depth), drawn(columns))
        yield drawn(2, rows, depth) @ drawn(2, depth, columns)
        yield torch.linalg.vector_norm(drawn(rows, depth), dim=1)
        yield drawn(rows, depth).sum(dim=0)
    for length, width in ((6, 2), (51, 4)):
        yield functional.conv1d(drawn(4, 1, length), drawn(2, 1, width), stride=2)
        yield functional.conv_transpose1d(drawn(4, 2, length), drawn(2, 1, width), stride=2)
        yield functional.conv1d(drawn(2, 24, length), drawn(32, 24, width))
    for queries, keys, width in ((13, 13, 16), (64, 40, 32)):
        q, k, v = drawn(2, 4, queries, width), drawn(2, 4, keys, width), drawn(2, 4, keys, width)
        mask = torch.arange(keys, device="cpu") < keys - 3
        yield functional.scaled_dot_product_attention(q, k, v)
        yield functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.expand(queries, keys))

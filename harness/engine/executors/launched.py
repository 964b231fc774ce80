"""The kernels that a call launches, by name and in order, from torch's profiler."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_SIZES = re.compile(r'"(?:grid|block)": *\[([\d, ]+)\]')
"""The grid and the block of a kernel, in the text in which torch keeps what the device said of it."""


def launched(run: Callable[[], object], device: torch.device) -> tuple[str, ...]:
    """Call `run` and return what it launched. The host waits for the device.

    Each is the name of a kernel, copy or fill, in the order in which they began. A kernel's grid and block follow the
    name where this version of torch tells them. A CPU has no kernels: there it is the names of torch's operators.

    Args:
        run: the call; it runs with the profiler, so it takes longer than without.
        device: the device on which it works.
    """
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as found:
        run()
        if on_gpu:
            torch.cuda.synchronize(device)
    return names(found.events() or (), on_gpu=on_gpu)


def names(events: Any, *, on_gpu: bool) -> tuple[str, ...]:
    """The launches among the events of a profile; see `launched`."""
    kind = "CUDA" if on_gpu else "CPU"
    ours = [each for each in events if each.device_type.name == kind and not getattr(each, "is_user_annotation", False)]
    if not on_gpu:
        # What has no namespace is a mark of the profiler or of the compiler, and no operator.
        ours = [each for each in ours if "::" in each.name]
    return tuple(_described(each) for each in sorted(ours, key=lambda each: each.time_range.start))


def _described(event: Any) -> str:
    """The name, with the sizes in the text that torch has under one name or the other."""
    kept = vars(event)
    sizes = _SIZES.findall(kept.get("_metadata_json") or kept.get("metadata_json") or "")
    return " ".join([event.name, *(f"[{each.replace(' ', '')}]" for each in sizes)])

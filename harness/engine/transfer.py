"""Transfers between host and GPU that do not make the host wait, and a count of the reads that do.

A copy from pageable memory makes the host wait for the GPU, and so does every allocation of pinned memory. Small host
inputs (noise, curves, times) therefore travel through pinned blocks that are allocated once: a block is written to
again only when an event says that the copy from it is done.

Such a copy runs on the stream that is current when a record is made, and nothing else orders it. `catch_up` lets the
current stream wait for the copies that were launched on other streams.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.engine import serially

SMALLEST = 512
"""Bytes of the smallest block; the others are twice as large each."""


@dataclass(frozen=True, eq=False)
class Block:
    """Pinned memory, uint8 `[n]`, and the event behind the last copy from it or to it."""

    memory: Tensor
    event: Any
    device: torch.device

    def holding(self, like: Tensor) -> Tensor:
        """A view of the memory with the shape and dtype of `like`, contiguous."""
        return self.memory[: like.nbytes].view(like.dtype).view(like.shape)

    def mark(self) -> None:
        """Record the event on the current stream of the block's GPU."""
        self.event.record(current_stream(self.device))


class Blocks:
    """A pool of pinned blocks for every GPU; for any thread.

    Args:
        make: function of a number of bytes and a GPU that makes a block.

    Attributes:
        made: number of blocks made so far. It grows only while more copies are in flight than ever before.
    """

    def __init__(self, make: Callable[[int, torch.device], Block]) -> None:
        self.made = 0
        self._make = make
        self._known: defaultdict[tuple[torch.device, int], list[Block]] = defaultdict(list)
        # Reentrant: the garbage collector may give a block back in the middle of `take`.
        self._lock = threading.RLock()

    def take(self, nbytes: int, device: torch.device) -> Block:
        """Take a block of at least `nbytes` bytes that no copy uses any more; make one where there is none.

        The host waits while a block is made; `waits` counts that.
        """
        size = max(SMALLEST, 1 << max(nbytes - 1, 0).bit_length())
        with self._lock:
            known = self._known[device, size]
            for place, block in enumerate(known):
                if block.event.query():
                    return known.pop(place)
            self.made += 1
        count("a new pinned block")
        return self._make(size, device)

    def give(self, block: Block) -> None:
        """Give a block back. The copy that uses it may still be in flight, if its event is recorded behind the copy."""
        with self._lock:
            self._known[block.device, block.memory.numel()].append(block)


def _pinned(size: int, device: torch.device) -> Block:
    # Outside inference mode, because a tensor made inside it cannot be written to outside of it.
    with torch.inference_mode(False):
        memory = torch.empty(size, dtype=torch.uint8, pin_memory=True, device="cpu")
    return Block(memory, torch.cuda.Event(), device)  # type: ignore[no-untyped-call]


BLOCKS = Blocks(_pinned)
"""The blocks of this process."""


_RAW: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # noqa: SLF001 Triton's own way
_STREAMS: dict[tuple[int, int], torch.cuda.Stream] = {}


def current_stream(device: torch.device) -> torch.cuda.Stream:
    """The current stream of a GPU. Its object is made once: torch makes one at each call, which takes longer."""
    if _RAW is None:
        return torch.cuda.current_stream(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    key = (index, _RAW(index))
    if key not in _STREAMS:
        _STREAMS[key] = torch.cuda.current_stream(device)
    return _STREAMS[key]


def to_device(host: Tensor, device: torch.device, *, read_here: bool = False) -> Tensor:
    """Move a CPU tensor to `device`; the host does not wait for the work that is queued on the device.

    On the CPU the tensor itself is returned.

    Args:
        host: the tensor.
        device: where to.
        read_here: the work that reads the tensor is launched on the current stream, or is ordered behind it, so that
            `catch_up` need not wait for this copy.
    """
    if device == host.device:
        return host
    if device.type != "cuda" or host.device.type != "cpu":
        return host.to(device)
    block, staged = _staged(host, device)
    moved = staged.to(device, non_blocking=True)
    block.mark()
    BLOCKS.give(block)
    if not read_here:
        note(device)
    return moved


def lent(host: Tensor, device: torch.device, launch: Callable[[Tensor], object]) -> None:
    """Let a kernel read a small CPU tensor from pinned memory, without a copy to the GPU; the host does not wait.

    Args:
        host: the tensor; it may be written to again as soon as this returns.
        device: the GPU. On the CPU the kernel reads the tensor itself.
        launch: function that launches the kernel on the current stream, and is given the tensor that it reads,
            contiguous.
    """
    if device.type != "cuda":
        launch(host.to(device).contiguous())
        return
    block, staged = _staged(host, device)
    launch(staged)
    block.mark()
    BLOCKS.give(block)


_LAUNCHED: dict[tuple[torch.device, torch.cuda.Stream], Any] = {}
_ORDERING = threading.RLock()


def note(device: torch.device) -> None:
    """Note that work on the current stream makes a tensor that a ring on any stream may read."""
    if device.type != "cuda":
        return
    stream = current_stream(device)
    key = (_indexed(device), stream)
    with _ORDERING:
        if key not in _LAUNCHED:
            _LAUNCHED[key] = torch.cuda.Event()  # type: ignore[no-untyped-call]
        _LAUNCHED[key].record(stream)


def catch_up(device: torch.device) -> None:
    """Let the current stream wait for whatever `to_device` and `note` launched on the device's other streams."""
    if device.type != "cuda":
        return
    current, indexed = current_stream(device), _indexed(device)
    with _ORDERING:
        for (where, stream), event in _LAUNCHED.items():
            if where == indexed and stream != current:
                current.wait_event(event)


def no_autocast(device: torch.device | None) -> AbstractContextManager[object]:
    """A block whose operators compute in the dtypes of their inputs, whatever autocast the caller is in."""
    kind = "cpu" if device is None else device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


class Fetched:
    """A small tensor on its way to the host. Made by `fetch`.

    Attributes:
        waited: the host has waited in `read`.
    """

    def __init__(self, values: Tensor, block: Block | None) -> None:
        self.waited = False
        self._values = values
        self._block = block
        # A block whose tensor is never read goes back too, when this object does.
        self._return = None if block is None else weakref.finalize(self, BLOCKS.give, block)

    def read(self) -> list[Any]:
        """The values, as nested lists. The host waits where the copy is not done yet; `waits` counts that."""
        if self._block is not None and self._return is not None:
            if not self._block.event.query():
                count("a value that was not there yet")
                self.waited = True
                self._block.event.synchronize()
            self._values = self._values.clone()
            self._return()
            self._block = None
        made: list[Any] = self._values.tolist()
        return made


def fetch(values: Tensor) -> Fetched:
    """Start the copy of `values` to the host, behind the work on the current stream; the host does not wait."""
    if values.device.type != "cuda":
        return Fetched(values.detach().clone(), None)
    block = BLOCKS.take(values.nbytes, _indexed(values.device))
    held = block.holding(values)
    held.copy_(values.detach(), non_blocking=True)
    block.mark()
    return Fetched(held, block)


def written(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, launch: Callable[[Tensor], object]
) -> Fetched:
    """Let a kernel write a small tensor straight into pinned memory; the host does not wait.

    Args:
        shape: of the tensor.
        dtype: of it.
        device: the GPU. On another device the memory is not pinned.
        launch: function that launches the kernel on the current stream. The kernel writes every element.
    """
    like = torch.empty(shape, dtype=dtype, device="meta")
    if device.type != "cuda":
        made = torch.empty(shape, dtype=dtype, device=device)
        launch(made)
        return Fetched(made, None)
    block = BLOCKS.take(like.nbytes, _indexed(device))
    held = block.holding(like)
    launch(held)
    block.mark()
    return Fetched(held, block)


_WAITS: Counter[str] = Counter()
_COUNTING = threading.Lock()


def read(values: Tensor, why: str) -> list[Any]:
    """Read a tensor as nested lists. On a GPU the host waits, and the wait is counted under `why`."""
    if values.device.type == "cuda":
        count(why)
    made: list[Any] = values.tolist()
    return made


def count(why: str) -> None:
    """Count one wait of the host for a GPU."""
    with _COUNTING:
        _WAITS[why] += 1


def waits() -> Mapping[str, int]:
    """How often this process has waited for a GPU to read values, by cause; a copy."""
    with _COUNTING:
        return dict(_WAITS)


def _staged(host: Tensor, device: torch.device) -> tuple[Block, Tensor]:
    """A block for a GPU that nothing uses, and the copy of a CPU tensor that it holds."""
    block = BLOCKS.take(host.nbytes, _indexed(device))
    staged = block.holding(host)
    serially.copy(staged, host.detach())
    return block, staged


def _indexed(device: torch.device) -> torch.device:
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())

"""Copies on the host of tensors that a ring reads or has made; the host does not wait for a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.parity.bits import copied, digest, refuse_unreadable


class Arriving:
    """Tensors of one event on their way to the host.

    A tensor on the CPU is there at once. A tensor on a GPU is copied behind the work that its stream has now, into
    pinned memory; `wait` waits until all copies are there.
    """

    def __init__(self) -> None:
        self._marks: dict[torch.device, Any] = {}
        # Kept while a copy may read it: an executor's own stream could be given its memory meanwhile.
        self._read: list[Tensor] = []

    def copy(self, tensor: Tensor, name: str) -> Tensor:
        """A copy on the host, which may be read after `wait`.

        Raises:
            NotComparable: a tensor without readable bytes.
        """
        return self._copied(tensor, name) if tensor.is_cuda else copied(tensor, name)

    def digest(self, tensor: Tensor, name: str) -> str | Tensor:
        """The digest of a tensor on the CPU; of a tensor on a GPU the copy, to be digested after `wait`.

        Raises:
            NotComparable: a tensor without readable bytes.
        """
        return self._copied(tensor, name) if tensor.is_cuda else digest(tensor)

    @property
    def arrived(self) -> bool:
        """Say whether all copies are there."""
        return all(mark.query() for mark in self._marks.values())

    def wait(self) -> None:
        """Wait until all copies are there."""
        for mark in self._marks.values():
            mark.synchronize()
        self._read.clear()

    def _copied(self, tensor: Tensor, name: str) -> Tensor:
        refuse_unreadable(tensor, name)
        with torch.cuda.device(tensor.device), torch.no_grad():
            plain = tensor.detach().resolve_conj().resolve_neg()
            host = torch.empty(plain.shape, dtype=plain.dtype, device="cpu", pin_memory=True)
            host.copy_(plain, non_blocking=True)
            self._read.append(plain)
            self._marks[tensor.device] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._marks[tensor.device].record()
        return host

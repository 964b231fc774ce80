"""Wrappers that make a decoder, or any callable, as dangerous as compiled decoders are.

A ring on top of a compiled decoder must not keep what the decoder overwrites, must not read what is not yet computed,
and must not let rows depend on padding. Around a plain decoder such a mistake shows nothing. Around one of these
wrappers it changes bytes, so a comparison of the ring on the plain and on the dangerous decoder names it:

    SharedOutput    results are views of one buffer a leaf, which the next call overwrites, as with TensorRT
    Poisoned        the results of a call become NaN at the next call
    Deferred        results are computed at `wait()` or at the next call, and are NaN until then
    PinnedRows      every call has the same number of rows, and the padding is NaN

The arguments and results of a call are trees: tensors in mappings, sequences and dataclasses; other leaves pass through
as they are. Arguments are read before anything is overwritten, so a result may be an argument of the next call. Other
attributes than those of the wrapper are the callable's. For a bool or an integer, which has no NaN, True or the largest
number stands in. No gradient passes through a wrapper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.engine.deferred import DeferredStream
from harness.engine.errors import InvalidInput
from harness.engine.versions import delay
from harness.parity.compare import copied, named_differences
from harness.parity.trees import joined, leaves

CYCLES = 20_000_000
"""Delay of a deferred result on a GPU, in cycles of its clock: some 10 ms."""


class _Wrapper:
    """Common part of the wrappers: the callable, whose attributes are the wrapper's too."""

    def __init__(self, call: Callable[..., Any]) -> None:
        if not callable(call):
            raise InvalidInput("call", repr(call)[:200], "something that can be called")
        self._call = call

    def __getattr__(self, name: str) -> Any:
        if name == "_call":
            raise AttributeError(name)  # of a wrapper that is not made yet, as while it is copied
        return getattr(self._call, name)

    def _fresh(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the callable; return its result in memory of its own."""
        made = self._call(*args, **kwargs)
        with _writable():
            return _mapped(made, lambda _path, tensor: tensor.detach().clone())


class SharedOutput(_Wrapper):
    """Callable whose results are views of shared buffers, which the next call overwrites, whatever its shape.

    There is one buffer for each leaf of the result, dtype and device. It grows with the largest result.

    Args:
        call: the callable.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__(call)
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the callable; return views of the buffers."""
        made = self._fresh(args, kwargs)
        with _writable():
            for buffer in self._buffers.values():
                _poison(buffer)
            return _mapped(made, self._view)

    def _view(self, path: str, tensor: Tensor) -> Tensor:
        key = path, tensor.dtype, tensor.device
        if key not in self._buffers or self._buffers[key].numel() < tensor.numel():
            self._buffers[key] = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        view = self._buffers[key][: tensor.numel()].view(tensor.shape)
        return view.copy_(tensor)


class Poisoned(_Wrapper):
    """Callable whose results become NaN at the next call.

    Args:
        call: the callable.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__(call)
        self._last: list[Tensor] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the callable; poison the results of the call before."""
        made = self._fresh(args, kwargs)
        with _writable():
            for tensor in self._last:
                _poison(tensor)
        self._last = _tensors(made)
        return made


class PinnedRows(_Wrapper):
    """Callable that always gets the same number of rows; the results have as many rows as the caller gave.

    Every tensor among the arguments with as many entries along the axis as the first one is padded: with NaN, or with
    copies of its first row where it holds integers or bools, which may be indices.

    Args:
        call: the callable.
        rows: number of rows of each call, at least 1.
        axis: the axis of the rows, from 0.

    Raises:
        InvalidInput: a number that is not allowed.
    """

    def __init__(self, call: Callable[..., Any], rows: int, axis: int = 0) -> None:
        super().__init__(call)
        for name, value, low in (("rows", rows, 1), ("axis", axis, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InvalidInput(name, value, f"an integer of at least {low}")
        self._rows, self._axis = rows, axis

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the callable with padded arguments; return the caller's rows of the results, as views.

        Raises:
            InvalidInput: no tensor has the axis, or there are more rows than `rows`.
        """
        sizes = [each.shape[self._axis] for each in _tensors((args, kwargs)) if each.dim() > self._axis]
        if not sizes or sizes[0] > self._rows:
            got = f"{sizes[0]} rows" if sizes else "no tensor with that axis"
            raise InvalidInput("arguments", got, f"at most {self._rows} rows along axis {self._axis}")
        count = sizes[0]
        with torch.no_grad():
            padded, named = _mapped((args, kwargs), lambda _path, tensor: self._padded(tensor, count))
        made = self._call(*padded, **named)
        return _mapped(made, lambda _path, tensor: self._cut(tensor, count))

    def _padded(self, tensor: Tensor, count: int) -> Tensor:
        missing = self._rows - count
        if not missing or not self._has(tensor, count):
            return tensor
        shape = [*tensor.shape[: self._axis], missing, *tensor.shape[self._axis + 1 :]]
        if tensor.is_floating_point() or tensor.is_complex() or not count:
            filler = _poison(torch.empty(shape, dtype=tensor.dtype, device=tensor.device))
        else:
            filler = tensor.narrow(self._axis, 0, 1).expand(shape)
        return torch.cat([tensor, filler], dim=self._axis)

    def _cut(self, tensor: Tensor, count: int) -> Tensor:
        return tensor.narrow(self._axis, 0, count) if self._has(tensor, self._rows) else tensor

    def _has(self, tensor: Tensor, size: int) -> bool:
        return tensor.dim() > self._axis and tensor.shape[self._axis] == size


class Deferred(_Wrapper):
    """Callable whose results are NaN until `wait()` or the next call.

    On a CPU the results are filled there and then, and stay NaN where an argument was written to before. On a GPU a
    stream of its own fills them late, and `wait` makes the current stream wait for that one. Around other wrappers, let
    this one be the outermost.

    Args:
        call: the callable.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__(call)
        self._later = DeferredStream()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Finish the call before, and return results that hold nothing yet."""
        self.wait()
        given = _bytes((args, kwargs))
        made = self._fresh(args, kwargs)
        with _writable():
            late = _mapped(made, lambda _path, tensor: _poison(torch.empty_like(tensor)))
        pairs = list(zip(_tensors(late), _tensors(made), strict=True))
        if any(tensor.is_cuda for tensor, _ in pairs):
            self._on_gpu(pairs)
        else:
            self._later.launch(lambda: _fill(pairs, given, (args, kwargs)))
        return late

    def wait(self) -> None:
        """Let the results of the last call be filled before what follows reads them."""
        self._later.wait()

    def _on_gpu(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        device = next(tensor.device for tensor, _ in pairs if tensor.is_cuda)
        own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        own.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(own), _writable():
            delay(CYCLES)
            for late, made in pairs:
                late.copy_(made)
        # The pairs are kept until the wait, so that nobody gets their memory while the stream writes to it.
        self._later.launch(lambda: _join(own, pairs))


def _join(own: torch.cuda.Stream, _kept: object) -> None:
    torch.cuda.current_stream(own.device).wait_stream(own)


def _fill(pairs: list[tuple[Tensor, Tensor]], given: Mapping[str, Tensor], arguments: object) -> None:
    """Fill deferred results, unless an argument is no longer what it was."""
    if named_differences(_bytes(arguments), given):
        return
    with _writable():
        for late, made in pairs:
            late.copy_(made)


def _poison(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor.fill_(torch.nan)
    return tensor.fill_(True if tensor.dtype is torch.bool else torch.iinfo(tensor.dtype).max)


@contextmanager
def _writable() -> Iterator[None]:
    """Run without gradients and outside inference mode, whose tensors cannot be written to elsewhere."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for _, leaf in leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tree: object) -> dict[str, Tensor]:
    return {path: copied(leaf, path) for path, leaf in leaves(tree) if isinstance(leaf, Tensor)}


def _mapped(tree: Any, change: Callable[[str, Tensor], Tensor], path: str = "") -> Any:
    """Copy a tree with each tensor changed, in containers of the same types, in the order of `leaves`."""
    if isinstance(tree, Tensor):
        return change(path, tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        names = [field.name for field in fields(tree) if field.init]
        return replace(tree, **{n: _mapped(getattr(tree, n), change, joined(path, f"/{n}")) for n in names})
    if isinstance(tree, Mapping):
        found = {key: _mapped(value, change, joined(path, f"/{key}")) for key, value in tree.items()}
        return found if type(tree) is dict else type(tree)(found)  # type: ignore[call-arg]
    if isinstance(tree, list | tuple):
        parts = [_mapped(value, change, joined(path, f"[{index}]")) for index, value in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree

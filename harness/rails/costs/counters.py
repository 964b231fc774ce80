"""Exact counts of operators, allocations, copies and host reads inside a block of code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from types import ModuleType, TracebackType
from typing import Any

import torch
from torch import Tensor

from harness.engine.versions import UNSEEN, TorchDispatchMode, TorchFunctionMode, resolve_name
from harness.rails.costs.lines import Line, line_outside

# Methods and functions that hand values to Python or NumPy, or whose result's shape depends on values. A dispatch mode
# alone misses `tolist`, `numpy` and, on a CPU, `cpu`: they reach no operator.
_READING_FUNCTIONS = {
    *(f"torch.Tensor.{name}" for name in (
        "item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__complex__", "__index__", "__array__",
        "__contains__", "__repr__", "__format__", "__dlpack__", "apply_", "map_", "map2_",
        "equal", "allclose", "is_nonzero", "nonzero", "argwhere", "masked_select",
        "unique", "unique_consecutive", "bincount", "histc", "repeat_interleave",
    )),
    *(f"torch.{name}" for name in (
        "equal", "allclose", "is_nonzero", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive",
        "bincount", "histc", "repeat_interleave",
    )),
    "torch.functional.unique", "torch.functional.unique_consecutive",
}  # fmt: skip
_READING_OPERATORS = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero",
    "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::bincount",
}  # fmt: skip

_MAKING_CALLS = ("torch.tensor", "torch.as_tensor", "torch.asarray", "torch.Tensor.new_tensor", "torch.Tensor.new")
_ASSIGNING = ("aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_ASSIGNING_CALLS = (
    "torch.Tensor.__setitem__", "torch.Tensor.index_put", "torch.Tensor.index_put_", "torch.index_put",
    "torch.index_put_",
)  # fmt: skip
_COPYING = ("aten::copy_", "aten::_to_copy", "aten::clone")


class HostReads:
    """Counter of host reads inside a `with` block: calls that read a tensor's values, and wait for a GPU.

    Two modes count, because neither sees every read: a function mode sees the calls that Python makes on a tensor
    (`tolist`, `cpu`, `bool(...)`), a dispatch mode sees the operators that run, whoever calls them. Both modes see many
    reads; `seen` counts each of these once. `torch.save` and `to_dlpack`, which neither mode sees, are replaced inside
    the block by functions that count. Saving or pickling is one read for each file or storage that is written.

    Attributes:
        functions: number of reads by Python calls, by name, such as `torch.Tensor.tolist`.
        operators: number of reads by operators, by name, such as `aten::_local_scalar_dense`.
        lines: number of the reads in `seen`, by the line of code that reads and the name.
    """

    def __init__(self) -> None:
        self.functions: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.lines: Counter[tuple[Line, str]] = Counter()
        self._unasked: Counter[str] = Counter()
        self._asking = _Functions(self.functions, self.lines)
        self._modes = self._asking, _Operators(self.operators, self._unasked, self._asking)
        self._unseen = _Unseen(self._asking)

    @property
    def seen(self) -> dict[str, int]:
        """Number of reads by name, each read once: by the Python call, or by the operator where no call was counted."""
        return dict(self.functions + self._unasked)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause counting inside a `with` block."""
        outer, self._asking.paused = self._asking.paused, True
        try:
            yield
        finally:
            self._asking.paused = outer

    def __enter__(self) -> HostReads:
        """Start counting."""
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        self._unseen.replace()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting."""
        self._unseen.restore()
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]


class _Functions(TorchFunctionMode):
    """Counter of Python calls that read; `asked` is True while such a call runs, `paused` while nothing is counted."""

    def __init__(self, counts: Counter[str], lines: Counter[tuple[Line, str]]) -> None:
        super().__init__()
        self._counts = counts
        self.lines = lines
        self.asked = self.paused = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = resolve_name(func) or repr(func)
        if name in _READING_FUNCTIONS or any(reads(name, args, kwargs or {}) for reads in _READING_CALLS):
            return self.counted(name, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def counted(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call `func` and count the call as one read; a read inside it is a part of it."""
        if self.paused:
            return func(*args, **kwargs)
        outer, self.asked = self.asked, True
        if not outer:
            self._counts[name] += 1
            self.lines[line_outside(), name] += 1
        try:
            return func(*args, **kwargs)
        finally:
            self.asked = outer


class _Unseen:
    """The functions of `UNSEEN`, replaced by functions that count a call with `asking` and then make it.

    A name that was imported before, such as `from torch.utils.dlpack import to_dlpack`, is not replaced.
    """

    def __init__(self, asking: _Functions) -> None:
        self._asking = asking
        self._originals: list[tuple[ModuleType, str, Callable[..., Any]]] = []

    def replace(self) -> None:
        """Put a counting function in the place of each."""
        for module, attribute, name in UNSEEN:
            original = getattr(module, attribute)
            self._originals.append((module, attribute, original))
            setattr(module, attribute, self._counting(name, original))

    def restore(self) -> None:
        """Put every function back."""
        while self._originals:
            setattr(*self._originals.pop())

    def _counting(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def counting(*args: Any, **kwargs: Any) -> Any:
            return self._asking.counted(name, original, args, kwargs)

        return counting


class _Operators(TorchDispatchMode):
    """Counter of operators that read, and separately of those that run outside a call counted by `asking`."""

    def __init__(self, counts: Counter[str], unasked: Counter[str], asking: _Functions) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counts, self._unasked, self._asking = counts, unasked, asking

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._asking.paused:
            return out
        name = func.name().split(".")[0]
        if name in _READING_OPERATORS or _came_to_host(name, args, out) or _picked_by_mask(name, args, kwargs or {}):
            self._counts[name] += 1
            if not self._asking.asked:
                self._unasked[name] += 1
                self._asking.lines[line_outside(), name] += 1
        return out


class Operators(TorchDispatchMode):
    """Counter of operators, allocations and copies inside a `with` block, except while paused.

    Attributes:
        names: number of calls of each operator, by name.
        allocations: number of output tensors that share no memory with an input.
        copies: number of calls of operators that only copy.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()
        self.allocations = 0
        self.copies = 0
        self._paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause counting inside a `with` block."""
        outer, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = outer

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator and count the call."""
        out = func(*args, **(kwargs or {}))
        if not self._paused:
            name = func.name().split(".")[0]
            given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs or {}))}
            self.names[name] += 1
            self.allocations += sum(t.untyped_storage().data_ptr() not in given for t in _tensors(out))
            self.copies += name in _COPYING
        return out


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _tensors(each)


def _moves_to_host(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Say whether a call of `to` names the CPU: for a tensor on a GPU the host waits."""
    asked = [*args[1:], *kwargs.values()] if name == "torch.Tensor.to" else []
    return any(isinstance(each, str | torch.device) and torch.device(each).type == "cpu" for each in asked)


def _made_of_tensors(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Say whether a tensor is made from a sequence with tensors in it, at any depth, which reads each of them."""
    sequences = [each for each in (*args, *kwargs.values()) if isinstance(each, list | tuple)]
    return name in _MAKING_CALLS and next(_tensors(sequences), None) is not None


def _assigned_by_mask(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Say whether a tensor, and not a number, is assigned where a mask is true: the mask's true places are looked up.

    The operator alone does not show this: a number reaches it as a tensor of one element.
    """
    if name not in _ASSIGNING_CALLS:
        return False
    indices = args[1] if len(args) > 1 else kwargs["indices"]
    value = args[2] if len(args) > 2 else kwargs["values"]
    return isinstance(value, Tensor) and _masks(indices if isinstance(indices, tuple | list) else (indices,)) > 0


_READING_CALLS = (_moves_to_host, _made_of_tensors, _assigned_by_mask)


def _picked_by_mask(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Say whether an index is a bool tensor, whose values decide the result's shape.

    A number that is assigned by one mask alone is filled in wherever the mask is true, and nothing is read.
    """
    if name not in ("aten::index", *_ASSIGNING):
        return False
    indices = [index for index in args[1] if index is not None]
    adds = kwargs.get("accumulate", args[3] if len(args) > 3 else False)
    number = name in _ASSIGNING and args[2].numel() == 1 and args[2].is_cpu
    filled = number and len(indices) == 1 and not adds
    return _masks(indices) > 0 and not filled


def _masks(indices: Sequence[Any]) -> int:
    """Number of indices that are masks."""
    return sum(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _came_to_host(name: str, args: Sequence[Any], out: Any) -> bool:
    """Say whether a copy went from a device to the CPU."""
    if name not in ("aten::_to_copy", "aten::copy_", "aten::copy"):
        return False
    source = args[0] if name == "aten::_to_copy" else args[1]
    return isinstance(out, Tensor) and isinstance(source, Tensor) and out.is_cpu and not source.is_cpu

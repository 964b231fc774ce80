"""Snapshots: the whole state of a pipeline, a stream or any other object, as tensors that are compared byte for byte.

A snapshot follows every attribute, so that an attribute that is added later is part of it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import torch
from torch import Tensor

from harness.parity.bits import NotComparable, copied

PLAIN = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size)
"""Values that are their own description."""

LOCKS = (type(threading.Lock()), type(threading.RLock()))
"""Types of locks."""

OPAQUE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, torch.nn.Module, *LOCKS)
"""Objects that are identified, not entered: code, locks, and models, whose weights are the caller's."""


def snapshot(subject: object) -> dict[str, Tensor]:
    """Copy the state of an object and of everything that it holds, by path.

    Tensors are copied. A plain value is the bytes of its `repr`. Every object has an entry with its type and identity,
    so an equal copy in its place is a difference; compare snapshots of one object, taken in one process. Mappings and
    sequences are entered by item, other objects by attribute. Nothing that is read changes.

    Args:
        subject: a `StreamPipeline`, a `Stream`, a `Session`, or another object.

    Returns:
        The entries in the order in which they are met. Compare with `harness.parity.compare.compare_trees`.

    Raises:
        NotComparable: an object of a kind that cannot be entered, such as an iterator; the message names its path.
    """
    found: dict[str, Tensor] = {}
    _enter(found, {}, "", subject)
    return found


def _enter(found: dict[str, Tensor], known: dict[int, str], path: str, value: object) -> None:
    if isinstance(value, PLAIN):
        found[path or "(root)"] = _text(f"{type(value).__name__} {value!r}")
        return
    # Named once: objects refer to each other in circles, and the same tensor serves many requests.
    first = known.setdefault(id(value), path)
    found[f"{path} is"] = _text(f"{type(value).__name__} {id(value)}, first met at {first!r}")
    if first != path or isinstance(value, OPAQUE):
        return
    if isinstance(value, Tensor):
        found[path or "(root)"] = copied(value, path)
        return
    for step, part in _parts(path, value):
        _enter(found, known, f"{path}{step}", part)


def _parts(path: str, value: object) -> list[tuple[str, object]]:
    """The parts of a container or object, each with its step of the path, in order."""
    parts = [(f".{name}", part) for name, part in vars(value).items()] if hasattr(value, "__dict__") else []
    # Of other containers the attributes alone: reading an item of a cache counts as a use of it.
    if type(value).__module__ not in ("builtins", "collections", "types"):
        if not hasattr(value, "__dict__"):
            raise NotComparable(f"{path} cannot be part of a snapshot: {type(value).__name__} has no attributes")
        return parts
    if isinstance(value, Mapping):
        return [*parts, (" in order", repr(list(value))), *((f"[{key!r}]", part) for key, part in value.items())]
    if isinstance(value, Sequence):
        return [*parts, (" length", len(value)), *((f"[{index}]", part) for index, part in enumerate(value))]
    raise NotComparable(f"{path} cannot be part of a snapshot: no rule for {type(value).__name__}")


def _text(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).clone()

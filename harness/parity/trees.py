"""Flat names for trees of tensors: nested mappings, sequences and dataclasses with tensors and values as leaves.

Names are paths such as `slots[1]/velocity`. Keys and fields follow a slash; positions are in brackets, so a sequence
differs from a mapping with integer keys. A dataclass is treated as a mapping of its fields, a list as a tuple. None and
empty containers contain no tensor but are part of the tree: each has a name (`slots[1] is None`) and an empty tensor.
Numbers, texts, and NumPy's arrays and scalars are leaves too; see `harness.parity.values`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.bits import copied
from harness.parity.values import encoded

ROOT = "(root)"
"""The path of a tensor that is the whole tree."""

_PLAIN_KEY = re.compile(r"[^\W\d][\w.-]*")


def named(tree: object) -> dict[str, Tensor]:
    """Copy every leaf in `tree` to a tensor on the CPU, by path. Later writes to the leaves do not change the copies.

    The name of a leaf that is no tensor ends in its type: `n as int`, `x as array`.

    Raises:
        NotComparable: a leaf is neither a tensor, an array, a number nor a text, or its bytes cannot be read; the
            message names its path.
        InvalidInput: a key of a mapping is neither a string nor an integer.
    """
    found: dict[str, Tensor] = {}
    for path, leaf in leaves(tree):
        if isinstance(leaf, Tensor):
            found[path] = copied(leaf, path)
        elif leaf is None or children(leaf) is not None:
            found[f"{path} is {'None' if leaf is None else 'empty'}"] = torch.empty(0, dtype=torch.uint8)
        else:
            name, tensor = encoded(leaf, path)
            found[name] = tensor
    return found


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield path and value of every leaf in `tree`: a tensor, None, an empty container, or any object without parts.

    Args:
        tree: the tree.
        path: the path of `tree`, a prefix of all paths.

    Raises:
        InvalidInput: as for `named`.
    """
    below = children(tree)
    if not below:
        yield path or ROOT, tree
        return
    for step, child in below.items():
        yield from leaves(child, joined(path, step))


def devices(tree: object) -> set[torch.device]:
    """The devices of the tensors in a tree."""
    return {leaf.device for _, leaf in leaves(tree) if isinstance(leaf, Tensor)}


def children(tree: object) -> dict[str, object] | None:
    """The children of a container by path step, in the container's order; None for a leaf. Strings are leaves.

    Raises:
        InvalidInput: as for `named`.
    """
    if is_dataclass(tree) and not isinstance(tree, type):
        return {f"/{field.name}": getattr(tree, field.name) for field in fields(tree)}
    if isinstance(tree, Mapping):
        return {_step(key): child for key, child in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str | bytes | bytearray):
        return {f"[{index}]": child for index, child in enumerate(tree)}
    return None


def positional(tree: object) -> bool:
    """Return True if the children of a container have positions, not names."""
    return isinstance(tree, Sequence) and not is_dataclass(tree)


def joined(path: str, step: str) -> str:
    """The path one step below `path`, which is empty at the root."""
    return f"{path}{step}" if path else step.removeprefix("/")


def _step(key: object) -> str:
    """The path step of a key; a string that looks like several steps or like a number is quoted."""
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise InvalidInput("key", repr(key), "a string or an integer")
    return f"/{key}" if isinstance(key, int) or _PLAIN_KEY.fullmatch(key) else f"[{key!r}]"

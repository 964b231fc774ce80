"""Trees of tensors as flat names: nestings of mappings, sequences and dataclasses with tensors as leaves.

Names are paths such as `slots[1]/velocity`: keys and fields follow a slash, positions stand in brackets, so a sequence
is not a mapping of numbers. A dataclass counts as a mapping of its fields, a list as a tuple. None and an empty
container hold no tensor and are still part of a tree: each has a name of its own (`slots[1] is None`) and an empty
tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import NotComparable, copied

ROOT = "(root)"
"""The name of a tensor that is the whole tree."""

_PLAIN_KEY = re.compile(r"[^\W\d][\w.-]*")


def named(tree: object) -> dict[str, Tensor]:
    """A copy on the CPU of every tensor in `tree`, by its path; later writes to the tree do not change it.

    Raises:
        NotComparable: a leaf is no tensor, or one whose bytes are not there to be read; the message names its path.
        InvalidInput: a mapping's key is neither text nor an integer.
    """
    found: dict[str, Tensor] = {}
    for path, leaf in leaves(tree):
        if isinstance(leaf, Tensor):
            found[path] = copied(leaf, path)
        elif leaf is None or _children(leaf) is not None:
            found[f"{path} is {'None' if leaf is None else 'empty'}"] = torch.empty(0, dtype=torch.uint8)
        else:
            raise NotComparable(f"{path} cannot be compared: it is no tensor but {type(leaf).__name__}")
    return found


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every path in `tree` and what is there: a tensor, None, an empty container, or anything else that has no parts.

    Raises:
        InvalidInput: as for `named`.
    """
    children = _children(tree)
    if not children:
        yield path or ROOT, tree
        return
    for step, child in children:
        yield from leaves(child, f"{path}{step}" if path else step.removeprefix("/"))


def devices(tree: object) -> set[torch.device]:
    """Where the tensors of a tree are."""
    return {leaf.device for _, leaf in leaves(tree) if isinstance(leaf, Tensor)}


def _children(tree: object) -> list[tuple[str, object]] | None:
    """The steps down from a container, and what is there; None for a leaf."""
    if is_dataclass(tree) and not isinstance(tree, type):
        return [(f"/{field.name}", getattr(tree, field.name)) for field in fields(tree)]
    if isinstance(tree, Mapping):
        return [(_step(key), child) for key, child in tree.items()]
    if isinstance(tree, Sequence) and not isinstance(tree, str | bytes | bytearray):
        return [(f"[{index}]", child) for index, child in enumerate(tree)]
    return None


def _step(key: object) -> str:
    """A key in a path; text that could be taken for several steps, or for a number, is quoted."""
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise InvalidInput("key", repr(key), "text or an integer")
    return f"/{key}" if isinstance(key, int) or _PLAIN_KEY.fullmatch(key) else f"[{key!r}]"

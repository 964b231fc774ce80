"""Parts of a tree that its capture keeps: every byte, or a SHA-256 of each tensor with or without sampled elements.

A digest covers every byte of a tensor, so a capture without bytes finds the same differences. Only what can be said of
a difference is less. Numbers and texts are kept whole in every capture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.files.schema import Natural, Sha256, Text, Within
from harness.parity.bits import DTYPES, digest
from harness.parity.compare import difference, tree_differences
from harness.parity.differences import Difference, DifferenceKind, Words
from harness.parity.values import parted

SAMPLE = 1024
"""The most elements of a tensor that a sample keeps."""

TENSORS = ("tensor", "array")
"""The types of leaves that have a digest; the others are small."""
LARGEST = 2**48
"""The most elements of a tensor."""


class Keep(StrEnum):
    """The part of a tree that its capture keeps.

    `all` keeps every byte. `sample` keeps a SHA-256 of each tensor and at most `SAMPLE` of its elements. `digest` keeps
    the SHA-256 alone.
    """

    ALL = "all"
    SAMPLE = "sample"
    DIGEST = "digest"


KeepName = Annotated[str, Text(6, "|".join(Keep))]
"""The value of a `Keep` in a manifest."""


@dataclass(frozen=True)
class Digested:
    """The digest of one tensor.

    Attributes:
        dtype: its dtype, such as `torch.float32`.
        shape: its shape.
        sha256: over dtype, shape and bytes, as `bits.digest` makes it.
        stride: steps between the sampled elements in row-major order, 1 and above; 0 where none is sampled.
    """

    dtype: Annotated[str, Text(24, "|".join(DTYPES).replace(".", r"\."))]
    shape: tuple[Natural, ...]
    sha256: Sha256
    stride: Annotated[int, Within(0, 2**53)] = 0


@dataclass(frozen=True)
class Unseen(Difference):
    """A difference between digests: some or all elements of the capture are not there to be compared.

    `index`, values and counts are those of the sample: `count` of its `total` elements differ. `index` is a place in
    the whole tensor.

    Attributes:
        dtype: the dtype of both tensors.
        shape: their shape.
    """

    dtype: str = ""
    shape: tuple[int, ...] = ()

    def told(self, words: Words) -> str:
        """The difference in one line, with what cannot be known of it."""
        head = f"{self.name}: bytes differ by their SHA-256, {self.dtype} tensor of shape {list(self.shape)}"
        if not self.total:
            return f"{head}; the capture keeps no bytes, so no element can be shown"
        sample = f"{self.total} sampled elements of {math.prod(self.shape)}"
        if not self.count:
            return f"{head}; {sample} are the same, so the difference is in elements that are not in the sample"
        facts = [f"{head}; {self.count} of {sample} differ, first at {self.first(words)}", *self.facts(words)]
        return "; ".join([*facts, "the first difference may be at an element that is not in the sample"])


def keep_of(given: str, k: float) -> Keep:
    """The part to keep that a caller has named.

    Raises:
        InvalidInput: there is no such part, or a tolerance `k` is to be kept with less than all bytes.
    """
    if given not in list(Keep):
        raise InvalidInput("keep", repr(given), " or ".join(map(repr, map(str, Keep))))
    if k and given != Keep.ALL:
        raise InvalidInput("k", k, f"0 with keep={str(given)!r}: a bound needs every element of the capture")
    return Keep(given)


def digests(tensors: Mapping[str, Tensor], keep: Keep) -> dict[str, Digested]:
    """The digests of the tensors and arrays in a named tree; none where every byte is kept."""
    return {
        name: Digested(
            str(tensor.dtype), tuple(tensor.shape), digest(tensor), stride_of(tensor) if keep is Keep.SAMPLE else 0
        )
        for name, tensor in tensors.items()
        if keep is not Keep.ALL and parted(name)[1] in TENSORS
    }


def stored(tensors: Mapping[str, Tensor], digested: Mapping[str, Digested]) -> dict[str, Tensor]:
    """The tensors that a capture's file holds: of those that are `digested` the samples `[elements]`, or nothing."""
    found = {}
    for name, tensor in tensors.items():
        stride = digested[name].stride if name in digested else None
        if stride != 0:
            found[name] = tensor if stride is None else tensor.reshape(-1)[::stride].clone()
    return found


def stride_of(tensor: Tensor) -> int:
    """Steps between sampled elements, so that at most `SAMPLE` are sampled.

    The stride has no divisor in common with the number of elements, so that the sample is not always of one channel.
    """
    stride = max(1, -(-tensor.numel() // SAMPLE))
    while math.gcd(stride, tensor.numel()) > 1 < stride:
        stride += 1
    return stride


def fault(keep: str, digested: Mapping[str, Digested], there: Mapping[str, Tensor]) -> str:
    """The contradiction between a capture's digests and the tensors in its file; empty where there is none."""
    without = [name for name in there if parted(name)[1] in TENSORS and name not in digested]
    if digested if keep == Keep.ALL else without:
        return f"keep={keep!r}, but digests of {list(digested)}"
    for name, each in digested.items():
        elements, sample = math.prod(each.shape), there.get(name)
        if (
            math.prod(max(1, size) for size in each.shape) > LARGEST
            or parted(name)[1] not in TENSORS
            or bool(each.stride) != (keep == Keep.SAMPLE)
        ):
            return f"no digest of a tensor at {name!r}"
        expected = (DTYPES[each.dtype], (-(-elements // each.stride),)) if each.stride else None
        if expected != (None if sample is None else (sample.dtype, tuple(sample.shape))):
            return f"another sample of {name!r} than its digest says"
    return ""


def differences(
    tensors: Mapping[str, Tensor], there: Mapping[str, Tensor], digested: Mapping[str, Digested]
) -> list[Difference]:
    """All differences of a named tree from a capture; see `tree_differences`.

    Args:
        tensors: the tree.
        there: the tensors in the capture's file, see `stored`.
        digested: the capture's digests by name.
    """
    by_path = {parted(name)[0]: (each, there.get(name)) for name, each in digested.items()}

    def compare(got: Tensor, expected: Tensor, path: str) -> Difference | None:
        if not expected.is_meta:
            return difference(got, expected, path)
        return _of_digest(path, got, expected, *by_path[path])

    # Tensors without bytes stand for those that have a digest: they have a dtype and a shape.
    whole = {name: _without_bytes(each) for name, each in digested.items()}
    return tree_differences(tensors, {**there, **whole}, compare)


def _without_bytes(digested: Digested) -> Tensor:
    return torch.empty(digested.shape, dtype=DTYPES[digested.dtype], device="meta")


def _of_digest(
    path: str, got: Tensor, expected: Tensor, digested: Digested, sample: Tensor | None
) -> Difference | None:
    if got.dtype != expected.dtype:
        return Difference(path, DifferenceKind.DTYPE, got.dtype, expected.dtype)
    if got.shape != expected.shape:
        return Difference(path, DifferenceKind.SHAPE, tuple(got.shape), tuple(expected.shape))
    if digest(got) == digested.sha256:
        return None
    unseen = partial(Unseen, path, DifferenceKind.BYTES, dtype=digested.dtype, shape=digested.shape)
    if sample is None:
        return unseen(None, None)
    if digested.stride == 1:
        return difference(got, sample.reshape(got.shape), path)
    found = difference(got.reshape(-1)[:: digested.stride], sample, path)
    if found is None or found.index is None:
        return unseen(None, None, total=sample.numel())
    place = torch.unravel_index(torch.tensor(found.index[0] * digested.stride), got.shape)
    seen = {name: value for name, value in vars(found).items() if name not in ("name", "kind", "index")}
    return unseen(**seen, index=tuple(int(each) for each in place))

"""Heat maps of a tensor over frame and channel, as small PNG pictures inside the text of a page."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from harness.parity.bits import moved_bits, parts, values_of
from harness.parity.proofs.evidence import Picture

Array = np.ndarray[Any, Any]

LEVELS = 14
"""Colours of a map, beside the one of equal bits and the one of values that are not finite."""
LARGEST = (160, 96)
"""The most pixels of a map: frames, channels. A pixel of a larger tensor stands for several elements."""
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_FLAME = ((74, 20, 8), (153, 52, 12), (217, 84, 14), (245, 150, 40), (255, 221, 120))
_NOT_FINITE, _EQUAL = (255, 0, 255), (128, 138, 150)


@dataclass(frozen=True)
class Map:
    """A heat map: its title, the picture as a `data:` address, and the range of its colours in words."""

    title: str
    source: str
    scale: str


@dataclass(frozen=True)
class Heat:
    """The heat maps of one tensor.

    Attributes:
        name: name of the tensor.
        maps: expected, got and distance.
        width: pixels, over the frames.
        height: pixels, over the channels.
        frames: number of frames T.
        channels: number of channels D.
        first: frame and channel of the first element that differs.
        mark: the pixel of that element.
        differing: number of elements whose bits differ.
    """

    name: str
    maps: tuple[Map, ...]
    width: int
    height: int
    frames: int
    channels: int
    first: tuple[int, int]
    mark: tuple[int, int]
    differing: int


def heat(picture: Picture) -> Heat:
    """Make the maps of a tensor `[frames, channels]`: values of both sides on one scale, and their distance.

    The distance has a logarithmic scale, because one bit is as much of a difference as a large value. An element with
    equal bits has a colour of its own.
    """
    got, expected = (parts(side, picture.name) for side in (picture.got, picture.expected))
    moved = moved_bits(got, expected)
    a, b = (values_of(side).astype(np.float64) for side in (got, expected))
    frames, channels = moved.shape
    step = (math.ceil(frames / LARGEST[0]), math.ceil(channels / LARGEST[1]))
    frame, channel = (int(place) for place in np.argwhere(moved)[0])
    both = np.concatenate([a[np.isfinite(a)], b[np.isfinite(b)], [0.0]])
    low, high = float(both.min()), float(both.max())
    values = f"{low:.4g} to {high:.4g}"
    maps = (
        Map("expected", _png(_linear(_reduced(b, step), low, high), _VIRIDIS), values),
        Map("got", _png(_linear(_reduced(a, step), low, high), _VIRIDIS), values),
        _distance(a, b, moved, step),
    )
    width, height = math.ceil(frames / step[0]), math.ceil(channels / step[1])
    mark = (frame // step[0], channel // step[1])
    return Heat(picture.name, maps, width, height, frames, channels, (frame, channel), mark, int(moved.sum()))


def _distance(got: Array, expected: Array, moved: Array, step: tuple[int, int]) -> Map:
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.abs(got - expected)
    # Equal values of other bits, such as zeros of both signs, are the smallest distance that there is.
    far = np.where(moved, np.maximum(far, np.finfo(np.float64).tiny), -1.0)
    far[moved & ~np.isfinite(got - np.where(np.isfinite(expected), expected, np.nan))] = np.nan
    levels = _reduced(far, step, largest=True)
    known = levels[np.isfinite(levels) & (levels > 0)]
    if not known.size:
        return Map("distance", _png(np.where(np.isnan(levels), 0, 1), _FLAME), "not finite")
    # Equal values of other bits have the lowest colour and are out of the range: it would have 300 decades with them.
    apart = known[known > np.finfo(np.float64).tiny]
    low, high = (float(np.log10(end)) for end in (apart.min(), apart.max())) if apart.size else (0.0, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        indices = _linear(np.log10(np.where(levels > 0, levels, np.nan)), low, high)
    indices = np.where(np.isnan(levels), 0, np.where(levels < 0, 1, indices))
    said = ["0 (other bits)"] if apart.size < known.size else []
    said += [f"{apart.min():.3g} to {apart.max():.3g}, logarithmic"] if apart.size else []
    return Map("distance", _png(indices, _FLAME), f"{' and '.join(said)}; grey: same bits")


def _reduced(values: Array, step: tuple[int, int], *, largest: bool = False) -> Array:
    """One value a pixel: of the elements that it stands for the first, or the largest; NaN where one is NaN."""
    if step == (1, 1):
        return values
    if not largest:
        return values[:: step[0], :: step[1]]
    filled = [(0, -size % each) for size, each in zip(values.shape, step, strict=True)]
    padded = np.pad(values, filled, constant_values=-1.0)
    rows, columns = (size // each for size, each in zip(padded.shape, step, strict=True))
    reduced: Array = padded.reshape(rows, step[0], columns, step[1]).max(axis=(1, 3))
    return reduced


def _linear(values: Array, low: float, high: float) -> Array:
    """Colour of each value: 2 and above; 0 where the value is not finite."""
    share = np.nan_to_num((values - low) / ((high - low) or 1.0), nan=0.0, posinf=0.0, neginf=0.0)
    levels = 2 + np.clip((share * LEVELS).astype(int), 0, LEVELS - 1)
    return np.where(np.isfinite(values), levels, 0)


def _png(indices: Array, ramp: tuple[tuple[int, int, int], ...]) -> str:
    """A PNG with a palette; frames go to the right and channels go up."""
    image = Image.fromarray(np.ascontiguousarray(indices.T[::-1].astype(np.uint8)), mode="P")
    places = np.linspace(0, len(ramp) - 1, LEVELS)
    colours = np.stack([np.interp(places, range(len(ramp)), column) for column in zip(*ramp, strict=True)], axis=1)
    image.putpalette([*_NOT_FINITE, *_EQUAL, *(int(value) for value in colours.round().reshape(-1))])
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True, bits=4)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()

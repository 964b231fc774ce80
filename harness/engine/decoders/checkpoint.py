"""Checkpoints in the format of diffusers, checked before diffusers opens them: configuration, index, headers, values.

diffusers follows an index wherever it leads, makes whatever sizes a configuration asks for, and casts weights of any
dtype. So all of this is asked here, of files that are read within limits, and diffusers gets what has passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import AceStepTransformer1DModel
from torch import Tensor, nn

from harness.engine.errors import CheckpointRefused, InvalidInput
from harness.files import FileRefused, documents, reading, tensors
from harness.files.refused import FileMissing, described
from harness.files.schema import Folder, Name, Within, fit
from harness.files.tensors import Listed

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = WEIGHTS + ".index.json"
NULL_EMBEDDING = "null_condition_emb"
_FLOATS = ("F16", "BF16", "F32", "F64")

_Size = Annotated[int, Within(1, 2**24)]
_Number = Annotated[float, Within(0, 1e12)]


@dataclass(frozen=True)
class _Config:
    """The configuration of an ACE-Step transformer, as the class of diffusers takes it."""

    hidden_size: _Size = 2048
    intermediate_size: _Size = 6144
    num_hidden_layers: Annotated[int, Within(1, 1024)] = 24
    num_attention_heads: _Size = 16
    num_key_value_heads: _Size = 8
    head_dim: _Size = 128
    in_channels: _Size = 192
    audio_acoustic_hidden_dim: _Size = 64
    patch_size: _Size = 2
    rope_theta: _Number = 1e6
    attention_bias: bool = False
    attention_dropout: Annotated[float, Within(0, 1)] = 0.0
    rms_norm_eps: _Number = 1e-6
    sliding_window: Annotated[int, Within(0, 2**31)] = 128
    layer_types: list[Name] | None = None
    encoder_hidden_size: _Size | None = None
    is_turbo: bool = False
    model_version: Name | None = None


@dataclass(frozen=True)
class _Index:
    """An index of shards: the file of each tensor, in the folder of the index."""

    weight_map: Mapping[str, Folder]
    metadata: Any = None


def check(folder: Path) -> None:
    """Check that a folder holds the configuration and exactly the weights of an ACE-Step transformer.

    The values of the weights are not read.

    Raises:
        InvalidInput: there is no such folder.
        CheckpointRefused: a file is missing, is of another model, or is no such file.
    """
    if not folder.is_dir():
        raise InvalidInput("path", str(folder), "an existing directory")
    try:
        config = _config(folder / CONFIG)
        listed = _weights(folder)
        _check_sizes(folder, config, listed)
    except FileMissing as error:
        raise CheckpointRefused("path", str(folder), f"a directory with a {error.path.name}") from error
    except FileRefused as error:
        raise CheckpointRefused("path", str(error.path), f"a file of a checkpoint ({error.why})") from error


def check_finite(folder: Path, transformer: nn.Module) -> None:
    """Check the values of weights that were loaded from `folder`.

    Raises:
        CheckpointRefused: a weight is not finite in the dtype that it was loaded in.
    """
    for name, value in (*transformer.named_parameters(), *transformer.named_buffers()):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointRefused(
                "path", f"{folder} with values of {name} that are not finite", f"finite {value.dtype}"
            )


def null_embedding(folder: Path) -> Tensor | None:
    """The null embedding `[1, 1, E]` of a condition encoder's directory; None where there is no directory or tensor.

    Raises:
        CheckpointRefused: a file is missing or refused, or the tensor is not of floating point numbers.
    """
    if not folder.is_dir():
        return None
    try:
        file = weights_file(folder, NULL_EMBEDDING)
        found = tensors.one(file, NULL_EMBEDDING)
    except FileMissing as error:
        raise CheckpointRefused("path", str(error.path), "an existing safetensors file") from error
    except FileRefused as error:
        raise CheckpointRefused("path", str(error.path), f"a file of a checkpoint ({error.why})") from error
    if found is not None and not found.is_floating_point():
        raise CheckpointRefused("path", f"{file} with {NULL_EMBEDDING} in {found.dtype}", "floating point numbers")
    return found


def weights_file(folder: Path, tensor: str) -> Path:
    """The safetensors file of `folder` that holds `tensor`; the first file where the index has no such tensor.

    Raises:
        FileRefused: the index is refused; see `_shards`.
    """
    shards = _shards(folder)
    return folder / (shards.get(tensor) or next(iter(shards.values()), WEIGHTS))


def _config(path: Path) -> _Config:
    document = fit(dict[str, Any], documents.load(path, reading.SMALL), path)
    found = document.get("_class_name")
    if found != AceStepTransformer1DModel.__name__:
        expected = f"one of an {AceStepTransformer1DModel.__name__}"
        raise CheckpointRefused("path", f"{path} of a {described(found)}", expected)
    made: _Config = fit(_Config, {name: each for name, each in document.items() if not name.startswith("_")}, path)
    return made


def _shards(folder: Path) -> Mapping[str, str]:
    """The file of each tensor, by the index of a folder; empty without an index.

    Raises:
        FileRefused: the index is no such document, or names something else than a file of its own folder.
    """
    path = folder / INDEX
    try:
        found: _Index = fit(_Index, documents.load(path), path)
    except FileMissing:
        return {}
    return found.weight_map


def _weights(folder: Path) -> dict[str, Listed]:
    """The tensors of all files of weights, by name."""
    found: dict[str, Listed] = {}
    shards = _shards(folder)
    for name in dict.fromkeys(shards.values()) or [WEIGHTS]:
        for tensor, listed in tensors.header(folder / name).items():
            if shards and shards.get(tensor) != name:
                raise FileRefused(folder / INDEX, "weight_map", f"no {described(tensor)} in {name}", "every tensor")
            if listed.dtype not in _FLOATS:
                raise FileRefused(folder / name, tensor, f"the dtype {listed.dtype}", f"one of {', '.join(_FLOATS)}")
            found[tensor] = listed
    if unknown := shards.keys() - found.keys():
        raise FileRefused(folder / INDEX, "weight_map", described(min(unknown)), "tensors of the files")
    return found


def _check_sizes(folder: Path, config: _Config, listed: Mapping[str, Listed]) -> None:
    """Compare the weights with the model's, on a device without memory: a configuration can ask for any size."""
    if config.num_hidden_layers > len(listed):
        got = f"{folder} with {len(listed)} tensors for {config.num_hidden_layers} layers"
        raise CheckpointRefused("path", got, "a checkpoint with exactly the model's weights")
    options = {each.name: getattr(config, each.name) for each in fields(config)}
    try:
        with torch.device("meta"):
            model = AceStepTransformer1DModel(**options)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise FileRefused(folder / CONFIG, "", described(str(error)), "sizes of a model") from error
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wrong = {
        "missing_keys": [name for name in expected if name not in listed],
        "unexpected_keys": [name for name in listed if name not in expected],
        "mismatched_keys": [name for name in expected if name in listed and listed[name].shape != expected[name]],
    }
    if any(wrong.values()):
        shown = {kind: [described(name) for name in names[:10]] for kind, names in wrong.items() if names}
        raise CheckpointRefused("path", f"{folder} with {shown}", "a checkpoint with exactly the model's weights")

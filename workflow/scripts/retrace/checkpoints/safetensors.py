"""Trained weights as safetensors: tensors and JSON text, which cannot execute code when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from retrace.checkpoints.usable import unusable_weight
from retrace.config.families import FAMILIES
from retrace.config.network_settings import NetworkSettings
from retrace.errors import DataError
from retrace.files import atomic_write
from retrace.reading import reading_content, retried
from retrace.settings_model import as_json, plain_value

FORMAT_VERSION, WITHOUT_DIGEST = "2", "1"
"""The version that is written, and the one before, whose files have no digest."""
DIGEST = "sha256"
"""The metadata entry with a digest of all tensors and metadata."""
ALIGNMENT = 8
"""Alignment of the tensors in a safetensors file, bytes."""


def architecture(network: NetworkSettings) -> dict[str, Any]:
    """The settings of a network that decide which weights fit, as JSON values."""
    content = plain_value(network)
    names = FAMILIES[network.family].architecture
    return {"family": content["family"], **{name: content.get(name) for name in names}}


def save_model(path: Path, module: nn.Module, metadata: Mapping[str, Any]) -> Path:
    """Writes the weights of `module` and `metadata` atomically; equal content gives equal bytes.

    `metadata`: JSON values; `network` must hold the network's settings.
    """
    tensors = {
        name: tensor.detach().to("cpu").contiguous()
        for name, tensor in sorted(module.state_dict().items())
    }
    return save_tensors(path, tensors, metadata)


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> Path:
    """Writes contiguous tensors, sorted by name, and metadata atomically; see `save_model`."""
    text = {key: as_json(value) for key, value in sorted(metadata.items())}
    text |= _digest_of(tensors, text)
    return atomic_write(path, _with_metadata(save(dict(tensors)), text))


def weights_digest(module: nn.Module) -> str:
    """16 hex digits of the names, types, shapes and values of all weights of `module`."""
    weights = {name: tensor.detach().to("cpu") for name, tensor in module.state_dict().items()}
    return str(json.loads(_digest_of(weights, {})[DIGEST]))[:16]


def _digest_of(tensors: Mapping[str, torch.Tensor], text: Mapping[str, str]) -> dict[str, str]:
    """The entry of the metadata that a change of any tensor or other metadata changes.

    It covers names, types, shapes and values of all tensors, sorted by name, and the metadata.
    """
    total = hashlib.sha256(json.dumps(sorted(text.items())).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return {DIGEST: json.dumps(total.hexdigest())}


def _with_metadata(content: bytes, text: Mapping[str, str]) -> bytes:
    """safetensors bytes with metadata in the order of `text`, which the package would shuffle."""
    size = int.from_bytes(content[:8], "little")
    header = {"__metadata__": {"format_version": FORMAT_VERSION, **text}}
    header |= json.loads(content[8 : 8 + size])
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % ALIGNMENT)
    return len(encoded).to_bytes(8, "little") + encoded + content[8 + size :]


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a model file; DataError if it is absent or damaged."""
    return read_archive(path)[0]


def load_model(path: Path, module: nn.Module, network: NetworkSettings) -> dict[str, Any]:
    """Fills `module`, built from `network`, with the weights at `path`; returns the metadata.

    DataError if the file is absent, truncated, or holds another network.
    """
    metadata, tensors = read_archive(path)
    _check_same_network(path, metadata.get("network", {}), network)
    _fill(path, module, tensors, network.name)
    return metadata


def load_weights(path: Path, module: nn.Module, name: str) -> dict[str, Any]:
    """Fills `module` with the weights at `path`, whatever settings they had; returns the metadata.

    `name` of the network, for messages. DataError if the file is absent or truncated, or if a
    weight is missing, unknown, or of another shape.
    """
    metadata, tensors = read_archive(path)
    _fill(path, module, tensors, name)
    return metadata


def _fill(path: Path, module: nn.Module, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Fills `module` with exactly these weights; DataError if names or shapes differ, or a
    weight is NaN, infinite or absurdly large."""
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    stored = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if expected != stored:
        first = min(k for k in expected | stored if expected.get(k) != stored.get(k))
        raise DataError(
            f"{path} does not fit network {name!r}: {first} is {stored.get(first)} there and "
            f"{expected.get(first)} here; train it again"
        )
    unusable = unusable_weight(tensors)
    if unusable is not None:
        raise DataError(f"{path}: {unusable}; the training diverged: train this network again")
    module.load_state_dict(dict(tensors))


def load_layers(path: Path, module: nn.Module, layers: Sequence[int]) -> list[str]:
    """Fills only the numbered `layers` of `module` from a model of another network.

    Returns one line per layer. DataError if a layer is missing on either side or differs in
    shape.
    """
    tensors = read_archive(path)[1]
    own = module.state_dict()
    chosen: dict[str, torch.Tensor] = {}
    for layer in layers:
        prefix = f"layers.{layer}."
        for name in (n for n in tensors if n.startswith(prefix)):
            chosen[name] = tensors[name]
        if not any(name.startswith(prefix) for name in chosen):
            raise DataError(f"{path} has no layer {layer}; correct `pretrained: layers`")
    for name, tensor in chosen.items():
        there = tuple(own[name].shape) if name in own else None
        if there != tuple(tensor.shape):
            raise DataError(
                f"{path}: {name} is {tuple(tensor.shape)} there and {there} here; layers that are "
                "loaded need the same shape on both sides"
            )
    module.load_state_dict(chosen, strict=False)
    return [f"layer {layer} taken from {path}" for layer in layers]


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Metadata and weights of a model file; DataError if it is absent or damaged."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; train the network first, or correct the path")
    with reading_content(path, _NAME_ANOTHER):
        text, tensors = retried(lambda: _content(path), path)
        version = text.pop("format_version", None)
        if version not in (FORMAT_VERSION, WITHOUT_DIGEST):
            raise DataError(
                f"{path} was not written by this version of retrace; delete it and train again"
            )
        stored = {DIGEST: text.pop(DIGEST)} if version == FORMAT_VERSION else None
        if stored is not None and stored != _digest_of(tensors, text):
            raise ValueError("its bytes changed since they were written: its sha256 differs")
        return {key: json.loads(value) for key, value in text.items()}, tensors


_NAME_ANOTHER = (
    "name another file or, if it is a result, delete it and run the rule that writes it again"
)


def _content(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and tensors of a file."""
    with safe_open(path, framework="pt", device="cpu") as file:
        text = dict(file.metadata() or {})
        return text, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _check_same_network(path: Path, stored: Mapping[str, Any], network: NetworkSettings) -> None:
    """DataError if a setting that decides which weights fit differs from `network`'s."""
    for key, value in architecture(network).items():
        if stored.get(key) != value:
            raise DataError(
                f"{path} holds network {stored.get('name')!r} with {key} {stored.get(key)!r}; "
                f"network {network.name!r} has {key} {value!r}. Name a checkpoint of the same "
                "network"
            )

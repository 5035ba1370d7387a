"""Weights of the alignment network, from safetensors or SEAMLeSS's own .pt, complete or in part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from retrace.checkpoints.safetensors import read_archive
from retrace.checkpoints.torch_files import read_torch
from retrace.errors import DataError
from retrace.networks.seamless import Seamless
from retrace.reading import reading_content

PT = (".pt", ".pth")
OLD_NAMES = (
    (r"^pyramid\.mlist\.(\d+)\.conv(\d)\.", lambda m: f"aligners.{m[1]}.{2 * (int(m[2]) - 1)}."),
    (r"^pyramid\.enclist\.(\d+)\.c(\d)\.", lambda m: f"encoders.{m[1]}.{2 * (int(m[2]) - 1)}."),
    (r"^pyramid\.pe\.c(\d)\.", lambda m: f"pre_encoder.{2 * (int(m[1]) - 1)}."),
)
"""Parameter names of SEAMLeSS (training/pyramid.py) and here. Its files hold each weight twice:
`seq` and `pelist` are aliases, which are skipped."""


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights by parameter name, and metadata (empty for a .pt); DataError for other files."""
    if path.suffix not in PT:
        metadata, tensors = read_archive(path)
        return tensors, metadata
    return _renamed(path, _read_pt(path)), {}


def _read_pt(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; correct `init`")
    remedy = "save the `state_dict` of the network, not the network itself"
    with reading_content(path, remedy):
        content = read_torch(path)
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds {type(content).__name__}, not weights by name")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _renamed(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights with the names used here; DataError if none is one of SEAMLeSS's."""
    weights = {}
    for old, tensor in content.items():
        name = old
        for pattern, replacement in OLD_NAMES:
            name = re.sub(pattern, replacement, name)
        if name != old:
            weights[name] = tensor
    if not weights:
        raise DataError(
            f"{path} holds {', '.join(list(content)[:3])} ...; an archive of SEAMLeSS has "
            "pyramid.mlist.0.conv1.weight and the like"
        )
    return weights


def load_overlap(path: Path, module: Seamless) -> list[str]:
    """Fills `module` with the weights of a file that may have another height or width.

    Where shapes differ, the common part is copied and the rest is unchanged. Returns one line per
    weight that was not loaded completely or is left over; DataError if nothing fits, or if the
    network learned nothing.
    """
    weights, metadata = read_weights(path)
    _check_learned(path, metadata)
    notes, copied = [], 0
    own = module.state_dict()
    for name, here in own.items():
        if name not in weights:
            notes.append(f"{name} {_shape(here)}: not in the archive, keeps its initial values")
            continue
        there = weights[name]
        if there.ndim != here.ndim:
            notes.append(f"{name}: {_shape(there)} there, {_shape(here)} here; not loaded")
            continue
        common = tuple(slice(0, min(a, b)) for a, b in zip(here.shape, there.shape, strict=True))
        here[common] = there[common].to(here.dtype)
        copied += 1
        if there.shape != here.shape:
            notes.append(f"{name}: {_shape(there)} there, {_shape(here)} here; the common part")
    if not copied:
        raise DataError(f"{path} holds no weight of this network; name an archive of seamless")
    spare = weights.keys() - own
    notes += [f"{name} {_shape(weights[name])}: no such weight here" for name in spare]
    return sorted(notes)


def _check_learned(path: Path, metadata: Mapping[str, Any]) -> None:
    """DataError for a network whose training compared nothing: its last loss is 0, or none."""
    if metadata.get("iteration") and not metadata.get("loss"):
        raise DataError(
            f"{path}: its training compared nothing (loss {metadata.get('loss')} at iteration "
            f"{metadata['iteration']}), so the network learned nothing; name another archive in "
            "`init`, or train this network again"
        )


def _shape(tensor: Tensor) -> str:
    """A shape for messages, like 8x4x3x3."""
    return "x".join(map(str, tensor.shape)) or "scalar"

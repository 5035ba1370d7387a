"""The file of a new dataset, proposed from what the files of its image and labels say.

What no file states has to be on the command line: nothing is guessed. Triples are in the order
z, y, x.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, get_args

import yaml

from retrace.config.dataset_model import Dataset, DatasetFile
from retrace.config.datasets import load_dataset
from retrace.config.schema import check
from retrace.config.yaml_files import names
from retrace.errors import ConfigError, DataError, RetraceError
from retrace.formats.normalize import PERCENTILES, is_grey_type, needs_channel, needs_polarity
from retrace.formats.placement import UnknownSizeError, as_option, box_on_grid
from retrace.formats.source import LabelKind, Source
from retrace.geometry import VoxelBox
from retrace.planning.volume_checks import check_volumes
from retrace.remote.addresses import path_and_array

if TYPE_CHECKING:
    from retrace.storage.volumes import Volume

VOLUME = "volume"
"""Name of the volume in the new file."""
PERCENT = {"train": 70, "validation": 10, "test": 20}
"""Part of the labelled sections of each split, along z."""
LOW_CONTRAST = 64
"""Range of grey values, of 255, below which `normalize` is suggested."""
WIDTH = 10**6
"""Characters of a line of YAML; long paths stay in one."""
NETWORKS = {"ids": "mtlsd_small", "cells": "n4", "membranes": "n4", "classes": "hd3d"}
"""A network to begin with, by the meaning of the labels."""


@dataclass(frozen=True)
class Stated:
    """What a command line says about a new dataset; None where the files say it, or nobody."""

    name: str
    raw: str
    """PATH or PATH:ARRAY; so is `labels`."""
    labels: str
    voxel_size_nm: Sequence[float] | None = None
    raw_offset_nm: Sequence[float] | None = None
    labels_offset_nm: Sequence[float] | None = None
    axes: str | None = None
    channel: int | None = None
    invert: bool | None = None
    objects: LabelKind | None = None


@dataclass
class Proposal:
    """The content of the file, and what was decided, in sentences."""

    content: dict[str, Any] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)

    def text(self, command: str) -> str:
        """The file: what wrote it, the decisions as comments, and the content."""
        comments = "".join(f"# {line}\n" for line in (command, *self.decisions))
        return comments + "".join(_yaml(key, value) for key, value in self.content.items())


def _yaml(key: str, value: Any) -> str:
    """A setting; a split, or a list of numbers, in one line."""
    flow = key in PERCENT or None
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=flow, width=WIDTH)
    if text.startswith("[") or not isinstance(value, (dict, list)):
        return f"{key}: {text.splitlines()[0]}\n"  # a single value is followed by ...
    return f"{key}:\n{indent(text, '  ')}"


def new_file(name: str) -> Path:
    """Where the new dataset's file will be; ConfigError for a name that is taken or not allowed."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(f"{name!r} is no name of a dataset; use letters, digits and _")
    path = Path("config/datasets") / f"{name}.yaml"
    if name in names("datasets") or path.exists():
        raise ConfigError(f"dataset {name!r} exists; choose another name, or edit {path}")
    return path


def write_dataset(stated: Stated, command: str) -> Proposal:
    """Writes config/datasets/NAME.yaml, which has to pass all checks of planning.

    `command`: what wrote it, for its first line. ConfigError or DataError for what cannot be known.
    """
    path = new_file(stated.name)
    proposal = propose(stated)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x") as file:
        file.write(proposal.text(command))
    try:
        dataset = load_dataset(stated.name)
        assert isinstance(dataset, Dataset)
        check_volumes(dataset)
    except RetraceError:
        path.unlink()
        raise
    return proposal


def propose(stated: Stated) -> Proposal:
    """The content for an image and its labels."""
    proposal = Proposal()
    source = _source(stated.raw, stated, offset_nm=stated.raw_offset_nm, channel=stated.channel)
    raw = _opened(source, "raw")
    _describe(proposal, "raw", source, raw)
    normalize = _grey_values(proposal, raw, stated)
    of_labels = _source(stated.labels, stated, offset_nm=stated.labels_offset_nm)
    of_labels = of_labels.model_copy(update={"voxel_size_nm": raw.voxel_size_nm})
    labels = _opened(of_labels, "labels")
    _describe(proposal, "labels", of_labels, labels)
    objects = _meaning(proposal, labels, stated)
    offsets = _offsets(raw, labels, stated)
    parts = _splits(proposal, _box(raw, offsets[0]), _box(labels, offsets[1]))
    content: dict[str, Any] = {
        "name": stated.name,
        "voxel_size_nm": _plain(raw.voxel_size_nm),
        "volumes": {
            VOLUME: {
                "raw": {**_named(source), **_offset(source, raw, offsets[0]), **normalize},
                "labels": {
                    **_named(of_labels),
                    **_offset(of_labels, labels, offsets[1]),
                    **objects,
                },
            }
        },
    }
    for split, box in parts.items():
        region = box.to_nm(raw.voxel_size_nm)
        roi = {"offset": _plain(region.offset), "shape": _plain(region.shape)}
        content[split] = [{"volume": VOLUME, "roi_nm": roi}]
    proposal.content = content
    check(DatasetFile, content, f"config/datasets/{stated.name}.yaml")
    return proposal


def next_network(proposal: Proposal) -> str:
    """A network to begin with."""
    labels = proposal.content["volumes"][VOLUME]["labels"]
    return NETWORKS[labels.get("objects", "ids")]


# ---------------------------------------------------------------- files


def _source(text: str, stated: Stated, **more: Any) -> Source:
    path, array = path_and_array(text)
    content = {"path": path, "array": array, "voxel_size_nm": stated.voxel_size_nm}
    return check(Source, {**content, "axes": stated.axes, **more}, text)


def _opened(source: Source, part: str) -> Volume:
    """The array; a message that says which option states what the file does not."""
    from retrace.storage.volumes import open_source

    where = f"{source.path}:{source.array}" if source.array else source.path
    try:
        volume = open_source(source)
    except UnknownSizeError as error:
        raise as_option(error) from None
    except DataError as error:
        several = not source.array and "has no array" in str(error)
        hint = f"; name one: --{part} {source.path}:ARRAY" if several else ""
        raise DataError(f"{error}{hint}") from None
    if len(volume.array.shape) != 3:
        raise DataError(
            f"{where} has the shape {list(volume.array.shape)}; {part} needs z, y, x: name a "
            "channel (--channel N) or the order of the axes (--axes)"
        )
    return volume


def _describe(proposal: Proposal, part: str, source: Source, volume: Volume) -> None:
    """Shape and type, and voxel size and position with who states them."""
    from retrace.storage.stated import properties

    known = {each.name: each for each in properties(source)}
    shape = "x".join(map(str, volume.array.shape))
    proposal.decisions.append(f"{part}: {volume.name}, {shape} voxels (z, y, x)")
    for name in ("type", "voxel size", "position"):
        each = known[name]
        by = "the command line" if each.stated_by == "config" else each.statement or "the file"
        proposal.decisions.append(f"  {name}: {each.value} ({by.replace('config', 'command')})")


def _named(source: Source) -> dict[str, Any]:
    """The settings that say where an array is, and how it is stored."""
    kept: dict[str, Any] = {"path": source.path, "array": source.array}
    kept |= {"axes": source.axes, "channel": source.channel}
    return {key: value for key, value in kept.items() if value not in (None, "")}


# ---------------------------------------------------------------- values


def _grey_values(proposal: Proposal, raw: Volume, stated: Stated) -> dict[str, Any]:
    """The setting `normalize`, where the image needs one."""
    from retrace.storage.grey_range import sampled_range

    dtype = str(raw.array.dtype)
    if raw.is_colour:
        raise DataError(f"{needs_channel(raw.name)} (--channel 0)")
    if raw.inverted and stated.invert is None:
        message = needs_polarity(raw.name, None, is_grey=is_grey_type(dtype))
        raise DataError(f"{message}. State it: --invert true, or --invert false")
    sample = sampled_range(raw.name, raw.array)
    if sample is None:
        raise DataError(f"{raw.name} has one value everywhere it was looked at; it is no image")
    invert = {} if stated.invert is None else {"invert": stated.invert}
    shown = f"percentiles {PERCENTILES[0]} and {PERCENTILES[1]} of some blocks: "
    shown += f"{sample[0]:g} and {sample[1]:g}"
    if dtype == "uint8" or (dtype.startswith("float") and sample[0] >= 0 and sample[1] <= 1):
        is_dull = dtype == "uint8" and sample[1] - sample[0] < LOW_CONTRAST
        advice = f"; low contrast: consider normalize: {{percentiles: {list(PERCENTILES)}}}"
        proposal.decisions.append(f"grey values: as stored, {shown}{advice if is_dull else ''}")
        return {"normalize": invert} if invert else {}
    proposal.decisions.append(
        f"grey values: {dtype} is scaled to 0-255 by `normalize`, {shown}; change `range` if black "
        "and white are elsewhere"
    )
    return {"normalize": {"range": list(sample), **invert}}


def _meaning(proposal: Proposal, labels: Volume, stated: Stated) -> dict[str, Any]:
    """The setting `objects`; two values could mean several things, so the user says which."""
    import numpy as np

    if np.dtype(labels.array.dtype).kind not in "uib":
        raise DataError(f"{labels.name} is {labels.array.dtype}; labels are whole numbers")
    found = _sampled_values(labels)
    count = f"{len(found)} values in some blocks"
    if stated.objects is not None:
        proposal.decisions.append(f"labels: {stated.objects} (the command line), {count}")
        return {} if stated.objects == "ids" else {"objects": stated.objects}
    if len(found) == 1:
        raise DataError(
            f"{labels.name} is {found.pop()} wherever it was looked at; it has no labels"
        )
    if len(found) == 2:
        raise DataError(
            f"{labels.name} has the values {sorted(found)} alone, which can mean several things; "
            f"state it: --objects {'|'.join(get_args(LabelKind))} (cells: 0 on membranes; "
            "membranes: 0 off membranes)"
        )
    proposal.decisions.append(f"labels: one number for each object, {count}; 0 means none")
    return {}


def _sampled_values(labels: Volume) -> set[int]:
    import numpy as np

    from retrace.storage.grey_range import sample_boxes

    z, y, x = labels.array.shape
    found: set[int] = set()
    for box in sample_boxes(VoxelBox((0, 0, 0), (z, y, x))):
        found.update(np.unique(np.asarray(labels.array[box.slices()])).tolist())
    return found


# ---------------------------------------------------------------- places


def _offsets(raw: Volume, labels: Volume, stated: Stated) -> tuple[Any, Any]:
    """Positions of image and labels; one that is not stated is the other's, if shapes agree."""
    if tuple(labels.voxel_size_nm) != tuple(raw.voxel_size_nm):
        raise DataError(
            f"{labels.name} has voxels of {list(labels.voxel_size_nm)} nm, {raw.name} of "
            f"{list(raw.voxel_size_nm)} nm; both must be the same"
        )
    # Labels are placed in an image that begins at 0 where nothing else is stated.
    is_relative = stated.labels_offset_nm is not None and not raw.is_placed
    is_stated = raw.is_placed and labels.is_placed
    is_same = _same_shape(raw, labels) and not raw.is_placed and not labels.is_placed
    if is_relative or is_stated or is_same:
        return raw.offset_nm, labels.offset_nm
    if _same_shape(raw, labels):
        placed = raw if raw.is_placed else labels
        return placed.offset_nm, placed.offset_nm
    unknown, option = (
        (labels, "--labels-offset-nm") if not labels.is_placed else (raw, "--raw-offset-nm")
    )
    raise DataError(
        f"labels and raw have different shapes, {list(labels.array.shape)} and "
        f"{list(raw.array.shape)}, and {unknown.name} states no position; state where its first "
        f"voxel is: {option} Z,Y,X (nm)"
    )


def _same_shape(raw: Volume, labels: Volume) -> bool:
    return tuple(raw.array.shape) == tuple(labels.array.shape)


def _box(volume: Volume, offset_nm: Sequence[float]) -> VoxelBox:
    return box_on_grid(volume.name, volume.array.shape, offset_nm, volume.voxel_size_nm)


def _offset(source: Source, volume: Volume, offset_nm: Sequence[float]) -> dict[str, Any]:
    """The setting `offset_nm`, where the file does not state it."""
    is_in_file = volume.is_placed and source.offset_nm is None
    return {} if is_in_file or not any(offset_nm) else {"offset_nm": _plain(offset_nm)}


def _splits(proposal: Proposal, raw: VoxelBox, labels: VoxelBox) -> dict[str, VoxelBox]:
    """The labelled part of the image, cut along z into training, validation and test."""
    if not raw.contains(labels):
        raise DataError(
            f"labels of the voxels {list(labels.offset)} to {list(labels.end)} leave the image, "
            f"which has {list(raw.offset)} to {list(raw.end)}; state their place: "
            "--labels-offset-nm Z,Y,X (nm)"
        )
    depth = labels.shape[0]
    ends = [depth * sum(list(PERCENT.values())[: n + 1]) // 100 for n in range(len(PERCENT))]
    parts, first = {}, 0
    for (split, percent), end in zip(PERCENT.items(), ends, strict=True):
        if end == first:
            raise DataError(
                f"{depth} labelled sections are too few to divide them into training, validation "
                "and test; write the file by hand and name a volume for each: "
                "docs/how-to/own-volume.md"
            )
        z, y, x = labels.offset
        parts[split] = VoxelBox((z + first, y, x), (end - first, *labels.shape[1:]))
        proposal.decisions.append(
            f"{split}: labelled sections {first}-{end - 1} ({percent} % along z)"
        )
        first = end
    return parts


def _plain(values: Sequence[float]) -> list[float]:
    """Numbers as YAML writes them: whole ones without a point."""
    return [int(v) if float(v).is_integer() else float(v) for v in values]

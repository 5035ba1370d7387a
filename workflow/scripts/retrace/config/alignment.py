"""Serial sections of a dataset that are aligned: its `alignment` with everything filled in.

Read while the workflow is planned; uses no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from retrace.config.alignment_model import Alignment, AlignmentFile, StackSet, SyntheticSections
from retrace.config.dataset_model import Dataset, DatasetBase
from retrace.errors import ConfigError, nearest
from retrace.formats.precomputed import check_local_layer
from retrace.formats.source import Source
from retrace.remote.addresses import is_address, is_zarr

STACK_SPLITS = ("train", "validation", "test")
"""The splits of the sections, in their order."""

GEOMETRY = tuple(n for n in SyntheticSections.model_fields if n not in ("phantom_shape", "roi_nm"))
"""Settings that describe the distortion of a section."""


def resolve(file: AlignmentFile, volumes: Collection[str], where: str) -> Alignment:
    """The `alignment` of a dataset's file with its defaults; ConfigError if it cannot work."""
    if file.volume not in volumes:
        hint = nearest(file.volume, volumes)
        raise ConfigError(f"{where}: alignment names the unknown volume {file.volume!r}; {hint}")
    for name, stack in file.stacks.items():
        _check_held_out(f"{where}: stacks {name!r}", stack)
    resolved = file.complete(deep=True).plain()
    if file.mask is not None:
        resolved["mask"] |= {"voxel_size_nm": None}
    return Alignment.model_validate(resolved)


def _check_held_out(where: str, stack: StackSet) -> None:
    """ConfigError for a split without sections."""
    fractions = {"validation": stack.validation_fraction, "test": stack.test_fraction}
    for split, fraction in fractions.items():
        if (count := stack.count_of(split)) and not fraction:
            raise ConfigError(
                f"{where}: {count} {split} stacks and `{split}_fraction: 0` of the sections to "
                "draw them from; raise one or set the other to 0"
            )
    if stack.validation_count and sum(fractions.values()) >= 1:
        raise ConfigError(
            f"{where}: `validation_fraction: {stack.validation_fraction}` and `test_fraction: "
            f"{stack.test_fraction}` leave no sections to train on; lower one"
        )


def sections_of(dataset: DatasetBase) -> Alignment:
    """The `alignment` of a dataset; ConfigError if it has none."""
    if not isinstance(dataset, Dataset) or dataset.alignment is None:
        raise ConfigError(
            f"dataset {dataset.name!r} has no `alignment`, which names the sections to align; "
            "add it to its file (docs/how-to/alignment.md)"
        )
    return dataset.alignment


def folder(dataset: DatasetBase) -> str:
    """The folder of synthetic sections."""
    return f"results/{dataset.name}/sections"


def made_layer(dataset: DatasetBase) -> str | None:
    """The folder of the layer of synthetic sections; None for the volume's own sections."""
    return f"{folder(dataset)}/layer" if sections_of(dataset).made is not None else None


def truth_store(dataset: DatasetBase) -> str | None:
    """The zarr of known displacements and defects; None where they are unknown."""
    return f"{folder(dataset)}/truth.zarr" if sections_of(dataset).made is not None else None


def source(dataset: DatasetBase, mip: int | None = None) -> Source:
    """The sections as a source, at a mip of their layer.

    The voxel size comes from the layer, because it differs by mip.
    """
    raw = dataset.volumes[sections_of(dataset).volume].raw
    values: dict[str, Any] = raw.plain()
    layer = made_layer(dataset)
    if layer is not None:
        values = {"path": f"file://{layer}", "array": ""}
    if is_address(values["path"]):
        values |= {"voxel_size_nm": None, "offset_nm": None}
    level = (values.get("mip") or 0) if mip is None else mip
    return Source.model_validate(values | {"mip": level})


def stack_store(dataset: str, name: str, split: str) -> str:
    """The h5 file of a set of stacks."""
    return f"results/{dataset}/stacks/{name}_{split}.h5"


def stack_stores(dataset: DatasetBase, split: str) -> list[str]:
    """The files of all sets of stacks that a split has."""
    stacks = sections_of(dataset).stacks
    used = [name for name, stack in stacks.items() if stack.count_of(split)]
    return [stack_store(dataset.name, name, split) for name in used]


def stack_mask_stores(dataset: DatasetBase, split: str) -> list[str]:
    """The files of their masks, in the same order."""
    return [path.removesuffix(".h5") + "_masks.h5" for path in stack_stores(dataset, split)]


def check_sections(dataset: DatasetBase) -> None:
    """Refuses layers on this machine that lack a mip or a box that stacks are drawn from."""
    alignment = sections_of(dataset)
    path = dataset.volumes[alignment.volume].raw.path
    for name, stack in alignment.stacks.items():
        if stack.mip and not alignment.made and not is_address(path):
            raise ConfigError(
                f"dataset {dataset.name!r}: stacks {name!r} are of mip {stack.mip}, and "
                f"{path} has no mips; leave `mip` out, or name a precomputed layer"
            )
        if stack.coordinates and not Path(stack.coordinates).is_file():
            raise ConfigError(
                f"dataset {dataset.name!r}: stacks {name!r}: coordinates {stack.coordinates} do "
                "not exist; correct the path, or leave it out"
            )
        if alignment.made or not is_address(path) or is_zarr(path):
            continue
        check_local_layer(source(dataset, stack.mip), stack.roi_nm)


def check_stack_sides(pair: str, dataset: DatasetBase, levels: int) -> None:
    """Refuses a dataset whose stacks are too small for a network of that many pyramid levels."""
    for name, stack in sections_of(dataset).stacks.items():
        where = f"{pair}: stacks {name!r} of dataset {dataset.name!r}"
        check_side(where, [stack.side] * 2, levels)
    check_sections(dataset)


def check_side(label: str, side: Sequence[int], levels: int) -> None:
    """Refuses sections (H, W) that a pyramid cannot halve levels - 1 times (ConfigError).

    SEAMLeSS takes square sections whose side 2^(levels-1) divides.
    """
    step = 2 ** (levels - 1)
    if min(side) < 2 * step:
        raise ConfigError(
            f"{label}: sections of {list(side)} px are smaller than a pyramid of {levels} levels "
            f"needs; {2 * step} px or more are needed: set `side` higher, or `height` of the "
            "network lower"
        )
    if any(n % step for n in side):
        raise ConfigError(
            f"{label}: sections of {list(side)} px cannot be halved {levels - 1} times; choose a "
            f"`side` that {step} divides, such as {max(side) // step * step}"
        )


def stack_set(dataset: DatasetBase, name: str) -> StackSet:
    """One of the sets of stacks; ConfigError if none has that name."""
    stacks = sections_of(dataset).stacks
    if name not in stacks:
        hint = nearest(name, stacks)
        raise ConfigError(f"dataset {dataset.name!r} has no stacks {name!r}; {hint}")
    return stacks[name]

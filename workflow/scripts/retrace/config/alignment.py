"""Serial sections of a dataset that are aligned: its `alignment` with everything filled in.

Read while the workflow is planned; the standard library and other such modules alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, nearest
from retrace.formats.precomputed import check_local_layer
from retrace.remote.addresses import is_address, is_zarr

Settings = dict[str, Any]

SPLITS = ("train", "test")
SMALLEST_SIDE_PX = 16
"""The defect network halves sections four times."""

REJECT = {
    "least_filled": 0.8,
    "least_std": 10.0,
    "least_mean": 1.0,
    "least_clean": 0.01,
    "attempts": 200,
}
"""SEAMLeSS: clean_stack.py (80 % of the pixels, deviation 10), cv_sampler.py (mean, mask)."""

STACKS: Settings = {
    "mip": None,
    "count": 100,
    "test_count": 0,
    "height": 10,
    "side": 1152,
    "roi_nm": None,
    "test_fraction": 0.2,
    "coordinates": None,
}
"""SEAMLeSS: the defaults of gen_stack.py and cv_sampler.py."""

MADE: Settings = {
    "phantom_shape": None,
    "roi_nm": None,
    "jitter_px": 4,
    "warp_px": 3.0,
    "spacing_px": 64,
    "crack": 0.0,
    "fold": 0.0,
    "missing": 0.0,
    "contrast": 0.3,
    "near_px": 20,
}
GEOMETRY = tuple(key for key in MADE if key not in ("phantom_shape", "roi_nm"))
"""What of it is a retrace.alignment.phantom.Distortion."""

DEFECTS: Settings = {
    "labelled": [],
    "iterations": 2000,
    "batch_size": 4,
    "side": 256,
    "learning_rate": 1e-3,
    "fmaps": 16,
    "threshold": 0.4,
    "smallest_px": 250,
    "near_px": 75,
}
"""Threshold, pieces and radius: SEAMLeSS, defect_detector.py."""


def resolve(dataset: Mapping[str, Any], where: str) -> Settings:
    """The `alignment` of a dataset's file with defaults; ConfigError where it cannot work."""
    given = dict(dataset["alignment"])
    volume = given["volume"]
    if volume not in dataset["volumes"]:
        hint = nearest(volume, dataset["volumes"])
        raise ConfigError(f"{where}: alignment names the unknown volume {volume!r}; {hint}")
    stacks = given.get("stacks") or {"main": {}}
    found: Settings = {
        "volume": volume,
        "seed": given.get("seed", 0),
        "stacks": {
            name: _stack_set(stack or {}, f"{where}: stacks {name!r}")
            for name, stack in stacks.items()
        },
        "defects": DEFECTS | given.get("defects", {}),
        "made": None if given.get("made") is None else MADE | given["made"],
        "mask": None,
    }
    if mask := given.get("mask"):
        found["mask"] = {"array": "", "mip": 0, "defect_from": 100, "voxel_size_nm": None} | mask
    return found


def _stack_set(given: Mapping[str, Any], where: str) -> Settings:
    found = STACKS | dict(given) | {"reject": REJECT | given.get("reject", {})}
    if found["test_count"] and not found["test_fraction"]:
        raise ConfigError(
            f"{where}: {found['test_count']} test stacks and `test_fraction: 0` of the sections to "
            "draw them from; raise one or set the other to 0"
        )
    return found


def sections_of(dataset: Mapping[str, Any]) -> Settings:
    """The `alignment` of a dataset; ConfigError where it has none."""
    if "alignment" not in dataset:
        raise ConfigError(
            f"dataset {dataset['name']!r} has no `alignment`, which names the sections to align; "
            "add it to its file (docs/how-to/alignment.md)"
        )
    found: Settings = dataset["alignment"]
    return found


def folder(dataset: Mapping[str, Any]) -> str:
    """Where made sections lie."""
    return f"results/{dataset['name']}/sections"


def made_layer(dataset: Mapping[str, Any]) -> str | None:
    """The folder of the layer of made sections, None where they are the volume's own."""
    return f"{folder(dataset)}/layer" if sections_of(dataset)["made"] else None


def truth_store(dataset: Mapping[str, Any]) -> str | None:
    """The zarr of known displacements and defects, None where nothing is known."""
    return f"{folder(dataset)}/truth.zarr" if sections_of(dataset)["made"] else None


def source(dataset: Mapping[str, Any], mip: int | None = None) -> Settings:
    """The sections as a source for retrace.volumes.open_source, at a mip of their layer.

    The voxel size is left to the layer, for it differs from mip to mip.
    """
    raw = dict(dataset["volumes"][sections_of(dataset)["volume"]]["raw"])
    layer = made_layer(dataset)
    if layer is not None:
        raw = {"path": f"file://{layer}", "array": ""}
    if is_address(raw["path"]):
        raw |= {"voxel_size_nm": None, "offset_nm": None}
    return raw | {"mip": raw.get("mip") or 0 if mip is None else mip}


def stack_store(dataset: str, name: str, split: str) -> str:
    """The h5 file of one set of stacks."""
    return f"results/{dataset}/stacks/{name}_{split}.h5"


def mask_store(dataset: str, name: str, split: str) -> str:
    """The h5 file of their masks."""
    return f"results/{dataset}/stacks/{name}_{split}_masks.h5"


def stack_stores(dataset: Mapping[str, Any], split: str) -> list[str]:
    """The files of all sets of stacks that a split has."""
    stacks = sections_of(dataset)["stacks"]
    used = [n for n, s in stacks.items() if s["test_count" if split == "test" else "count"]]
    return [stack_store(dataset["name"], name, split) for name in used]


def mask_stores(dataset: Mapping[str, Any], split: str) -> list[str]:
    """The files of their masks, in the same order."""
    return [path.removesuffix(".h5") + "_masks.h5" for path in stack_stores(dataset, split)]


def check(dataset: Mapping[str, Any]) -> None:
    """Refuses layers on this machine that lack a mip or a box that stacks are drawn from."""
    alignment = sections_of(dataset)
    raw = dataset["volumes"][alignment["volume"]]["raw"]
    for name, stack in alignment["stacks"].items():
        if stack["mip"] and not alignment["made"] and not is_address(raw["path"]):
            raise ConfigError(
                f"dataset {dataset['name']!r}: stacks {name!r} are of mip {stack['mip']}, and "
                f"{raw['path']} has no mips; leave `mip` out, or name a precomputed layer"
            )
        if stack["coordinates"] and not Path(stack["coordinates"]).is_file():
            raise ConfigError(
                f"dataset {dataset['name']!r}: stacks {name!r}: coordinates "
                f"{stack['coordinates']} do not exist; correct the path, or leave it out"
            )
        if alignment["made"] or not is_address(raw["path"]) or is_zarr(raw["path"]):
            continue
        check_local_layer(source(dataset, stack["mip"]), stack["roi_nm"])


def check_pair(pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Refuses a dataset whose stacks a pyramid of the network's `height` cannot take."""
    alignment = sections_of(dataset)
    for name, stack in alignment["stacks"].items():
        where = f"{pair}: stacks {name!r} of dataset {dataset['name']!r}"
        check_side(where, [stack["side"]] * 2, network["height"] - network.get("topskips", 0))
    check(dataset)


def check_side(label: str, side: Sequence[int], levels: int) -> None:
    """Refuses sections (H, W) that a pyramid cannot halve levels - 1 times (ConfigError).

    SEAMLeSS takes square sections whose side 2^(levels-1) divides.
    """
    step = 2 ** (levels - 1)
    if min(side) < 2 * step:
        raise ConfigError(
            f"{label}: sections of {list(side)} px are smaller than a pyramid of {levels} levels "
            f"takes; {2 * step} px or more are needed: set `side` higher, or `height` of the "
            "network lower"
        )
    if any(n % step for n in side):
        raise ConfigError(
            f"{label}: sections of {list(side)} px cannot be halved {levels - 1} times; choose a "
            f"`side` that {step} divides, such as {max(side) // step * step}"
        )


# ---------------------------------------------------------------- what the programs are told


def stack_set(dataset: Mapping[str, Any], name: str) -> Settings:
    """One of the sets of stacks; ConfigError where there is none of that name."""
    stacks: dict[str, Settings] = sections_of(dataset)["stacks"]
    if name not in stacks:
        hint = nearest(name, stacks)
        raise ConfigError(f"dataset {dataset['name']!r} has no stacks {name!r}; {hint}")
    return stacks[name]

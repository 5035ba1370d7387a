"""Datasets: read from YAML, checked, with paths and voxel sizes filled in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrace.config import alignment
from retrace.config.schema import check
from retrace.config.sources import NAMED_PARTS, OUR_BUCKET, bucket_key
from retrace.config.splits import LABELS_BOX, SPLITS, check_box, choose_training, split_entry
from retrace.config.yaml_files import Settings, merge, names, read_yaml, yaml_file
from retrace.errors import ConfigError, nearest
from retrace.formats.label_kinds import NUMBERED
from retrace.znn.dataset import with_samples

ISOTROPIC_BELOW = 2.0
"""Voxels whose longest edge is less than this many times the shortest count as isotropic."""


CLASSES = "classes"
"""The kind of labels that are numbers of classes, and not of objects."""


def load_dataset(name: str | Path, chosen: object = None) -> Settings:
    """A dataset by name, or from a file, with paths, voxel sizes and splits filled in.

    `chosen` is the value of `volumes` in config.yaml; it replaces what is trained on. Entries of
    train, validation and test come out as {volume, roi_nm, probability}, sources with path, array,
    voxel_size_nm and offset_nm.
    """
    path = Path(name) if str(name).endswith(".yaml") else yaml_file("datasets", str(name))
    dataset: Settings = read_yaml(path)
    if "examples" in dataset:
        return _examples_dataset(dataset, path)
    if "spec" in dataset or "cfg" in dataset:
        check({"volumes": {"any": {}}} | dataset, "dataset", str(path))
        dataset = with_samples(dataset, str(path))
    check(dataset, "dataset", str(path))
    _check_name(dataset, path)
    dataset = merge({"background_ids": [], "sampling": {}}, dataset)
    dataset["isotropic"] = is_isotropic(dataset)
    if "alignment" in dataset:
        dataset["alignment"] = alignment.resolve(dataset, str(path))
    dataset["volumes"] = {v: _volume(dataset, v, path) for v in dataset["volumes"]}
    for split in SPLITS:
        dataset[split] = [split_entry(dataset, split, e, path) for e in dataset.get(split, [])]
    return choose_training(dataset, chosen)


def _check_name(dataset: Settings, path: Path) -> None:
    if dataset["name"] != path.stem:
        raise ConfigError(
            f"{path}: `name: {dataset['name']}` must be {path.stem!r}, the file's name"
        )


def _examples_dataset(dataset: Settings, path: Path) -> Settings:
    """A dataset of single examples: no volumes, and no voxels that could have a size."""
    check(dataset, "examples_dataset", str(path))
    _check_name(dataset, path)
    told = {"split_seed": 0, **dataset["examples"]}
    if ("archive" in told) == ("train" in told):
        raise ConfigError(f"{path}: give either `archive`, or `train` (and `test`)")
    if "train" in told and "held_out" not in told:
        raise ConfigError(
            f"{path}: `held_out` is needed, the number of training examples that are kept to "
            "measure the error on; for MNIST 5000"
        )
    empty: Settings = {"volumes": {}, "train": [], "validation": [], "test": []}
    return {
        "name": dataset["name"],
        "isotropic": True,
        "background_ids": [],
        **empty,
        "examples": told,
    }


def is_isotropic(dataset: Mapping[str, Any]) -> bool:
    """Which recipe a dataset takes: its own `isotropic`, else by the shape of its voxels."""
    if "isotropic" in dataset:
        return bool(dataset["isotropic"])
    size = dataset["voxel_size_nm"]
    return bool(max(size) / min(size) < ISOTROPIC_BELOW)


def _volume(dataset: Settings, name: str, path: Path) -> Settings:
    """A volume with its sources complete; those of a bucket lie where `fetch` puts them."""
    volume = dict(dataset["volumes"][name] or {})
    if bucket := dataset.get("bucket"):
        store = f"data/{dataset['name']}/{name}.zarr"
        if bucket.get("read") == "blocks":
            store = f"{OUR_BUCKET}{bucket_key(dataset, name)}"
        for part in ("raw", "labels"):
            volume.setdefault(part, {"path": store, "array": bucket[part]})
    if "raw" not in volume:
        raise ConfigError(f"{path}: volume {name!r} needs `raw: {{path: ...}}`")
    if volume["raw"]["path"] is None:
        raise ConfigError(
            f"{path}: nobody said yet where volume {name!r} lies. Write its address or file into "
            f"`volumes: {name}: raw: path`, there or in a copy in config/datasets of your working "
            "directory"
        )
    offset = volume.pop("offset_nm", None)
    given = {"voxel_size_nm": dataset["voxel_size_nm"], "offset_nm": offset, "array": ""}
    for part in ("raw", "labels", "labels_mask"):
        if part in volume:
            volume[part] = given | volume[part]
    for part in NAMED_PARTS:
        if part in volume:
            volume[part] = {name: given | source for name, source in volume[part].items()}
    if "auto_crop" in volume:
        fit = {"image": volume["raw"], "crop": volume.pop("auto_crop")}
        for part in ("labels", "labels_mask"):
            if part in volume:
                volume[part] = {**volume[part], "fit": fit}
        for part in ("outputs", "outputs_mask"):
            if part in volume:
                volume[part] = {n: {**source, "fit": fit} for n, source in volume[part].items()}
    if "tissue_mask" in volume:  # its voxels may be larger, as its own file says
        given = {"voxel_size_nm": None, "offset_nm": offset, "array": ""}
        volume["tissue_mask"] = given | volume["tissue_mask"]
    volume.setdefault("roi_nm", None)
    check_box(dataset, volume["roi_nm"], f"{path}: volume {name!r}")
    if volume["roi_nm"] == LABELS_BOX and "labels" not in volume:
        raise ConfigError(f"{path}: volume {name!r} has `roi_nm: labels` and no labels")
    return volume


def check_chosen(chosen: object) -> None:
    """Refuses a `volumes` setting that names a dataset or a volume that nobody has."""
    if isinstance(chosen, Mapping):
        for name, value in chosen.items():
            load_dataset(name, {name: value})
        return
    if chosen is None:
        return
    wanted = [chosen] if isinstance(chosen, str) else list(chosen)  # type: ignore[call-overload]
    files = (read_yaml(yaml_file("datasets", name)) for name in names("datasets"))
    known = {v for content in files for v in content.get("volumes", {})}
    for volume in wanted:
        if volume != "all" and volume not in known:
            raise ConfigError(
                f"`volumes`: no dataset has a volume {volume!r}; {nearest(volume, [*known, 'all'])}"
            )


def has_boundaries(dataset: Mapping[str, Any]) -> bool:
    """Whether labels of different objects have voxels of 0 between them."""
    return bool(dataset.get("boundaries_drawn", is_planar(dataset)))


def has_classes(dataset: Mapping[str, Any]) -> bool:
    """Whether labels are numbers of classes; ConfigError where some are and others are not."""
    labels = {name: v["labels"] for name, v in dataset["volumes"].items() if "labels" in v}
    found = {name: source.get("objects") == CLASSES for name, source in labels.items()}
    if len(set(found.values())) > 1:
        other = next(name for name, are_classes in found.items() if not are_classes)
        raise ConfigError(
            f"dataset {dataset['name']!r}: labels of {other!r} are no `objects: {CLASSES}` as the "
            "others are; give all labels of one dataset in one kind"
        )
    return any(found.values())


def is_planar(dataset: Mapping[str, Any]) -> bool:
    """Whether labels are membranes, whose objects are found section by section."""
    kinds = {
        v["labels"].get("objects", "ids") for v in dataset["volumes"].values() if "labels" in v
    }
    return bool(kinds - set(NUMBERED))


def fetched_examples() -> list[str]:
    """Datasets of single examples that say where their files are fetched."""
    found = {name: read_yaml(yaml_file("datasets", name)) for name in names("datasets")}
    return [n for n, content in found.items() if "fetch" in content.get("examples", {})]

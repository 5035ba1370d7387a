"""Where the parts of a volume are read from: files, addresses, the bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.splits import SPLITS
from retrace.config.yaml_files import Settings
from retrace.errors import ConfigError
from retrace.formats.precomputed import check_local_layer
from retrace.remote.addresses import check_address, is_address, is_zarr, local_folder

OUR_BUCKET = "s3:///"
"""How an address begins in the bucket that config.yaml names, until `located` names it."""


PARTS = ("raw", "labels", "labels_mask", "tissue_mask")
"""What of a volume is read from sources."""


NAMED_PARTS = ("inputs", "outputs", "outputs_mask", "segmentations")
"""What has several sources, each with a name: further images, labels of several outputs and their
masks, what others made of the volume."""


def example_files(dataset: Mapping[str, Any], *parts: str) -> list[str]:
    """Paths of a dataset of single examples: of `train`, `test` and `archive`, or of some."""
    told, found = dataset.get("examples", {}), []
    for part in parts or ("train", "test"):
        if part in told:
            found += [told[part]["values"]["path"], told[part]["labels"]["path"]]
    return [told["archive"]["path"]] if "archive" in told else found


def named_files(dataset: Mapping[str, Any]) -> list[str]:
    """Paths of all files that a dataset is read from."""
    found = example_files(dataset)
    for volume in dataset["volumes"].values():
        for path in (source["path"] for source in _sources(volume)):
            found += [str(local_folder(path) or "")] if is_address(path) else [path]
    mask = dataset.get("alignment", {}).get("mask")
    if mask:
        found += [str(local_folder(mask["path"]) or mask["path"])]
    for split in SPLITS[1:]:
        found += [e["skeletons"]["path"] for e in dataset[split] if e["skeletons"]]
    return [path for path in found if path]


def check_carried(dataset: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuses volumes elsewhere that no rule fetches, which no bundle can hold (ConfigError)."""
    mask = dataset.get("alignment", {}).get("mask")
    found = [("the mask of the sections", mask)] if mask else []
    for name, volume in dataset["volumes"].items():
        stored = f"s3://{config['bucket']}/{bucket_key(dataset, name)}"
        found += [(f"volume {name!r}", s) for s in _sources(volume) if s["path"] != stored]
    for what, source in found:
        path = str(source["path"])
        if is_address(path) and local_folder(path) is None:
            raise ConfigError(
                f"{what} of dataset {dataset['name']!r} is read block by block at {path}, which "
                "nothing fetches, so no bundle can hold it. Copy that layer or zarr to this "
                "machine and name its folder as file:///FOLDER; what lies in the bucket (`bucket: "
                "{read: blocks}`) is fetched"
            )


def bucket_key(dataset: Mapping[str, Any], volume: str) -> str | None:
    """The key of a volume that is read in the bucket by block, None for a dataset without any."""
    bucket = dataset.get("bucket", {})
    return f"{bucket['prefix']}/{volume}.zarr" if bucket.get("read") == "blocks" else None


def _sources(volume: Mapping[str, Any]) -> list[Settings]:
    """All that a volume is read from."""
    named = [s for part in NAMED_PARTS for s in volume.get(part, {}).values()]
    return [volume[part] for part in PARTS if part in volume] + named


def located(dataset: Settings, config: Mapping[str, Any]) -> Settings:
    """The dataset with every address complete: bucket, server, and how it is asked.

    With a bundle what would be read in our bucket is a folder in it. ConfigError for an address
    that nothing can be read from.
    """
    volumes = {
        name: {part: _located_part(part, value, config) for part, value in v.items()}
        for name, v in dataset["volumes"].items()
    }
    found = {**dataset, "volumes": volumes}
    if dataset.get("alignment", {}).get("mask"):
        mask = _located(dataset["alignment"]["mask"], config)
        found["alignment"] = {**dataset["alignment"], "mask": mask}
    return found


def _located_part(part: str, value: Any, config: Mapping[str, Any]) -> Any:
    """A part of a volume with its addresses complete: a source, sources by name, or what else."""
    if part in NAMED_PARTS:
        return {name: _located(source, config) for name, source in value.items()}
    return _located(value, config) if part in PARTS else value


def _located(source: Settings, config: Mapping[str, Any]) -> Settings:
    path = str(source["path"])
    if path.startswith(OUR_BUCKET):
        key = path.removeprefix(OUR_BUCKET)
        if config["bundle"]:
            return {**source, "path": f"{config['bundle']}/{key}"}
        path = f"s3://{config['bucket']}/{key}"
    if not is_address(path):
        return source
    check_address(path, source.get("array") or "")
    how = {key: config[key] for key in ("endpoint_url", "unsigned")} if "s3://" in path else {}
    return {**source, "path": path, **how}


def check_layers(dataset: Mapping[str, Any]) -> None:
    """Refuses layers on this machine that lack the mip or a region that is used (DataError)."""
    for split in SPLITS:
        for entry in dataset[split]:
            raw = dataset["volumes"][entry["volume"]]["raw"]
            if is_address(raw["path"]) and not is_zarr(raw["path"]):
                check_local_layer(raw, entry["roi_nm"])

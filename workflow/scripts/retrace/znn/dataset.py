"""A `.spec` as a dataset of ours: each sample a volume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.znn.cfg import read_cfg
from retrace.znn.spec import Sample, Section, read_spec
from retrace.znn.values import find_file

Settings = dict[str, Any]

H5_ARRAY = "main"
"""The array that ZNN reads of every h5."""
RANGES = {"train": "train_range", "validation": "test_range", "test": "forward_range"}


def with_samples(dataset: Mapping[str, Any], where: str) -> Settings:
    """The dataset with the samples of its `spec`, or of its `cfg`, as volumes sample1, sample2 ...

    A `cfg` also says which samples are trained on, tested on while training (validation here) and
    predicted (test here), unless the dataset does, and whether labels are classes. ConfigError
    where a file or sample is missing.
    """
    found = dict(dataset)
    ranges: dict[str, list[int]] = {}
    spec = found.pop("spec", None)
    kind = None
    if path := found.pop("cfg", None):
        values = read_cfg(Path(path))
        kind = values.out_type
        if not (spec or values.fdata_spec):
            raise ConfigError(f"{where}: {path} has no fdata_spec; add it, or `spec: PATH`")
        spec = spec or str(find_file(values.fdata_spec or "", Path(path)))
        ranges = {split: list(getattr(values, name)) for split, name in RANGES.items()}
    samples = read_spec(Path(spec))
    volumes = {f"sample{number}": _volume(sample, kind) for number, sample in samples.items()}
    found["volumes"] = {**volumes, **found.get("volumes", {})}
    found.setdefault("boundaries_drawn", True)
    for split, numbers in ranges.items():
        if split not in found:
            found[split] = _entries(split, numbers, samples, f"{where}: {RANGES[split]} of {path}")
    if set(found["train"] if ranges else []) & set(found["validation"] if ranges else []):
        raise ConfigError(
            f"{where}: train_range and test_range of {path} share samples; a sample that is "
            "trained on cannot choose a threshold. Give them different samples"
        )
    return found


def output_labels(
    volume: Mapping[str, Any], network: Mapping[str, Any], node: str
) -> Settings | None:
    """The labels that an output node learns; None where the volume has none for it."""
    found: Settings | None = volume.get("outputs", {}).get(node)
    if found is None and node == network["heads"][0]["node"]:
        return volume.get("labels")
    return found


def _entries(
    split: str, numbers: list[int], samples: Mapping[int, Sample], where: str
) -> list[str]:
    for number in numbers:
        if number not in samples:
            known = ", ".join(map(str, sorted(samples)))
            raise ConfigError(f"{where} names sample {number}; samples of the .spec: {known}")
        if split != "test" and not samples[number].labels:
            raise ConfigError(f"{where} names sample {number}, which has no label")
    return [f"sample{number}" for number in numbers]


def _volume(sample: Sample, kind: str | None) -> Settings:
    first, *more = sorted(sample.images)
    volume: Settings = {"raw": _image(sample.images[first])}
    if more:
        volume["inputs"] = {name: _image(sample.images[name]) for name in more}
    classes = {"objects": "classes"} if kind == "semantic" else {}
    labels = {node: _source(found.file) | classes for node, found in sample.labels.items()}
    masks = {node: _source(found.mask) for node, found in sample.labels.items() if found.mask}
    if labels:
        main = min(labels)
        volume["labels"] = labels[main]
        if main in masks:
            volume["labels_mask"] = masks[main]
        cropped = any(label.auto_crop for label in sample.labels.values())
        volume["auto_crop"] = cropped or sample.images[first].auto_crop
    if len(labels) > 1:
        volume |= {"outputs": labels, "outputs_mask": masks}
    return volume


def _image(section: Section) -> Settings:
    return {**_source(section.file), "preprocess": section.preprocess}


def _source(path: Path) -> Settings:
    is_h5 = path.suffix.lower() in (".h5", ".hdf5")
    return {"path": str(path), **({"array": H5_ARRAY} if is_h5 else {})}

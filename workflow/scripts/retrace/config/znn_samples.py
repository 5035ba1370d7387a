"""The samples of a `.spec` file as volumes, in the form of a file in config/datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retrace.config.yaml_files import Settings
from retrace.errors import ConfigError
from retrace.znn.cfg import read_cfg
from retrace.znn.parameters import OutType, ZnnConfig
from retrace.znn.spec import H5_ARRAY, SpecSample, SpecSection, read_spec
from retrace.znn.values import find_file

RANGES = {"train": "train_range", "validation": "test_range", "test": "forward_range"}
"""The parameter of a .cfg that selects the samples of each split."""


def with_samples(dataset: Settings, where: str) -> Settings:
    """A dataset with the samples of its `spec` or `cfg` as the volumes sample1, sample2 ...

    A `cfg` also selects the samples for training, for measurements while training (validation) and
    for predictions (test), unless the dataset does so itself, and says whether labels are classes.
    ConfigError for missing files and samples.
    """
    content = dict(dataset)
    spec, cfg = content.pop("spec", None), content.pop("cfg", None)
    config = read_cfg(Path(cfg)) if cfg else None
    if config is not None:
        spec = spec or _spec_of(config, cfg, where)
    samples = read_spec(Path(spec))
    out_type = config.out_type if config else None
    volumes = {f"sample{number}": _volume(sample, out_type) for number, sample in samples.items()}
    content["volumes"] = {**volumes, **content.get("volumes", {})}
    content.setdefault("boundaries_drawn", True)
    if config is not None:
        _select_samples(content, config, samples, f"{where}: {{}} of {cfg}")
    return content


def _spec_of(config: ZnnConfig, cfg: str, where: str) -> str:
    if not config.fdata_spec:
        raise ConfigError(f"{where}: {cfg} has no fdata_spec; add it, or `spec: PATH`")
    return str(find_file(config.fdata_spec, Path(cfg)))


def _select_samples(
    content: Settings, config: ZnnConfig, samples: Mapping[int, SpecSample], where: str
) -> None:
    """Adds the splits that the dataset does not define itself; `where` has a place for a name."""
    for split, parameter in RANGES.items():
        if split not in content:
            numbers = list(getattr(config, parameter))
            content[split] = _entries(split, numbers, samples, where.format(parameter))
    names = [{e for e in content[split] if isinstance(e, str)} for split in RANGES]
    if names[0] & names[1]:
        raise ConfigError(
            f"{where.format('train_range and test_range')} share samples; a sample that is "
            "trained on cannot choose a threshold. Give them different samples"
        )


def _entries(
    split: str, numbers: list[int], samples: Mapping[int, SpecSample], where: str
) -> list[str]:
    for number in numbers:
        if number not in samples:
            available = ", ".join(map(str, sorted(samples)))
            raise ConfigError(f"{where} names sample {number}; samples of the .spec: {available}")
        if split != "test" and not samples[number].labels:
            raise ConfigError(f"{where} names sample {number}, which has no label")
    return [f"sample{number}" for number in numbers]


def _volume(sample: SpecSample, out_type: OutType | None) -> Settings:
    first, *more = sorted(sample.images)
    volume: Settings = {"raw": _image(sample.images[first])}
    if more:
        volume["inputs"] = {name: _image(sample.images[name]) for name in more}
    classes = {"objects": "classes"} if out_type == "semantic" else {}
    labels = {node: _source(label.file) | classes for node, label in sample.labels.items()}
    masks = {node: _source(label.mask) for node, label in sample.labels.items() if label.mask}
    if labels:
        main = min(labels)
        volume["labels"] = labels[main]
        if main in masks:
            volume["labels_mask"] = masks[main]
        is_cropped = any(label.auto_crop for label in sample.labels.values())
        volume["auto_crop"] = is_cropped or sample.images[first].auto_crop
    if len(labels) > 1:
        volume |= {"outputs": labels, "outputs_mask": masks}
    return volume


def _image(section: SpecSection) -> Settings:
    return {**_source(section.file), "preprocess": section.preprocess}


def _source(path: Path) -> Settings:
    is_h5 = path.suffix.lower() in (".h5", ".hdf5")
    return {"path": str(path), **({"array": H5_ARRAY} if is_h5 else {})}

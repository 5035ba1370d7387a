"""The samples of a `.spec` file as volumes, in the form of a file in config/datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from retrace.config.yaml_files import Settings
from retrace.errors import ConfigError, RetraceError, nearest
from retrace.formats.headers import read_header
from retrace.formats.normalize import is_grey_type
from retrace.znn.cfg import read_cfg
from retrace.znn.graph import Graph
from retrace.znn.net import read_net
from retrace.znn.parameters import ZnnConfig
from retrace.znn.spec import H5_ARRAY, SpecSample, SpecSection, check_label_types, read_spec

RANGES = {"train": "train_range", "validation": "test_range", "test": "forward_range"}
"""The parameter of a .cfg that selects the samples of each split."""


def with_samples(
    dataset: Settings, where: str, *, trained: bool | None = True, exact: bool = False
) -> Settings:
    """A dataset with the samples of its `spec` or `cfg` as the volumes sample1, sample2 ...

    A `cfg` also selects the samples for training, for measurements while training (validation) and
    for predictions (test), unless the dataset does so itself, and says whether labels are classes.
    `trained`: whether something is trained; otherwise labels may be missing, and images if it is
    None. `exact`: whether the network is that of the `cfg`. ConfigError for missing files and
    samples.
    """
    content = dict(dataset)
    spec, cfg = content.pop("spec", None), content.pop("cfg", None)
    config = read_cfg(Path(cfg)) if cfg else None
    if config is not None:
        spec = spec or _spec_of(config, cfg, where)
    samples = read_spec(Path(spec), Path(cfg).parent if cfg else None)
    reader = _Reader(config, trained, exact)
    volumes = {name: volume for s in samples.values() for name, volume in reader.volumes(s)}
    content["volumes"] = {**volumes, **content.get("volumes", {})}
    content.setdefault("boundaries_drawn", True)
    if config is None:
        for sample in samples.values():
            reader.check(sample)
    else:
        place = "" if where == cfg else f"{where}: "
        _select_samples(content, config, samples, f"{place}{{}} of {cfg}", reader)
    return content


def _spec_of(config: ZnnConfig, cfg: str, where: str) -> str:
    if not config.fdata_spec:
        raise ConfigError(f"{where}: {cfg} has no fdata_spec; add it, or `spec: PATH`")
    return config.fdata_spec


def _select_samples(
    content: Settings,
    config: ZnnConfig,
    samples: Mapping[int, SpecSample],
    where: str,
    reader: _Reader,
) -> None:
    """Adds the splits that the dataset does not define itself; `where` has a place for a name."""
    if reader.exact:  # ZNN's programs read the ranges that they need
        unused = ["test"] if reader.trained else ["train", "validation"]
        content |= {split: [] for split in unused}
    for split, parameter in RANGES.items():
        if split not in content:
            numbers = list(getattr(config, parameter))
            content[split] = _entries(split, numbers, samples, where.format(parameter), reader)
    names = [{e for e in content[split] if isinstance(e, str)} for split in RANGES]
    if reader.trained and not reader.exact and names[0] & names[1]:
        raise ConfigError(
            f"{where.format('train_range and test_range')} share samples; a sample that is "
            "trained on cannot choose a threshold. Give them different samples"
        )


def _entries(
    split: str,
    numbers: list[int],
    samples: Mapping[int, SpecSample],
    where: str,
    reader: _Reader,
) -> list[str]:
    """The volumes of the samples of a split; without `trained` those that it can have."""
    if split == "train" and not reader.trained:
        return []
    for number in numbers:
        if number not in samples:
            available = ", ".join(map(str, sorted(samples)))
            raise ConfigError(f"{where} names sample {number}; samples of the .spec: {available}")
        if split != "test" and not samples[number].labels:
            if not reader.trained:
                continue
            raise ConfigError(_without_label(where, number, samples))
        reader.check(samples[number])
    usable = [n for n in numbers if split == "test" or samples[n].labels]
    return [name for number in usable for name, _ in reader.volumes(samples[number])]


def _without_label(where: str, number: int, samples: Mapping[int, SpecSample]) -> str:
    labelled = [str(n) for n, sample in sorted(samples.items()) if sample.labels]
    hint = "give one of them an `output = N`"
    if labelled:
        hint = (
            f"samples with a label: {', '.join(labelled)}. Train on those, and name sample "
            f"{number} in forward_range, as in `train_range = {','.join(labelled)}` and "
            f"`forward_range = {number}`"
        )
    return f"{where} names sample {number}, which has no label (`output = N`); {hint}"


@dataclass(frozen=True)
class _Reader:
    """Turns samples into volumes, for the network and `out_type` of a .cfg, if there is one."""

    config: ZnnConfig | None
    trained: bool | None
    exact: bool
    """Whether the samples are for the network of the .cfg alone."""

    @cached_property
    def graph(self) -> Graph | None:
        """The network; None where the .cfg does not name it."""
        net = self.config and self.config.fnet_spec
        return read_net(Path(net)) if net else None

    def check(self, sample: SpecSample) -> None:
        """ConfigError for a sample that is used and whose files or nodes do not exist."""
        if self.trained is None:
            return
        labels = sample.labels if self.trained else {}
        for section in (*sample.images.values(), *labels.values()):
            section.check()
        graph = self.graph
        if graph is None or self.config is None:
            return
        self._check_nodes(sample, "input", sample.images, graph.inputs)
        if labels:
            self._check_nodes(sample, "output", labels, graph.outputs)
        for node, label in labels.items():
            name = next((name for name in graph.outputs if name.lower() == node), None)
            if name is not None:
                check_label_types(label, name, graph.nodes[name].size, self.config.out_type)

    def _check_nodes(
        self, sample: SpecSample, kind: str, named: Iterable[str], nodes: Sequence[str]
    ) -> None:
        """ConfigError unless a sample names each node of the network, and in ZNN's runs no other.

        Options are compared in lower case, in which ZNN reads them.
        """
        by_name = {node.lower(): node for node in nodes}
        where = f"{sample.where}: [sample{sample.number}]"
        if missing := [name for name in by_name if name not in named]:
            raise ConfigError(
                f"{where} names {', '.join(named)}, and not {missing[0]!r}, which is an {kind} "
                f"node of the network; add `{missing[0]} = N`"
            )
        spare = [name for name in named if name not in by_name]
        if spare and self.exact:
            raise ConfigError(
                f"{where} names {spare[0]!r}, which is no {kind} node of the network; "
                f"{nearest(spare[0], by_name)}"
            )

    def volumes(self, sample: SpecSample) -> Iterator[tuple[str, Settings]]:
        """The volumes of a sample by name: one, or one for each file that its sections list."""
        sections = [*sample.images.values(), *sample.labels.values()]
        counts = {len(section.files) for section in sections}
        if len(counts) > 1:
            listed = ", ".join(f"[{s.name}] {len(s.files)}" for s in sections)
            raise ConfigError(
                f"{sample.where}: sections of [sample{sample.number}] name different numbers of "
                f"files ({listed}); the first file of each belongs together, and so on. Name as "
                "many in each"
            )
        (count,) = counts
        for index in range(count):
            name = f"sample{sample.number}" + (f"_{index + 1}" if count > 1 else "")
            images = {node: section.one(index) for node, section in sample.images.items()}
            labels = {node: section.one(index) for node, section in sample.labels.items()}
            yield name, self._volume(images, labels)

    def _volume(
        self, images: Mapping[str, SpecSection], labelled: Mapping[str, SpecSection]
    ) -> Settings:
        names = [node.lower() for node in self.graph.inputs] if self.graph else []
        first, *more = sorted(images, key=lambda node: (node not in names[:1], node))
        volume: Settings = {"raw": _image(images[first])}
        if more:
            volume["inputs"] = {name: _image(images[name]) for name in more}
        is_semantic = self.config is not None and self.config.out_type == "semantic"
        classes = {"objects": "classes"} if is_semantic else {}
        labels = {
            node: source_settings(label.files[0].path) | classes for node, label in labelled.items()
        }
        masks = {
            node: source_settings(label.masks[0].path)
            for node, label in labelled.items()
            if label.masks[0] is not None
        }
        if labels:
            main = min(labels)
            volume["labels"] = labels[main]
            if main in masks:
                volume["labels_mask"] = masks[main]
            is_cropped = any(label.auto_crop for label in labelled.values())
            volume["auto_crop"] = is_cropped or images[first].auto_crop
        if len(labels) > 1:
            volume |= {"outputs": labels, "outputs_mask": masks}
        return volume


def _image(section: SpecSection) -> Settings:
    """An image; integers of more than 8 bits are scaled first if a preprocessing scales them."""
    source, preprocess = source_settings(section.files[0].path), section.preprocess[0]
    if preprocess != "none" and _has_more_bits(**source):
        source["normalize"] = {"percentiles": [0, 100]}
    return {**source, "preprocess": preprocess}


@cache
def _has_more_bits(path: str, array: str = "") -> bool:
    """Whether an image holds integers of another type than uint8; false where it is unreadable."""
    try:
        header = read_header(path, array)
    except (RetraceError, OSError):
        return False  # refused where it is used
    return header is not None and not is_grey_type(header.dtype)


def source_settings(path: Path) -> Settings:
    """The settings of a file that a .spec names; of an h5, ZNN reads one array."""
    is_h5 = path.suffix.lower() in (".h5", ".hdf5")
    return {"path": str(path), **({"array": H5_ARRAY} if is_h5 else {})}

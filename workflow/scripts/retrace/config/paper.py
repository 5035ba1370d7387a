"""Which regions and networks of the paper are reproduced, and where its numbers are.

A dataset with the key `paper` has the regions that were published; its `weights_of` names the
dataset whose checkpoints predict them, and the target is `reproduce_DATASET` of that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from retrace.config.dataset_model import Dataset, DatasetBase, Paper, ShownFigures
from retrace.config.yaml_files import WORKFLOW_CONFIG, Settings, names, read_yaml
from retrace.errors import ConfigError, nearest


def datasets() -> dict[str, str]:
    """The dataset with the paper's regions, by the name of the one whose weights it uses."""
    by_parent: dict[str, str] = {}
    for name in names("datasets"):
        content = _readable(name)
        if "paper" not in content:
            continue
        parent = content.get("weights_of")
        if not parent or parent in by_parent:
            raise ConfigError(
                f"config/datasets/{name}.yaml has `paper` and weights_of {parent!r}; it must name "
                "a dataset that no other file with `paper` names"
            )
        by_parent[parent] = name
    return by_parent


def _readable(name: str) -> Settings:
    """The file of a dataset; empty if it is damaged: its own targets report the error."""
    for folder in (Path("config"), WORKFLOW_CONFIG):
        path = folder / "datasets" / f"{name}.yaml"
        if path.is_file():
            try:
                return read_yaml(path)
            except ConfigError:
                return {}
    return {}


def paper_of(dataset: DatasetBase) -> tuple[Dataset, Paper, str]:
    """A dataset with its `paper` and `weights_of`; ConfigError if it lacks one."""
    paper = dataset.paper if isinstance(dataset, Dataset) else None
    if not isinstance(dataset, Dataset) or paper is None or dataset.weights_of is None:
        raise ConfigError(f"dataset {dataset.name!r} needs `paper` and `weights_of`")
    return dataset, paper, dataset.weights_of


def choose_regions(dataset: Dataset, regions: Sequence[str] | None) -> Dataset:
    """The dataset with only those regions in validation and test; None: the first one.

    ConfigError for a region that no dataset with `paper` has, or if this dataset has none of them.
    """
    volumes = dataset.volumes
    requested = regions or [dataset.test[0].volume]
    available = {
        str(region) for name in datasets().values() for region in _readable(name)["volumes"]
    }
    unknown = [region for region in requested if region not in available]
    own = [region for region in requested if region in volumes]
    if unknown or not own:
        wrong = unknown[0] if unknown else requested[0]
        raise ConfigError(
            f"`reproduce: regions`: dataset {dataset.name!r} has no region {wrong!r}; "
            f"{nearest(wrong, volumes)}"
        )
    chosen = {
        split: tuple(entry for entry in dataset.entries(split) if entry.volume in own)
        for split in ("validation", "test")
    }
    return dataset.model_copy(update=chosen)


def networks(dataset: Dataset, requested: Sequence[str] | None) -> list[str]:
    """The networks that are compared, None: all; ConfigError for one that the paper lacks."""
    dataset, paper, parent = paper_of(dataset)
    for name in requested or ():
        if name not in paper.networks:
            raise ConfigError(
                f"`reproduce: networks`: {name!r} is none of the paper's on {parent!r}; "
                f"{nearest(name, paper.networks)}"
            )
    published = read_paper_values(dataset)
    for entry in dataset.test:
        if entry.volume not in published["regions"]:
            raise ConfigError(
                f"{published_file(dataset)} has no region {entry.volume!r}; "
                f"{nearest(entry.volume, published['regions'])}"
            )
    return list(requested or paper.networks)


def published_file(dataset: DatasetBase) -> Path:
    """config/published/NAME.yaml of `weights_of`; see `figures_file`."""
    dataset, _, parent = paper_of(dataset)
    return figures_file(parent, dataset.name)


def figures_file(name: str, dataset: str) -> Path:
    """config/published/NAME.yaml, first in the working directory, then next to the workflow."""
    folders = (Path("config"), WORKFLOW_CONFIG)
    for folder in folders:
        path = folder / "published" / f"{name}.yaml"
        if path.is_file():
            return path
    raise ConfigError(
        f"no config/published/{name}.yaml with the numbers that dataset {dataset!r} is "
        "compared with; write one after config/published/zfinch.yaml"
    )


def read_paper_values(dataset: DatasetBase) -> Settings:
    """The published numbers: `source`, and `regions` by region, ground truth and network."""
    return _read_figures(published_file(dataset))


def _read_figures(path: Path) -> Settings:
    content = read_yaml(path)
    if not isinstance(content.get("regions"), dict) or not content.get("source"):
        raise ConfigError(f"{path} needs `source` and `regions`: region, truth, network, metric")
    return content


def published_figures(dataset: DatasetBase) -> tuple[Path, ShownFigures] | None:
    """The file of a dataset's `published`, and which regions and kinds of ground truth are shown.

    None without that key; ConfigError for a file, region or ground truth that does not exist.
    """
    chosen = dataset.published if isinstance(dataset, Dataset) else None
    if chosen is None:
        return None
    path = figures_file(chosen.figures, dataset.name)
    content = _read_figures(path)
    if not content.get("convention"):
        raise ConfigError(f"{path} needs `convention`: how these figures were scored")
    regions = chosen.regions or tuple(content["regions"])
    _check_known("regions", regions, content["regions"], path)
    available = tuple(dict.fromkeys(t for region in regions for t in content["regions"][region]))
    truths = chosen.truths or available
    _check_known("truths", truths, available, path)
    return path, ShownFigures(regions=regions, truths=truths, differs=chosen.differs)


def _check_known(key: str, requested: Sequence[str], available: Iterable[str], path: Path) -> None:
    for name in requested:
        if name not in available:
            raise ConfigError(
                f"`published: {key}`: {path} has no {name!r}; {nearest(name, available)}"
            )

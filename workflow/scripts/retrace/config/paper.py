"""Which regions and networks of the paper are computed anew, and where its numbers lie.

A dataset with the key `paper` holds the regions that were published on; its `weights_of` names the
dataset whose checkpoints it is predicted with, and whose name `reproduce_DATASET` carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.config.yaml_files import WORKFLOW_CONFIG, Settings, names, read_yaml
from retrace.errors import ConfigError, nearest


def datasets() -> dict[str, str]:
    """The dataset with the paper's regions, by the name of the one whose weights it takes."""
    found: dict[str, str] = {}
    for name in names("datasets"):
        content = _readable(name)
        if "paper" not in content:
            continue
        parent = content.get("weights_of")
        if not parent or parent in found:
            raise ConfigError(
                f"config/datasets/{name}.yaml has `paper` and weights_of {parent!r}; it must name "
                "a dataset that no other file with `paper` names"
            )
        found[parent] = name
    return found


def _readable(name: str) -> Settings:
    """The file of a dataset; nothing where it is damaged: whoever asks for it gets the error."""
    for folder in (Path("config"), WORKFLOW_CONFIG):
        path = folder / "datasets" / f"{name}.yaml"
        if path.is_file():
            try:
                return read_yaml(path)
            except ConfigError:
                return {}
    return {}


def choose_regions(dataset: Settings, reproduce: Mapping[str, Any]) -> Settings:
    """The dataset with the asked-for regions alone in validation and test; unasked, its first.

    ConfigError for a region that no paper dataset has, or where none is this dataset's.
    """
    volumes = dataset["volumes"]
    wanted = reproduce["regions"] or [dataset["test"][0]["volume"]]
    known = {region for name in datasets().values() for region in _readable(name)["volumes"]}
    unknown = [region for region in wanted if region not in known]
    own = [region for region in wanted if region in volumes]
    if unknown or not own:
        wrong = unknown[0] if unknown else wanted[0]
        raise ConfigError(
            f"`reproduce: regions`: dataset {dataset['name']!r} has no region {wrong!r}; "
            f"{nearest(wrong, volumes)}"
        )
    chosen = {
        split: [entry for entry in dataset[split] if entry["volume"] in own]
        for split in ("validation", "test")
    }
    return {**dataset, **chosen}


def networks(dataset: Mapping[str, Any], reproduce: Mapping[str, Any]) -> list[str]:
    """The networks that are compared; ConfigError for one that the paper did not score."""
    scored: list[str] = dataset["paper"]["networks"]
    wanted: Sequence[str] = reproduce["networks"] or scored
    for name in wanted:
        if name not in scored:
            raise ConfigError(
                f"`reproduce: networks`: {name!r} is none of the paper's on "
                f"{dataset['weights_of']!r}; {nearest(name, scored)}"
            )
    published = read_published(dataset)
    for entry in dataset["test"]:
        if entry["volume"] not in published["regions"]:
            raise ConfigError(
                f"{published_file(dataset)} has no region {entry['volume']!r}; "
                f"{nearest(entry['volume'], published['regions'])}"
            )
    return list(wanted)


def published_file(dataset: Mapping[str, Any]) -> Path:
    """config/published/NAME.yaml of `weights_of`; see `figures_file`."""
    return figures_file(dataset["weights_of"], dataset["name"])


def figures_file(name: str, dataset: str) -> Path:
    """config/published/NAME.yaml: in the working directory first, then beside the workflow."""
    folders = (Path("config"), WORKFLOW_CONFIG)
    for folder in folders:
        path = folder / "published" / f"{name}.yaml"
        if path.is_file():
            return path
    raise ConfigError(
        f"no config/published/{name}.yaml with the numbers that dataset {dataset!r} is "
        "compared with; write one after config/published/zfinch.yaml"
    )


def read_published(dataset: Mapping[str, Any]) -> Settings:
    """The published numbers: `source`, and `regions` by region, truth and network."""
    return _read_figures(published_file(dataset))


def _read_figures(path: Path) -> Settings:
    content = read_yaml(path)
    if not isinstance(content.get("regions"), dict) or not content.get("source"):
        raise ConfigError(f"{path} needs `source` and `regions`: region, truth, network, metric")
    return content


def beside(dataset: Mapping[str, Any]) -> tuple[Path, Settings] | None:
    """The file of a dataset's `published`, and what of it is shown: regions, truths, differs.

    None without that key; ConfigError for a file, region or truth that is not there.
    """
    if "published" not in dataset:
        return None
    asked = dataset["published"]
    path = figures_file(asked["figures"], dataset["name"])
    content = _read_figures(path)
    if not content.get("convention"):
        raise ConfigError(f"{path} needs `convention`: how these figures were scored")
    regions = asked.get("regions", [*content["regions"]])
    _check_known("regions", regions, content["regions"], path)
    known = list(dict.fromkeys(t for region in regions for t in content["regions"][region]))
    truths = asked.get("truths", known)
    _check_known("truths", truths, known, path)
    return path, {"regions": regions, "truths": truths, "differs": asked.get("differs")}


def _check_known(key: str, wanted: Sequence[str], known: Iterable[str], path: Path) -> None:
    for name in wanted:
        if name not in known:
            raise ConfigError(f"`published: {key}`: {path} has no {name!r}; {nearest(name, known)}")

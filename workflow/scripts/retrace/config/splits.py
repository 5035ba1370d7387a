"""Training, validation and test entries of a dataset, and the boxes they keep apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrace.config.yaml_files import Settings
from retrace.errors import ConfigError, nearest

SPLITS = ("train", "validation", "test")


LABELS_BOX = "labels"
"""The `roi_nm` of a volume of which as much is used as its labels cover."""


def check_box(dataset: Settings, box: Settings | str | None, where: str) -> None:
    if box is None or isinstance(box, str):
        return
    for key in ("offset", "shape"):
        bad = [v % s for v, s in zip(box[key], dataset["voxel_size_nm"], strict=True)]
        if any(bad):
            raise ConfigError(
                f"{where}: roi_nm {key} {box[key]} is not a multiple of "
                f"voxel_size_nm {dataset['voxel_size_nm']}"
            )


def split_entry(dataset: Settings, split: str, entry: Any, path: Path) -> Settings:
    """One entry of a split as {volume, roi_nm, probability}."""
    entry = {"volume": entry} if isinstance(entry, str) else dict(entry)
    name = entry["volume"]
    if name not in dataset["volumes"]:
        hint = nearest(name, dataset["volumes"])
        raise ConfigError(f"{path}: {split} names the unknown volume {name!r}; {hint}")
    skeletons = _skeletons(entry.get("skeletons", dataset["volumes"][name].get("skeletons")))
    truth = "labels" in dataset["volumes"][name] or (split != "train" and skeletons)
    if split != "test" and not truth:
        raise ConfigError(f"{path}: {split} needs labels, and volume {name!r} has none")
    check_box(dataset, entry.get("roi_nm"), f"{path}: {split} of {name!r}")
    probabilities = dataset["sampling"].get("probabilities", {})
    whole = dataset["volumes"][name]["roi_nm"]
    found = {
        "volume": name,
        "roi_nm": entry.get("roi_nm", None if whole == LABELS_BOX else whole),
        "probability": entry.get("probability", probabilities.get(name)),
    }
    return found if split == "train" else {**found, "skeletons": skeletons}


def _skeletons(source: str | Settings | None) -> Settings | None:
    """Where skeletons are read, as {path} or, of a dump, {path, name, region}."""
    return {"path": source} if isinstance(source, str) else source


def choose_training(dataset: Settings, chosen: object) -> Settings:
    """Replaces the training entries by the chosen volumes; refuses an overlap with the others."""
    wanted = _wanted(dataset, chosen)
    if wanted is not None:
        path = Path(f"dataset {dataset['name']}")
        known = {entry["volume"]: entry for entry in dataset["train"]}
        dataset["train"] = [known.get(v) or split_entry(dataset, "train", v, path) for v in wanted]
    _spread_probabilities(dataset["train"])
    for entry in dataset["train"]:
        entry["exclude_nm"] = _excluded(dataset, entry)
    return dataset


def _wanted(dataset: Settings, chosen: object) -> list[str] | None:
    """Names of the volumes to train on, or None for what the dataset's file says."""
    name = dataset["name"]
    if isinstance(chosen, Mapping):
        chosen = chosen.get(name)
    elif isinstance(chosen, list):  # one list for all datasets: each takes what is its own
        chosen = [v for v in chosen if v in dataset["volumes"]] or None
    if chosen is None:
        return None
    if chosen == "all":
        held_out = {e["volume"] for s in SPLITS[1:] for e in dataset[s] if e["roi_nm"] is None}
        labelled = [v for v, volume in dataset["volumes"].items() if "labels" in volume]
        return [v for v in labelled if v not in held_out]
    wanted = [chosen] if isinstance(chosen, str) else list(chosen)  # type: ignore[call-overload]
    for volume in wanted:
        if volume not in dataset["volumes"]:
            hint = nearest(volume, [*dataset["volumes"], "all"])
            raise ConfigError(f"`volumes`: dataset {name!r} has no volume {volume!r}; {hint}")
    return wanted


def _spread_probabilities(entries: list[Settings]) -> None:
    """Makes the probabilities sum to 1; an entry without one weighs as the mean of the rest."""
    given = [entry["probability"] for entry in entries if entry["probability"] is not None]
    default = sum(given) / len(given) if given else 1.0
    weights = [default if e["probability"] is None else e["probability"] for e in entries]
    for entry, weight in zip(entries, weights, strict=True):
        entry["probability"] = weight / sum(weights)


def _overlaps(one: Settings | None, other: Settings | None) -> bool:
    """Whether two boxes share space; None is the whole volume."""
    if one is None or other is None:
        return True
    sides = zip(one["offset"], one["shape"], other["offset"], other["shape"], strict=True)
    return all(a < b + m and b < a + n for a, n, b, m in sides)


def _covers(outer: Settings | None, inner: Settings | None) -> bool:
    if outer is None or inner is None:
        return outer is None
    sides = zip(outer["offset"], outer["shape"], inner["offset"], inner["shape"], strict=True)
    return all(a <= b and b + m <= a + n for a, n, b, m in sides)


def _excluded(dataset: Settings, entry: Settings) -> list[Settings]:
    """Boxes within a training entry that validation and test keep for themselves."""
    boxes = []
    for split in SPLITS[1:]:
        for other in dataset[split]:
            same = other["volume"] == entry["volume"]
            if not same or not _overlaps(entry["roi_nm"], other["roi_nm"]):
                continue
            if _covers(other["roi_nm"], entry["roi_nm"]):
                raise ConfigError(
                    f"dataset {dataset['name']!r}: volume {entry['volume']!r} is in train and "
                    f"whole in {split}; give the {split} entry a smaller roi_nm"
                )
            boxes.append(other["roi_nm"])
    return boxes


def scorable(dataset: Mapping[str, Any], split: str) -> list[Settings]:
    """The entries of a split that have a truth: labels of their volume, or skeletons."""
    volumes = dataset["volumes"]
    return [e for e in dataset[split] if "labels" in volumes[e["volume"]] or e["skeletons"]]


def with_skeletons(dataset: Mapping[str, Any]) -> list[str]:
    """The volumes whose test entries have skeletons; ConfigError where there are none."""
    found = [entry["volume"] for entry in dataset["test"] if entry["skeletons"]]
    if not found:
        raise ConfigError(
            f"dataset {dataset['name']!r} has no `test` entry with `skeletons`, which `export: "
            "{layers: [nodes]}` makes tables of; leave out nodes, or add them to an entry"
        )
    return list(dict.fromkeys(found))

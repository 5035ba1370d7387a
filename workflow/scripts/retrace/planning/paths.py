"""What each script is told: one plain dict per job, holding exactly what that script reads.

The workflow hands them over as JSON (`--settings`), so changing a value reruns what reads it and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.sources import NAMED_PARTS
from retrace.config.yaml_files import Settings


def results(dataset: str, *parts: str) -> str:
    """A path below the results of a dataset."""
    return "/".join(["results", dataset, *parts])


def source_paths(volume: Mapping[str, Any], parts: Sequence[str]) -> list[str]:
    """Paths of those parts that a volume has, those of several sources last."""
    found = [volume[part]["path"] for part in parts if part in volume and part not in NAMED_PARTS]
    named = [volume.get(part, {}) for part in NAMED_PARTS if part in parts]
    return found + [source["path"] for sources in named for source in sources.values()]


def mask_store(dataset: Dataset, volume: str) -> str:
    """Where the labels mask of a volume lies."""
    return results(dataset["name"], "masks", f"{volume}.zarr")


def volumes_of(entries: Iterable[Any]) -> list[str]:
    """The volumes that entries name, each once, in order."""
    return list(dict.fromkeys(entry["volume"] for entry in entries))


def predicted(dataset: Dataset) -> list[str]:
    """Volumes that are predicted: validation and test, or, without any, those trained on."""
    return volumes_of([*dataset["validation"], *dataset["test"]] or dataset["train"])


def mask_settings(dataset: Dataset, volume: str) -> Settings:
    """What mask.py reads for one volume."""
    source = dataset["volumes"][volume]
    given = {"labels_mask": source["labels_mask"]} if "labels_mask" in source else {}
    return {"background_ids": dataset["background_ids"], "labels": source["labels"], **given}

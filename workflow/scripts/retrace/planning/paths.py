"""Where files of the workflow are: results, masks, manifests, and the inputs of a volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from retrace.config.dataset_model import Dataset, DatasetVolume, Entry
from retrace.config.sources import NAMED_PARTS
from retrace.config.splits import SPLITS
from retrace.formats.source import Source
from retrace.remote.addresses import is_address, local_folder
from retrace.replacement import MANIFEST


def results(dataset: str, *parts: str) -> str:
    """A path below the results of a dataset."""
    return "/".join(["results", dataset, *parts])


def manifest(path: str) -> str:
    """The manifest next to a zarr store, a .h5 file or a folder."""
    return path.removesuffix(".zarr").removesuffix(".h5") + MANIFEST


def with_manifests(paths: Iterable[str]) -> list[str]:
    """Stores or files, each followed by its manifest."""
    return [file for path in paths for file in (path, manifest(path))]


def source_paths(volume: DatasetVolume, parts: Sequence[str]) -> list[str]:
    """Paths of those parts that a volume has, those of several sources last."""
    single: list[Source | None] = [
        getattr(volume, part) for part in parts if part not in NAMED_PARTS
    ]
    named: list[dict[str, Source]] = [getattr(volume, p) for p in NAMED_PARTS if p in parts]
    sources = [source for source in single if source is not None]
    sources += [source for by_name in named for source in by_name.values()]
    return [source.path for source in sources]


def ground_truth(dataset: Dataset, path: str) -> str | None:
    """The fetched folder that holds a path, None for a path elsewhere."""
    base = f"data/{dataset.name}/ground_truth/"
    name = path.removeprefix(base).split("/")[0]
    is_declared = path.startswith(base) and name in dataset.ground_truth
    return base + name if is_declared else None


def own_files(dataset: Dataset, path: str) -> list[str]:
    """The files to depend on for `path`: a fetched folder, or the file or folder itself."""
    if is_address(path):
        local = local_folder(path)
        return [] if local is None else [str(local)]
    folder = ground_truth(dataset, path)
    return [path] if folder is None else with_manifests([folder])


VOLUME_PARTS = ("raw", "labels", "inputs", "outputs", "outputs_mask")


CLASSIFIER = "edge_classifier.safetensors"
"""The classifier of edges of an experiment."""


def volume_files(
    dataset: Dataset, volumes: Iterable[str], parts: Sequence[str] = VOLUME_PARTS
) -> list[str]:
    """Files of the volumes: the fetched zarr and its manifest, or the user's own files."""
    bucket = dataset.bucket
    is_fetched = bucket is not None and bucket.read != "blocks"
    files: list[str] = []
    for volume in volumes:
        paths = source_paths(dataset.volumes[volume], parts)
        if is_fetched:
            files += with_manifests(paths[:1])
        else:
            files += [file for path in paths for file in own_files(dataset, path)]
    return list(dict.fromkeys(files))


def folders_to_fetch(dataset: Dataset) -> list[str]:
    """The folder of the dataset's volumes, in a list; empty if all of them are there."""
    volumes = volumes_of(entry for split in SPLITS for entry in dataset.entries(split))
    folder = f"data/{dataset.name}"
    files = [path for path in volume_files(dataset, volumes) if path.startswith(f"{folder}/")]
    return [] if all(Path(path).exists() for path in files) else [folder]


def tissue_mask_files(dataset: Dataset, volume: str) -> list[str]:
    """The file of the tissue mask, in a list; empty without one."""
    mask = dataset.volumes[volume].tissue_mask
    return own_files(dataset, mask.path) if mask else []


def skeleton_files(dataset: Dataset, split: str) -> list[str]:
    """The skeletons of a split's entries."""
    paths = [e.skeletons.path for e in dataset.entries(split) if e.skeletons]
    return [file for path in dict.fromkeys(paths) for file in own_files(dataset, path)]


def mask_store(dataset: Dataset, volume: str) -> str:
    """The labels mask of a volume."""
    return results(dataset.name, "masks", f"{volume}.zarr")


def mask_stores(dataset: Dataset, volumes: Iterable[str]) -> dict[str, str]:
    """The labels masks of those volumes that have labels, by volume."""
    return {v: mask_store(dataset, v) for v in volumes if dataset.volumes[v].labels}


def result_stores(dataset: str, network: str, volumes: Iterable[str], name: str) -> dict[str, str]:
    """The store NAME.zarr that a network gives for each volume, by volume."""
    return {v: results(dataset, network, v, f"{name}.zarr") for v in volumes}


def volumes_of(entries: Iterable[Entry]) -> list[str]:
    """The volumes that entries name, each once, in order."""
    return list(dict.fromkeys(entry.volume for entry in entries))


def predicted(dataset: Dataset) -> list[str]:
    """Volumes that are predicted: validation and test, or, without any, those trained on."""
    return volumes_of([*dataset.validation, *dataset.test] or dataset.train)


def tested(dataset: Dataset) -> list[str]:
    """Volumes of the test entries, or, without any, of the validation entries."""
    return volumes_of(dataset.test or dataset.validation)


def layer_files(layers: Iterable[Source]) -> list[str]:
    """The stores of viewer layers on this machine, each once."""
    paths = [local_folder(s.path) if is_address(s.path) else s.path for s in layers]
    return list(dict.fromkeys(str(path) for path in paths if path is not None))

"""Files of datasets that are downloaded from an address of their own, and checks of `obtain`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from retrace.config.dataset_model import DatasetBase
from retrace.config.examples_model import ExamplesDataset
from retrace.config.obtain_model import Obtain
from retrace.config.sources import named_files
from retrace.config.yaml_files import names, settings_of
from retrace.errors import ConfigError, nearest
from retrace.relative_paths import relative_path
from retrace.remote.addresses import local_folder

FILE_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names of files that can be downloaded to data/DATASET."""


def local_path(path: str) -> str:
    """A path or file:// address as planning spells paths: relative to the working directory."""
    return relative_path(PurePath(local_folder(path) or path))


def check_obtain(dataset: DatasetBase, where: str) -> None:
    """ConfigError for an `obtain` about a file that the dataset does not read, or cannot fetch."""
    if dataset.obtain is None:
        return
    read = {local_path(path) for path in named_files(dataset)}
    for path, file in dataset.obtain.files.items():
        if local_path(path) not in read:
            raise ConfigError(
                f"{where}: `obtain: files` lists {path}, which this dataset does not read; "
                f"{nearest(path, read)}"
            )
        own = PurePath(path).parent == PurePath("data", dataset.name)
        is_own = own and FILE_NAME.fullmatch(PurePath(path).name) is not None
        if file.url is not None and (not is_own or dataset.bucket is not None):
            raise ConfigError(
                f"{where}: `obtain: files: {path}` has `url`, from which only a file "
                f"data/{dataset.name}/NAME can be fetched, and only without a `bucket`; change the "
                "path, or remove `url`"
            )


def downloads(dataset: DatasetBase) -> dict[str, tuple[str, str]]:
    """By path, data/DATASET/NAME, the address and the SHA-256 of each file that is downloaded."""
    files = _from_obtain(dataset.name, dataset.obtain)
    if isinstance(dataset, ExamplesDataset) and (fetch := dataset.examples.fetch) is not None:
        base = f"data/{dataset.name}"
        files |= {f"{base}/{n}": (f"{fetch.url}/{n}", s) for n, s in fetch.sha256.items()}
    return files


def _from_obtain(name: str, obtain: Obtain | None) -> dict[str, tuple[str, str]]:
    files = {} if obtain is None else obtain.files
    return {
        f"data/{name}/{PurePath(path).name}": (file.url, file.sha256)
        for path, file in files.items()
        if file.url is not None and file.sha256 is not None
    }


def downloaded_names() -> list[str]:
    """DATASET/NAME of each file that any dataset downloads, from files that are not checked yet.

    Names that are refused once the dataset is used are left out.
    """
    return [
        f"{name}/{file}"
        for name in names("datasets")
        for file in _named(settings_of("datasets", name)[0])
        if FILE_NAME.fullmatch(file)
    ]


def _named(content: Mapping[str, Any]) -> Iterator[str]:
    """The names of the files that a dataset's file gives addresses of."""
    yield from _group(content, "examples", "fetch", "sha256")
    for path, file in _group(content, "obtain", "files").items():
        if isinstance(file, Mapping) and "url" in file:
            yield PurePath(path).name


def _group(content: Any, *keys: str) -> Mapping[str, Any]:
    """A group of settings inside others; empty where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}

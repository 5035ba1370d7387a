"""The refusal of a run that reads a file which is not there and which no rule writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from retrace.config.dataset_model import Dataset, DatasetBase
from retrace.config.downloads import downloads, local_path
from retrace.config.obtain_model import Obtain, ObtainedFile
from retrace.config.sources import named_files
from retrace.config.yaml_files import settings_of
from retrace.errors import DataError
from retrace.planning.paths import ground_truth

NOT_STATED = ("obtain", "fit")
"""Groups of a dataset with filled-in copies of paths."""


def missing_file(datasets: Iterable[DatasetBase], path: str) -> DataError:
    """The refusal for a file that no rule writes.

    `datasets`: those that the run has read; the first one that names the path explains it.
    """
    for dataset in datasets:
        keys = list(_keys(dataset.plain(), path))
        if keys and dataset.obtain is not None:
            return DataError(_to_download(dataset, dataset.obtain))
        if keys:
            others = len(set(missing_files(dataset)) - {path})
            also = f" ({others} more of its files are missing)" if others else ""
            return DataError(
                f"dataset {dataset.name!r}: {path}, of {_shown(keys)}, does not exist{also}; put "
                f"the file there, or correct the path in {settings_of('datasets', dataset.name)[1]}"
            )
    return DataError(
        f"{path} does not exist, and no rule writes it; put it there, or correct its path"
    )


def missing_files(dataset: DatasetBase) -> list[str]:
    """The files of a dataset that are not there and that no rule fetches or writes."""
    paths = dict.fromkeys(map(local_path, named_files(dataset)))
    return [p for p in paths if not Path(p).exists() and not _is_written(dataset, p)]


def _is_written(dataset: DatasetBase, path: str) -> bool:
    """Whether a rule fetches or computes a file."""
    is_in_bucket = dataset.bucket is not None and path.startswith(f"data/{dataset.name}/")
    is_folder = isinstance(dataset, Dataset) and ground_truth(dataset, path) is not None
    return is_in_bucket or is_folder or path.startswith("results/") or path in downloads(dataset)


def _to_download(dataset: DatasetBase, obtain: Obtain) -> str:
    """What is missing, where it comes from, its licence, and how to check it; a line for each."""
    lines = [f"dataset {dataset.name!r} reads files that you have to provide. Missing:"]
    lines += _described(dataset, obtain)
    lines.append(obtain.origin)
    lines.append(
        f"Put each file at its path below {Path.cwd()}, or write the path that it has into "
        f"{settings_of('datasets', dataset.name)[1]}, and run the same command again."
    )
    checks = ["`sha256sum FILE` prints its sha256"] if _states_sha256(obtain) else []
    if isinstance(dataset, Dataset):
        program = f"python workflow/scripts/describe.py --dataset {dataset.name}"
        checks.append(f"`{program}` prints what is read of it")
    lines += [f"To check a file: {', '.join(checks)}."] if checks else []
    return "\n".join(lines)


def _states_sha256(obtain: Obtain) -> bool:
    return any(file.sha256 for file in obtain.files.values())


def _described(dataset: DatasetBase, obtain: Obtain) -> Iterator[str]:
    """A line for each missing file: the setting that names it, and how to recognise it."""
    known = {local_path(path): file for path, file in obtain.files.items()}
    fetched = [path for path in downloads(dataset) if not Path(path).exists()]
    settings = dataset.plain()
    for path in [*missing_files(dataset), *fetched]:
        facts = _facts(known[path]) if path in known else []
        if path in fetched:
            facts.append(f"fetch_{dataset.name} downloads it when the others are there")
        end = f": {'; '.join(facts)}" if facts else ""
        yield f"  {path} (of {_shown(list(_keys(settings, path)))}){end}"


def _facts(file: ObtainedFile) -> list[str]:
    """How to recognise the right file."""
    sha256 = f"sha256 {file.sha256}" if file.sha256 else "its sha256 is not known here"
    return [file.check, sha256] if file.check else [sha256]


def is_useless_alone(dataset: DatasetBase, path: str) -> bool:
    """Whether a file is downloaded for a dataset that lacks others, which a user has to provide."""
    return path in downloads(dataset) and bool(missing_files(dataset))


def _shown(keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"`{keys[0]}`{more}"


def _keys(value: Any, path: str, key: str = "") -> Iterator[str]:
    """The settings that name a path, as `volumes: a: raw: path`."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in NOT_STATED:
                yield from _keys(inner, path, f"{key}: {name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _keys(inner, path, key)
    elif isinstance(value, str) and local_path(value) == local_path(path):
        yield key

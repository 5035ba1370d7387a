"""Refuses the same data in train and test, where a score would measure what was memorised."""

from __future__ import annotations

import os
from pathlib import Path

from retrace.config.dataset_model import Dataset, DatasetBase, Entry
from retrace.config.examples_model import ExamplesDataset
from retrace.config.splits import scorable
from retrace.errors import ConfigError
from retrace.formats.examples_source import ExampleArray, ExamplesSource
from retrace.formats.source import Region, Source
from retrace.geometry import NmTriple, nm_triple
from retrace.planning.volume_layout import source_layout
from retrace.records.contents import content_digest, files_of
from retrace.remote.addresses import is_address, local_folder, plain
from retrace.storage.manifest import manifest_path


def check_apart(dataset: DatasetBase) -> None:
    """ConfigError where a scored test entry shows voxels, or examples, that are trained on.

    Boxes of one volume are kept apart already: training leaves out those of validation and test.
    """
    if isinstance(dataset, ExamplesDataset):
        _check_examples(dataset.name, dataset.examples)
    elif isinstance(dataset, Dataset):
        for tested in scorable(dataset, "test"):
            for trained in dataset.train:
                if trained.volume != tested.volume:
                    _check_entries(dataset, trained, tested)


def _check_examples(name: str, examples: ExamplesSource) -> None:
    if examples.train is None or examples.test is None:
        return
    if _array(examples.train.values) == _array(examples.test.values):
        path = examples.train.values.path
        raise ConfigError(
            f"dataset {name!r}: `train` and `test` of `examples` are the same array of {path}; "
            "name other examples to test on, or leave `test` out to hold some of `train` out"
        )


def _array(source: ExampleArray) -> tuple[str, str]:
    return os.path.realpath(source.path), source.array


def _check_entries(dataset: Dataset, trained: Entry, tested: Entry) -> None:
    one, other = (dataset.volumes[entry.volume].raw for entry in (trained, tested))
    if _part(one) != _part(other) or not _same_bytes(one.path, other.path):
        return
    shift = _shift(one, other)
    if shift is None or not _overlap(trained.roi_nm, tested.roi_nm, shift):
        return
    array = f" (array {one.array!r})" if one.array else ""
    raise ConfigError(
        f"dataset {dataset.name!r}: {_words('train', trained)} and {_words('test', tested)} are "
        f"the same data: both read {one.path}{array}, and their boxes overlap. Give each a "
        "`roi_nm` of its own, or name the file in one volume and its boxes in `train` and `test`"
    )


def _part(source: Source) -> tuple[object, ...]:
    """What identifies an image within its file or address: its array, level and channel."""
    return source.array.strip("/"), source.mip or 0, source.channel


def _same_bytes(one: str, other: str) -> bool:
    """Whether two paths or addresses are the same one, or users' files with equal content."""
    local = [local_folder(path) if is_address(path) else Path(path) for path in (one, other)]
    if local[0] is None or local[1] is None:
        return plain(one) == plain(other)
    if not (local[0].exists() and local[1].exists()):
        return os.path.realpath(local[0]) == os.path.realpath(local[1])
    if local[0].samefile(local[1]):
        return True
    if any(manifest_path(path).is_file() for path in local if path):
        return False  # fetched volumes may be very large
    is_alike = _sizes(local[0]) == _sizes(local[1])
    return is_alike and content_digest(local[0]) == content_digest(local[1])


def _sizes(path: Path) -> dict[str, int]:
    """The bytes of a file, or of the files of a folder by their names in it."""
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in files_of(path)}


def _shift(one: Source, other: Source) -> NmTriple | None:
    """From positions in the second volume to those in the first, nm; None where unknown."""
    if _offsets(one) == _offsets(other):  # they have the same bytes, so their file says the same
        return (0, 0, 0)
    layouts = source_layout(one), source_layout(other)
    if layouts[0] is None or layouts[1] is None:
        return None
    ends = zip(layouts[0].offset_nm, layouts[1].offset_nm, strict=True)
    return nm_triple([a - b for a, b in ends])


def _offsets(source: Source) -> tuple[object, object]:
    return source.offset_nm, source.default_offset_nm


def _overlap(one: Region | None, other: Region | None, shift: NmTriple) -> bool:
    """Whether two boxes share space, the second one moved by `shift`; None is the whole image."""
    if one is None or other is None:
        return True
    return not one.box.intersect(other.box.shift(shift)).is_empty


def _words(split: str, entry: Entry) -> str:
    box = "whole"
    if entry.roi_nm is not None:
        box = f"from {list(entry.roi_nm.offset)} to {list(entry.roi_nm.box.end)} nm"
    return f"`{split}` of volume {entry.volume!r} ({box})"

"""Datasets of images or vectors with one class each, such as MNIST.

Files are IDX (LeCun's format, also gzipped), .npy, .h5, or the pickled archive of three splits that
the Theano tutorials and ELEKTRONN use. A seeded part of the training files is held out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from retrace.errors import DataError
from retrace.formats.examples_source import ExampleArray, ExamplesSource, LabelledArrays
from retrace.formats.h5_files import opened_h5, refuse_large
from retrace.formats.label_ids import exact_integers
from retrace.formats.safe_pickle import GZIP, read_pickles
from retrace.reading import read_bytes, reading_content, refuse_web_page, retried, unzipped

IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""Element types by the third byte of an IDX file (yann.lecun.com/exdb/mnist)."""
ARCHIVE_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ExampleSet:
    """`values` float32 (N, Y, X), (N, C, Y, X) or (N, features); `labels` int64 (N,), from 0.

    Integers of the files are scaled to [0, 1].
    """

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> ExampleSet:
        """The examples at `index` (n,)."""
        return ExampleSet(self.values[index], self.labels[index])


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, also gzipped; DataError if it is truncated or no IDX file."""
    content = read_bytes(path)
    if content.startswith(GZIP):
        with reading_content(path, "get it again"):
            content = unzipped(content)
    refuse_web_page(content, path, "get it again")
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise DataError(
            f"{path} is not an IDX file (it begins with {content[:4].hex() or 'nothing'}); such "
            "files end in -ubyte or -ubyte.gz"
        )
    count = content[3]
    if len(content) < 4 + 4 * count:
        raise DataError(f"{path} ends within its header; get it again")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count, 4))
    dtype = np.dtype(IDX_TYPES[content[2]])
    begin, expected = 4 + 4 * count, math.prod(shape) * dtype.itemsize
    if len(content) - begin != expected:
        raise DataError(
            f"{path} has {len(content) - begin} bytes of data instead of {expected} for "
            f"{'x'.join(map(str, shape))} values; get it again"
        )
    values = np.frombuffer(content, dtype, offset=begin).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def read_array(source: ExampleArray) -> np.ndarray:
    """The array of a file, by its suffix; DataError if it is missing or damaged."""
    path = Path(source.path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; put the file there, or correct the dataset's path")
    with reading_content(path, "get the file again, or correct the dataset's path"):
        if path.suffix == ".npy":
            return np.asarray(retried(lambda: np.load(path, allow_pickle=False), path))
        if path.suffix in (".h5", ".hdf5"):
            return retried(lambda: _read_h5(path, source.array), path)
        return read_idx(path)


def _read_h5(path: Path, name: str) -> np.ndarray:
    with opened_h5(path) as file:
        dataset = file.get(name) if name else None
        if isinstance(dataset, h5py.Dataset):
            refuse_large(path, [dataset])
            return np.asarray(dataset[...])
        existing = ", ".join(sorted(file)) or "none"
    raise DataError(f"{path} has no array {name!r}; it has: {existing}. Name one with `array`")


def _scaled(values: np.ndarray, where: str) -> np.ndarray:
    """Values as float32; integers are divided by 255, as in ELEKTRONN.

    DataError for integers that are no grey values.
    """
    if np.issubdtype(values.dtype, np.integer):
        if values.size and (values.min() < 0 or values.max() > 255):
            raise DataError(
                f"{where}: the examples are {values.dtype} with values {values.min()} to "
                f"{values.max()}; integers are grey values, 0 to 255. Store them as uint8, or as "
                "floats on the scale that the network reads"
            )
        return (values / np.float32(255)).astype(np.float32)
    return values.astype(np.float32)


def _paired(values: np.ndarray, labels: np.ndarray, where: str) -> ExampleSet:
    """Values with their labels; DataError if they differ in number or labels are no integers."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: labels are {labels.dtype} {labels.shape}; they must be one integer each"
        )
    if len(values) != len(labels):
        raise DataError(
            f"{where}: {len(values)} examples and {len(labels)} labels; the files belong to "
            "different sets"
        )
    if not len(labels):
        raise DataError(f"{where}: the files contain no examples")
    numbers = exact_integers(labels, f"{where}: the array of labels", np.int64)
    return ExampleSet(_scaled(values, where), numbers)


def _archive(path: Path) -> dict[str, ExampleSet]:
    """The three splits of a pickled archive, ((train), (validation), (test)) of (data, labels)."""
    pickles = read_pickles(path)
    content = pickles[0] if pickles else ()
    parts = content if isinstance(content, (list, tuple)) else ()
    is_pairs = all(isinstance(part, (list, tuple)) and len(part) == 2 for part in parts)
    if len(parts) != len(ARCHIVE_SPLITS) or not is_pairs:
        raise DataError(
            f"{path} does not contain ((train, labels), (validation, labels), (test, labels)), as "
            "mnist.pkl.gz does"
        )
    with reading_content(path):
        pairs = [(np.asarray(values), np.asarray(labels)) for values, labels in parts]
        sets = zip(ARCHIVE_SPLITS, pairs, strict=True)
        return {s: _paired(v, y, f"{path}, {s}") for s, (v, y) in sets}


def _as_images(examples: ExampleSet, shape: Sequence[int] | None) -> ExampleSet:
    """Vectors as images of `shape`; DataError if they differ in size. Images stay unchanged."""
    if shape is None or examples.values.ndim > 2:
        return examples
    if math.prod(shape) != examples.values.shape[1]:
        raise DataError(
            f"`image_shape: {list(shape)}` does not fit vectors of "
            f"{examples.values.shape[1]} values"
        )
    return ExampleSet(examples.values.reshape(-1, *shape), examples.labels)


def open_examples(
    source: ExamplesSource, split: str, *, with_unlabelled: bool = False
) -> ExampleSet:
    """One split (train, validation or test) of a dataset's `examples`.

    The validation split is `held_out` random examples of the training files (seed: `split_seed`);
    without test files, it is also the test split. The training split is the first `labelled` of the
    others, or all of them `with_unlabelled`. DataError for labels outside `classes`.
    """
    if source.archive is not None:
        whole = _archive(Path(source.archive.path))[split]
    elif split == "test" and source.test is not None:
        whole = _read_pair(source.test)
    else:
        whole = _held_out(source, split != "train")
    _check_classes(whole.labels, source.classes)
    whole = _as_images(whole, source.image_shape)
    if split == "train" and source.labelled and not with_unlabelled:
        return whole.take(np.arange(min(source.labelled, len(whole))))
    return whole


def _read_pair(files: LabelledArrays) -> ExampleSet:
    where = f"{files.values.path}, {files.labels.path}"
    return _paired(read_array(files.values), read_array(files.labels), where)


def _held_out(source: ExamplesSource, is_held_out: bool) -> ExampleSet:
    """The held-out part of the training files, or the rest, in the random order of the seed."""
    assert source.train is not None and source.held_out is not None
    whole = _read_pair(source.train)
    count = source.held_out
    if count >= len(whole):
        raise DataError(
            f"`held_out: {count}` leaves none of the {len(whole)} examples for training"
        )
    order = np.random.default_rng(source.split_seed).permutation(len(whole))
    return whole.take(order[:count] if is_held_out else order[count:])


def _check_classes(labels: np.ndarray, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)]
        raise DataError(
            f"labels range from {labels.min()} to {labels.max()} (first invalid: {wrong[0]}), but "
            f"`classes: {classes}` allows 0 to {classes - 1}; correct the labels or `classes`"
        )

"""Data sets of single examples with a class each, such as MNIST: images, or vectors.

Files are IDX (LeCun's format, also in gzip), .npy, .h5, or the pickled archive of three splits that
Theano's tutorials and ELEKTRONN used. A part of the training files is held out by a seed.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from retrace.errors import DataError
from retrace.formats.safe_pickle import GZIP, read_pickles

IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""Element types by the third byte of an IDX file (yann.lecun.com/exdb/mnist)."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """`values` float32 in [0, 1] where the files hold integers: (N, Y, X), (N, C, Y, X) or (N,
    features); `labels` int64 (N,), from 0."""

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Examples:
        """Those of these numbers."""
        return Examples(self.values[index], self.labels[index])


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, also in gzip; DataError where it is cut short or none."""
    content = path.read_bytes()
    try:
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise DataError(
            f"{path} is no IDX file (it begins with {content[:4].hex() or 'nothing'}); such files "
            "end in -ubyte or -ubyte.gz"
        )
    count = content[3]
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count, 4))
    dtype = np.dtype(IDX_TYPES[content[2]])
    begin, expected = 4 + 4 * count, math.prod(shape) * dtype.itemsize
    if len(content) - begin != expected:
        raise DataError(
            f"{path} says it holds {'x'.join(map(str, shape))} values, {expected} bytes, and has "
            f"{len(content) - begin}; get it again"
        )
    values = np.frombuffer(content, dtype, offset=begin).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def read_array(source: Mapping[str, Any]) -> np.ndarray:
    """The array of a file {path, array} by its ending; DataError where it is absent or damaged."""
    path = Path(source["path"])
    if not path.is_file():
        raise DataError(f"{path} does not exist; put the file there, or correct the dataset's path")
    if path.suffix == ".npy":
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (ValueError, EOFError) as error:
            raise DataError(f"{path} is no .npy file of numbers ({error})") from error
    if path.suffix in (".h5", ".hdf5"):
        return _read_h5(path, source.get("array", ""))
    return read_idx(path)


def _read_h5(path: Path, name: str) -> np.ndarray:
    try:
        with h5py.File(path) as file:
            found = file.get(name) if name else None
            if isinstance(found, h5py.Dataset):
                return np.asarray(found[...])
            known = ", ".join(sorted(file)) or "none"
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    raise DataError(f"{path} has no array {name!r}; there are: {known}. Name one with `array`")


def _scaled(values: np.ndarray) -> np.ndarray:
    """Integers divided by 255, as ELEKTRONN divides them; others as they are."""
    if np.issubdtype(values.dtype, np.integer):
        return (values / np.float32(255)).astype(np.float32)
    return values.astype(np.float32)


def _paired(values: np.ndarray, labels: np.ndarray, where: str) -> Examples:
    """Checked; DataError where the numbers differ or labels are no single integers."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}: labels are {labels.dtype} {labels.shape}; one integer each")
    if len(values) != len(labels):
        raise DataError(
            f"{where}: {len(values)} examples and {len(labels)} labels; the files belong to "
            "different sets"
        )
    if not len(labels):
        raise DataError(f"{where}: there is no example")
    return Examples(_scaled(values), labels.astype(np.int64))


def _archive(path: Path) -> dict[str, Examples]:
    """The three splits of a pickled archive, ((train), (validation), (test)) of (data, labels)."""
    found = read_pickles(path)
    content = found[0] if found else ()
    parts = content if isinstance(content, (list, tuple)) else ()
    if len(parts) != len(SPLITS) or any(len(p) != 2 for p in parts):
        raise DataError(
            f"{path} does not hold ((train, labels), (validation, labels), (test, labels)), as "
            "mnist.pkl.gz does"
        )
    pairs = zip(SPLITS, parts, strict=True)
    return {s: _paired(np.asarray(v), np.asarray(y), f"{path}, {s}") for s, (v, y) in pairs}


def _as_images(examples: Examples, shape: Sequence[int] | None) -> Examples:
    """Vectors as images where the dataset says so."""
    if shape is None or examples.values.ndim > 2:
        return examples
    if math.prod(shape) != examples.values.shape[1]:
        raise DataError(
            f"`image_shape: {list(shape)}` does not fit vectors of "
            f"{examples.values.shape[1]} values"
        )
    return Examples(examples.values.reshape(-1, *shape), examples.labels)


def open_examples(
    settings: Mapping[str, Any], split: str, *, with_unlabelled: bool = False
) -> Examples:
    """A split of a dataset's `examples`: train, validation, or test.

    `held_out` examples of the training files, drawn by `split_seed`, are the validation split, and
    the test split too where the dataset names no test files. Of the others the first `labelled` are
    trained on, or all `with_unlabelled`. DataError for labels outside `classes`.
    """
    if "archive" in settings:
        whole = _archive(Path(settings["archive"]["path"]))[split]
    elif split == "test" and settings.get("test"):
        whole = _read_pair(settings["test"])
    else:
        whole = _held_out(settings, split != "train")
    _check_classes(whole.labels, settings["classes"])
    labelled = settings.get("labelled")
    whole = _as_images(whole, settings.get("image_shape"))
    if split == "train" and labelled and not with_unlabelled:
        return whole.take(np.arange(min(labelled, len(whole))))
    return whole


def _read_pair(files: Mapping[str, Any]) -> Examples:
    where = f"{files['values']['path']}, {files['labels']['path']}"
    return _paired(read_array(files["values"]), read_array(files["labels"]), where)


def _held_out(settings: Mapping[str, Any], held: bool) -> Examples:
    """The part of the training files that is held out, or the rest, in the seed's order."""
    whole = _read_pair(settings["train"])
    count = settings["held_out"]
    if count >= len(whole):
        raise DataError(f"`held_out: {count}` leaves nothing of {len(whole)} examples to train on")
    order = np.random.default_rng(settings["split_seed"]).permutation(len(whole))
    return whole.take(order[:count] if held else order[count:])


def _check_classes(labels: np.ndarray, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)]
        raise DataError(
            f"labels go from {labels.min()} to {labels.max()} (first wrong one: {wrong[0]}), and "
            f"`classes: {classes}` allows 0 to {classes - 1}; correct the labels or `classes`"
        )

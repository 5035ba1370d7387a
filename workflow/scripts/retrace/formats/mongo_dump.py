"""Reads and writes the collections (NAME.bson) of a MongoDB dump without a database.

A file is a sequence of BSON documents (bsonspec.org), which pymongo's `bson` decodes. It
would accept a field that occurs twice and keep the last value; here that is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bson
import numpy as np
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON

from retrace.errors import DataError
from retrace.files import atomic_write
from retrace.formats.label_ids import LARGEST_EXACT
from retrace.reading import GET_AGAIN, DamagedError, cause, read_bytes, refuse_web_page

LENGTH = struct.Struct("<i")
"""The bytes of a document, which it begins with."""


class _Fields(dict[str, Any]):
    """A document, in which no field has two values."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self:
            raise InvalidBSON(f"field {name!r} occurs twice")
        super().__setitem__(name, value)


OPTIONS = CodecOptions(document_class=_Fields)


def decode_documents(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The documents in the bytes of a dump.

    DataError, with `name` and the byte at which the document begins, for one that is not BSON.
    """
    begin = 0
    while begin < len(data):
        try:
            end = begin + LENGTH.unpack_from(data, begin)[0]
            document = bson.decode(data[begin:end], OPTIONS)
        except (InvalidBSON, RecursionError, struct.error) as error:
            fault = f"is not BSON in the document at byte {begin} ({cause(error)})"
            raise DamagedError(name, fault, GET_AGAIN) from error
        yield document
        begin = end


def read_documents(path: Path) -> Iterator[dict[str, Any]]:
    """The documents of one collection; DataError if the file is missing or not BSON."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; fetch the dump again, or correct its name")
    content = read_bytes(path)
    refuse_web_page(content, path)
    return decode_documents(content, str(path))


def read_columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Fields of all documents as arrays (documents,).

    Numbers stay exact: a column of integers and whole fractions is int64. DataError if a field of a
    document is missing, is neither a number nor a boolean, or cannot be kept exactly.
    """
    rows = []
    for index, document in enumerate(read_documents(path)):
        row = [document.get(name) for name in names]
        wrong = [n for n, v in zip(names, row, strict=True) if not isinstance(v, (int, float))]
        if wrong:
            raise DataError(
                f"{path}: document {index} has no number {wrong[0]!r}, its fields are "
                f"{list(document)}; required: {', '.join(names)}"
            )
        rows.append(row)
    columns = zip(*rows, strict=True) if rows else [[] for _ in names]
    return {n: _column(f"{path}: {n!r}", c) for n, c in zip(names, columns, strict=True)}


def _column(name: str, values: Sequence[float]) -> np.ndarray:
    """The numbers as an array (documents,); DataError with `name` if that rounds an integer.

    Next to a fraction, 2^53 + 1 would become 2^53.
    """
    fractions = [value for value in values if isinstance(value, float)]
    if len(fractions) in (0, len(values)):
        return np.array(values)
    if all(value.is_integer() and abs(value) <= LARGEST_EXACT for value in fractions):
        return np.array([int(value) for value in values], np.int64)
    rounded = [v for v in values if isinstance(v, int) and int(float(v)) != v]
    if rounded:
        raise DataError(
            f"{name} has the integer {rounded[0]} next to fractions, which cannot be one exact "
            "column; write all its numbers as integers, or all as fractions"
        )
    return np.array(values, np.float64)


def write_documents(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    """Writes a collection as `mongodump` does."""
    atomic_write(path, b"".join(map(bson.encode, documents)))

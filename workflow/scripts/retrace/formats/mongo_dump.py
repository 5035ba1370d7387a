"""Reads and writes the collections (NAME.bson) of a MongoDB dump without a database.

A file is a sequence of BSON documents (bsonspec.org, version 1.1). Only the types that occur in
annotations and region graphs are supported; others and invalid BSON are refused. Integers are
returned as int, ObjectIds as 24 hex digits, dates as UTC datetimes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from retrace.errors import DataError
from retrace.files import atomic_write
from retrace.formats.label_ids import LARGEST_EXACT
from retrace.reading import read_bytes, refuse_web_page

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INT32, INT64, DOUBLE = struct.Struct("<i"), struct.Struct("<q"), struct.Struct("<d")
MAX_DEPTH = 100
"""Deepest nesting of documents, the same as in MongoDB."""


class _Reader:
    """Parses one dump in memory. Errors name the file and the byte offset of the invalid BSON."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.label = data, name

    def fail(self, at: int, why: str) -> NoReturn:
        """Raises DataError for the byte at offset `at`."""
        raise DataError(f"{self.label} is not BSON at byte {at}: {why}; fetch the file again")

    def number(self, kind: struct.Struct, at: int, end: int) -> Any:
        """A number at `at`, within the bytes before `end`."""
        if at + kind.size > end:
            self.fail(at, f"a number of {kind.size} bytes is incomplete, the file is truncated")
        return kind.unpack_from(self.data, at)[0]

    def name(self, at: int, end: int) -> tuple[str, int]:
        """A field's name, and the offset after it."""
        stop = self.data.find(b"\0", at, end)
        if stop < 0:
            self.fail(at, "a field's name is not terminated")
        return self.text(at, stop), stop + 1

    def text(self, begin: int, end: int) -> str:
        """UTF-8 text."""
        try:
            return self.data[begin:end].decode()
        except UnicodeDecodeError as error:
            self.fail(begin, f"text that is not UTF-8 ({error.reason})")

    def string(self, at: int, end: int) -> tuple[str, int]:
        """A string with its length in front, and the offset after it."""
        length = self.number(INT32, at, end)
        stop = at + 4 + length
        if length < 1 or stop > end or self.data[stop - 1]:
            self.fail(at, f"a string of {length} bytes")
        return self.text(at + 4, stop - 1), stop

    def document(self, at: int, limit: int, depth: int = 0) -> tuple[dict[str, Any], int]:
        """A document's fields by name, and the offset after it."""
        length = self.number(INT32, at, limit)
        end = at + length
        if length < 5 or end > limit or self.data[end - 1] or depth > MAX_DEPTH:
            self.fail(at, f"a document of {length} bytes where {limit - at} are left")
        fields, position = {}, at + 4
        while position < end - 1:
            kind, start = self.data[position], position
            name, position = self.name(position + 1, end - 1)
            if name in fields:
                self.fail(start, f"field {name!r} occurs twice")
            fields[name], position = self.value(kind, position, end - 1, depth)
        return fields, end

    def value(self, kind: int, at: int, end: int, depth: int) -> tuple[Any, int]:
        """A value of BSON type `kind`, and the offset after it."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind], at, end), at + NUMBERS[kind].size
        if kind == 0x02:
            return self.string(at, end)
        if kind in (0x03, 0x04):
            inner, position = self.document(at, end, depth + 1)
            return (list(inner.values()) if kind == 0x04 else inner), position
        if kind == 0x07:
            return self._bytes(at, end, 12).hex(), at + 12
        if kind == 0x08:
            return self._boolean(at, end), at + 1
        if kind == 0x09:
            milliseconds = self.number(INT64, at, end)
            return self._date(at, milliseconds), at + 8
        if kind != 0x0A:
            self.fail(at, f"a field of type 0x{kind:02x}, which is not supported")
        return None, at

    def _bytes(self, at: int, end: int, count: int) -> bytes:
        if at + count > end:
            self.fail(at, f"{count} bytes are incomplete, the file is truncated")
        return self.data[at : at + count]

    def _boolean(self, at: int, end: int) -> bool:
        value = self._bytes(at, end, 1)[0]
        if value > 1:
            self.fail(at, f"a boolean of value {value}")
        return bool(value)

    def _date(self, at: int, milliseconds: int) -> datetime:
        try:
            return EPOCH + timedelta(milliseconds=milliseconds)
        except OverflowError:
            self.fail(at, f"a date {milliseconds} ms from 1970")


NUMBERS = {0x01: DOUBLE, 0x10: INT32, 0x12: INT64}


def decode_documents(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """The documents in the bytes of a dump; DataError with `name` and offset for invalid BSON."""
    reader, position = _Reader(data, name), 0
    while position < len(data):
        document, position = reader.document(position, len(data))
        yield document


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
                f"{', '.join(document) or 'none'}; required: {', '.join(names)}"
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


def _encoded(name: str, value: Any) -> bytes:
    """One element of a document as bytes; TypeError for a type that is not supported."""
    key = name.encode() + b"\0"
    if value is None:
        return b"\x0a" + key
    if isinstance(value, bool):
        return b"\x08" + key + bytes([value])
    if isinstance(value, int):
        small = -(2**31) <= value < 2**31
        return (b"\x10" if small else b"\x12") + key + (INT32 if small else INT64).pack(value)
    if isinstance(value, float):
        return b"\x01" + key + DOUBLE.pack(value)
    if isinstance(value, str):
        text = value.encode() + b"\0"
        return b"\x02" + key + INT32.pack(len(text)) + text
    if isinstance(value, datetime):
        return b"\x09" + key + INT64.pack((value - EPOCH) // timedelta(milliseconds=1))
    if isinstance(value, Mapping):
        return b"\x03" + key + encode_document(value)
    if isinstance(value, list):
        return b"\x04" + key + encode_document({str(i): v for i, v in enumerate(value)})
    raise TypeError(f"{name}: {type(value).__name__} cannot be written to a dump")


def encode_document(fields: Mapping[str, Any]) -> bytes:
    """One document as bytes. ObjectIds are not supported for writing: our dumps need none."""
    body = b"".join(_encoded(name, value) for name, value in fields.items()) + b"\0"
    return INT32.pack(len(body) + 4) + body


def write_documents(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    """Writes a collection as `mongodump` does."""
    atomic_write(path, b"".join(map(encode_document, documents)))

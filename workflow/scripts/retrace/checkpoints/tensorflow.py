"""TensorFlow V2 checkpoints (`PREFIX.index` and `PREFIX.data-*`), without TensorFlow.

The index is a LevelDB table of protocol buffers with dtype, shape, file, offset, size and checksum
of each variable. The data files are the little-endian values one after another.
Source: tensorflow, core/util/tensor_bundle (format) and core/lib/io/table (index).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from retrace.errors import DataError, nearest
from retrace.limits import NAME_BYTES, TEXT_BYTES
from retrace.reading import read_bytes, reading_content, retried

MOST_SHARDS = 99_999
"""Data files have five digits in their names."""
MAGIC = 0xDB4775248B80FB57
"""The last 8 bytes of a LevelDB table."""
FOOTER_BYTES = 48
TRAILER_BYTES = 5
"""After each block: compression (one byte) and masked CRC-32C."""
CRC_MASK = 0xA282EAD8
"""Added to rotated checksums (tensorflow, core/lib/hash/crc32c.h)."""
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
"""TensorFlow's DataType numbers with a numpy equivalent (framework/types.proto)."""

ProtoFields = dict[int, list[int | bytes]]
"""The fields of a protocol buffer message by number: numbers, or bytes."""


@dataclass(frozen=True)
class Variable:
    """An entry of the index: a variable's type, shape, position in the data files and checksum."""

    dtype: int
    """A key of DTYPES."""
    shape: tuple[int, ...]
    shard: int
    """Number of its data file."""
    offset: int
    """First byte."""
    size: int
    """Bytes."""
    crc32c: int
    """Masked CRC-32C of the bytes."""


@dataclass(frozen=True)
class Bundle:
    """An opened checkpoint."""

    prefix: Path
    shards: int
    """Number of data files."""
    entries: Mapping[str, Variable]
    """By full name."""

    def data_file(self, shard: int) -> Path:
        """The data file with number `shard`."""
        name = f"{self.prefix.name}.data-{shard:05d}-of-{self.shards:05d}"
        return self.prefix.with_name(name)

    def read(self, name: str) -> np.ndarray:
        """The values of variable `name`, an array of its shape, checksum verified.

        DataError for an unknown name, a type without numpy equivalent, or damaged bytes.
        """
        if name not in self.entries:
            raise DataError(f"{self.prefix} has no {name!r}; {nearest(name, self.entries)}")
        entry = self.entries[name]
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise DataError(f"{self.prefix}: {name} has TensorFlow dtype {entry.dtype}, no numbers")
        content = self._bytes(entry)
        if masked_crc32c(content) != entry.crc32c:
            raise DataError(
                f"{self.data_file(entry.shard)}: {name} is damaged (its checksum differs); "
                "fetch the checkpoint again"
            )
        with reading_content(self.prefix, "fetch the checkpoint again"):
            return np.frombuffer(content, dtype).reshape(entry.shape)

    def _bytes(self, entry: Variable) -> bytes:
        path = self.data_file(entry.shard)

        def read() -> bytes:
            with path.open("rb") as file:
                file.seek(entry.offset)
                return file.read(entry.size)

        return retried(read, path)


def open_bundle(prefix: Path) -> Bundle:
    """The checkpoint at `prefix` (a path without `.index`).

    DataError if a file is missing or truncated, or the index is damaged.
    """
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        raise DataError(f"{index} is missing: a checkpoint has an .index and .data files")
    content = read_bytes(index, TEXT_BYTES)
    with reading_content(index, "it may be truncated: fetch the checkpoint again"):
        records = dict(_table(content))
        header = _fields(records.pop(b""))
        shards = _number(header, 1)
        if _number(header, 2):
            raise ValueError("big-endian")
        if shards > MOST_SHARDS:
            raise ValueError(f"{shards} data files")
        entries = {name.decode(): _variable(value) for name, value in records.items()}
    bundle = Bundle(prefix, shards, entries)
    _check_files(bundle)
    return bundle


def find_checkpoint(folder: Path, stem: str = "train_net_checkpoint") -> tuple[Path, int]:
    """Prefix and iteration of the latest checkpoint in `folder`; DataError if there is none.

    The text file `checkpoint` is ignored: the published ones name an iteration that was not
    published, with which TensorFlow silently trains from random weights.
    """
    prefixes = {}
    for index in folder.glob(f"{stem}_*.index"):
        match = re.fullmatch(rf"{stem}_(\d+)\.index", index.name)
        if match:
            prefixes[int(match[1])] = index.with_suffix("")
    if not prefixes:
        raise DataError(
            f"no checkpoint {stem}_*.index in {folder}; fetch it, or correct the folder"
        )
    return prefixes[max(prefixes)], max(prefixes)


def masked_crc32c(content: bytes) -> int:
    """CRC-32C rotated and offset, as LevelDB stores it (tensorflow, core/lib/hash/crc32c.h)."""
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + CRC_MASK) & 0xFFFFFFFF


def _check_files(bundle: Bundle) -> None:
    """DataError if a data file is missing or shorter than its variables, which do not overlap."""
    ends = dict.fromkeys(range(bundle.shards), 0)
    total = dict.fromkeys(range(bundle.shards), 0)
    for name, entry in bundle.entries.items():
        if entry.shard not in ends:
            raise DataError(f"{bundle.prefix}: {name} is in shard {entry.shard}, which is missing")
        ends[entry.shard] = max(ends[entry.shard], entry.offset + entry.size)
        total[entry.shard] += entry.size
    for shard, end in ends.items():
        path = bundle.data_file(shard)
        if not path.is_file():
            raise DataError(f"{path} is missing; fetch the checkpoint again")
        size = path.stat().st_size
        if size < end:
            raise DataError(f"{path} is truncated: {size} of {end} bytes; fetch it again")
        if size < total[shard]:
            raise DataError(
                f"{path} has {size} bytes and its variables {total[shard]}: they overlap; fetch "
                "the checkpoint again"
            )


def _variable(content: bytes) -> Variable:
    """An index entry from its message, BundleEntryProto; ValueError for a sliced variable."""
    fields = _fields(content)
    if 7 in fields:
        raise ValueError("a variable is stored in slices")
    shape = _fields(_part(fields, 2))
    return Variable(
        dtype=_number(fields, 1),
        shape=tuple(_number(_fields(_bytes_of(d)), 1) for d in shape.get(2, [])),
        shard=_number(fields, 3),
        offset=_number(fields, 4),
        size=_number(fields, 5),
        crc32c=_number(fields, 6),
    )


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values of a LevelDB table; ValueError where it is damaged."""
    footer = content[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != MAGIC:
        raise ValueError("no table of TensorFlow")
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    unread = len(content)
    for _, handle in _block(content, *_handle(footer, at)):
        offset, size = _handle(handle, 0)
        unread -= size
        if unread < 0:
            raise ValueError("its blocks overlap")
        yield from _block(content, offset, size)


def _handle(content: bytes, at: int) -> tuple[int, int]:
    """Offset and size of a block, from its handle at byte `at`."""
    offset, at = _varint(content, at)
    size, _ = _varint(content, at)
    return offset, size


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; a key stores only what differs from the key before it."""
    end = offset + size
    trailer = content[end : end + TRAILER_BYTES]
    if len(trailer) < TRAILER_BYTES:
        raise ValueError("a block reaches past the end of the file")
    if trailer[0]:
        raise ValueError("a block is compressed")
    if masked_crc32c(content[offset : end + 1]) != int.from_bytes(trailer[1:], "little"):
        raise ValueError("a block's checksum differs")
    block = content[offset:end]
    restarts = int.from_bytes(block[-4:], "little")
    at, end = 0, len(block) - 4 * (restarts + 1)
    key = b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        if len(key) > NAME_BYTES:
            raise ValueError(f"a name has {len(key)} bytes; up to {NAME_BYTES} are read")
        at += fresh
        yield key, block[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A base-128 number at byte `at`, and the byte after it."""
    value = shift = 0
    while True:
        byte = content[at]
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(content: bytes) -> ProtoFields:
    """The fields of a protocol buffer message by number: numbers, or bytes."""
    fields: ProtoFields = {}
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(content, at)
        else:
            if kind == 2:
                size, at = _varint(content, at)
            else:
                size = {1: 8, 5: 4}[kind]
            raw = content[at : at + size]
            at += size
            value = raw if kind == 2 else int.from_bytes(raw, "little")
        fields.setdefault(number, []).append(value)
    return fields


def _number(fields: ProtoFields, number: int) -> int:
    """A numeric field; absent means 0, as everywhere in protocol buffers."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {number} is no number")
    return value


def _part(fields: ProtoFields, number: int) -> bytes:
    """A field that holds a message; absent means empty."""
    return _bytes_of(fields.get(number, [b""])[-1])


def _bytes_of(value: int | bytes) -> bytes:
    """A field that holds a message; ValueError for a number."""
    if not isinstance(value, bytes):
        raise ValueError("a message was expected")
    return value


# ---------------------------------------------------------------- writing


def write_tensor_bundle(prefix: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint with one data file that TensorFlow can restore; the index comes last.

    `arrays`: by variable name. DataError for a dtype that TensorFlow does not have.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    numbers = {dtype: number for number, dtype in DTYPES.items()}
    version = _message(_field(1, 1))
    records = [(b"", _field(1, 1) + _field(3, version))]
    offset = 0
    with prefix.with_name(prefix.name + ".data-00000-of-00001").open("wb") as file:
        for name, values in sorted(arrays.items(), key=lambda item: item[0].encode()):
            dtype = values.dtype.newbyteorder("<")
            if dtype not in numbers:
                raise DataError(f"{name} is {values.dtype}; allowed: {sorted(map(str, numbers))}")
            content = values.astype(dtype).tobytes()
            file.write(content)
            entry = Variable(
                numbers[dtype], values.shape, 0, offset, len(content), masked_crc32c(content)
            )
            records.append((name.encode(), _encoded(entry)))
            offset += len(content)
    prefix.with_name(prefix.name + ".index").write_bytes(_encoded_table(records))


def _encoded(entry: Variable) -> bytes:
    """The inverse of `_variable`."""
    sizes = b"".join(_field(2, _message(_field(1, size))) for size in entry.shape)
    crc = _varint_of(6 << 3 | 5) + entry.crc32c.to_bytes(4, "little")
    place = _field(4, entry.offset) + _field(5, entry.size)
    return _field(1, entry.dtype) + _field(2, _message(sizes)) + place + crc


def _encoded_table(records: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A table of one block; keys are not shortened, so the block has one restart point."""
    content, data = _appended(b"", records)
    content, meta = _appended(content, [])
    content, index = _appended(content, [(records[-1][0], data)])
    return content + (meta + index).ljust(FOOTER_BYTES - 8, b"\0") + MAGIC.to_bytes(8, "little")


def _appended(content: bytes, rows: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """`content` with a block of `rows` after it, and the block's handle."""
    block = _encoded_block(rows)
    handle = _varint_of(len(content)) + _varint_of(len(block))
    crc = masked_crc32c(block + b"\0").to_bytes(4, "little")
    return content + block + b"\0" + crc, handle


def _encoded_block(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    lengths = ((key, value, map(_varint_of, (0, len(key), len(value)))) for key, value in rows)
    body = b"".join(b"".join(head) + key + value for key, value, head in lengths)
    return body + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def _varint_of(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _message(content: bytes) -> bytes:
    return _varint_of(len(content)) + content


def _field(number: int, value: int | bytes) -> bytes:
    """A number, or a message that already begins with its length."""
    if isinstance(value, bytes):
        return _varint_of(number << 3 | 2) + value
    return _varint_of(number << 3) + _varint_of(value)

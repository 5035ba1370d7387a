"""MongoDB dumps against bytes of the BSON specification, round trips and damaged files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import bson
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrace.errors import DataError
from retrace.formats.mongo_dump import (
    LENGTH,
    decode_documents,
    read_columns,
    read_documents,
    write_documents,
)

# The two examples of bsonspec.org, byte by byte.
HELLO = b"\x16\x00\x00\x00\x02hello\x00\x06\x00\x00\x00world\x00\x00"
AWESOME = (
    b"\x31\x00\x00\x00\x04BSON\x00\x26\x00\x00\x00\x020\x00\x08\x00\x00\x00awesome\x00"
    b"\x011\x00\x33\x33\x33\x33\x33\x33\x14\x40\x102\x00\xc2\x07\x00\x00\x00\x00"
)
OTHERS = (
    b"\x43\x00\x00\x00"
    b"\x07_id\x00\x50\x7f\x1f\x77\xbc\xf8\x6c\xd7\x99\x43\x90\x11"
    b"\x08yes\x00\x01"
    b"\x0anil\x00"
    b"\x09at\x00\x01\x00\x00\x00\x00\x00\x00\x00"
    b"\x12big\x00\x00\x00\x00\x00\x01\x00\x00\x00"
    b"\x03in\x00\x05\x00\x00\x00\x00"
    b"\x00"
)


def dump(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_specification_s_own_bytes(tmp_path: Path) -> None:
    path = dump(tmp_path / "a.bson", HELLO + AWESOME)

    assert list(read_documents(path)) == [{"hello": "world"}, {"BSON": ["awesome", 5.05, 1986]}]


def test_the_other_types(tmp_path: Path) -> None:
    (document,) = read_documents(dump(tmp_path / "a.bson", OTHERS))

    assert document == {
        "_id": bson.ObjectId("507f1f77bcf86cd799439011"),
        "yes": True,
        "nil": None,
        "at": datetime(1970, 1, 1, 0, 0, 0, 1000),
        "big": 2**32,
        "in": {},
    }


def test_an_empty_collection(tmp_path: Path) -> None:
    assert list(read_documents(dump(tmp_path / "a.bson", b""))) == []


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=5,
)
DOCUMENTS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=4)


@settings(deadline=None, max_examples=60)
@given(DOCUMENTS)
def test_written_files_are_read_back(documents: list[dict[str, Any]]) -> None:
    data = b"".join(map(bson.encode, documents))

    assert list(decode_documents(data, "round trip")) == documents


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=64) | st.builds(lambda at: OTHERS[:at], st.integers(1, len(OTHERS) - 1)))
def test_anything_else_is_one_clear_error(content: bytes) -> None:
    """Documents or DataError, and never another error; a cut document is always an error."""
    try:
        list(decode_documents(content, "x.bson"))
    except DataError as error:
        assert "x.bson is not BSON in the document at byte" in str(error)
    else:
        assert not OTHERS.startswith(content) or content == b""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>404 not found</html>", "is a web page instead of data"),
        (HELLO + HELLO[:-1], "at byte 22"),
        (HELLO[:-1] + b"\x01", "at byte 0"),
        (b"\x10\x00\x00\x00\x20d\x00" + bytes(9), "at byte 0 .*unknown BSON type"),
        (b"\x09\x00\x00\x00\x08b\x00\x02\x00", "at byte 0 .*invalid boolean value"),
        (b"\x0c\x00\x00\x00\x0aa\x00\x08a\x00\x01\x00", "at byte 0 .*field 'a' occurs twice"),
        (b"\x0b\x00\x00\x00\x0aa\x00\x0aa\x00\x00", "at byte 0 .*field 'a' occurs twice"),
        (b"\x0d\x00\x00\x00\x02s\x00\x02\x00\x00\x00\xff\x00\x00"[:14], "at byte"),
    ],
)
def test_damage_is_named_with_its_byte(tmp_path: Path, content: bytes, message: str) -> None:
    path = dump(tmp_path / "broken.bson", content)
    with pytest.raises(DataError, match=message):
        list(read_documents(path))


def test_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.bson"
    write_documents(path, [{"id": 7, "z": 1.5, "x": True}, {"id": 2**40, "z": 2, "x": False}])
    columns = read_columns(path, ["id", "z", "x"])

    np.testing.assert_array_equal([7, 2**40], columns["id"])
    np.testing.assert_array_equal([1.5, 2], columns["z"])
    np.testing.assert_array_equal([True, False], columns["x"])


def test_a_missing_field_names_document_and_field(tmp_path: Path) -> None:
    path = dump(tmp_path / "a.bson", bson.encode({"id": 1, "z": 2}) + HELLO)
    with pytest.raises(DataError, match=r"document 1 has no number 'id', .* \['hello'\]"):
        read_columns(path, ["id", "z"])
    with pytest.raises(DataError, match="does not exist"):
        read_columns(tmp_path / "none.bson", ["id"])


def nested(depth: int, kind: int) -> bytes:
    """A document of documents (kind 3) or lists (kind 4) in each other."""
    inside = b"\x05\x00\x00\x00\x00"
    sizes = (len(inside) + 8 * level for level in range(1, depth + 1))
    heads = [LENGTH.pack(size) + bytes([kind]) + b"0\0" for size in sizes]
    return b"".join(reversed(heads)) + inside + bytes(depth)


@pytest.mark.parametrize("kind", [3, 4])
def test_documents_nested_without_end_are_refused(tmp_path: Path, kind: int) -> None:
    (document,) = read_documents(dump(tmp_path / "a.bson", nested(50, kind)))
    assert list(document) == ["0"]

    deep = dump(tmp_path / "deep.bson", nested(200_000, kind))
    with pytest.raises(DataError, match="in the document at byte 0"):
        list(read_documents(deep))

"""Pickles yield arrays, numbers and text, or one clear error; whatever they contain."""

from __future__ import annotations

import gzip
import pickle
import pickletools
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutations import mutated
from retrace.errors import DataError
from retrace.formats import safe_pickle
from retrace.formats.safe_pickle import read_pickles
from retrace.limits import DEPTH
from retrace.reading import DamagedError, reading_content

PLAIN = (np.ndarray, int, float, str, bytes, bool, type(None))
VALUES: tuple[Any, ...] = (
    (np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4)),
    {"a": [1, 2.5, -(2**40)], "b": ("text \u00e9", b"bytes", None, True)},
    [np.asfortranarray(np.arange(6, dtype=">i2").reshape(3, 2)), np.float64(0.5), np.array(True)],
    [np.zeros((0, 3), np.uint8), np.int64(7), [], {}, ()],
)


def read(content: bytes) -> Any:
    """The first value of a file's content."""
    with reading_content("a pickle"):
        return safe_pickle._values(content)[0]


def is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return type(value) in PLAIN and getattr(value, "dtype", np.dtype("u1")).kind in "biuf"


def same(one: Any, other: Any) -> bool:
    """Whether values agree, with types of arrays."""
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other)) and one.dtype == other.dtype
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    return bool(one == other)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", VALUES)
def test_arrays_of_all_protocols_are_read(value: Any, protocol: int) -> None:
    found = read(pickle.dumps(value, protocol))

    assert is_plain(found)
    assert same(value, found)


def test_text_of_python_2_is_bytes_of_arrays() -> None:
    """As `cPickle.dumps(numpy.array([1., 2.], '<f4'))` of Python 2 writes it, protocol 0."""
    content = (
        b"cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntS'b'\ntRp3\n(I1\n"
        b"(I2\ntcnumpy\ndtype\np4\n(S'f4'\nI0\nI1\ntRp5\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S'\\x00\\x00\\x80?\\x00\\x00\\x00@'\ntb."
    )

    np.testing.assert_array_equal(read(content), np.array([1, 2], "<f4"))


def array(dtype: bytes, state: bytes, shape: bytes, data: bytes) -> bytes:
    """A pickled array; each argument is written in the operations of pickles."""
    begin = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01" + shape
    kind = b"cnumpy\ndtype\n(" + dtype + b"I0\nI1\ntR" + state
    return b"\x80\x03" + begin + kind + b"\x89" + data + b"tb."


def data_of(size: int) -> bytes:
    return b"B" + struct.pack("<I", size) + bytes(size)


LITTLE = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
HOSTILE = {
    "pointers as a type": array(b"U\x02O8", LITTLE, b"(K\x01t", data_of(8)),
    "fields in a type": array(
        b"U\x02f4", LITTLE.replace(b"NNN", b"NU\x01aN"), b"(K\x02t", data_of(8)
    ),
    "a subarray as a type": array(b"U\x08(9999,)f", LITTLE, b"(K\x01t", data_of(8)),
    "a record as a type": array(b"U\x05f4,O8", LITTLE, b"(K\x01t", data_of(8)),
    "a shape beyond the data": array(b"U\x02f4", LITTLE, b"(J\xff\xff\xff\x7fK\x02t", data_of(8)),
    "a negative shape": array(
        b"U\x02f4", LITTLE, b"(J\xff\xff\xff\xffJ\xfe\xff\xff\xfft", data_of(8)
    ),
    "no state": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR.",
    "a state for a function": b"c_codecs\nencode\n(N}U\x0c__defaults__(U\x01at\x86b.",
    "a state for a class": b"cnumpy\nndarray\n}U\x01aK\x01sb.",
    "a call of its own": b"cos\nsystem\n(U\x04trueTR.",
    "a function as a value": b"c_codecs\nencode\n.",
    "a huge count": b"\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "a huge number": b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".",
    "a huge decimal": b"L" + b"9" * 10**5 + b"L\n.",
    "a frame without an end": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N",
    "a persistent id": b"Pname\n.",
    "an extension": b"\x82\x01.",
    "an instance": b"(ios\nsystem\n.",
    "an object": b"cnumpy\nndarray\n)\x81.",
    "an empty stack": b"\x85.",
    "no mark": b"Nt.",
    "only marks": b"(" * 1000 + b".",
    "a list as a key": b"}]K\x01s.",
    "a set": b"\x8f(K\x01\x90.",
    "appending to a number": b"K\x01K\x02a.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_array_needs_is_refused(name: str) -> None:
    with pytest.raises(DamagedError) as error:
        read(HOSTILE[name])
    assert "\n" not in str(error.value)


def bomb(levels: int, begin: bytes = b"", end: bytes = b".") -> bytes:
    """A tuple of a tuple of …, each twice: 2**levels elements in a few bytes a level."""
    remembered = [b"h" + bytes([n]) for n in range(levels + 1)]
    twice = [2 * one + b"\x86\x940" for one in remembered[:-1]]
    return b"\x80\x04)\x940" + b"".join(twice) + begin + remembered[-1] + end


BOMBS = {
    "tuples": bomb(60),
    "a key": bomb(60, b"}", b"K\x01s."),
    "arrays": b"\x80\x03"
    + array(b"U\x02u1", LITTLE, b"(J\x00\x00\x10\x00t", data_of(2**20))[2:-1]
    + b"q\x00("
    + b"h\x00" * 10**4
    + b"t.",
    "one text in many arrays": b"\x80\x03"
    + data_of(2**20)
    + b"q\x00"
    + array(b"U\x02u1", LITTLE, b"(J\x00\x00\x10\x00t", b"h\x00")[2:-1] * 100
    + b".",
    "levels": b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
    "a list in itself": b"]q\x00h\x00a.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_need_much_memory(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(DamagedError, match=r"too often|too deeply|no numbers or text"):
        read(BOMBS[name])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20 + 64 * len(BOMBS[name])


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "PICKLE_STEPS", 1000)

    with pytest.raises(DamagedError, match="more than 1000 operations"):
        read(b"(" + b"N" * 1000 + b"l.")


def test_depth_is_counted_also_where_lists_are_shared() -> None:
    chains: list[Any] = [[]]
    for _ in range(3):
        chain = chains[-1]
        for _ in range(DEPTH - 10):
            chain = [chain]
        chains.append(chain)

    with pytest.raises(DamagedError, match="nested too deeply"):
        read(pickle.dumps(chains, 2))
    assert read(pickle.dumps(chains[1], 2)) == chains[1]


def test_a_shared_list_is_read_once() -> None:
    part = [np.arange(3)]

    found = read(pickle.dumps([part, part], 2))

    assert found[0] is found[1]


def test_truth_values_are_0_or_1() -> None:
    content = array(b"U\x02b1", b"(K\x03U\x01|NNNK\x00K\x00K\x00tb", b"(K\x02t", b"C\x02\x07\x00")

    assert read(content).view(np.uint8).tolist() == [1, 0]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.sampled_from(VALUES), st.integers(0, 5), st.integers(0, 2**32), st.integers(1, 3))
def test_changed_pickles_yield_plain_values_or_one_line(
    value: Any, protocol: int, seed: int, changes: int
) -> None:
    rng, content = random.Random(seed), pickle.dumps(value, protocol)
    for _ in range(changes):
        content = mutated(content, rng)
    try:
        found = read(content)
    except DamagedError as error:
        assert "\n" not in str(error)
    else:
        assert is_plain(found)


OPERATIONS = sorted(pickletools.code2op)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.binary(max_size=9)), max_size=30))
def test_random_operations_yield_plain_values_or_one_line(parts: list[tuple[str, bytes]]) -> None:
    content = b"".join(code.encode("latin1") + argument for code, argument in parts)
    try:
        assert is_plain(read(content + b"."))
    except DamagedError as error:
        assert "\n" not in str(error)


def test_a_truncated_gzip_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl.gz"
    with pytest.raises(DataError, match=r"a\.pkl\.gz does not exist"):
        read_pickles(path)
    path.write_bytes(gzip.compress(pickle.dumps(VALUES[0]))[:-4])
    with pytest.raises(DataError, match="end too early"):
        read_pickles(path)

"""Pickles yield arrays, numbers and text, or one clear error; whatever they contain."""

from __future__ import annotations

import gzip
import pickle
import pickletools
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_content import BOMBS, HOSTILE, pickled_array
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


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_array_needs_is_refused(name: str) -> None:
    with pytest.raises(DamagedError) as error:
        read(HOSTILE[name])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_do_not_need_much_memory(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(DamagedError, match=r"too often|too deeply|not numbers or text"):
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
    content = pickled_array(
        b"U\x02b1", b"(K\x03U\x01|NNNK\x00K\x00K\x00tb", b"(K\x02t", b"C\x02\x07\x00"
    )

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

"""The block cache and the record of reads, without internet access."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrace.errors import ConfigError
from retrace.remote.block_cache import (
    BUCKETS,
    BlockCache,
    CacheOptions,
    pack,
    unpack,
)
from retrace.remote.objects import Block, md5_from_headers, range_header, read_range
from retrace.remote.read_record import ChangedError, ReadRecord


def key(number: int) -> str:
    """Keys that all belong to one folder of the cache."""
    return f"0000{number:060x}"


def age(cache: Path, number: int, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(cache / "00" / key(number), (moment, moment))


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, BUCKETS * 3 * 5000)
    for number in range(3):
        cache.put(key(number), Block(bytes(4600), 100 + number))
        age(tmp_path, number, 1000 - number)
    assert cache.get(key(0)) == Block(bytes(4600), 100)  # used again
    cache.put(key(3), Block(bytes(4600), 103))

    assert [cache.get(key(number)) is not None for number in range(4)] == [True, False, True, True]


def test_blocks_written_concurrently_respect_the_cache_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, writers, met = BlockCache(tmp_path, BUCKETS * 2 * 5000), 8, Barrier(8)
    write = Path.write_bytes

    def written_together(file: Path, data: bytes) -> int:
        met.wait(60)
        return write(file, data)

    monkeypatch.setattr(Path, "write_bytes", written_together)
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(lambda n: cache.put(key(n), Block(bytes(4600), 1)), range(writers)))

    assert sum(file.stat().st_size for file in (tmp_path / "00").iterdir()) <= 2 * 5000


def test_leftovers_of_killed_processes_are_removed_and_active_files_kept(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, BUCKETS * 20_000)
    cache.put(key(1), Block(b"x", 1))
    for name, old in ((".dead", 7200), (".alive", 1)):
        (tmp_path / "00" / name).write_bytes(b"half")
        os.utime(tmp_path / "00" / name, (time.time() - old,) * 2)
    cache.put(key(2), Block(b"y", 1))
    assert sorted(p.name[:6] for p in (tmp_path / "00").iterdir()) == [".alive", "000000", "000000"]


def test_a_block_too_large_for_its_folder_is_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = BlockCache(tmp_path, BUCKETS * 5000)
    for number in range(2):
        cache.put(key(number), Block(bytes(6000), 1))
    assert cache.get(key(0)) is None
    assert capsys.readouterr().out.count("enlarge it") == 1


@given(
    stored=st.none() | st.binary(max_size=200),
    requested=st.integers(0, 2**40),
    modified=st.none() | st.integers(0, 2**40),
    cut=st.integers(0, 400),
    flip=st.integers(0, 255),
)
def test_a_cached_block_is_returned_unchanged_or_not_at_all(
    stored: bytes | None, requested: int, modified: int | None, cut: int, flip: int
) -> None:
    block = Block(stored, requested, modified, "etag", "gzip")
    data = pack(block)
    assert unpack(data) == block
    if cut < len(data) and stored:
        assert unpack(data[:cut]) is None
        damaged = data[:cut] + bytes([data[cut] ^ flip]) + data[cut + 1 :]
        assert unpack(damaged) in (None, block)


spans = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda t: (t[0], t[0] + t[1]))


@given(st.lists(spans, min_size=1, max_size=6))
def test_blocks_are_consistent_exactly_if_their_time_spans_overlap(
    block_spans: list[tuple[int, int]],
) -> None:
    record = ReadRecord("s3://a/b")
    together = max(low for low, _ in block_spans) <= min(high for _, high in block_spans)
    try:
        for number, (modified, requested) in enumerate(block_spans):
            record.note(str(number), Block(b"x", requested, modified))
    except ChangedError:
        assert not together
    else:
        assert together
        assert record.summary()["blocks"] == len(block_spans)


def test_a_record_survives_an_interruption(tmp_path: Path) -> None:
    first = ReadRecord("s3://a/b")
    first.note(".zarray", Block(b"{}", 10, 1))
    first.keep_in(tmp_path / "read.jsonl")
    first.note("0/0", Block(b"zero", 10, 1))
    first.note("0/1", Block(None, 11))
    with (tmp_path / "read.jsonl").open("a") as file:
        file.write('["0/2", "abc')  # left by an interruption
    second = ReadRecord("s3://a/b")
    second.note(".zarray", Block(b"{}", 20, 1))
    second.keep_in(tmp_path / "read.jsonl")
    second.note("0/0", Block(b"zero", 10, 1))
    third = ReadRecord("s3://a/b")
    third.note(".zarray", Block(b"{}", 30, 1))
    third.keep_in(tmp_path / "read.jsonl")

    assert second.summary()["sha256"] == third.summary()["sha256"] == first.summary()["sha256"]
    assert (second.summary()["blocks"], second.summary()["absent_blocks"]) == (2, 1)
    with pytest.raises(ChangedError, match="'0/1' has other bytes than before"):
        second.note("0/1", Block(b"now there", 12))
    with pytest.raises(ChangedError, match=r"'0/3' was changed at 1970-01-01T00:00:15Z, after"):
        third.note("0/3", Block(b"new", 31, 15))


def test_no_cache_without_the_workflow_and_no_numbers_are_refused() -> None:
    assert CacheOptions.from_environment({}).folder is None
    assert (
        CacheOptions.from_environment({"RETRACE_BLOCKS": "x", "RETRACE_BLOCKS_GIB": "0"}).folder
        is None
    )
    options = CacheOptions.from_environment({"RETRACE_BLOCKS": "x", "RETRACE_BLOCKS_GIB": "0.5"})
    assert (options.folder, options.limit_bytes) == (Path("x"), 2**29)
    with pytest.raises(ConfigError, match="RETRACE_BLOCKS_GIB"):
        CacheOptions.from_environment({"RETRACE_BLOCKS": "x", "RETRACE_BLOCKS_GIB": "much"})


def test_byte_ranges_and_md5_headers(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    parts = {(2, 3): b"234", (-4, None): b"6789", (7, None): b"789"}
    assert {part: read_range(tmp_path / "a", part) for part in parts} == parts
    headers = [range_header(part)["Range"] for part in parts]
    assert headers == ["bytes=2-4", "bytes=-4", "bytes=7-"]
    md5 = "d41d8cd98f00b204e9800998ecf8427e"
    assert md5_from_headers({"ETag": f'"{md5}"'}, True) == md5
    assert md5_from_headers({"ETag": f'"{md5}"'}, False) is None
    assert md5_from_headers({"ETag": f'"{md5}-2"'}, True) is None
    assert md5_from_headers({"ETag": md5, "x-amz-server-side-encryption": "aws:kms"}, True) is None
    google = {"x-goog-hash": "crc32c=AAAAAA==,md5=1B2M2Y8AsgTpgAmY7PhCfg=="}
    assert md5_from_headers(google, False) == md5

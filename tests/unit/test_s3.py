"""Settings, names and ETags: what can be said about S3 without a server."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrace.config.schema import check
from retrace.errors import ConfigError, FetchError
from retrace.remote.download import MEBIBYTE, human_bytes, multipart_etag, part_sizes
from retrace.remote.mirror import MirrorStore
from retrace.remote.store import FetchSettings, safe_name


def test_settings_name_the_nearest_key() -> None:
    with pytest.raises(ConfigError, match="did you mean 'endpoint_url'"):
        check(FetchSettings, {"bucket": "b", "prefix": "p", "endpoint": "x"}, "--settings")


@pytest.mark.parametrize("missing", ["bucket", "prefix"])
@pytest.mark.parametrize("value", ["", "/", None])
def test_settings_need_bucket_and_prefix(missing: str, value: str | None) -> None:
    with pytest.raises(ConfigError, match=missing):
        check(FetchSettings, {"bucket": "b", "prefix": "p", missing: value}, "--settings")


def test_a_prefix_never_ends_in_a_slash() -> None:
    assert FetchSettings(bucket="b", prefix="/a/b/").prefix == "a/b"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//b", "a/./b", "a\\b", "a\0b"])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(FetchError, match="relative path"):
        safe_name(name)


@pytest.mark.parametrize("name", ["0.0.0", "volumes/raw/.zarray", "a b+c%20/ä"])
def test_plain_names_stay(name: str) -> None:
    assert safe_name(name) == name


@given(size=st.integers(1, 5_000 * MEBIBYTE), part=st.integers(5, 600))
def test_part_sizes_fit_and_hold_the_true_one(size: int, part: int) -> None:
    count = -(-size // (part * MEBIBYTE))
    sizes = part_sizes(size, count)
    assert all(-(-size // s) == count for s in sizes)
    assert part * MEBIBYTE in sizes or count == 1 or part - sizes[0] // MEBIBYTE > 32 or part > 64


def test_multipart_etag_is_the_md5_of_the_parts_md5s(tmp_path: Path) -> None:
    data = b"abcdefghij" * 100
    path = tmp_path / "x"
    path.write_bytes(data)
    parts = [hashlib.md5(data[i : i + 300]).digest() for i in range(0, 1000, 300)]
    assert multipart_etag(path, 300) == f"{hashlib.md5(b''.join(parts)).hexdigest()}-4"
    whole = hashlib.md5(hashlib.md5(data).digest()).hexdigest()
    assert multipart_etag(path, 1000) == multipart_etag(path, 5000) == f"{whole}-1"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (1.7e12, "1.70 TB")]
)
def test_human_bytes(count: float, text: str) -> None:
    assert human_bytes(count) == text


def test_mirror_lists_what_lies_under_the_prefix(tmp_path: Path) -> None:
    for name in ("a/v.zarr/.zgroup", "a/v.zarr/volumes/raw/0.0.0", "a/v.zarr2/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    settings = FetchSettings(bucket="b", prefix="a/v.zarr", mirror=str(tmp_path))
    items = MirrorStore(settings).objects()
    assert [(item.name, item.size) for item in items] == [
        (".zgroup", 3),
        ("volumes/raw/0.0.0", 3),
    ]
    assert items[0].etag == hashlib.md5(b"123").hexdigest()


def test_mirror_errors_name_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a/volume_1.zarr").mkdir(parents=True)
    with pytest.raises(FetchError, match="did you mean 'volume_1.zarr'"):
        MirrorStore(
            FetchSettings(bucket="b", prefix="a/volume_l.zarr", mirror=str(tmp_path))
        ).objects()
    with pytest.raises(FetchError, match="is not a folder"):
        MirrorStore(FetchSettings(bucket="b", prefix="a", mirror=str(tmp_path / "gone"))).objects()
    with pytest.raises(FetchError, match="has nothing under 'z'"):
        MirrorStore(FetchSettings(bucket="b", prefix="z/v", mirror=str(tmp_path))).objects()

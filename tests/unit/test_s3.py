"""S3 settings, names and ETags, without a server."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrace.config.schema import check
from retrace.errors import ConfigError, FetchError, RetraceError
from retrace.files import human_bytes
from retrace.remote.download import MEBIBYTE, multipart_etag, part_sizes
from retrace.remote.mirror import MirrorStore
from retrace.remote.object_names import safe_name
from retrace.remote.s3 import BucketStore
from retrace.remote.store import FetchSettings


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


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/x", "a//b", "a/./b", "a\\b", "a\0b", "a\nb"]
)
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(FetchError, match="relative path|control characters"):
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


def test_mirror_lists_the_objects_below_the_prefix(tmp_path: Path) -> None:
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


def test_mirror_errors_list_the_existing_entries(tmp_path: Path) -> None:
    (tmp_path / "a/volume_1.zarr").mkdir(parents=True)
    with pytest.raises(FetchError, match="did you mean 'volume_1.zarr'"):
        MirrorStore(
            FetchSettings(bucket="b", prefix="a/volume_l.zarr", mirror=str(tmp_path))
        ).objects()
    with pytest.raises(FetchError, match="is not a folder"):
        MirrorStore(FetchSettings(bucket="b", prefix="a", mirror=str(tmp_path / "gone"))).objects()
    with pytest.raises(FetchError, match="has nothing under 'z'"):
        MirrorStore(FetchSettings(bucket="b", prefix="z/v", mirror=str(tmp_path))).objects()


DEAD_SERVER = "http://127.0.0.1:9"


def store(unsigned: bool, **settings: str | None) -> BucketStore:
    chosen = {"endpoint_url": DEAD_SERVER, **settings}
    return BucketStore(FetchSettings(bucket="b", prefix="p", unsigned=unsigned, **chosen))  # type: ignore[arg-type]


@pytest.fixture
def without_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without any AWS configuration, and with a damaged file to point at."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "damaged").write_text("not [ini\n= x\n")
    monkeypatch.chdir(tmp_path)
    return monkeypatch


BROKEN = [
    ({"AWS_PROFILE": "absent"}, r"profile \(absent\)"),
    ({"AWS_CONFIG_FILE": "damaged"}, "parse config file: .*damaged"),
    ({"AWS_SHARED_CREDENTIALS_FILE": "damaged"}, "parse config file: .*damaged"),
    ({"AWS_DEFAULT_REGION": "us east!"}, "AWS_DEFAULT_REGION is 'us east!'"),
    ({"AWS_DEFAULTS_MODE": "fast"}, "invalid defaults mode: fast"),
    ({"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "near"}, "option near is invalid"),
    ({}, "Unable to locate credentials"),
]
"""Broken AWS configurations, and what names their cause."""


@pytest.mark.parametrize(("environment", "cause"), BROKEN)
def test_only_signed_access_reads_the_aws_configuration(
    without_aws: pytest.MonkeyPatch, environment: dict[str, str], cause: str
) -> None:
    for name, value in environment.items():
        without_aws.setenv(name, value)
    assert store(unsigned=True).endpoint == DEAD_SERVER
    with pytest.raises(RetraceError, match=cause) as refused:
        store(unsigned=False)
    assert "does not answer" not in str(refused.value)
    assert "endpoint_url" not in str(refused.value)


@pytest.mark.parametrize("unsigned", [True, False])
def test_a_malformed_region_and_address_are_named(
    without_aws: pytest.MonkeyPatch, unsigned: bool
) -> None:
    without_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    without_aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(ConfigError, match="`region` is 'eu west'"):
        store(unsigned, region="eu west")
    with pytest.raises(ConfigError, match="nowhere; correct `endpoint_url`"):
        store(unsigned, endpoint_url="nowhere")
    for address in ("ftp://x", "http://127.0.0.1:99999"):
        with pytest.raises(ConfigError, match=f"{address} is no address of a server"):
            store(unsigned, endpoint_url=address).objects()
    with pytest.raises(FetchError, match="does not answer"):
        store(unsigned).objects()


@pytest.mark.parametrize(
    ("code", "unsigned", "message"),
    [
        ("ExpiredToken", False, "session token has expired"),
        ("SignatureDoesNotMatch", False, "secret key does not fit"),
        ("AccessDenied", False, "these credentials may not read it"),
        ("AccessDenied", True, "a private bucket needs `unsigned: false`"),
    ],
)
def test_refusals_name_their_cause(
    without_aws: pytest.MonkeyPatch, code: str, unsigned: bool, message: str
) -> None:
    without_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    without_aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert re.search(message, str(store(unsigned).refusal(code, "listing")))

"""Servers that never end, send more than was asked for, or list names that no disk can hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostile_content import (
    BODY,
    LISTINGS,
    UNUSUAL,
    Answer,
    NamedBytes,
    endless,
    entry,
    listing,
    page,
)
from retrace.errors import FetchError
from retrace.remote.download import FolderDownload
from retrace.remote.http import TransientError, get_response, pieces
from retrace.remote.object_names import check_names, tells_apart
from retrace.remote.s3 import BucketStore
from retrace.remote.store import FetchSettings, S3Object


@contextmanager
def bucket(answer: Answer, retries: int = 1) -> Iterator[BucketStore]:
    """A bucket whose server answers listings so, and GETs of objects with BODY."""
    with listing(answer) as address:
        settings = {"bucket": "b", "prefix": "p", "endpoint_url": address, "threads": 2}
        yield BucketStore(FetchSettings(**settings, retries=retries))


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_that_no_s3_server_makes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, message = LISTINGS[name]
    monkeypatch.setattr("retrace.remote.s3.LISTED_OBJECTS", 50)
    monkeypatch.setattr("retrace.remote.s3.EMPTY_PAGES", 20)
    monkeypatch.setattr("retrace.remote.s3_client.LISTING_PAGE_BYTES", 10**5)

    with bucket(answer) as store, pytest.raises(FetchError, match=message) as error:
        store.objects()
    assert "\n" not in str(error.value)


def test_a_listing_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrace.remote.http.ANSWER_S", 0.2)

    slow = bucket(lambda request: endless(request, 0.02))
    with slow as store, pytest.raises(FetchError, match="does not answer"):
        store.objects()


def test_without_an_etag_two_downloads_have_to_agree(tmp_path: Path) -> None:
    with bucket(lambda request: page(entry("p/a", etag=None)), retries=2) as store:
        download = FolderDownload(store, tmp_path / "x", threads=1, retries=2)
        report = download.run(store.objects())

    assert report.verified == {"twice": 1}
    assert (tmp_path / "x/a").read_bytes() == BODY


def test_no_object_is_larger_than_listed(tmp_path: Path) -> None:
    with bucket(lambda request: page(entry("p/a", size=3))) as store:
        download = FolderDownload(store, tmp_path / "x", threads=1, retries=2)
        with pytest.raises(FetchError, match="sends more than the 3 bytes"):
            download.run(store.objects())
        stream = store.stream(S3Object("a", 4, ""), (0, 1))
        with pytest.raises(FetchError, match="sends more than|refused"), stream as received:
            list(received)
    assert [path.name for path in (tmp_path / "x").iterdir()] == []


def test_an_object_that_drips_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrace.remote.http.ANSWER_S", 0.2)
    with bucket(lambda request: endless(request, 0.02)) as store:
        address = f"{store.endpoint}/b?list-type=2"
        with get_response(store.session, address, {}) as answer, pytest.raises(TransientError):
            list(pieces(answer, 10**6, "a"))


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "a/b"], "'a' and 'a/b' cannot be stored together"),
        (["x/y/z/1", "x/y", "b"], "'x/y' and 'x/y/z/1' cannot be stored together"),
        (["n" * 256], "too long for a file"),
        (["\u00e9" * 128], "too long for a file"),
        (["/".join(["n" * 200] * 21)], "too long for a file"),
    ],
)
def test_names_that_no_disk_can_hold(names: list[str], message: str, tmp_path: Path) -> None:
    store = NamedBytes()
    with pytest.raises(FetchError, match=message):
        FolderDownload(store, tmp_path / "x", threads=1, retries=1).run(store.items(names))
    assert store.asked == [] and not (tmp_path / "x").exists()


def test_unusual_names_are_stored_as_they_are(tmp_path: Path) -> None:
    store = NamedBytes()
    download = FolderDownload(store, tmp_path / "x", threads=4, retries=1)
    report = download.run(store.items(UNUSUAL))

    found = {p.relative_to(tmp_path / "x").as_posix(): p for p in (tmp_path / "x").rglob("*")}
    assert report.objects == len(UNUSUAL)
    assert {name for name, path in found.items() if path.is_file()} == set(UNUSUAL)
    assert all(found[name].read_bytes() == name.encode() for name in UNUSUAL)


@pytest.mark.parametrize("names", [["a/x", "a/X"], ["\u00e9", "e\u0301"], ["a", "A/b"]])
def test_a_disk_that_ignores_case(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tells_apart(tmp_path / "not/yet/there")
    check_names(names, tmp_path)
    monkeypatch.setattr("retrace.remote.object_names.tells_apart", lambda folder: False)

    with pytest.raises(FetchError, match="have the same name on the disk"):
        check_names(names, tmp_path)

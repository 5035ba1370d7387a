"""Servers that never end, send more than was asked for, or list names that no disk can hold."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mutations import WEB_PAGE
from retrace.errors import FetchError
from retrace.remote.download import FolderDownload
from retrace.remote.http import TransientError, get_response, pieces
from retrace.remote.object_names import check_names, tells_apart
from retrace.remote.s3 import BucketStore
from retrace.remote.store import FetchSettings, S3Object

BODY = b"body"
Answer = Callable[[BaseHTTPRequestHandler], bytes | None]
"""What is answered to a request for a listing; None if the function has sent it itself."""


@contextmanager
def bucket(answer: Answer, retries: int = 1) -> Iterator[BucketStore]:
    """A bucket whose server answers listings so, and GETs of objects with BODY."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self) if "list-type" in self.path else BODY
            if body is not None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    settings = {"bucket": "b", "prefix": "p", "endpoint_url": address, "threads": 2}
    try:
        yield BucketStore(FetchSettings(**settings, retries=retries))
    finally:
        server.shutdown()
        server.server_close()


def page(*entries: str, token: object = None) -> bytes:
    """A page of a listing; with a token, another one follows."""
    end = "false" if token is None else "true"
    following = "" if token is None else f"<NextContinuationToken>{token}</NextContinuationToken>"
    inside = "".join(f"<Contents>{entry}</Contents>" for entry in entries)
    return (
        f"<ListBucketResult><Name>b</Name><Prefix>p/</Prefix><IsTruncated>{end}</IsTruncated>"
        f"{following}{inside}</ListBucketResult>"
    ).encode()


def entry(key: str, size: int = 4, etag: str | None = hashlib.md5(BODY).hexdigest()) -> str:
    """An object in a listing."""
    tag = "" if etag is None else f"<ETag>{etag}</ETag>"
    return f"<Key>{key}</Key><Size>{size}</Size>{tag}"


def ever_new(*entries: str) -> Answer:
    """The same page again and again, each time with a new token."""
    tokens = count()
    return lambda request: page(*entries, token=next(tokens))


def new_keys() -> Answer:
    """Pages of objects without an end."""
    number = count()
    return lambda request: page(
        *(entry(f"p/{next(number)}") for _ in range(10)), token=next(number)
    )


def endless(request: BaseHTTPRequestHandler, pause_s: float = 0.0) -> None:
    """A body that does not end."""
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(10**5):
            request.wfile.write(b"<ListBucketResult>" if not pause_s else b"<")
            time.sleep(pause_s)
    except OSError:
        return


LAUGHS = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(12))
LISTINGS: dict[str, tuple[Answer, str]] = {
    "ever new tokens": (ever_new(entry("p/a")), "lists 'p/a' twice"),
    "objects without an end": (new_keys(), "more than 50 objects"),
    "pages without objects": (ever_new(), "20 pages without any"),
    "a page to log in": (lambda request: WEB_PAGE, "its answer is no list of objects"),
    "broken HTML": (lambda request: b"<html><p>Log in", "does not answer like an S3 server"),
    "nothing": (lambda request: b"", "does not answer like an S3 server"),
    "entities": (
        lambda request: f'<!DOCTYPE l [<!ENTITY a0 "ha">{LAUGHS}]><l>&a12;</l>'.encode(),
        "does not answer like an S3 server",
    ),
    "a body without an end": (lambda request: endless(request), "sends more than the 100000 bytes"),
    "another prefix": (lambda request: page(entry("q/a")), "another prefix"),
    "bytes in a folder": (lambda request: page(entry("p/a/")), "not a plain relative path"),
    "a name of control characters": (
        lambda request: page(entry("p/a&#10;b")),
        "control characters",
    ),
    "a name that leaves the folder": (lambda request: page(entry("p/../a")), "plain relative path"),
}


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
    store = Bytes()
    with pytest.raises(FetchError, match=message):
        FolderDownload(store, tmp_path / "x", threads=1, retries=1).run(store.items(names))
    assert store.asked == [] and not (tmp_path / "x").exists()


class Bytes:
    """A store whose objects have their names as bytes."""

    label = "bytes"

    def __init__(self) -> None:
        self.asked: list[str] = []

    @staticmethod
    def items(names: list[str]) -> list[S3Object]:
        return [S3Object(n, len(n.encode()), hashlib.md5(n.encode()).hexdigest()) for n in names]

    @contextmanager
    def stream(self, item: S3Object) -> Iterator[Iterator[bytes]]:
        self.asked.append(item.name)
        yield iter([item.name.encode()])


UNUSUAL = [
    *(
        "n" * 255,
        "n" * 252,
        "\u00e9" * 127,
        "x",
        ".x.part",
        ".x.part.part",
        "X",
        "e\u0301",
        "\u00e9",
    ),
    *("d/.a.part", "d/a", "D/b", "x.partial", ".lock", "-r", "a b;$(c)", "m.manifest.json"),
]


def test_unusual_names_are_stored_as_they_are(tmp_path: Path) -> None:
    store = Bytes()
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

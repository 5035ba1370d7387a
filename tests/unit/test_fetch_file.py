"""One file from an address, verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import fetch_file
import file_server
from retrace.errors import FetchError

CONTENT = b"digits" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves the file at /digits.gz, and at /busy.gz from the second request on."""

    requested: list[str] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        busy = self.path == "/busy.gz" and self.requested.count(self.path) == 1
        status = 503 if busy else 200 if self.path in ("/digits.gz", "/busy.gz") else 404
        self.send_response(status)
        self.end_headers()
        self.wfile.write(CONTENT if status == 200 else b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with file_server.answering(Handler) as address:
        yield address


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_file, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("name", ["digits.gz", "busy.gz"])
def test_the_downloaded_file_is_complete_and_correct(
    tmp_path: Path, server: str, name: str
) -> None:
    output = tmp_path / "data" / name
    settings = json.dumps({"url": f"{server}/{name}", "sha256": SHA256})
    fetch_file.main(["--settings", settings, "--output", str(output)])

    assert output.read_bytes() == CONTENT


def test_another_file_is_refused_and_leaves_nothing(tmp_path: Path, server: str) -> None:
    with pytest.raises(FetchError, match=r"another file by now.*put it at .*x\.gz"):
        fetch_file.fetch(f"{server}/digits.gz", "0" * 64, tmp_path / "x.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["SERVER/none.gz", "http://127.0.0.1:9/digits.gz"])
def test_an_unavailable_image_error_names_where_to_put_it(
    tmp_path: Path, server: str, url: str
) -> None:
    with pytest.raises(FetchError, match=r"get the file elsewhere and put it at .*x\.gz"):
        fetch_file.fetch(url.replace("SERVER", server), SHA256, tmp_path / "x.gz")

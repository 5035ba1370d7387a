"""Canary secrets: nothing that a fetch, a crate or a bundle leaves behind contains one."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

import bundle
import crate
import fetch
import file_server
import s3_server
import tiny_workflow
import warm_python
from retrace.redaction import HIDDEN
from retrace.remote.http import READ_BYTES

CANARIES = {
    "AWS_ACCESS_KEY_ID": "AKIACANARYKEY0000001",
    "AWS_SECRET_ACCESS_KEY": "canary/secret+access/key",
    "AWS_SESSION_TOKEN": "canary//session+token==",
}
PASSWORD = "canary-password"
LARGE = READ_BYTES + 1
"""Objects of this size are read by botocore's session, smaller ones by obstore."""
LISTING = (
    '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>'
)
ENTRY = '<Contents><Key>p/{}</Key><Size>{}</Size><ETag>"{}"</ETag></Contents>'
ERROR = (
    "<Error><Code>{}</Code><AWSAccessKeyId>{}</AWSAccessKeyId><StringToSign>{}</StringToSign>"
    "</Error>"
)


def forms() -> Iterator[bytes]:
    """The canaries, as they are and as in an address."""
    for secret in (*CANARIES.values(), PASSWORD):
        for form in {secret, quote(secret, safe=""), quote(secret)}:
            yield form.encode()


def leaks(folder: Path, printed: str = "") -> list[str]:
    """The files of a folder and of zips in it that contain a canary; "output" if it was printed."""
    contents = {"output": printed.encode()}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        contents[str(path)] = path.read_bytes()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                contents |= {f"{path}:{n}": archive.read(n) for n in archive.namelist()}
    return [name for name, content in contents.items() if any(s in content for s in forms())]


def test_the_search_finds_a_canary(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"x {quote(CANARIES['AWS_SESSION_TOKEN'], safe='')}")
    assert leaks(tmp_path, PASSWORD) == ["output", str(tmp_path / "a")]


class Handler(http.server.BaseHTTPRequestHandler):
    """An S3 server with one object, that answers it in the way `kind` says."""

    kind, size = "", 0

    def do_GET(self) -> None:  # noqa: N802
        if "list-type=2" in self.path:
            md5 = hashlib.md5(bytes(self.size)).hexdigest()
            self._answer(200, LISTING.format(ENTRY.format("x", self.size, md5)).encode())
        elif self.kind == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        elif self.kind == "success":
            self._answer(200, bytes(self.size))
        else:
            # Servers repeat what they were sent.
            sent = f"{self.path} {self.headers} {CANARIES['AWS_SESSION_TOKEN']}"
            body = ERROR.format(self.kind, CANARIES["AWS_ACCESS_KEY_ID"], sent).encode()
            self._answer(307 if self.kind == "redirect" else 403, body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", f"http://me:{PASSWORD}@127.0.0.1:9/?Signature={PASSWORD}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


@contextmanager
def answering(kind: str, size: int) -> Iterator[str]:
    """The address of such a server."""
    handler = type("Handler", (Handler,), {"kind": kind, "size": size})
    with file_server.answering(handler) as address:
        yield address


def run_fetch(place: Path, endpoint: str, **more: object) -> tuple[int, str]:
    """The fetch of a signed object; its status and output."""
    settings = {"bucket": "b", "prefix": "p", "endpoint_url": endpoint, "unsigned": False}
    settings |= {"retries": 1, "threads": 1, **more}
    program = [warm_python.program(), fetch.__file__, "--settings", json.dumps(settings)]
    done = subprocess.run(
        [*program, "--output", str(place / "out")],
        env={**os.environ, **CANARIES, "AWS_EC2_METADATA_DISABLED": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("size", [5, LARGE], ids=["obstore", "boto3"])
@pytest.mark.parametrize("kind", ["success", "reset", "AccessDenied", "InvalidToken", "redirect"])
def test_a_signed_fetch_leaves_no_secret(tmp_path: Path, kind: str, size: int) -> None:
    with answering(kind, size) as endpoint:
        status, printed = run_fetch(tmp_path, endpoint)
    assert ("error:" in printed) == (status != 0) == (kind != "success"), printed
    assert "Traceback" not in printed
    assert leaks(tmp_path, printed) == []


def test_an_address_with_a_password_is_refused(tmp_path: Path) -> None:
    endpoint = f"http://me:{PASSWORD}@127.0.0.1:9"
    status, printed = run_fetch(tmp_path, endpoint)
    assert status == 1
    assert "a user, a password or a signature" in printed
    _, printed = run_fetch(tmp_path, "http://127.0.0.1:9", mirror=f"s3://a?token={PASSWORD}")
    assert leaks(tmp_path, printed) == []


DATASET = """\
name: mine
voxel_size_nm: [10, 10, 10]
bucket: {prefix: funke/phantom/training, raw: volumes/raw, labels: volumes/labels/neuron_ids}
volumes: {train_0: {}}
train: [train_0]
"""
OTHER = f"""\
name: other
voxel_size_nm: [10, 10, 10]
volumes: {{a: {{raw: {{path: "https://me:{PASSWORD}@host/a.zarr"}}}}}}
"""


@pytest.mark.s3
def test_a_run_its_crate_and_its_bundle_contain_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if a log of an earlier version, or a dataset that is not used, contains one."""
    datasets = tmp_path / "config/datasets"
    datasets.mkdir(parents=True)
    (datasets / "mine.yaml").write_text(DATASET)
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    with s3_server.serving() as endpoint:
        s3_server.upload_small_volumes(endpoint, "train_0")
        config = ("--config", f"endpoint_url={endpoint}", "unsigned=false")
        options = ("--cores", "1", "--printshellcmds", "--verbose")
        printed = tiny_workflow.succeed(tmp_path, ["fetch_mine", *options, *config])
        refused = [f"endpoint_url=http://me:{PASSWORD}@127.0.0.1:9"]
        status, more = tiny_workflow.finish(tmp_path, ["fetch_mine", "--config", *refused])
        assert status == 1
    assert leaks(tmp_path, printed + more) == []

    monkeypatch.chdir(tmp_path)
    (datasets / "other.yaml").write_text(OTHER)
    Path("logs/fetch/mine/train_0.log").write_text(f"GET /?X-Amz-Signature={PASSWORD}\n")
    Path("wheels").mkdir()
    used = {"iterations": 2, "mirror": None, "init": None}
    settings = {"name": "mine_x", "target": "fetch_mine", "dataset": "mine", "config": used}
    made = ["--settings", json.dumps(settings), "--output"]
    crate.main(
        [*made, "crate", "--zip", "crate.zip", "--results", "data/mine/train_0.manifest.json"]
    )
    store = ["--files", "data/mine/train_0.zarr", "--wheels", "wheels"]
    bundle.main(["make", *made, "packed", *store])
    (datasets / "other.yaml").unlink()
    Path("logs/fetch/mine/train_0.log").unlink()
    assert leaks(tmp_path, "".join(capsys.readouterr())) == []
    for folder in ("crate", "packed"):
        assert f"https://{HIDDEN}@host" in Path(folder, "config/datasets/other.yaml").read_text()
    assert HIDDEN in Path("crate/logs/fetch/mine/train_0.log").read_text()

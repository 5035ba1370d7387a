"""Small objects through obstore: the same bytes as through boto3, and boto3 wherever it fails."""

from __future__ import annotations

import datetime
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import file_server
from retrace.remote.http import READ_BYTES, TransientError
from retrace.remote.obstore_reads import WITH_BOTO3, ObstoreReader
from retrace.remote.s3 import BucketStore
from retrace.remote.store import FetchSettings, S3Object

BODY = bytes(range(256))
DEAD = "http://127.0.0.1:9"


class Answers(BaseHTTPRequestHandler):
    """Answers each GET with BODY, or with what its last word says."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        type(self).requests.append((self.path, dict(self.headers)))
        kind = self.path.rpartition("/")[2]
        code = {"SlowDown": 400, "busy": 503}.get(kind, 200)
        body = BODY if code == 200 else f"<Error><Code>{kind}</Code></Error>".encode()
        self.send_response(code)
        if kind == "packed":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body) + (kind == "cut")))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = kind == "cut"

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def listening(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, Any]]:
    """Address of a server, and its handler with the list of requests."""
    handler = type("Handler", (Answers,), {"requests": []})
    with file_server.answering(handler, context) as address:
        yield address, handler


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No proxy, and an AWS configuration that points elsewhere, as if for other buckets."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, DEAD)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def bucket(endpoint: str, **settings: Any) -> BucketStore:
    return BucketStore(FetchSettings(bucket="b", prefix="p", endpoint_url=endpoint, **settings))


def content(store: BucketStore, name: str, size: int = len(BODY)) -> bytes:
    with store.stream(S3Object(name, size, "")) as pieces:
        return b"".join(bytes(piece) for piece in pieces)


def agents(handler: Any) -> list[str]:
    """Which library asked: obstore names itself, botocore's bare session does not."""
    return [
        "obstore" if "object_store" in h.get("user-agent", "") else "boto3"
        for _, h in handler.requests
    ]


@pytest.mark.parametrize("name", ["x", "packed", "ü +%20?/~'"])
def test_small_objects_come_as_they_are_stored(name: str) -> None:
    with listening() as (address, handler):
        store = bucket(address)
        assert content(store, name) == BODY
        assert content(store, name, READ_BYTES + 1) == BODY
        assert agents(handler) == ["obstore", "boto3"]
        (small, headers), (large, _) = handler.requests
        assert small == large.replace("%7E", "~")
        assert "authorization" not in headers


def test_credentials_are_those_of_the_profile(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[lab]\naws_access_key_id = LABKEY\naws_secret_access_key = s\n")
    environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    environment.setenv("AWS_PROFILE", "lab")
    with listening() as (address, handler):
        assert content(bucket(address, unsigned=False, region="eu-west-3"), "x") == BODY
        signature = handler.requests[0][1]["authorization"]
    assert agents(handler) == ["obstore"]
    assert "Credential=LABKEY/" in signature and "/eu-west-3/s3/" in signature


def test_the_proxy_of_the_environment_is_used(environment: pytest.MonkeyPatch) -> None:
    with listening() as (address, handler):
        environment.setenv("http_proxy", address)
        environment.setenv("no_proxy", "")
        assert (
            ObstoreReader("http://bucket.invalid/b/", "x", 1, None).read("p/x", len(BODY)) == BODY
        )
    assert handler.requests[0][0] == "http://bucket.invalid/b/p/x"


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1, and a server's context with it."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, day = ec.generate_private_key(ec.SECP256R1()), datetime.timedelta(days=1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now, here = datetime.datetime.now(datetime.UTC), ipaddress.ip_address("127.0.0.1")
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    names = x509.SubjectAlternativeName([x509.IPAddress(here)])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem, keys = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    keys.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, keys)
    return pem, context


def test_certificates_of_the_environment_count(
    tmp_path: Path, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pem, context = self_signed(tmp_path)
    with listening(context) as (address, handler):
        assert ObstoreReader(f"{address}/b/", "x", 1, None).read("p/x", len(BODY)) is None
        assert WITH_BOTO3 in capsys.readouterr().out
        environment.setenv("AWS_CA_BUNDLE", str(pem))
        assert content(bucket(address), "x") == BODY
    assert agents(handler) == ["obstore"]


def test_without_obstore_boto3_reads(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setitem(sys.modules, "obstore.store", None)
    with listening() as (address, handler):
        store = bucket(address)
        assert [content(store, name) for name in "xy"] == [BODY, BODY]
    assert agents(handler) == ["boto3", "boto3"]
    assert capsys.readouterr().out == f"[fetch] obstore is not installed: {WITH_BOTO3}\n"


def test_boto3_takes_over_where_obstore_reads_nothing(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening() as (address, handler):
        store = bucket(address)
        store._reader = ObstoreReader(f"{DEAD}/b/", "x", 1, None)
        assert [content(store, name) for name in "xy"] == [BODY, BODY]
    assert agents(handler) == ["boto3", "boto3"]
    assert capsys.readouterr().out.count(WITH_BOTO3) == 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [("busy", "503 busy"), ("SlowDown", "400 SlowDown"), ("cut", "truncated")],
)
def test_what_may_pass_is_told_from_what_stays(kind: str, message: str) -> None:
    with listening() as (address, _):
        reader = ObstoreReader(f"{address}/b/", "x", 1, None)
        reader.read("x", len(BODY))
        with pytest.raises(TransientError, match=message):
            reader.read(kind, len(BODY) + (kind == "cut"))
        assert reader.read("x", len(BODY)) == BODY

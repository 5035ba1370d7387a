"""A real S3 server (moto over HTTP) for tests, and a proxy in front of it that corrupts answers."""

from __future__ import annotations

import http.client
import logging
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import phantom

REGION = "us-east-1"
PATIENCE_S = 30.0
"""How long the proxy keeps an answer back, at most; less than a client waits for one."""


@contextmanager
def serving() -> Iterator[str]:
    """The address of a new moto server in this process; its contents are deleted at the end."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else: a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        # moto's contents belong to the process, not to the server.
        post = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urllib.request.urlopen(post, timeout=300).close()
        server.stop()


def writer(endpoint: str) -> Any:
    """A client with credentials, for uploads."""
    return phantom.writing_client(endpoint, threads=8)


def put_objects(
    endpoint: str, bucket: str, objects: dict[str, bytes], *, public: bool = True
) -> None:
    """Creates `bucket` and uploads `objects` (key -> bytes)."""
    client = writer(endpoint)
    if public:
        phantom.make_public_bucket(client, bucket)
    else:
        client.create_bucket(Bucket=bucket)
    for key, body in objects.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)


def upload_small_volumes(endpoint: str, *names: str) -> None:
    """Uploads phantom volumes (8, 24, 24) voxels, in chunks of (4, 16, 16), to a public bucket."""
    small = ["--shape", "8", "24", "24", "--margin", "4", "8", "8", "--chunks", "4", "16", "16"]
    phantom.main(["upload", "--endpoint", endpoint, "--volumes", *names, *small])


@dataclass
class Fault:
    """A fault in GETs of one object: `kind`, for the first `times` of them."""

    kind: str
    times: int = 1_000_000


@dataclass
class Proxy:
    """Passes requests on to `upstream`; `faults` (end of the path -> Fault) corrupt answers.

    `page_size`: keys per page of a listing.
    """

    upstream: str
    delay_s: float = 0.0
    page_size: int | None = None
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    transferred: list[str] = field(default_factory=list)
    """The requests that were answered with an object's bytes."""
    endpoint: str = ""
    answers: int | None = None
    """How many requests are answered still, those after it wait; None: all are."""
    answered: int = 0
    together: int = 0
    """Answers wait until so many requests have been there at the same time."""
    active: int = 0
    peak: int = 0
    """Requests that were there at the same time, at most."""
    connections: int = 0
    lock: threading.Condition = field(default_factory=threading.Condition)

    def fault_of(self, path: str) -> str | None:
        with self.lock:
            self.requests.append(path)
            for end, fault in self.faults.items():
                if path.endswith(end) and fault.times > 0:
                    fault.times -= 1
                    return fault.kind
        return None

    def count(self, end: str) -> int:
        with self.lock:
            return sum(path.endswith(end) for path in self.requests)

    def let(self, answers: int | None) -> None:
        """Answers this many requests; later ones wait until `let` is called again."""
        with self.lock:
            self.answers, self.answered = answers, 0
            self.lock.notify_all()

    def drain(self) -> None:
        """Returns once no client is connected, so that the last request is counted too."""
        self.let(None)
        with self.lock:
            assert self.lock.wait_for(lambda: self.connections == 0, PATIENCE_S)

    def connected(self, change: int) -> None:
        with self.lock:
            self.connections += change
            self.lock.notify_all()

    def _wait_for_leave(self) -> None:
        """Returns when the request may be answered; the lock is held."""
        if not self.lock.wait_for(lambda: self.peak >= self.together, PATIENCE_S):
            self.together = 0  # they never come, and the test should fail
        self.lock.wait_for(lambda: self.answers != 0, PATIENCE_S)
        self.answers = self.answers - 1 if self.answers else self.answers
        self.answered += 1

    @contextmanager
    def answering(self) -> Iterator[None]:
        with self.lock:
            self.active += 1
            self.peak = max(self.peak, self.active)
            self.lock.notify_all()
            self._wait_for_leave()
        time.sleep(self.delay_s)
        try:
            yield
        finally:
            with self.lock:
                self.active -= 1


def spoiled(kind: str, status: int, body: bytes) -> tuple[int, bytes, int]:
    """(status, body, announced length) of an answer with the given fault."""
    if kind == "flip":
        return status, bytes([body[0] ^ 1]) + body[1:], len(body)
    if kind == "short":
        return status, body[: len(body) // 2], len(body) // 2
    if kind == "cut":
        return status, body[: len(body) // 2], len(body)
    code = {"503": "SlowDown", "403": "AccessDenied", "404": "NoSuchKey"}[kind]
    text = f"<Error><Code>{code}</Code></Error>".encode()
    return int(kind), text, len(text)


FORWARDED_HEADERS = ("Content-Type", "Content-Range", "Content-Encoding", "ETag", "Last-Modified")


def _from_upstream(
    proxy: Proxy, target: str, request: Mapping[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body with which the server behind the proxy answers a GET."""
    upstream = urlsplit(proxy.upstream)
    connection = http.client.HTTPConnection(str(upstream.hostname), upstream.port)
    if proxy.page_size and "list-type=2" in target:
        target += f"&max-keys={proxy.page_size}"
    passed = {name: request[name] for name in ("Range", "If-None-Match") if name in request}
    headers = {"Host": str(upstream.netloc), **passed}
    connection.request("GET", target, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            proxy.connected(1)
            super().setup()

        def finish(self) -> None:
            try:
                super().finish()
            finally:
                proxy.connected(-1)

        def do_GET(self) -> None:  # noqa: N802
            path = urlsplit(self.path).path
            kind = proxy.fault_of(path)
            with proxy.answering():
                status, headers, body = _from_upstream(proxy, self.path, dict(self.headers))
            if status in (200, 206):
                proxy.transferred.append(path)
            announced = len(body)
            if kind:
                status, body, announced = spoiled(kind, status, body)
            self.send_response(status)
            for name in FORWARDED_HEADERS:
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = announced != len(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Silent: the tests look at `Proxy.requests`."""

    return Handler


class _Server(ThreadingHTTPServer):
    """Takes as many connections at a time as a client with many threads makes."""

    daemon_threads = True
    request_queue_size = 128


@contextmanager
def spoiling(upstream: str, **faults: Fault) -> Iterator[Proxy]:
    """A proxy in front of `upstream`, with `faults` and those added later."""
    proxy = Proxy(upstream, faults=dict(faults))
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()

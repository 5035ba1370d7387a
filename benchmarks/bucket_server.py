"""A read-only S3 server over a folder, so fast that a benchmark measures the client.

FOLDER/BUCKET/KEY is an object; anonymous ListObjects (v1 and v2), HEAD and GET with Range work,
over HTTP/1.1 connections that stay open. `--delay-ms` waits before every answer, as a distant
bucket does.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000
STAMP = "2020-01-01T00:00:00.000Z"
HTTP_STAMP = "Wed, 01 Jan 2020 00:00:00 GMT"


@functools.lru_cache(maxsize=100_000)
def etag(path: Path) -> str:
    return '"' + hashlib.md5(path.read_bytes()).hexdigest() + '"'


@functools.cache
def keys(bucket: Path) -> list[str]:
    return sorted(p.relative_to(bucket).as_posix() for p in bucket.rglob("*") if p.is_file())


def listing(bucket: Path, query: dict[str, list[str]]) -> bytes:
    """One page of ListObjects or ListObjectsV2; the continuation token is the last key."""
    prefix = query.get("prefix", [""])[0]
    names = ("marker", "continuation-token", "start-after")
    after = next((query[name][0] for name in names if name in query), "")
    matching = [key for key in keys(bucket) if key.startswith(prefix) and key > after]
    page, more = matching[:PAGE], len(matching) > PAGE
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>{STAMP}</LastModified>"
        f"<ETag>{escape(etag(bucket / key))}</ETag><Size>{(bucket / key).stat().st_size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key in page
    )
    last = escape(page[-1]) if page else ""
    token = f"<NextContinuationToken>{last}</NextContinuationToken>" if more else ""
    marker = f"<NextMarker>{last}</NextMarker>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket.name}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>"
        f"{token}{marker}{contents}</ListBucketResult>"
    ).encode()


def head(status: str, length: int, extra: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: keep-alive\r\n"
        f"Last-Modified: {HTTP_STAMP}\r\nAccept-Ranges: bytes\r\n{extra}\r\n"
    ).encode()


def object_answer(path: Path, method: str, span: str | None) -> list[bytes]:
    if not path.is_file():
        body = b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"
        return [head("404 Not Found", len(body), "Content-Type: application/xml\r\n"), body]
    tag = f"ETag: {etag(path)}\r\nContent-Type: binary/octet-stream\r\n"
    if method == "HEAD":
        return [head("200 OK", path.stat().st_size, tag)]
    body = path.read_bytes()
    if span is None:
        return [head("200 OK", len(body), tag), body]
    first, _, last = span.removeprefix("bytes=").partition("-")
    end = min(len(body), int(last) + 1 if last else len(body))
    part, whole = body[int(first) : end], len(body)
    tag += f"Content-Range: bytes {first}-{end - 1}/{whole}\r\n"
    return [head("206 Partial Content", len(part), tag), part]


class Server:
    """Serves one folder; `delay_s` is added to every answer."""

    def __init__(self, folder: Path, delay_s: float) -> None:
        self.folder, self.delay_s = folder, delay_s

    def answer(self, method: str, target: str, headers: dict[str, str]) -> list[bytes]:
        url = urlsplit(target)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        if key:
            return object_answer(self.folder / bucket / key, method, headers.get("range"))
        body = listing(self.folder / bucket, parse_qs(url.query, keep_blank_values=True))
        return [head("200 OK", len(body), "Content-Type: application/xml\r\n"), body]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                pairs = (line.split(":", 1) for line in lines[1:] if ":" in line)
                headers = {name.lower(): value.strip() for name, value in pairs}
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.writelines(self.answer(method, target, headers))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    args = parser.parse_args()
    server = Server(args.folder, args.delay_ms / 1000)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", args.port, backlog=256)
    host, port = listener.sockets[0].getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    async with listener:
        await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

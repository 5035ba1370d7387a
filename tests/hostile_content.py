"""Content, servers and names that ask for too much, or for what they must not get."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any

import h5py

import file_server
from mutations import WEB_PAGE
from retrace.remote.store import S3Object

# ---------------------------------------------------------------- configurations

EXPRESSIONS = {
    "nested loops": "a = [[i * j for i in range(10000)] for j in range(10000)]",
    "loops over nothing": "a = [0 for i in range(9999) for j in range(9999) for k in []]",
    "a loop in a loop": "a = [len([i for i in range(9999)]) for j in range(9999)]",
    "a power": "a = 9999 ** 99999",
    "powers of powers": "a = 9999.0 ** 64 ** 2",
    "a long text": "a = 'x' * 10**6",
    "a doubled text": "a = 'x' * 9999\n" + "a = a + a\n" * 40,
    "a long list": "a = [0] * 10**9",
    "a list of the same list": "a = [0] * 9999\nb = [a] * 9999",
    "doubled lists": "a = [0]\n" + "a = [a, a]\n" * 60,
    "text of doubled lists": "a = [0]\n" + "a = [a, a]\n" * 15 + "b = [str(a) for i in range(999)]",
    "a key of doubled tuples": "a = (0,)\n" + "a = (a, a)\n" * 60 + "b = {a: 1}",
    "levels": "a = 0\n" + "a = [a]\n" * 1000,
    "levels of brackets": "a = " + "[" * 5000 + "]" * 5000,
    "a wide format": "a = '%9999d' % 1",
    "many formats": "a = ['%999d' * 9 % ((1,) * 9) for i in range(9999) for j in range(9999)]",
    "a large number": "a = 10**17 * 10**17",
    "a range": "a = range(10**9)",
    "a long file": "a = 1\n" * 2**20,
}


YAML = {
    "aliases": "a0: &a0 [x]\n"
    + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(60)),
    "merges": "a0: &a0 {k: x}\n"
    + "".join(f"a{n + 1}: &a{n + 1} {{x: *a{n}, <<: [*a{n}, *a{n}]}}\n" for n in range(40)),
    "an alias of itself": "a: &a [*a]\n",
    "brackets": "a: " + "[" * 10_000 + "]" * 10_000,
    "braces": "{a: " * 10_000,
    "dashes": "a:\n" + "- " * 10_000 + "x\n",
    "questions": "? " * 10_000 + "x\n",
    "indentation": "".join(" " * n + f"a{n}:\n" for n in range(1500)),
    "levels by aliases": "a0: &a0 [x]\n"
    + "".join(f"a{n + 1}: &a{n + 1} [[[[[*a{n}]]]]]\n" for n in range(60)),
    "bytes": "a: " + "x" * 2**24,
    "digits": "a: " + "9" * 5000,
}


# ---------------------------------------------------------------- pickles


def pickled_array(dtype: bytes, state: bytes, shape: bytes, data: bytes) -> bytes:
    """A pickled array; each argument is written in the operations of pickles."""
    begin = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01" + shape
    kind = b"cnumpy\ndtype\n(" + dtype + b"I0\nI1\ntR" + state
    return b"\x80\x03" + begin + kind + b"\x89" + data + b"tb."


def data_of(size: int) -> bytes:
    return b"B" + struct.pack("<I", size) + bytes(size)


LITTLE = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
HOSTILE = {
    "pointers as a type": pickled_array(b"U\x02O8", LITTLE, b"(K\x01t", data_of(8)),
    "fields in a type": pickled_array(
        b"U\x02f4", LITTLE.replace(b"NNN", b"NU\x01aN"), b"(K\x02t", data_of(8)
    ),
    "a subarray as a type": pickled_array(b"U\x08(9999,)f", LITTLE, b"(K\x01t", data_of(8)),
    "a record as a type": pickled_array(b"U\x05f4,O8", LITTLE, b"(K\x01t", data_of(8)),
    "a shape beyond the data": pickled_array(
        b"U\x02f4", LITTLE, b"(J\xff\xff\xff\x7fK\x02t", data_of(8)
    ),
    "a negative shape": pickled_array(
        b"U\x02f4", LITTLE, b"(J\xff\xff\xff\xffJ\xfe\xff\xff\xfft", data_of(8)
    ),
    "no state": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR.",
    "a state for a function": b"c_codecs\nencode\n(N}U\x0c__defaults__(U\x01at\x86b.",
    "a state for a class": b"cnumpy\nndarray\n}U\x01aK\x01sb.",
    "a call of its own": b"cos\nsystem\n(U\x04trueTR.",
    "a function as a value": b"c_codecs\nencode\n.",
    "a huge count": b"\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "a huge number": b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".",
    "a huge decimal": b"L" + b"9" * 10**5 + b"L\n.",
    "a frame without an end": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N",
    "a persistent id": b"Pname\n.",
    "an extension": b"\x82\x01.",
    "an instance": b"(ios\nsystem\n.",
    "an object": b"cnumpy\nndarray\n)\x81.",
    "an empty stack": b"\x85.",
    "no mark": b"Nt.",
    "only marks": b"(" * 1000 + b".",
    "a list as a key": b"}]K\x01s.",
    "a set": b"\x8f(K\x01\x90.",
    "appending to a number": b"K\x01K\x02a.",
}


def bomb(levels: int, begin: bytes = b"", end: bytes = b".") -> bytes:
    """A tuple of a tuple of …, each twice: 2**levels elements in a few bytes a level."""
    remembered = [b"h" + bytes([n]) for n in range(levels + 1)]
    twice = [2 * one + b"\x86\x940" for one in remembered[:-1]]
    return b"\x80\x04)\x940" + b"".join(twice) + begin + remembered[-1] + end


HOSTILE |= {
    "nested tuples as a name": bomb(60, b"", b"N\x93."),
    "nested tuples as a type": bomb(60, b"cnumpy\ndtype\n(", b"tR."),
    "nested tuples as a codec": bomb(60, b"c_codecs\nencode\n(U\x01a", b"tR."),
    "a million axes": pickled_array(b"U\x02f4", LITTLE, b"(" + b"K\x01" * 10**6 + b"t", data_of(4)),
}
BOMBS = {
    "tuples": bomb(60),
    "a key": bomb(60, b"}", b"K\x01s."),
    "arrays": b"\x80\x03"
    + pickled_array(b"U\x02u1", LITTLE, b"(J\x00\x00\x10\x00t", data_of(2**20))[2:-1]
    + b"q\x00("
    + b"h\x00" * 10**4
    + b"t.",
    "one text in many arrays": b"\x80\x03"
    + data_of(2**20)
    + b"q\x00"
    + pickled_array(b"U\x02u1", LITTLE, b"(J\x00\x00\x10\x00t", b"h\x00")[2:-1] * 100
    + b".",
    "levels": b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
    "a list in itself": b"]q\x00h\x00a.",
}


# ---------------------------------------------------------------- metadata

HUGE = 2**20


def state_huge_chunks(file: Path) -> None:
    """Changes the metadata of a zarr, n5 or precomputed layer: chunks of 2**60 values."""
    document, edges = json.loads(file.read_text()), [HUGE] * 3
    if file.name == ".zarray":
        document.update(chunks=edges, shape=edges)
    elif file.name == "zarr.json":
        document["chunk_grid"]["configuration"]["chunk_shape"] = edges
    elif file.name == "attributes.json":
        document["blockSize"] = edges
    else:
        document["scales"][0]["chunk_sizes"] = [edges]
    file.write_text(json.dumps(document))


# ---------------------------------------------------------------- h5


def linked(file: h5py.File, other: Path) -> None:
    file["images"] = h5py.ExternalLink(str(other), "x")


def external(file: h5py.File, other: Path) -> None:
    file.create_dataset("images", (4,), "u1", external=[(str(other), 0, 4)])


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource(str(other), "x", (4,))
    file.create_virtual_dataset("images", layout)


def by_a_link(file: h5py.File, other: Path) -> None:
    file["far"] = h5py.ExternalLink(str(other), "/")
    file["images"] = h5py.SoftLink("/far/x")


def by_a_relative_link(file: h5py.File, other: Path) -> None:
    group = file.create_group("group")
    group["far"] = h5py.ExternalLink(str(other), "/")
    group["near"] = h5py.SoftLink("far/x")
    file["images"] = h5py.SoftLink("/group/near")


# ---------------------------------------------------------------- servers

BODY = b"body"
Answer = Callable[[BaseHTTPRequestHandler], bytes | None]
"""What is answered to a request for a listing; None if the function has sent it itself."""


@contextmanager
def listing(answer: Answer) -> Iterator[str]:
    """The address of a server that answers listings so, and GETs of objects with BODY."""

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

    with file_server.answering(Handler) as address:
        yield address


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
            request.wfile.write(b"<" if pause_s else b"<ListBucketResult>" * 1000)
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


# ---------------------------------------------------------------- names


class NamedBytes:
    """A store whose objects have their names as bytes; `asked`: the objects that were read."""

    label = "bytes"

    def __init__(self) -> None:
        self.asked: list[str] = []

    @staticmethod
    def items(names: Sequence[str]) -> list[S3Object]:
        """The objects of these names."""
        return [S3Object(n, len(n.encode()), hashlib.md5(n.encode()).hexdigest()) for n in names]

    @contextmanager
    def stream(self, item: S3Object) -> Iterator[Iterator[bytes]]:
        """The bytes of an object."""
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

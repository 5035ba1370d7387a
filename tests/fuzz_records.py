"""Readers of what this workflow itself stored, and of buckets, for tests/fuzzing.py."""

from __future__ import annotations

import json
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import zarr

from fuzzing import CountsAsAbsentError, FuzzReader
from retrace.evaluation.comparison_rows import _predicted
from retrace.files import read_json, read_parsed
from retrace.geometry import VoxelBox
from retrace.job import Job
from retrace.provenance.bundle_files import FACTS, FORMAT_VERSION, machine, read_facts
from retrace.provenance.crate_files import METADATA, read_digests, read_target, unpacked
from retrace.provenance.jobs import read_jobs
from retrace.records.record import Planned, read_finished
from retrace.remote.block_cache import BlockCache
from retrace.remote.multipart import MultipartDownload
from retrace.remote.objects import Block
from retrace.remote.read_record import ReadRecord
from retrace.remote.s3 import BucketStore
from retrace.remote.store import FetchSettings, S3Object
from retrace.reporting.manifests import read_store_records
from retrace.segmentation.apply import read_threshold
from retrace.storage.block_journal import Journal
from retrace.storage.manifest import check_manifest, manifest_path, write_manifest
from retrace.storage.owned_files import recorded
from retrace.storage.volumes import open_volume
from retrace.training.elektronn_history import read_history, write_history
from retrace.training.znn_curve import add_test_pass, read_test_curve

VALUES = np.random.default_rng(0).integers(0, 6, (4, 8, 8)).astype(np.uint8)


# ---------------------------------------------------------------- stores with manifests


def write_store(folder: Path, *, sharded: bool = False) -> None:
    """A finished store of zarr format 2, or 3 with shards, with a manifest."""
    group = zarr.open_group(folder / "s.zarr", mode="w", zarr_format=3 if sharded else 2)
    shards = (4, 8, 8) if sharded else None
    array = group.create_array("raw", data=VALUES, chunks=(4, 4, 8), shards=shards)
    array.attrs.update({"resolution": [40, 4, 4], "offset": [0, 0, 0]})
    write_manifest(folder / "s.zarr", inputs=[], settings={}, seconds=0)
    content = json.loads(manifest_path(folder / "s.zarr").read_text())
    content["identity"] = {"digest": "ab", "settings": {}, "outputs": {"x": "cd"}}
    manifest_path(folder / "s.zarr").write_text(json.dumps(content))
    (folder / "kept.json").write_text(json.dumps(content))


def read_store(folder: Path) -> Any:
    """The array, after all checks; a manifest that was invalidated comes back."""
    try:
        volume = open_volume(folder / "s.zarr", "raw")
        return volume.read(volume.box)
    finally:
        for damaged in folder.glob("*.damaged"):
            damaged.unlink()
        _restore(folder)


def _restore(folder: Path) -> None:
    """Puts back what a program that met damage has renamed or written again."""
    manifest = manifest_path(folder / "s.zarr")
    if not manifest.is_file():
        manifest.write_bytes((folder / "kept.json").read_bytes())


def check_store(folder: Path) -> Any:
    """The manifest, compared with all bytes."""
    try:
        return check_manifest(folder / "s.zarr", digests=True)["arrays"]
    finally:
        _restore(folder)


def _known(record: Any) -> str:
    """A record; outputs without one are computed again."""
    if record is None:
        raise CountsAsAbsentError
    return str(record)


def store_readers() -> Iterator[FuzzReader]:
    """Manifests, indices, and chunks whose digests they hold."""
    yield FuzzReader("own chunk", write_store, read_store, "s.zarr/raw/[0-9]*", True)
    yield FuzzReader("own metadata", write_store, check_store, "s.zarr/raw/.zarray")
    sharded = partial(write_store, sharded=True)
    yield FuzzReader("own shard", sharded, read_store, "s.zarr/raw/c/**/*", True)
    yield FuzzReader("own metadata 3", sharded, check_store, "s.zarr/raw/zarr.json")
    # An index that disagrees with the manifest is computed again.
    yield FuzzReader("chunk index", write_store, read_store, ".s.chunks.gz", True)
    yield FuzzReader("manifest", write_store, check_store, "s.manifest.json")
    yield FuzzReader(
        "planning: record",
        write_store,
        lambda folder: _known(read_finished(manifest_path(folder / "s.zarr"))),
        "s.manifest.json",
    )
    yield FuzzReader(
        "report: manifests", write_store, lambda f: read_store_records([f]), "s.manifest.json"
    )


# ---------------------------------------------------------------- journals and caches


def _journal(folder: Path) -> Any:
    content = (folder / "done.jsonl").read_bytes()
    try:
        return _whole(Journal(folder)._done, 4)
    finally:
        (folder / "done.jsonl").write_bytes(content)


def _whole(done: Any, count: int) -> Any:
    """The entries of a journal that has all of them."""
    if len(done) < count:
        raise CountsAsAbsentError
    return done


def _write_journal(folder: Path) -> None:
    journal = Journal(folder)
    for z in range(4):
        journal.note(VoxelBox((z, 0, 0), (1, 8, 8)), f"{z:016x}", fragments=z)


KEYS = [f"{n:064x}" for n in range(3)]


def _write_cache(folder: Path) -> None:
    cache = BlockCache(folder / "c", 2**30)
    for number, key in enumerate(KEYS):
        cache.put(key, Block(bytes(range(number, 40)), 10, 5, "e"))


def _read_cache(folder: Path) -> Any:
    found = [BlockCache(folder / "c", 2**30).get(key) for key in KEYS]
    if None in found:
        raise CountsAsAbsentError
    return [[block.stored, block.etag] for block in found if block]


def _write_reads(folder: Path) -> None:
    record = ReadRecord("https://x")
    record.keep_in(folder / "r.jsonl")
    for number in range(4):
        record.note(f"raw/{number}", Block(bytes([number] * 9), 100 + number, 5))


def _read_reads(folder: Path) -> Any:
    content = (folder / "r.jsonl").read_bytes()
    record = ReadRecord("https://x")
    try:
        record.keep_in(folder / "r.jsonl")
        _whole(record._digests, 4)
        return record.summary()
    finally:
        (folder / "r.jsonl").write_bytes(content)


class _Nowhere:
    """A store that is never asked."""

    label = "nowhere"


def _download(folder: Path) -> MultipartDownload:
    item = S3Object("a.bin", 4000, "0" * 32)
    return MultipartDownload(
        _Nowhere(),  # type: ignore[arg-type]
        folder / "a.bin",
        item,
        part_bytes=1000,
        threads=1,
        retries=1,
    )


def _write_parts(folder: Path) -> None:
    download = _download(folder)
    download._resume()
    download.partial.write_bytes(bytes(4000))
    lines = [download.journal.read_text()]
    lines += [json.dumps({"first": n, "md5": download._md5_on_disk(n)}) for n in (0, 1000, 2000)]
    download.journal.write_text("\n".join(lines) + "\n")


def _read_parts(folder: Path) -> Any:
    content, data = (folder / "a.bin.parts").read_bytes(), (folder / "a.bin.partial").read_bytes()
    try:
        return _whole(_download(folder)._resume(), 3)
    finally:
        (folder / "a.bin.parts").write_bytes(content)
        (folder / "a.bin.partial").write_bytes(data)


def journal_readers() -> Iterator[FuzzReader]:
    """What interrupted runs resume from."""
    yield FuzzReader("block journal", _write_journal, _journal)
    yield FuzzReader("block cache", _write_cache, _read_cache, "c/*/*", True)
    yield FuzzReader("read record", _write_reads, _read_reads)
    yield FuzzReader("multipart journal", _write_parts, _read_parts, "*.parts")


# ---------------------------------------------------------------- JSON of jobs


PLANNED = {
    "record": "x.record.json",
    "settings": {"a": 1},
    "code": {"a.py": "ab"},
    "produced": {"a": "b"},
    "own": ["raw.h5"],
    "outputs": ["x"],
}
HISTORY = {"learning_curve": [], "history": [{"iteration": 1, "loss": 0.5}], "iterations": 9}


def _json_reader(name: str, content: Any, read: Any) -> FuzzReader:
    def write(folder: Path) -> None:
        (folder / "a.json").write_text(json.dumps(content))

    return FuzzReader(name, write, lambda folder: read(folder / "a.json"))


def json_readers() -> Iterator[FuzzReader]:
    """Files between jobs."""
    job = {"settings": {"a": [1]}, "inputs": {"raw": "x", "masks": {"v": "y"}}}
    predicted = {
        "arrays": {"affs": {"shape": [3, 8, 8, 8]}},
        "seconds": 3.5,
        "peak_memory_mb": 10,
        "tile_shape": [8, 8, 8],
    }
    yield _json_reader("job file", job, lambda path: Job.parse(f"@{path}"))
    yield _json_reader("planned job", PLANNED, lambda path: read_parsed(path, Planned.parse))
    yield _json_reader("threshold", {"threshold": 0.5, "chosen_on": ["a"]}, read_threshold)
    yield _json_reader("training.json", HISTORY, lambda path: read_json(path))
    yield _json_reader("prediction manifest", predicted, lambda p: read_parsed(p, _predicted))
    yield _json_reader("written files", {"a.h5": ["ab" * 32]}, recorded)

    def write_curve(folder: Path) -> None:
        for number in range(3):
            add_test_pass(folder, 10 * number, 0.5, 0.25, "")

    yield FuzzReader("ZNN test curve", write_curve, lambda f: read_test_curve(f, ""))

    def write_rows(folder: Path) -> None:
        write_history(folder, [{"iteration": n, "loss": 1.5} for n in range(4)], "")

    yield FuzzReader("ELEKTRONN history", write_rows, lambda folder: read_history(folder, 3, ""))


# ---------------------------------------------------------------- RO-Crate, bundle, Snakemake


def _write_crate(folder: Path) -> None:
    files = ("config/run.json", "Snakefile", "target.json", "results/x.json")
    graph = [{"@id": name, "@type": "File", "sha256": "ab" * 32} for name in files]
    from retrace.provenance.crate_files import RUN_CONFIG, TARGET

    graph += [{"@id": name, "@type": "File", "sha256": "cd" * 32} for name in (RUN_CONFIG, TARGET)]
    (folder / METADATA).write_text(json.dumps({"@graph": graph}))
    (folder / TARGET).parent.mkdir(parents=True, exist_ok=True)
    (folder / TARGET).write_text(json.dumps({"target": "evaluate_x_y"}))


def _write_zipped_crate(folder: Path) -> None:
    _write_crate(folder)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    with zipfile.ZipFile(folder / "crate.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.relative_to(folder).as_posix())
    for path in paths:
        path.unlink()


def _read_zipped_crate(folder: Path) -> Any:
    with unpacked(folder / "crate.zip") as opened:
        return [read_digests(opened), read_target(opened)]


def _write_facts(folder: Path) -> None:
    facts = {"format_version": FORMAT_VERSION, **machine(), "target": "x", "files": {"a": "ab"}}
    (folder / FACTS).write_text(json.dumps(facts))


def _write_metadata(folder: Path) -> None:
    record = {"rule": "a", "input": ["x"], "log": [], "shellcmd": "run", "starttime": 1.0}
    for output in ("results/a.json", "results/b.manifest.json"):
        name = urlsafe_b64encode(output.encode()).decode()
        (folder / name).write_text(json.dumps({**record, "endtime": 2.0}))


def provenance_readers() -> Iterator[FuzzReader]:
    """What a run leaves for others."""
    yield FuzzReader("RO-Crate", _write_crate, lambda folder: read_digests(folder), METADATA)
    yield FuzzReader("RO-Crate zip", _write_zipped_crate, _read_zipped_crate, "*.zip", True)
    yield FuzzReader("bundle", _write_facts, read_facts)
    yield FuzzReader("Snakemake's records", _write_metadata, lambda folder: read_jobs(folder))


# ---------------------------------------------------------------- buckets


LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p/</Prefix>
<KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>
<Contents><Key>p/a</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>
<ETag>"d41d8cd98f00b204e9800998ecf8427e"</ETag><Size>3</Size></Contents>
<Contents><Key>p/b/c</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>
<ETag>"d41d8cd98f00b204e9800998ecf8427f"</ETag><Size>5</Size></Contents></ListBucketResult>
"""


class _Answers(BaseHTTPRequestHandler):
    """Answers every request with the file `listing`."""

    folder: Path

    def do_GET(self) -> None:
        content = (self.folder / "listing").read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@cache
def _bucket(folder: Path) -> BucketStore:
    """A bucket whose server answers with the file `listing`, until the process ends."""
    handler = type("Answers", (_Answers,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    settings = FetchSettings(bucket="b", prefix="p", endpoint_url=address, retries=1, threads=1)
    return BucketStore(settings)


def bucket_readers() -> Iterator[FuzzReader]:
    """Listings of S3 servers."""

    def write(folder: Path) -> None:
        (folder / "listing").write_text(LISTING)

    yield FuzzReader("S3 listing", write, lambda folder: _bucket(folder).objects())


def record_readers() -> list[FuzzReader]:
    """All readers of stored records and of buckets."""
    groups = (store_readers, journal_readers, json_readers, provenance_readers, bucket_readers)
    return [reader for group in groups for reader in group()]

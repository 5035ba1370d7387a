"""Fetches one large object of a bucket (a container image) in parts, and verifies it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.errors import FetchError, run
from retrace.files import atomic_write, file_sha256, human_bytes
from retrace.output_lock import fetching_alone
from retrace.reading import read_bytes, reading_content
from retrace.records.record import found_version, version_of
from retrace.remote.mirror import open_store
from retrace.remote.multipart import MultipartDownload
from retrace.remote.store import FetchObjectSettings, ObjectStore
from retrace.replacement import declare_with
from retrace.storage.fetched import finished_manifest, refuse_others
from retrace.storage.manifest import manifest_path, write_manifest


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job(parser)
    parser.add_argument("--output", required=True, type=Path, help="the file to make")
    return parse_job(parser, argv)


def sha256_file(output: Path) -> Path:
    """`lsd_legacy.img` -> `lsd_legacy.img.sha256`, a file for `sha256sum -c`."""
    return output.with_name(f"{output.name}.sha256")


def expected_sha256(output: Path, configured: str | None) -> str | None:
    """The configured sha256, else the one recorded by the first fetch, else None."""
    record = sha256_file(output)
    if configured is None and record.is_file():
        with reading_content(record, "delete it, to record the file's sha256 again"):
            return read_bytes(record).decode().split()[0]
    return configured


def check_sha256(store: ObjectStore, output: Path, received: str, configured: str | None) -> None:
    """Refuses an object with another sha256 than expected (FetchError)."""
    expected = expected_sha256(output, configured)
    if expected is None or expected == received:
        return
    where = "containers/images.yaml" if configured else str(sha256_file(output))
    raise FetchError(
        f"{output.name} from {store.label} has sha256 {received}, {where} says {expected}: the "
        f"object in the bucket has changed. If that is intended, correct or delete {where}"
    )


def fetch(settings: FetchObjectSettings, output: Path) -> None:
    """Downloads the object to `output`, then writes OUTPUT.sha256 and the manifest.

    Works in OUTPUT.partial, from which a later run resumes.
    """
    begin = time.monotonic()
    folder = settings.folder()
    store = open_store(folder)
    name = settings.key.rpartition("/")[2]
    item = store.find(name)
    print(f"[fetch] {name}, {human_bytes(item.size)} from {store.label}", flush=True)
    download = MultipartDownload(
        store,
        output,
        item,
        part_bytes=settings.part_bytes,
        threads=settings.threads,
        retries=settings.retries,
    )
    report = download.run_parts()
    sha256 = report.sha256[name]
    check_sha256(store, output, sha256, settings.sha256)
    declare_with(output, sha256_file(output))
    download.publish()
    atomic_write(sha256_file(output), f"{sha256}  {output.name}\n")
    seconds = time.monotonic() - begin
    extra = {
        "source": store.object_label(name),
        "key": settings.key,
        "bytes": item.size,
        "etag": item.etag,
        "sha256": sha256,
        "verified": next(iter(report.verified)),
    }
    write_manifest(
        output, inputs=[], settings=folder.complete().plain(), seconds=seconds, extra=extra
    )
    rate = human_bytes(item.size / max(seconds, 1e-9))
    print(f"[fetch] {output}: sha256 {sha256}, {seconds:.1f} s, {rate}/s", flush=True)


def is_fetched(settings: FetchObjectSettings, output: Path, found: str | None) -> bool:
    """Whether the output has the object's bytes; FetchError if another run put another one there.

    `found`: the version of its manifest when this run began.
    """
    manifest = manifest_path(output)
    content = finished_manifest(output)
    if content is None or not (output.is_file() and sha256_file(output).is_file()):
        return False
    there = {"bucket": content["settings"]["bucket"], "key": content.get("key")}
    wanted = {"bucket": settings.bucket, "key": settings.key}
    if version_of(manifest) != found:
        refuse_others(output, there, wanted)
    item = open_store(settings.folder()).find(settings.key.rpartition("/")[2])
    same = there == wanted and (content["etag"], content["bytes"]) == (item.etag, item.size)
    if not same or settings.sha256 not in (None, content["sha256"]):
        return False
    if file_sha256(output) != content["sha256"]:
        return False
    print(f"[fetch] {output} is there, sha256 {content['sha256']}", flush=True)
    return True


def main(argv: Sequence[str] | None = None) -> None:
    """Fetches one object, unless it is there."""
    args = parse_args(argv)
    settings = check(FetchObjectSettings, args.settings, "--settings")
    found = found_version(manifest_path(args.output))
    with fetching_alone(args.output):
        if not is_fetched(settings, args.output, found):
            fetch(settings, args.output)


if __name__ == "__main__":
    run(main)

"""Fetches one folder of a bucket (a volume, a checkpoint) and verifies every object."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.errors import DataError, FetchError, run
from retrace.files import human_bytes
from retrace.geometry import chunk_count
from retrace.output_lock import fetching_alone
from retrace.reading import parse_json_object, read_bytes, reading_content
from retrace.records.record import found_version
from retrace.remote.download import DownloadReport, FolderDownload, is_md5
from retrace.remote.mirror import MirrorStore, open_store
from retrace.remote.store import FetchSettings, ObjectStore, S3Object
from retrace.replacement import newest
from retrace.storage.fetched import is_fetched
from retrace.storage.manifest import (
    describe_arrays,
    input_digest,
    manifest_path,
    read_manifest,
    write_manifest,
)
from retrace.storage.zarr_writer import publish


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job(parser)
    parser.add_argument("--output", required=True, type=Path, help="the folder to make")
    parser.add_argument("--mirror", help="folder with a copy of the bucket, read instead of it")
    return parse_job(parser, argv)


def read_settings(args: argparse.Namespace) -> FetchSettings:
    """The settings, with the mirror of the command line; ConfigError for invalid ones."""
    settings = check(FetchSettings, args.settings, "--settings")
    return settings.with_(mirror=args.mirror) if args.mirror else settings


def check_arrays(folder: Path, arrays: Sequence[str], label: str) -> None:
    """Refuses a store that lacks one of `arrays`, or has damaged metadata (FetchError)."""
    for name in arrays:
        metadata = folder / name / ".zarray"
        if not metadata.is_file():
            names = sorted(p.parent.relative_to(folder).as_posix() for p in folder.rglob(".zarray"))
            raise FetchError(
                f"{label} has no array {name!r} (it has: {', '.join(names) or 'none'}); "
                "correct the array names of the dataset"
            )
        check_metadata(metadata, f"{name} of {label}")


def check_metadata(file: Path, label: str) -> None:
    """Refuses a .zarray that is not the metadata of a zarr v2 array with voxels (FetchError)."""
    try:
        with reading_content(f"the metadata of {label}", "correct the dataset's `bucket`"):
            metadata = parse_json_object(read_bytes(file), f"the metadata of {label}")
            shape, chunks = list(metadata["shape"]), list(metadata["chunks"])
            is_filled = len(shape) == len(chunks) and min(shape + chunks) > 0
            is_valid = metadata["zarr_format"] == 2 and is_filled
    except DataError as error:
        raise FetchError(str(error)) from error
    if not is_valid:
        raise FetchError(f"the metadata of {label} is not that of a filled zarr v2 array")


def check_mirror_manifest(store: ObjectStore, folder: Path) -> None:
    """Compares with the manifest in a mirror that this program created (FetchError)."""
    if not isinstance(store, MirrorStore) or not manifest_path(store.folder).is_file():
        return
    expected = read_manifest(store.folder)
    digests = {name: array["sha256"] for name, array in describe_arrays(folder).items()}
    changed = [n for n, array in expected["arrays"].items() if digests.get(n) != array["sha256"]]
    for name, sha256 in expected.get("files", {}).items():
        if not (folder / name).is_file() or input_digest(folder / name) != sha256:
            changed.append(name)
    if changed:
        raise FetchError(
            f"{', '.join(changed)} of {store.label} changed since the manifest in the mirror was "
            "written; copy the mirror again"
        )


def resume_from(output: Path, partial: Path) -> None:
    """Makes an output without a manifest, which is unfinished, the start of this run."""
    if output.is_dir() and not manifest_path(output).is_file() and not partial.exists():
        output.rename(partial)


def fetched_content(
    store: ObjectStore, items: Sequence[S3Object], report: DownloadReport, folder: Path
) -> dict[str, Any]:
    """Extra entries in the manifest of a fetched folder: source, counts, verification."""
    files: dict[str, str] = {}
    if not any(folder.rglob(".zarray")):
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): input_digest(path) for path in paths}
    return {
        "source": store.label,
        "listing": report.listing,
        "objects": report.objects,
        "bytes": report.bytes,
        "verified": dict(report.verified),
        "object_sha256": {
            item.name: report.sha256[item.name]
            for item in items
            if item.name in report.sha256 and not is_md5(item.etag)
        },
        "files": files,
    }


def absent_chunks(arrays: Mapping[str, Any], source: str) -> Iterator[str]:
    """A line for each array of a manifest that its source has only a part of."""
    for name, array in arrays.items():
        expected = chunk_count(array["shape"], array["chunks"])
        if array["chunk_count"] < expected:
            absent = expected - array["chunk_count"]
            yield (
                f"{name}: {absent} of {expected} chunks are not in {source}; they read as the fill "
                "value. If you expect all of them, complete the source and fetch again"
            )


def fetch(settings: FetchSettings, output: Path) -> DownloadReport:
    """Downloads exactly the objects under the prefix into `output`, then writes its manifest.

    Works in OUTPUT.partial, from which a later run resumes. After a FetchError that folder and an
    older `output` stay.
    """
    begin = time.monotonic()
    store = open_store(settings)
    items = store.objects()
    total = sum(item.size for item in items)
    print(f"[fetch] {len(items)} objects, {human_bytes(total)} from {store.label}", flush=True)
    partial = output.with_name(output.name + ".partial")
    resume_from(output, partial)
    download = FolderDownload(store, partial, threads=settings.threads, retries=settings.retries)
    report = download.run(items)
    check_arrays(partial, settings.arrays, store.label)
    check_mirror_manifest(store, partial)
    extra = fetched_content(store, items, report, partial)
    publish(partial, output)
    seconds = time.monotonic() - begin
    manifest = write_manifest(
        output,
        inputs=[],
        settings=settings.complete().plain(),
        seconds=seconds,
        extra=extra,
        known=report.sha256,
    )
    arrays = json.loads(newest(manifest).read_text())["arrays"]
    for line in absent_chunks(arrays, store.label):
        print(f"[fetch] {line}", flush=True)
    rate = human_bytes(total / max(seconds, 1e-9))
    kept = f", {report.kept} kept from an earlier run" if report.kept else ""
    print(f"[fetch] {output}: {report.objects} objects{kept}, {seconds:.1f} s, {rate}/s")
    return report


def main(argv: Sequence[str] | None = None) -> None:
    """Fetches one folder, unless another run has just done so."""
    args = parse_args(argv)
    settings = read_settings(args)
    found = found_version(manifest_path(args.output))
    with fetching_alone(args.output):
        if not is_fetched(args.output, settings, found):
            fetch(settings, args.output)


if __name__ == "__main__":
    run(main)

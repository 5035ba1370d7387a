"""Fetches one folder of a bucket (a volume, a checkpoint) and verifies every object of it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, FetchError, run
from retrace.remote.download import Report, Transfer, human_bytes
from retrace.remote.s3 import FetchSettings, FolderSource, Source, open_source
from retrace.storage.manifest import (
    describe_arrays,
    input_digest,
    manifest_path,
    read_manifest,
    write_manifest,
)
from retrace.storage.zarr_writer import publish


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="JSON: bucket, prefix, endpoint_url, ...")
    parser.add_argument("--output", required=True, type=Path, help="the folder to make")
    parser.add_argument("--bundle", help="folder with the bucket's keys, instead of the bucket")
    return parser.parse_args(argv)


def read_settings(args: argparse.Namespace) -> FetchSettings:
    try:
        settings = FetchSettings.parse(json.loads(args.settings))
    except json.JSONDecodeError as error:
        raise ConfigError(f"--settings is not JSON ({error})") from error
    return replace(settings, bundle=args.bundle) if args.bundle else settings


def check_arrays(folder: Path, arrays: Sequence[str], label: str) -> None:
    """Refuses a store that lacks an array, or whose metadata cannot be read (FetchError)."""
    for name in arrays:
        meta_file = folder / name / ".zarray"
        if not meta_file.is_file():
            found = sorted(p.parent.relative_to(folder).as_posix() for p in folder.rglob(".zarray"))
            raise FetchError(
                f"{label} has no array {name!r} (arrays there: {', '.join(found) or 'none'}); "
                "correct the array names of the dataset"
            )
        check_metadata(meta_file, f"{name} of {label}")


def check_metadata(meta_file: Path, label: str) -> None:
    """Refuses a .zarray that is no zarr v2 metadata (FetchError)."""
    try:
        meta = json.loads(meta_file.read_text())
        shape, chunks = list(meta["shape"]), list(meta["chunks"])
        whole = meta["zarr_format"] == 2 and len(shape) == len(chunks) and min(shape + chunks) > 0
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(f"the metadata of {label} cannot be read ({error!r})") from error
    if not whole:
        raise FetchError(f"the metadata of {label} is not that of a filled zarr v2 array")


def check_bundle_manifest(source: Source, folder: Path) -> None:
    """Compares with the manifest that a bundle made by this program carries (FetchError)."""
    if not isinstance(source, FolderSource) or not manifest_path(source.folder).is_file():
        return
    expected = read_manifest(source.folder)
    here = {name: array["sha256"] for name, array in describe_arrays(folder).items()}
    changed = [n for n, array in expected["arrays"].items() if here.get(n) != array["sha256"]]
    for name, sha256 in expected.get("files", {}).items():
        if not (folder / name).is_file() or input_digest(folder / name) != sha256:
            changed.append(name)
    if changed:
        raise FetchError(
            f"{', '.join(changed)} of {source.label} changed since the manifest in the bundle was "
            "made; bring the bundle again"
        )


def take_up(output: Path, partial: Path) -> None:
    """Makes an output that never got its manifest the start of this run."""
    if output.is_dir() and not manifest_path(output).is_file() and not partial.exists():
        output.rename(partial)


def describe(source: Source, report: Report, folder: Path) -> dict[str, Any]:
    """The part of the manifest that only a fetch has."""
    files: dict[str, str] = {}
    if not any(folder.rglob(".zarray")):
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): input_digest(path) for path in paths}
    return {
        "source": source.label,
        "objects": report.objects,
        "bytes": report.bytes,
        "verified": dict(report.verified),
        "object_sha256": report.sha256,
        "files": files,
    }


def fetch(settings: FetchSettings, output: Path) -> Report:
    """Makes `output` hold exactly the objects under the prefix, then its manifest.

    Works in OUTPUT.partial, which a later run goes on with; FetchError leaves it and any older
    `output` as they are.
    """
    begin = time.monotonic()
    source = open_source(settings)
    items = source.objects()
    total = sum(item.size for item in items)
    print(f"[fetch] {len(items)} objects, {human_bytes(total)} from {source.label}", flush=True)
    partial = output.with_name(output.name + ".partial")
    take_up(output, partial)
    report = Transfer(source, partial, threads=settings.threads, retries=settings.retries).run(
        items
    )
    check_arrays(partial, settings.arrays, source.label)
    check_bundle_manifest(source, partial)
    extra = describe(source, report, partial)
    manifest_path(output).unlink(missing_ok=True)
    publish(partial, output)
    seconds = time.monotonic() - begin
    write_manifest(output, inputs=[], settings=asdict(settings), seconds=seconds, extra=extra)
    rate = human_bytes(total / max(seconds, 1e-9))
    kept = f", {report.kept} kept from an earlier run" if report.kept else ""
    print(f"[fetch] {output}: {report.objects} objects{kept}, {seconds:.1f} s, {rate}/s")
    return report


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    fetch(read_settings(args), args.output)


if __name__ == "__main__":
    run(main)

"""Fetches one large object of a bucket (a container image) in parts and verifies it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, FetchError, run
from retrace.files import atomic_write
from retrace.remote.download import human_bytes
from retrace.remote.multipart import PartsTransfer
from retrace.remote.s3 import FetchSettings, Source, open_source
from retrace.storage.manifest import manifest_path, write_manifest

PART_BYTES = 64 << 20


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, type=json.loads, help="bucket, key, sha256, …")
    parser.add_argument("--output", required=True, type=Path, help="the file to make")
    return parser.parse_args(argv)


def read_settings(values: Mapping[str, Any]) -> tuple[FetchSettings, str, str | None, int]:
    """Where the object's folder is, the object's name, its sha256 if known, bytes a part."""
    rest = dict(values)
    folder, _, name = str(rest.pop("key", "")).strip("/").rpartition("/")
    if not name:
        raise ConfigError("fetch_object needs the setting 'key', the name of one object")
    sha256, part_bytes = rest.pop("sha256", None), rest.pop("part_bytes", PART_BYTES)
    return FetchSettings.parse({**rest, "prefix": folder}), name, sha256, part_bytes


def record_path(output: Path) -> Path:
    """`lsd_legacy.img` -> `lsd_legacy.img.sha256`, which `sha256sum -c` reads."""
    return output.with_name(f"{output.name}.sha256")


def expected_sha256(output: Path, told: str | None) -> str | None:
    """What the file must have: as told, else as the first fetch noted it, else None."""
    record = record_path(output)
    if told is None and record.is_file():
        return record.read_text().split()[0]
    return told


def check_sha256(source: Source, output: Path, found: str, told: str | None) -> None:
    """Refuses an object that is not the one expected (FetchError)."""
    wanted = expected_sha256(output, told)
    if wanted is None or wanted == found:
        return
    where = "containers/images.yaml" if told else str(record_path(output))
    raise FetchError(
        f"{output.name} from {source.label} has sha256 {found}, {where} says {wanted}: the object "
        f"in the bucket is another one by now. If that is meant, correct or delete {where}"
    )


def fetch(values: Mapping[str, Any], output: Path) -> None:
    """Makes `output` the object, then notes its sha256 beside it, then writes its manifest.

    Works in OUTPUT.partial, which a later run goes on with.
    """
    begin = time.monotonic()
    settings, name, told, part_bytes = read_settings(values)
    source = open_source(settings)
    item = source.find(name)
    print(f"[fetch] {name}, {human_bytes(item.size)} from {source.label}", flush=True)
    transfer = PartsTransfer(source, output, item, settings, part_bytes)
    report = transfer.run_parts()
    sha256 = report.sha256[name]
    check_sha256(source, output, sha256, told)
    manifest_path(output).unlink(missing_ok=True)
    transfer.publish()
    atomic_write(record_path(output), f"{sha256}  {output.name}\n")
    seconds = time.monotonic() - begin
    extra = {
        "source": f"{source.label}{name}",
        "bytes": item.size,
        "etag": item.etag,
        "sha256": sha256,
        "verified": next(iter(report.verified)),
    }
    write_manifest(output, inputs=[], settings=asdict(settings), seconds=seconds, extra=extra)
    rate = human_bytes(item.size / max(seconds, 1e-9))
    print(f"[fetch] {output}: sha256 {sha256}, {seconds:.1f} s, {rate}/s", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    fetch(args.settings, args.output)


if __name__ == "__main__":
    run(main)

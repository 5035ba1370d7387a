"""Manifests: what is in a store and what it was computed from.

A manifest is written last, so that a store without one is unfinished, and it is checked before use.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

from retrace import __version__
from retrace.errors import DataError
from retrace.files import atomic_write, complete_replacement, digest, file_sha256
from retrace.formats.shard_files import ARRAY_DOCUMENT, is_array, shard_layout
from retrace.geometry import in_nm
from retrace.reading import (
    DamagedError,
    files_below,
    if_intact,
    read_json_object,
    reading_content,
    retried,
)
from retrace.records.contents import content_digest
from retrace.replacement import MANIFEST, declare_with, is_waiting, newest, sync_tree
from retrace.storage.chunk_index import (
    ChunkDigests,
    chunk_digests,
    chunk_files,
    digest_of_chunks,
    files_of,
    index_path,
    read_index,
    write_index,
)

FORMAT_VERSION = 1
"""Increased when the layout of outputs changes; outputs of other versions are refused."""

LAYER_INFO = "info"
"""The metadata file of a precomputed layer."""
LAYER_SHAPES = ("mesh", "skeletons")
"""Keys of that file which name the folders of meshes and skeletons."""

_REMEDY = "Its manifest is invalidated: run the same command again to recompute it"
_FETCH_AGAIN = (
    "Its manifest is invalidated: run the same command again to fetch what is missing or changed"
)
_IF_EDITED = (
    ". If you edited it yourself, first copy it to a folder of your own, without the manifest, and "
    "name the copy in your dataset"
)


def manifest_path(store: Path) -> Path:
    """`x/prediction.zarr` -> `x/prediction.manifest.json`.

    The manifest of a layer does not describe the new version that is written to `layer.partial`.
    """
    name = store.name if store.suffix == ".partial" else store.stem
    return store.with_name(f"{name}{MANIFEST}")


def _position(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {"voxel_size_nm": attrs.get("resolution"), "offset_nm": attrs.get("offset")}


def _zarr_metadata(folder: Path) -> dict[str, Any]:
    """Shape, chunks, dtype, voxel size and offset of a zarr v2 array."""
    metadata = read_json_object(folder / ".zarray")
    attrs_file = folder / ".zattrs"
    attrs = read_json_object(attrs_file) if attrs_file.is_file() else {}
    return {name: metadata[name] for name in ("shape", "chunks", "dtype")} | _position(attrs)


def _zarr3_metadata(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a zarr v3 array, and its shards if it has some; `chunks` are those in a shard."""
    grid, layout = document["chunk_grid"]["configuration"]["chunk_shape"], shard_layout(document)
    chunks = {"chunks": grid} if layout is None else {"chunks": [*layout.chunks], "shards": grid}
    shared = {"shape": document["shape"], **chunks, "dtype": document["data_type"]}
    return shared | _position(document.get("attributes", {}))


def _layer_metadata(store: Path) -> dict[str, dict[str, Any]]:
    """The same for each mip of a precomputed layer, by its folder; empty for other stores."""
    if not (store / LAYER_INFO).is_file():
        return {}
    info = read_json_object(store / LAYER_INFO)
    lead = [info["num_channels"]] if info["num_channels"] > 1 else []
    shapes = {info[key]: {"contains": key} for key in LAYER_SHAPES if info.get(key)}
    return {
        **{s["key"]: _scale_metadata(info["data_type"], lead, s) for s in info["scales"]},
        **{name: about for name, about in shapes.items() if (store / name).is_dir()},
    }


def _scale_metadata(dtype: str, lead: list[int], scale: Mapping[str, Any]) -> dict[str, Any]:
    size, offset = scale["resolution"][::-1], scale["voxel_offset"][::-1]
    return {
        "shape": [*lead, *scale["size"][::-1]],
        "chunks": [*lead, *scale["chunk_sizes"][0][::-1]],
        "dtype": dtype,
        "voxel_size_nm": size,
        "offset_nm": list(in_nm(offset, size)),
    }


def _array_metadata(store: Path) -> dict[str, dict[str, Any]]:
    """The metadata of each array of a store, by its folder."""
    zarrs = {}
    for file in files_below(store):
        name = file.parent.relative_to(store).as_posix()
        if file.name == ".zarray":
            zarrs[name] = _zarr_metadata(file.parent)
        elif file.name == ARRAY_DOCUMENT:
            document = read_json_object(file)
            zarrs |= {name: _zarr3_metadata(document)} if is_array(document) else {}
    return dict(sorted(zarrs.items())) | _layer_metadata(store)


def _array_entry(metadata: Mapping[str, Any], digests: ChunkDigests) -> dict[str, Any]:
    """An array's entry in a manifest: metadata, number of chunk files, digest of all chunks."""
    count = len(files_of(digests))
    return {**metadata, "chunk_count": count, "sha256": digest_of_chunks(digests)}


def describe_arrays(store: Path) -> dict[str, dict[str, Any]]:
    """Per array of a store: shape, chunks, dtype, voxel size, offset, chunk count, digest.

    Arrays are those of a zarr store, or the mips of a precomputed layer.
    """
    return _described(store)[0]


def _described(
    store: Path, known: Mapping[str, str] | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, ChunkDigests]]:
    """The entries of all arrays, and the digests of their chunks; `known` as `write_manifest`'s."""
    metadata = _array_metadata(store)
    digests = {name: chunk_digests(store / name, _below(known or {}, name)) for name in metadata}
    return {name: _array_entry(m, digests[name]) for name, m in metadata.items()}, digests


def _below(known: Mapping[str, str], folder: str) -> dict[str, bytes]:
    """The digests of the files below a folder, by their path below it."""
    begin = "" if folder == "." else f"{folder}/"
    inside = (name for name in known if name.startswith(begin))
    return {name[len(begin) :]: bytes.fromhex(known[name]) for name in inside}


def input_digest(path: Path) -> str:
    """16 hex digits that identify an input's content.

    For a folder with a manifest they come from the manifest, for others from the bytes.
    """
    manifest = manifest_path(path)
    if path.is_dir() and manifest.is_file():
        content = read_json_object(manifest)
        arrays = {name: array["sha256"] for name, array in content["arrays"].items()}
        return digest(arrays | content.get("files", {}))
    if path.is_dir():
        arrays = {name: array["sha256"] for name, array in describe_arrays(path).items()}
        return digest(arrays) if arrays else content_digest(path)
    return file_sha256(path)[:16]


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far, in MiB."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return round(largest * unit / 2**20, 1)


def origin(
    inputs: Iterable[Path],
    settings: object,
    seconds: float,
    read: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What a result was computed from: input digests, settings, versions, image; and its cost.

    `settings`: any JSON object, written unchanged. `read`: what was read of remote volumes, by
    address (ReadRecord.summary).
    """
    remote = {} if not read else {"read": dict(read)}
    return {
        "code_version": __version__,
        "inputs": {
            **{path.as_posix(): input_digest(newest(path)) for path in inputs},
            **{address: summary["sha256"][:16] for address, summary in (read or {}).items()},
        },
        "settings": settings,
        "settings_digest": digest(settings),
        "image": os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER"),
        "gpu": gpu_name(),
        "python": sys.version.split()[0],
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
        **remote,
    }


def write_manifest(
    store: Path,
    *,
    inputs: Iterable[Path],
    settings: object,
    seconds: float,
    extra: Mapping[str, Any] | None = None,
    read: Mapping[str, Mapping[str, Any]] | None = None,
    known: Mapping[str, str] | None = None,
) -> Path:
    """Writes the manifest of the finished `store` next to it; the last action of a program.

    The store is flushed to disk before it: after a power cut, no manifest describes files that are
    empty or missing. A store that waits is flushed when the outputs are replaced.

    `settings`, `read`: as for `origin`; `extra`: further entries; `known`: SHA-256 (hex) of files
    that the caller has just written, by their path below the store. Others are read.
    """
    complete, path = newest(store), manifest_path(store)
    if not is_waiting(store):
        sync_tree(complete)
    declare_with(store, path, index_path(store))
    arrays, digests = _described(complete, known) if complete.is_dir() else ({}, {})
    if digests:
        write_index(store, digests)
    content = {
        "format_version": FORMAT_VERSION,
        "store": store.name,
        "arrays": arrays,
        **origin(inputs, settings, seconds, read),
        **(extra or {}),
    }
    return atomic_write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def gpu_name() -> str | None:
    """The GPU that this process has used, None if it has used none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return str(torch.cuda.get_device_name())


def read_manifest(store: Path) -> dict[str, Any]:
    """The manifest of `store`; DataError if it is missing, not JSON, or of another version."""
    path = manifest_path(store)
    complete_replacement(path)
    if not retried(path.is_file, path):
        raise DataError(
            f"{store} has no manifest {path.name}: it was never finished. Delete {store} and run "
            "the same command again"
        )
    try:
        content = read_json_object(path)
    except DamagedError as error:
        invalidate_manifest(store)
        raise DataError(f"{path} {error.fault}. {_REMEDY}") from error
    check_format(store, content.get("format_version"))
    return content


def check_format(store: Path, version: int | None) -> None:
    """DataError if another version of retrace wrote a store in format `version`."""
    if version != FORMAT_VERSION:
        raise DataError(
            f"{store} was written by another version of retrace (format {version}, this one reads "
            f"{FORMAT_VERSION}); use that version, or move {store} and {manifest_path(store).name} "
            "to another folder and run the same command again"
        )


def invalidate_manifest(store: Path) -> None:
    """Renames the manifest of a damaged store to *.damaged, so that the next run recomputes it.

    The chunks of an assembled store are links to those of its shards: the manifests of damaged
    shards are invalidated too.
    """
    path = manifest_path(store)
    if not path.is_file():
        return
    shards = _shards(path)
    with suppress(FileNotFoundError):  # another job was faster
        path.replace(path.with_suffix(".damaged"))
    for shard in shards:
        with suppress(DataError):
            check_manifest(shard, digests=True)


def _shards(manifest: Path) -> list[Path]:
    """The shards that a store was assembled from; empty for others and damaged manifests."""
    content = if_intact(lambda: read_json_object(manifest), manifest) or {}
    return [Path(name) for name in content.get("inputs", ())] if "shares" in content else []


def store_with_manifest(path: Path) -> Path | None:
    """`path` or the folder above it that has a manifest, None if none has."""
    for folder in (path, *path.parents):
        if not folder.name:  # "/" and "." have none
            continue
        manifest = manifest_path(folder)
        if retried(manifest.is_file, manifest):
            return folder
    return None


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Raises DataError for chunks that cannot be decoded, and invalidates their manifest.

    `path`: an array or its store. MachineError where the machine is at fault; then the manifest
    stays.
    """
    try:
        with reading_content(path, "restore or convert it"):
            yield
    except DamagedError as error:
        store = store_with_manifest(Path(path))
        if store is None:
            raise
        invalidate_manifest(store)
        raise DataError(f"{path} is damaged: it {error.fault}. {_REMEDY}") from error


def check_manifest(store: Path, *, digests: bool = False) -> dict[str, Any]:
    """The manifest of `store`, compared with the files on disk.

    Arrays, their metadata, numbers of chunks and listed files are always compared, the bytes with
    `digests=True`. On a difference the manifest is invalidated and DataError names the array.
    """
    content = read_manifest(store)
    difference = difference_from(store, content, digests)
    if difference:
        raise damaged(store, content, difference)
    return content


def damaged(store: Path, content: Mapping[str, Any], difference: str) -> DataError:
    """The error for a store that differs from its manifest `content`, which is invalidated."""
    invalidate_manifest(store)
    remedy = _FETCH_AGAIN if "object_sha256" in content else _REMEDY
    return DataError(f"{store}/{difference}. {remedy}{_IF_EDITED}")


def difference_from(store: Path, content: Mapping[str, Any], digests: bool = False) -> str | None:
    """The first difference between a store and its manifest `content`; None without any.

    Metadata that cannot be read is a difference; MachineError where the machine is at fault.
    """
    try:
        with reading_content(store):
            return _first_difference(store, content, digests)
    except DamagedError as error:
        return f"metadata: {error}"


def _first_difference(store: Path, content: Mapping[str, Any], digests: bool) -> str | None:
    """`difference_from` for metadata that can be read."""
    metadata = _array_metadata(store)
    for name, expected in content["arrays"].items():
        if name not in metadata:
            return f"{name} is missing, but its manifest names it"
        difference = _array_difference(store, name, metadata[name], expected, digests)
        if difference:
            return f"{name}{difference}"
    for name, expected in content.get("files", {}).items() if store.is_dir() else ():
        if not (store / name).is_file():
            return f"{name} is missing, but its manifest names it"
        if digests and input_digest(store / name) != expected:
            return f"{name}: its bytes changed since they were written"
    return None


def _array_difference(
    store: Path,
    name: str,
    metadata: Mapping[str, Any],
    expected: Mapping[str, Any],
    digests: bool,
) -> str | None:
    """How an array differs from its entry in the manifest, as the end of a sentence about it."""
    changed = [key for key in metadata if key in expected and metadata[key] != expected[key]]
    if changed:
        key = changed[0]
        return f" has {key} {metadata[key]!r}, its manifest says {expected[key]!r}"
    files = chunk_files(store / name)
    if len(files) != expected["chunk_count"]:
        present = {path.relative_to(store / name).as_posix() for path in files}
        absent = absent_chunks(store, name, expected, present)
        some = f": {len(absent)} missing, such as {absent[0]}" if absent else ""
        return f" has {len(files)} chunks, its manifest says {expected['chunk_count']}{some}"
    if not digests:
        return None
    current = chunk_digests(store / name)
    if digest_of_chunks(current) == expected["sha256"]:
        return None
    written = indexed_digests(store, name, expected["sha256"])
    other = [chunk for chunk in written if current.get(chunk) != written[chunk]]
    some = f" ({len(other)} of {len(written)} chunks, such as {other[0]})" if other else ""
    return f": its bytes changed since they were written{some}"


def indexed_digests(store: Path, name: str, sha256: str) -> ChunkDigests:
    """The digests of an array's chunks when they were written; empty without a valid index."""
    digests = read_index(store).get(name, {})
    return digests if digests and digest_of_chunks(digests) == sha256 else {}


def absent_chunks(
    store: Path, name: str, expected: Mapping[str, Any], present: Collection[str]
) -> list[str]:
    """The chunks of an array that existed and are not `present`, as far as they are known.

    Without an index they are known if the array had all chunks of its grid.
    """
    listed: Iterable[str] = files_of(indexed_digests(store, name, expected["sha256"]))
    if not listed and (store / name / ".zarray").is_file():
        metadata = read_json_object(store / name / ".zarray")
        edges = zip(expected["shape"], expected["chunks"], strict=True)
        grid = [range(-(-size // chunk)) for size, chunk in edges]
        if math.prod(map(len, grid)) == expected["chunk_count"]:
            separator = metadata.get("dimension_separator", ".")
            listed = (separator.join(map(str, index)) for index in product(*grid))
    return [chunk for chunk in listed if chunk not in present]

"""Manifests: what a store holds and what it was made from, written last and checked before use."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retrace import __version__
from retrace.errors import DataError
from retrace.files import atomic_write, digest

FORMAT_VERSION = 1
"""Raised when an output's layout changes; an output of another version is refused."""

INFO = "info"
"""The metadata of a precomputed layer."""


def manifest_path(store: Path) -> Path:
    """`x/prediction.zarr` -> `x/prediction.manifest.json`."""
    return store.with_name(f"{store.stem}.manifest.json")


def chunk_files(array_folder: Path) -> list[Path]:
    """The chunks of an array on disk, sorted; neither its metadata nor half-written ones."""
    files = (p for p in array_folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in files if not p.name.endswith(".partial"))


def _file_digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _zarr_facts(folder: Path) -> dict[str, Any]:
    """What the metadata of a zarr v2 array say."""
    meta = json.loads((folder / ".zarray").read_text())
    attrs_file = folder / ".zattrs"
    attrs = json.loads(attrs_file.read_text()) if attrs_file.is_file() else {}
    place = {"voxel_size_nm": attrs.get("resolution"), "offset_nm": attrs.get("offset")}
    return {name: meta[name] for name in ("shape", "chunks", "dtype")} | place


def _layer_facts(store: Path) -> dict[str, dict[str, Any]]:
    """The same for every mip of a precomputed layer, by its folder; empty for other stores."""
    if not (store / INFO).is_file():
        return {}
    info = json.loads((store / INFO).read_text())
    lead = [info["num_channels"]] if info["num_channels"] > 1 else []
    return {scale["key"]: _scale_facts(info["data_type"], lead, scale) for scale in info["scales"]}


def _scale_facts(dtype: str, lead: list[int], scale: Mapping[str, Any]) -> dict[str, Any]:
    size, offset = scale["resolution"][::-1], scale["voxel_offset"][::-1]
    return {
        "shape": [*lead, *scale["size"][::-1]],
        "chunks": [*lead, *scale["chunk_sizes"][0][::-1]],
        "dtype": dtype,
        "voxel_size_nm": size,
        "offset_nm": [o * s for o, s in zip(offset, size, strict=True)],
    }


def _array_facts(store: Path) -> dict[str, dict[str, Any]]:
    """Per array of a store, by its folder, what its metadata say."""
    folders = sorted(p.parent for p in store.rglob(".zarray"))
    zarrs = {f.relative_to(store).as_posix(): _zarr_facts(f) for f in folders}
    return zarrs | _layer_facts(store)


def _array_entry(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    files = chunk_files(folder)
    whole = hashlib.sha256()
    with ThreadPoolExecutor(4) as pool:
        for path, part in zip(files, pool.map(_file_digest, files), strict=True):
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + part)
    return {
        **facts,
        "chunk_count": len(files),
        "sha256": whole.hexdigest(),
    }


def describe_arrays(store: Path) -> dict[str, dict[str, Any]]:
    """Per array of a store: shape, chunks, dtype, voxel size, offset, count, digest.

    Arrays of a zarr v2 store, or mips of a precomputed layer.
    """
    return {name: _array_entry(store / name, f) for name, f in _array_facts(store).items()}


def input_digest(path: Path) -> str:
    """The digest of an input: of its manifest's arrays where it has one, of its bytes otherwise."""
    manifest = manifest_path(path)
    if path.is_dir() and manifest.is_file():
        content = json.loads(manifest.read_text())
        arrays = {name: array["sha256"] for name, array in content["arrays"].items()}
        return digest(arrays | content.get("files", {}))
    if path.is_dir():
        return digest({name: a["sha256"] for name, a in describe_arrays(path).items()})
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def peak_memory_mb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes / 1024, 1)


def origin(
    inputs: Iterable[Path],
    settings: Mapping[str, Any],
    seconds: float,
    read: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """What a result was made of: digests of what was read, settings, versions, image, cost.

    `read`: by address what was read of volumes elsewhere (retrace.blocks.Record.summary).
    """
    elsewhere = {} if not read else {"read": dict(read)}
    return {
        "code_version": __version__,
        "inputs": {
            **{path.as_posix(): input_digest(path) for path in inputs},
            **{address: facts["sha256"][:16] for address, facts in (read or {}).items()},
        },
        "settings": dict(settings),
        "settings_digest": digest(dict(settings)),
        "image": os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER"),
        "gpu": gpu_name(),
        "python": sys.version.split()[0],
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
        **elsewhere,
    }


def write_manifest(
    store: Path,
    *,
    inputs: Iterable[Path],
    settings: Mapping[str, Any],
    seconds: float,
    extra: Mapping[str, Any] | None = None,
    read: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Describes the finished `store` beside it; the last thing that a script writes.

    `read`: as for `origin`.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "store": store.name,
        "arrays": describe_arrays(store) if store.is_dir() else {},
        **origin(inputs, settings, seconds, read),
        **(extra or {}),
    }
    return atomic_write(manifest_path(store), json.dumps(content, indent=1, sort_keys=True) + "\n")


def gpu_name() -> str | None:
    """The GPU that this process has used; None where it has used none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return str(torch.cuda.get_device_name())


def read_manifest(store: Path) -> dict[str, Any]:
    """The manifest of `store`; DataError where it is absent, unreadable or of another version."""
    path = manifest_path(store)
    if not path.is_file():
        raise DataError(
            f"{store} has no manifest {path.name}: it was never finished. Delete {store} and rerun "
            "the rule that makes it"
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        withdraw(store)
        raise DataError(f"{path} is not JSON ({error}). {AGAIN}") from error
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{store} was written by another version of retrace (format {version}, this one reads "
            f"{FORMAT_VERSION}); delete it and run the same command again"
        )
    return content


AGAIN = "Its manifest was set aside: run the same command again, which makes it anew"


def withdraw(store: Path) -> None:
    """Sets the manifest of a damaged store aside, so that the next run makes the store again.

    Where the store was put together of shares, whose chunks are the same files, only the shares
    that are damaged lose theirs.
    """
    path = manifest_path(store)
    if not path.is_file():
        return
    shares = _shares(path)
    path.replace(path.with_suffix(".damaged"))
    for share in shares:
        with suppress(DataError):
            check_manifest(share, digests=True)


def _shares(manifest: Path) -> list[Path]:
    """The shares that a store was put together of, by its manifest; none of a damaged one."""
    try:
        content = json.loads(manifest.read_text())
        return [Path(name) for name in content["inputs"]] if "shares" in content else []
    except (ValueError, KeyError, TypeError):
        return []


def vouched(path: Path) -> Path | None:
    """The store with a manifest that `path` is, or lies in; None where there is none."""
    for place in (path, *path.parents):
        if place.name and manifest_path(place).is_file():  # neither "/" nor "." has a name
            return place
    return None


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turns chunks of `path` that do not decode into DataError, and withdraws their manifest.

    `path`: an array or its store.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        store = vouched(Path(path))
        if store is None:
            raise DataError(f"{path} cannot be read ({error}); restore or convert it") from error
        withdraw(store)
        raise DataError(f"{path} is damaged ({error}). {AGAIN}") from error


def check_manifest(store: Path, *, digests: bool = False) -> dict[str, Any]:
    """The manifest of `store` after comparing it with what is on disk.

    Shapes and chunk counts are compared always, the bytes with `digests=True`. Where they differ,
    the manifest is withdrawn and DataError names the array.
    """
    content = read_manifest(store)
    found = _difference(store, content, digests)
    if found:
        withdraw(store)
        raise DataError(f"{store}/{found}. {AGAIN}")
    return content


def _difference(store: Path, content: Mapping[str, Any], digests: bool) -> str | None:
    """What is not as the manifest says, None where all is."""
    known = _array_facts(store)
    for name, expected in content["arrays"].items():
        folder = store / name
        if name not in known:
            return f"{name} is gone though its manifest names it"
        count = len(chunk_files(folder))
        if count != expected["chunk_count"]:
            return f"{name} has {count} chunks, its manifest says {expected['chunk_count']}"
        if digests and _array_entry(folder, known[name])["sha256"] != expected["sha256"]:
            return f"{name}: its bytes changed since they were written"
    return None

"""Packs an experiment into a bundle: a working directory with workflow, data, images and wheels."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrace.files import atomic_write, file_sha256, read_json
from retrace.planning.program_files import ROOT
from retrace.provenance.bundle_files import (
    FACTS,
    FILES,
    FORMAT_VERSION,
    IMAGES,
    OBJECTS,
    WHEELS,
    machine,
)
from retrace.provenance.folders import (
    RUN_CONFIG,
    code_files,
    copy_shared,
    files_below,
    link_or_copy,
)
from retrace.replacement import MANIFEST, put
from retrace.storage.manifest import manifest_path

if TYPE_CHECKING:  # bundle.py imports this module where pydantic is not installed
    from retrace.config.pack_model import PackedConfiguration, PackSettings
    from retrace.config.workflow import WorkflowConfig

OUTPUTS = "results/znn"
"""Folder of a bundle for the files that a .cfg of ZNN has written."""


def write_bundle(
    output: Path,
    settings: PackSettings,
    *,
    files: Iterable[Path],
    images: Sequence[Path],
    wheels: Path,
) -> None:
    """Writes the folder `output` under a temporary name, bundle.json last, and renames it.

    `files`: volumes and weights; `wheels`: folder of the packages that Snakemake needs.
    """
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    moved = put_data(files, partial)
    put_code(partial, moved, settings.dataset, settings.networks)
    put_configurations(partial, moved, settings.configurations)
    for image in images:
        link_or_copy(image, partial / IMAGES / image.name)
    for wheel in files_below(wheels):
        link_or_copy(wheel, partial / WHEELS / wheel.name)
    here = _for_bundle(settings.config, moved)
    (partial / RUN_CONFIG).write_text(json.dumps(here.plain(), indent=1) + "\n")  # JSON is YAML
    digests = {p.relative_to(partial).as_posix(): file_sha256(p) for p in files_below(partial)}
    facts = {"format_version": FORMAT_VERSION, **machine(), "target": settings.target}
    atomic_write(partial / FACTS, json.dumps({**facts, "files": digests}, indent=1) + "\n")
    total = sum(path.stat().st_size for path in files_below(partial))
    put(partial, output)
    print(f"[bundle] {output}: {len(digests)} files, {total / 1e6:.0f} MB", flush=True)


def _moved_init(config: WorkflowConfig, moved: Mapping[str, str]) -> str | dict[str, str] | None:
    """`init` with the paths that its files have in the bundle."""
    if isinstance(config.init, Mapping):
        return {name: moved[path] for name, path in config.init.items() if path in moved}
    return moved.get(config.init or "")


def _for_bundle(config: WorkflowConfig, moved: Mapping[str, str]) -> WorkflowConfig:
    """The settings of a run in the bundle: its own data, and no folder of this machine.

    Every setting stays in the file, for an RO-Crate of the run compares it with all settings.
    """
    cache = type(config.blocks).model_fields["cache"].default
    init = _moved_init(config, moved)
    return config.with_(
        mirror=OBJECTS, init=init, output_prefix=None, blocks=config.blocks.with_(cache=cache)
    )


def put_data(files: Iterable[Path], folder: Path) -> dict[str, str]:
    """Adds volumes and weights to the bundle; returns new paths of the user's own, by old path."""
    moved: dict[str, str] = {}
    for path in dict.fromkeys(files):
        if path.name.endswith(MANIFEST):
            continue
        if _is_fetched(path):
            _put_fetched(path, folder)
        else:
            moved[str(path)] = _put_own(path, folder, len(moved))
        print(f"[bundle] {path}", flush=True)
    return moved


def _is_fetched(path: Path) -> bool:
    """Whether a store came from the bucket, according to its manifest."""
    manifest = manifest_path(path)
    return manifest.is_file() and "source" in read_json(manifest)


def _put_fetched(store: Path, folder: Path) -> None:
    """Adds a fetched store under its key in the bucket, with its manifest."""
    manifest = manifest_path(store)
    target = folder / OBJECTS / read_json(manifest)["settings"]["prefix"]
    for path in files_below(store):
        link_or_copy(path, target / path.relative_to(store))
    copy_shared(manifest, manifest_path(target))


def _put_own(path: Path, folder: Path, number: int) -> str:
    """Adds a copy of a file or folder of the user's, who may edit it; returns its path there."""
    name = f"{FILES}/{number}/{path.name}"
    for file in files_below(path) if path.is_dir() else [path]:
        inside = file.relative_to(path) if path.is_dir() else Path()
        target = folder / name / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return name


def put_code(
    folder: Path, moved: Mapping[str, str], dataset: str, networks: Collection[str] = ()
) -> None:
    """Adds the workflow; in the files of dataset and networks, paths become those of the bundle.

    Other datasets and networks that name files of this machine are left out: they would not work.
    """
    # Imported here: YAML needs a package, which is not installed where a bundle is checked.
    from retrace.provenance.moved_paths import names_outside, with_moved_paths

    networks_files = (f"config/networks/{network}.yaml" for network in networks)
    needed = {f"config/datasets/{dataset}.yaml", *networks_files}
    for name, path in code_files(ROOT, Path()).items():
        is_own = name.startswith(("config/datasets/", "config/networks/"))
        if is_own and name not in needed and names_outside(path.read_text()):
            print(f"[bundle] {name} names other files of this machine, and is left out", flush=True)
            continue
        copy_shared(path, folder / name)
        if name in needed:
            text = with_moved_paths((folder / name).read_text(), moved)
            (folder / name).write_text(text)


def put_configurations(
    folder: Path, moved: Mapping[str, str], configurations: Iterable[PackedConfiguration]
) -> None:
    """Writes the configurations of ZNN for the bundle: the files that they name are in it, too."""
    from retrace.znn.moved import moved_cfg, moved_spec

    places = {Path(old).resolve(): new for old, new in moved.items()}
    for one in configurations:
        target = folder / places[Path(one.path).resolve()]

        def place(path: Path, target: Path = target) -> str | None:
            new = places.get(path.resolve())
            return None if new is None else os.path.relpath(folder / new, target.parent)

        if one.kind == "cfg":
            text = moved_cfg(
                Path(one.path), place, os.path.relpath(folder / OUTPUTS, target.parent)
            )
        else:
            text = moved_spec(Path(one.path), None if one.base is None else Path(one.base), place)
        target.write_text(text)

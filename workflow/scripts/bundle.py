"""One folder from which an experiment runs on a machine without network.

    bundle.py make --settings JSON --files data/... --images ... --wheels ... --output BUNDLE
    python3 BUNDLE/workflow/scripts/bundle.py check
    python3 BUNDLE/workflow/scripts/bundle.py run [--target TARGET] [-- options of Snakemake]

The folder is a working directory of its own: the workflow, `objects` with the bucket's keys,
`files` with the user's own volumes, the container images, and `wheels` with the packages of
Snakemake. `check` and `run` need Python alone; `run` also Apptainer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, DataError, RetraceError, run
from retrace.files import atomic_write
from retrace.provenance.folders import (
    check_files,
    code_files,
    copied,
    files_below,
    linked_or_copied,
    sha256_of,
    split_options,
)
from retrace.storage.manifest import manifest_path

ROOT = Path(__file__).resolve().parents[2]
FACTS, CONFIG = "bundle.json", "run.yaml"
OBJECTS, FILES, WHEELS, IMAGES = "objects", "files", "wheels", "containers/images"
ENVIRONMENT = Path("work/environment")
FORMAT_VERSION = 1


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="make a bundle")
    making.add_argument("--settings", required=True, type=json.loads, help="one JSON object")
    making.add_argument("--files", nargs="*", default=[], type=Path, help="volumes and weights")
    making.add_argument("--images", nargs="+", required=True, type=Path)
    making.add_argument("--wheels", required=True, type=Path, help="folder of wheels")
    making.add_argument("--output", required=True, type=Path)
    verbs.add_parser("check", help="compare machine and files with what the bundle is for")
    running = verbs.add_parser("run", help="check, install what Snakemake needs, and run")
    running.add_argument("--target", help="instead of the evaluation, e.g. crate_zfinch_mtlsd")
    own, options = split_options(sys.argv[1:] if argv is None else argv)
    return parser.parse_args(own, argparse.Namespace(options=options))


# ---------------------------------------------------------------- making one


def machine() -> dict[str, str]:
    """What the image and the wheels depend on."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": ".".join(map(str, sys.version_info[:2])),
    }


def put_fetched(store: Path, folder: Path) -> None:
    """A fetched store under its key in the bucket, its manifest beside it."""
    manifest = manifest_path(store)
    target = folder / OBJECTS / json.loads(manifest.read_text())["settings"]["prefix"]
    for path in files_below(store):
        linked_or_copied(path, target / path.relative_to(store))
    linked_or_copied(manifest, manifest_path(target))


def put_own(path: Path, folder: Path, number: int) -> str:
    """A file or folder of the user's; returns its path in the bundle."""
    name = f"{FILES}/{number}/{path.name}"
    for file in files_below(path) if path.is_dir() else [path]:
        inside = file.relative_to(path) if path.is_dir() else Path()
        linked_or_copied(file, folder / name / inside)
    return name


def is_fetched(path: Path) -> bool:
    """Whether a store came from the bucket, which its manifest says."""
    manifest = manifest_path(path)
    return manifest.is_file() and "source" in json.loads(manifest.read_text())


def put_data(files: Iterable[Path], folder: Path) -> dict[str, str]:
    """All volumes and weights; returns where those of the user's own went, by path."""
    moved: dict[str, str] = {}
    for path in dict.fromkeys(files):
        if path.name.endswith(".manifest.json"):
            continue
        if is_fetched(path):
            put_fetched(path, folder)
        else:
            moved[str(path)] = put_own(path, folder, len(moved))
        print(f"[bundle] {path}", flush=True)
    return moved


def put_code(folder: Path, moved: Mapping[str, str], dataset: str) -> None:
    """The workflow; the dataset names the user's own files where the bundle has them."""
    for name, path in code_files(ROOT, Path()).items():
        copied(path, folder / name)
    file = folder / "config" / "datasets" / f"{dataset}.yaml"
    text = file.read_text()
    for before in sorted(moved, key=len, reverse=True):
        text = text.replace(before, moved[before])
    file.write_text(text)


def make(args: argparse.Namespace) -> None:
    """Makes the bundle aside, then renames it; what it holds is written last."""
    settings, output = args.settings, args.output
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    moved = put_data(args.files, partial)
    put_code(partial, moved, settings["dataset"])
    for image in args.images:
        linked_or_copied(image, partial / IMAGES / image.name)
    for wheel in files_below(args.wheels):
        linked_or_copied(wheel, partial / WHEELS / wheel.name)
    config = settings["config"] | {"mirror": OBJECTS, "init": moved.get(settings["config"]["init"])}
    (partial / CONFIG).write_text(json.dumps(config, indent=1) + "\n")  # JSON is YAML
    digests = {p.relative_to(partial).as_posix(): sha256_of(p) for p in files_below(partial)}
    facts = {"format_version": FORMAT_VERSION, **machine(), "target": settings["target"]}
    atomic_write(partial / FACTS, json.dumps({**facts, "files": digests}, indent=1) + "\n")
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
    total = sum(path.stat().st_size for path in files_below(output))
    print(f"[bundle] {output}: {len(digests)} files, {total / 1e6:.0f} MB", flush=True)


# ---------------------------------------------------------------- using one


def read_facts(folder: Path) -> dict[str, Any]:
    """What a bundle says of itself; DataError where this is none."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is no whole bundle: {FACTS} cannot be read ({error})") from error
    if facts.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{folder}: a bundle of another version of retrace; make it again")
    return facts


def check_machine(facts: Mapping[str, Any]) -> None:
    """Refuses a machine whose programs the bundle does not hold (ConfigError)."""
    here = machine()
    differing = {key: facts[key] for key in here if facts[key] != here[key]}
    if differing:
        wanted = ", ".join(f"{key} {value}" for key, value in differing.items())
        found = ", ".join(f"{key} {here[key]}" for key in differing)
        raise ConfigError(
            f"this bundle is for {wanted}, this machine has {found}; make the bundle again on a "
            "machine of this kind"
        )


def check(folder: Path) -> dict[str, Any]:
    """Machine and files of a bundle; DataError or ConfigError names what is not as it was."""
    facts = read_facts(folder)
    check_machine(facts)
    check_files(folder, facts["files"], "bundle")
    print(f"[bundle] {len(facts['files'])} files are as they were", flush=True)
    return facts


def install(folder: Path) -> Path:
    """An environment with the wheels, made once; returns its Python."""
    place = folder / ENVIRONMENT
    python = place / "bin" / "python"
    if (place / ".installed").is_file():
        return python
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    wheels = sorted((folder / WHEELS).glob("*.whl"))
    (pip,) = (wheel for wheel in wheels if wheel.name.startswith("pip-"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"]
    done = subprocess.run([python, pip / "pip", "install", *options, *wheels], check=False)
    if done.returncode != 0:
        raise RetraceError(f"the packages of {folder / WHEELS} could not be installed; see above")
    (place / ".installed").touch()
    return python


def run_here(folder: Path, target: str | None, options: Sequence[str]) -> None:
    """Checks the bundle and runs its target in its folder; ends with Snakemake's status."""
    facts = check(folder)
    if not (shutil.which("apptainer") or shutil.which("singularity")):
        raise ConfigError("neither apptainer nor singularity is on the PATH; install one of them")
    python = install(folder)
    for image in (folder / IMAGES).iterdir():
        os.utime(image)  # else copying may have made the recipe newer, and it would be built again
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    command = [python, "-m", "snakemake", target or facts["target"], "--use-singularity"]
    done = subprocess.run(
        [*command, "--configfile", CONFIG, *options],
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=False,
    )
    sys.exit(done.returncode)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    if args.verb == "make":
        make(args)
    elif args.verb == "check":
        check(ROOT)
    else:
        run_here(ROOT, args.target, args.options)


if __name__ == "__main__":
    run(main)

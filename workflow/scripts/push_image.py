"""Pushes an image that was built here to a registry, where others pull it: `make push`.

RETRACE_IMAGE_REGISTRY names the registry, as for pulls: oras://registry.example.org/group. The
image's sha256 goes into containers/pushed.sha256. Commit that file: pulls are compared with it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from retrace.errors import ConfigError, RetraceError, run
from retrace.files import atomic_write, file_sha256
from retrace.planning.container_images import SOURCES, image_digest, image_path

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "containers" / "pushed.sha256"
"""Lines for `sha256sum -c`; containers/build.sh compares pulled images with it."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="modern", choices=SOURCES, help="the recipe")
    return parser.parse_args(argv)


def image_address(name: str) -> str:
    """Where the image of this recipe and locks is in the registry; ConfigError without one."""
    registry = os.environ.get("RETRACE_IMAGE_REGISTRY", "").rstrip("/")
    if not registry.startswith("oras://"):
        raise ConfigError(
            f"RETRACE_IMAGE_REGISTRY is {registry!r}; set it to the registry and a folder in it, "
            "such as oras://registry.example.org/group"
        )
    return f"{registry}/retrace-{name}:{image_digest(ROOT, name)}"


def apptainer() -> str:
    """Path of the program that pushes; ConfigError without one."""
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        raise ConfigError("neither apptainer nor singularity is on the PATH; install one")
    return program


def push(image: Path, address: str) -> None:
    """Uploads the image; RetraceError where that fails."""
    if subprocess.run([apptainer(), "push", image, address], check=False).returncode:
        host = "/".join(address.split("/")[:3])
        raise RetraceError(
            f"{address} was not pushed (see above); a registry usually asks for a login: "
            f"apptainer registry login --username NAME {host}"
        )


def record(image: Path) -> str:
    """Writes the image's line of containers/pushed.sha256, instead of an earlier one."""
    line = f"{file_sha256(image)}  {image.name}"
    lines = RECORD.read_text().splitlines() if RECORD.exists() else []
    others = [other for other in lines if not other.endswith(f"  {image.name}")]
    atomic_write(RECORD, "\n".join([*others, line]) + "\n")
    return line


def main(argv: Sequence[str] | None = None) -> None:
    """Pushes, then records."""
    name = parse_args(argv).name
    address = image_address(name)
    image = image_path(ROOT, ROOT / "containers" / "images", name)
    if not image.exists():
        raise ConfigError(f"{image} does not exist; `make image IMAGE={name}` builds it")
    push(image, address)
    print(f"pushed {address}\n{record(image)}\nCommit {RECORD}: pulls are compared with it")


if __name__ == "__main__":
    run(main)

"""Names of container image files: built from a recipe and locks, or published.

Snakemake compares the path of an image, never its content. The name therefore holds a digest of
everything the image is built from: a changed recipe or lock gives another file name. The new
image is built, and everything that ran in the old one runs again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import Field

from retrace.config.schema import check
from retrace.config.yaml_files import read_yaml
from retrace.errors import ConfigError, nearest
from retrace.setting_types import Text
from retrace.settings_model import SettingsModel

SOURCES = {
    "modern": ("containers/modern.def", "envs/uv.txt", "envs/modern.txt", "envs/torch.txt"),
    "legacy": ("containers/legacy.def", "envs/legacy_pip.txt", "envs/legacy.txt"),
    "standin": ("containers/standin.def", "envs/uv.txt", "envs/standin.txt"),
}


def image_sources(root: Path, name: str) -> list[Path]:
    """Return the files that an image is built from, in the order in which they are digested.

    Raises ConfigError for an image this repository has no recipe for.
    """
    if name not in SOURCES:
        raise ConfigError(
            f"no recipe for a container image named {name!r}; {nearest(name, SOURCES)}"
        )
    return [root / source for source in SOURCES[name]]


def image_digest(root: Path, name: str) -> str:
    """Return the first 12 hex digits of the SHA-256 over an image's recipe and locks.

    `root` is the repository's top folder. The files' bytes are joined with nothing between them.
    """
    joined = b"".join(source.read_bytes() for source in image_sources(root, name))
    return hashlib.sha256(joined).hexdigest()[:12]


def image_path(root: Path, folder: Path, name: str) -> Path:
    """Return the path of an image in `folder`: NAME-DIGEST.sif; `root` as in image_digest."""
    return folder / f"{name}-{image_digest(root, name)}.sif"


class PublishedImage(SettingsModel):
    """An image of containers/images.yaml."""

    key: Text = Field(description="Its key in the bucket.")
    sha256: Text | None = Field(None, description="Its SHA-256. null: that of the first fetch.")
    python: Text = Field("python", description="The interpreter to call inside the image.")


def published_images(root: Path) -> dict[str, PublishedImage]:
    """The images in containers/images.yaml, by name."""
    file = root / "containers" / "images.yaml"
    images = read_yaml(file)
    return {n: check(PublishedImage, image, f"{file}: {n}") for n, image in images.items()}


def published_path(folder: Path, name: str) -> Path:
    """Return the path of a published image in `folder`; it has no colon, unlike its key."""
    return folder / f"{name}.img"


def python(root: Path, name: str) -> str:
    """Return the interpreter to call inside an image: our own recipes put theirs on the PATH."""
    image = published_images(root).get(name)
    return "python" if image is None else image.python


def check_published(root: Path, target: str) -> None:
    """Refuses fetch_container_NAME for an unpublished image (ConfigError)."""
    name = target.removeprefix("fetch_container_")
    if name != target and name not in published_images(root):
        raise ConfigError(
            f"{target}: no published image {name!r} in containers/images.yaml; "
            f"{nearest(name, published_images(root))}"
        )

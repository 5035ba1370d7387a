"""The store that a manifest describes: where it is, and its arrays and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrace.reading import json_if_intact


@dataclass(frozen=True)
class DescribedStore:
    """A store with the names of its arrays, and of its files besides them, in its manifest."""

    path: Path
    arrays: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays and files; empty where the manifest lists no arrays."""
        return (*self.arrays, *self.files) if self.arrays else ()

    @property
    def paths(self) -> list[Path]:
        """The store and the folders of its arrays."""
        return [self.path, *(self.path / name for name in self.arrays)]


def described_store(manifest: Path) -> DescribedStore | None:
    """The store of a manifest; None for a record of outputs without a store."""
    content = json_if_intact(manifest)
    if "store" not in content:
        return None
    path = manifest.with_name(content["store"])
    return DescribedStore(path, tuple(content.get("arrays", ())), tuple(content.get("files", ())))

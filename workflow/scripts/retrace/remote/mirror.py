"""A local mirror of a bucket: FOLDER/KEY holds the object of that key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from retrace.errors import FetchError
from retrace.remote.http import READ_BYTES
from retrace.remote.object_names import safe_name
from retrace.remote.s3 import BucketStore
from retrace.remote.store import FetchSettings, ObjectStore, S3Object, not_found


def open_store(settings: FetchSettings) -> ObjectStore:
    """The mirror if one is configured, the bucket otherwise."""
    return MirrorStore(settings) if settings.mirror else BucketStore(settings)


def file_md5(path: Path) -> str:
    """Hex md5 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


class MirrorStore:
    """The objects of a mirror. Their ETags are the md5 sums of the files."""

    def __init__(self, settings: FetchSettings) -> None:
        assert settings.mirror is not None
        self.root, self.prefix = Path(settings.mirror), settings.prefix
        self.folder = self.root.joinpath(*PurePosixPath(self.prefix).parts)

    @property
    def label(self) -> str:
        """The folder, for messages and the manifest."""
        return f"mirror {self.folder}"

    def object_label(self, name: str) -> str:
        """The file of one object."""
        return f"mirror {self.folder / name}"

    def objects(self) -> list[S3Object]:
        """All files below the prefix, sorted by name; FetchError if there is no such folder."""
        if not self.root.is_dir():
            raise FetchError(f"the mirror {self.root} is not a folder; correct --mirror")
        if not self.folder.is_dir():
            parent, _, last = self.prefix.rpartition("/")
            above = self.folder.parent
            names = [p.name for p in above.iterdir() if p.is_dir()] if above.is_dir() else []
            raise not_found(f"mirror {self.root}", parent, last, names)
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        with ThreadPoolExecutor(8) as pool:
            return [
                S3Object(path.relative_to(self.folder).as_posix(), path.stat().st_size, md5)
                for path, md5 in zip(files, pool.map(file_md5, files), strict=True)
            ]

    def find(self, name: str) -> S3Object:
        """One file below the prefix; FetchError if it does not exist."""
        path = self.folder / safe_name(name)
        if not path.is_file():
            names = [p.name for p in self.folder.iterdir()] if self.folder.is_dir() else []
            raise not_found(f"mirror {self.root}", self.prefix, name, names)
        return S3Object(name, path.stat().st_size, file_md5(path))

    @contextmanager
    def stream(
        self, item: S3Object, byte_range: tuple[int, int] | None = None
    ) -> Iterator[Iterator[bytes | memoryview]]:
        """Yields the file's bytes, or (first byte, number of bytes) of them, piece by piece."""
        try:
            file = (self.folder / item.name).open("rb")
        except FileNotFoundError as error:
            raise FetchError(f"{self.folder / item.name} vanished from the mirror") from error
        with file:
            first, size = byte_range or (0, item.size)
            file.seek(first)
            yield _pieces(file, size)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a file, piece by piece."""
    while size and (piece := file.read(min(size, READ_BYTES))):
        size -= len(piece)
        yield piece

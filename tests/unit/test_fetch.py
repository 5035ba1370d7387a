"""The fetch from a mirror: completeness, resuming, refusals; and a full disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fetch
from retrace.errors import ConfigError, FetchError
from retrace.remote.download import FolderDownload
from retrace.remote.store import S3Object
from retrace.storage.manifest import check_manifest, manifest_path
from retrace.synthetic.phantom_files import write_phantom_store

PREFIX = "funke/phantom/training/v.zarr"
ARRAYS = ["volumes/raw", "volumes/labels/neuron_ids"]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mirror")
    write_phantom_store(root / PREFIX, (6, 20, 20), (2, 4, 4), (20, 9, 9), 1, chunks=(4, 16, 16))
    return root


def run_fetch(output: Path, mirror: Path, **settings: Any) -> None:
    values = {"bucket": "b", "prefix": PREFIX, "arrays": ARRAYS, "threads": 4, **settings}
    fetch.main(["--settings", json.dumps(values), "--output", str(output), "--mirror", str(mirror)])


def test_mirror_becomes_the_same_store_with_a_manifest(
    mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "data" / "v.zarr"
    run_fetch(output, mirror)
    assert contents(output) == contents(mirror / PREFIX)
    manifest = check_manifest(output, digests=True)
    assert sorted(manifest["arrays"]) == sorted(ARRAYS)
    assert manifest["objects"] == manifest["verified"]["md5"] == len(contents(output))
    assert not list(output.parent.glob("*.partial"))
    shown = capsys.readouterr().out
    assert shown.index("objects, ") < shown.index(str(output)), "the size is printed first"


def test_verified_objects_are_kept_damaged_and_stray_ones_are_not(
    mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "v.zarr"
    partial = tmp_path / "v.zarr.partial"
    run_fetch(output, mirror)
    output.rename(partial)
    chunk = partial / "volumes/raw/0.0.0"
    data = chunk.read_bytes()
    chunk.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    (partial / "volumes/raw/0.0.1").write_bytes(b"short")
    (partial / "volumes/raw/.0.1.0.part").write_bytes(b"half of it")
    (partial / "stray/folder").mkdir(parents=True)
    (partial / "stray/folder/file").write_bytes(b"x")
    capsys.readouterr()
    run_fetch(output, mirror)
    assert contents(output) == contents(mirror / PREFIX)
    assert not (output / "stray").exists()
    assert f"{len(contents(output)) - 2} kept" in capsys.readouterr().out


def test_an_output_without_manifest_is_resumed(
    mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "v.zarr"
    run_fetch(output, mirror)
    manifest_path(output).unlink()
    capsys.readouterr()
    run_fetch(output, mirror)
    assert f"{len(contents(output))} kept" in capsys.readouterr().out
    check_manifest(output, digests=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arrays": ["volumes/rav"]}, "no array 'volumes/rav'.*volumes/raw"),
        ({"prefix": "funke/phantom/training/w.zarr"}, "did you mean 'v.zarr'"),
        ({"prefix": "elsewhere/v.zarr"}, "nothing under 'elsewhere'"),
    ],
)
def test_errors_leave_the_older_output_as_it_is(
    mirror: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    output = tmp_path / "v.zarr"
    run_fetch(output, mirror)
    before = contents(tmp_path / "v.zarr"), manifest_path(output).read_bytes()
    with pytest.raises(FetchError, match=message):
        run_fetch(output, mirror, **settings)
    assert (contents(output), manifest_path(output).read_bytes()) == before


@pytest.mark.parametrize("text", ["", "{", '{"zarr_format": 2}', "[]", '{"shape": 3}'])
def test_damaged_metadata_is_refused(mirror: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "mirror"
    write_phantom_store(copy / PREFIX, (4, 8, 8), (1, 1, 1), (8, 8, 8), 1)
    (copy / PREFIX / "volumes/raw/.zarray").write_text(text)
    with pytest.raises(FetchError, match="metadata of volumes/raw"):
        run_fetch(tmp_path / "v.zarr", copy)
    assert not (tmp_path / "v.zarr").exists()


def test_a_mirror_is_checked_against_its_own_manifest(mirror: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    run_fetch(copied / PREFIX, mirror)
    run_fetch(tmp_path / "first.zarr", copied)
    chunk = copied / PREFIX / "volumes/raw/0.0.0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    with pytest.raises(FetchError, match="volumes/raw of mirror .* changed"):
        run_fetch(tmp_path / "second.zarr", copied)


def test_a_folder_that_is_no_zarr_is_described_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "mirror/funke/checkpoints/mtlsd"
    folder.mkdir(parents=True)
    (folder / "train_net_checkpoint_400000.index").write_bytes(b"index")
    run_fetch(tmp_path / "mtlsd", tmp_path / "mirror", prefix="funke/checkpoints/mtlsd", arrays=[])
    manifest = json.loads((tmp_path / "mtlsd.manifest.json").read_text())
    assert manifest["files"] == {
        "train_net_checkpoint_400000.index": hashlib.sha256(b"index").hexdigest()[:16]
    }


def test_settings_that_are_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not JSON"):
        fetch.main(["--settings", "{", "--output", str(tmp_path / "x")])


class Generated:
    """A store of generated objects; `before` runs before each download."""

    label = "generated objects"

    def __init__(self, before: Any = lambda item: None, body: bytes = b"body") -> None:
        self.before, self.body = before, body

    def objects(self) -> list[S3Object]:
        return [S3Object("a/b", len(self.body), hashlib.md5(self.body).hexdigest())]

    @contextmanager
    def stream(self, item: S3Object) -> Iterator[Iterator[bytes]]:
        self.before(item)
        yield iter([self.body])


def test_too_little_disk_space_is_an_error_before_the_download(tmp_path: Path) -> None:
    requested: list[S3Object] = []
    download = FolderDownload(Generated(requested.append), tmp_path / "p", threads=2, retries=1)
    with pytest.raises(FetchError, match="1000000.00 TB are to be fetched"):
        download.run([S3Object("a/b", 10**18, "0" * 32)])
    assert requested == []


def test_a_disk_that_fills_up_ends_in_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "p"
    monkeypatch.setattr("retrace.remote.download.aside", lambda final: final.with_name("full"))

    def onto_full_device(item: S3Object) -> None:
        (folder / "a/full").symlink_to("/dev/full")

    source = Generated(onto_full_device, b"x" * 100_000)
    with pytest.raises(FetchError, match="the disk is full while writing .*a/b"):
        FolderDownload(source, folder, threads=2, retries=3).run(source.objects())
    assert not (folder / "a/b").exists()


@pytest.mark.parametrize(("second", "accepted"), [(b"body", True), (b"bodY", False)])
def test_an_etag_that_is_no_md5_needs_two_equal_transfers(
    tmp_path: Path, second: bytes, accepted: bool
) -> None:
    source = Generated()
    bodies = iter([b"body", second, b"Body", b"bOdy"])
    source.before = lambda item: setattr(source, "body", next(bodies))
    item = S3Object("a/b", 4, "f" * 32 + "-9")
    download = FolderDownload(source, tmp_path / "p", threads=1, retries=3)
    if not accepted:
        with pytest.raises(FetchError, match="differ from one download"):
            download.run([item])
        assert not (tmp_path / "p/a/b").exists()
        return
    report = download.run([item])
    assert report.verified == {"twice": 1}
    assert report.sha256 == {"a/b": hashlib.sha256(b"body").hexdigest()}
    assert (tmp_path / "p/a/b").read_bytes() == b"body"

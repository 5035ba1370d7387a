"""Several processes fetch the same output at the same time: one does, the others use its work."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import fetch
import fetch_file
import fetch_object
import s3_server
from kill import PATIENCE_S, read_until
from retrace.output_lock import lock_file, locked
from retrace.remote.store import FetchSettings
from retrace.storage.manifest import check_manifest, manifest_path

pytestmark = pytest.mark.s3

BUCKET = "open-neurodata"
PREFIX = "funke/phantom/training"
ARRAYS = ["volumes/raw", "volumes/labels/neuron_ids"]
CHUNK = "volumes/raw/1.1.1"
WAITS = "[fetch] waits for another run that fetches"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server with two phantom volumes."""
    with s3_server.serving() as address:
        s3_server.upload_small_volumes(address, "v", "w")
        yield address


def settings_for(endpoint: str, **changes: Any) -> dict[str, Any]:
    values = {"bucket": BUCKET, "prefix": f"{PREFIX}/v.zarr", "endpoint_url": endpoint}
    return {**values, "arrays": ARRAYS, "threads": 4, "retries": 2, **changes}


def start(
    program: str, settings: dict[str, Any], output: Path, *prefix: str
) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, program, "--settings", json.dumps(settings)]
    return subprocess.Popen(
        [*command, "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "no_proxy": "127.0.0.1"},
    )


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The status of a process, and what else it printed."""
    text, _ = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in text
    return process.returncode, text


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_second_of_two_transfers_nothing(endpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "v.zarr"
    with s3_server.spoiling(endpoint) as proxy:
        proxy.let(1)  # the listing; then the first one waits for its objects
        first = start(fetch.__file__, settings_for(proxy.endpoint), output)
        read_until(first, "[fetch] ")
        second = start(fetch.__file__, settings_for(proxy.endpoint), output)
        read_until(second, f"{WAITS} {output} (lock file {lock_file(output)})")
        proxy.let(None)
        assert end_of(first)[0] == 0
        status, text = end_of(second)
        assert proxy.count(CHUNK) == 1
    assert (status, text) == (
        0,
        f"[fetch] {output} is complete, and the server has the same objects\n",
    )
    check_manifest(output, digests=True)


def test_a_killed_holder_blocks_nobody(endpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "v.zarr"
    with s3_server.spoiling(endpoint) as proxy:
        proxy.let(6)  # the listing and a few objects
        first = start(fetch.__file__, settings_for(proxy.endpoint, threads=1), output)
        read_until(first, "[fetch] ")
        second = start(fetch.__file__, settings_for(proxy.endpoint), output)
        read_until(second, WAITS)
        while proxy.answered < 6:
            assert first.poll() is None
        first.kill()
        first.communicate()
        proxy.let(None)
        status, text = end_of(second)
    assert status == 0 and "kept from an earlier run" in text
    check_manifest(output, digests=True)


def test_the_second_of_two_with_other_settings_is_refused(endpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "v.zarr"
    other = settings_for(endpoint, prefix=f"{PREFIX}/w.zarr")
    with locked(output):
        second = start(fetch.__file__, other, output)
        read_until(second, WAITS)
        fetch.fetch(FetchSettings(**settings_for(endpoint)), output)
        before = contents(tmp_path)
    status, text = end_of(second)
    assert status == 1 and len(text.splitlines()) == 1
    there, here = (f"'{PREFIX}/{name}.zarr'" for name in "vw")
    assert f"with other settings (prefix {there}, here {here}). It is kept" in text
    assert contents(tmp_path) == before

    # Nobody fetches it at the same time: it is replaced.
    assert end_of(start(fetch.__file__, other, output))[0] == 0
    assert json.loads(manifest_path(output).read_text())["settings"]["prefix"] == other["prefix"]


@pytest.mark.parametrize("changed", ["an object", "a chunk"])
def test_the_second_fetches_again_what_has_changed(
    endpoint: str, tmp_path: Path, changed: str
) -> None:
    client = s3_server.writer(endpoint)
    key = f"{PREFIX}/v.zarr/{CHUNK}"
    body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    output = tmp_path / "v.zarr"
    with locked(output):
        second = start(fetch.__file__, settings_for(endpoint), output)
        read_until(second, WAITS)
        fetch.fetch(FetchSettings(**settings_for(endpoint)), output)
        if changed == "a chunk":
            (output / CHUNK).unlink()
        else:
            client.put_object(Bucket=BUCKET, Key=key, Body=body[::-1])
    try:
        assert end_of(second)[0] == 0
    finally:
        client.put_object(Bucket=BUCKET, Key=key, Body=body)
    assert (output / CHUNK).read_bytes() == (body if changed == "a chunk" else body[::-1])
    check_manifest(output, digests=True)


def run_fetch(output: Path, endpoint: str, **changes: Any) -> None:
    settings = json.dumps(settings_for(endpoint, **changes))
    fetch.main(["--settings", settings, "--output", str(output)])


def test_a_folder_that_nobody_else_wrote_is_compared_byte_by_byte(
    endpoint: str, tmp_path: Path
) -> None:
    output = tmp_path / "v.zarr"
    run_fetch(output, endpoint)
    before = contents(tmp_path)
    with s3_server.spoiling(endpoint) as proxy:
        run_fetch(output, proxy.endpoint)
        assert proxy.count(CHUNK) == 0
        assert contents(tmp_path) == before
        data = (output / CHUNK).read_bytes()
        (output / CHUNK).write_bytes(data[::-1])
        run_fetch(output, proxy.endpoint)
        assert proxy.count(CHUNK) == 1
    assert (output / CHUNK).read_bytes() == data


def test_a_finished_volume_on_a_read_only_disk_is_left_alone(endpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "v.zarr"
    run_fetch(output, endpoint)
    lock_file(output).unlink()
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    read_only = f'mount --bind "{tmp_path}" "{tmp_path}" && mount -o remount,bind,ro "{tmp_path}"'
    unshare = ["unshare", "--mount", *user, "sh", "-c"]
    if subprocess.run([*unshare, read_only], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    prefix = [*unshare, f'{read_only} && exec "$@"', "sh"]
    status, text = end_of(start(fetch.__file__, settings_for(endpoint), output, *prefix))
    assert (status, "is complete" in text) == (0, True), text
    other = settings_for(endpoint, prefix=f"{PREFIX}/w.zarr")
    status, text = end_of(start(fetch.__file__, other, output, *prefix))
    assert status == 1 and "v.zarr.partial: Read-only file system; change its permissions" in text
    check_manifest(output, digests=True)


def test_a_file_system_without_locks_is_named(
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    run_fetch(tmp_path / "v.zarr", endpoint)
    shown = capsys.readouterr().out
    assert f"{tmp_path} has no locks (Function not implemented): let only one run" in shown
    check_manifest(tmp_path / "v.zarr", digests=True)


def test_an_object_and_a_file_are_transferred_once(endpoint: str, tmp_path: Path) -> None:
    body = bytes(range(256)) * 100
    s3_server.put_objects(endpoint, "images", {"a/image": body})
    sha256 = hashlib.sha256(body).hexdigest()
    with s3_server.spoiling(endpoint) as proxy:
        one = {"bucket": "images", "key": "a/image", "endpoint_url": proxy.endpoint}
        url = {"url": f"{proxy.endpoint}/images/a/image", "sha256": sha256}
        for program, settings in ((fetch_object, one), (fetch_file, url)):
            output = tmp_path / program.__name__ / "image"
            proxy.requests.clear()
            with locked(output):
                runs = [start(str(program.__file__), settings, output) for _ in range(2)]
                for run in runs:
                    read_until(run, WAITS)
            ends = [end_of(run) for run in runs]
            assert [status for status, _ in ends] == [0, 0], ends
            assert sum(f"{output} is there, sha256 {sha256}" in text for _, text in ends) == 1
            assert proxy.count("a/image") == 1
            assert output.read_bytes() == body


def test_the_second_of_two_other_objects_is_refused(endpoint: str, tmp_path: Path) -> None:
    s3_server.put_objects(endpoint, "two", {"a/x": b"x", "a/y": b"y"})
    output = tmp_path / "image"
    x, y = ({"bucket": "two", "key": f"a/{n}", "endpoint_url": endpoint} for n in "xy")
    with locked(output):
        second = start(fetch_object.__file__, y, output)
        read_until(second, WAITS)
        fetch_object.fetch(fetch_object.FetchObjectSettings(**x), output)
    status, text = end_of(second)
    assert status == 1 and "with other settings (key 'a/x', here 'a/y')" in text
    assert output.read_bytes() == b"x"

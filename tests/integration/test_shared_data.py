"""Several runs that share one `data` folder fetch the same volumes at the same time."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

import s3_server
import tiny_workflow
from kill import PATIENCE_S
from retrace.output_lock import lock_file, locked
from retrace.storage.manifest import check_manifest

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1200)]

VOLUMES = ("train_0", "val_0", "test_0")
OPTIONS = ("fetch_phantom", "--quiet", "host", "--cores", "4", "--retries", "0")
COMPLETE = "is complete, and the server has the same objects"
WAITS = "waits for another run that fetches data/phantom/"


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two copies of the workflow, and the folder to which `data` of both is a link."""
    place = tmp_path_factory.mktemp("clones")
    (place / "disk").mkdir()
    for name in ("a", "b"):
        (place / name).mkdir()
        tiny_workflow.copy_workflow(place / name)
        (place / name / "data").symlink_to(place / "disk")
    return place / "a", place / "b", place / "disk"


@pytest.fixture(autouse=True)
def emptied(clones: tuple[Path, Path, Path]) -> None:
    """Nothing of the test before."""
    for folder in (*clones[2].iterdir(), *(c / ".snakemake" for c in clones[:2])):
        shutil.rmtree(folder, ignore_errors=True)


def arguments(clone: Path, *more: str, **settings: str) -> list[str]:
    config = [f"{name}={value}" for name, value in settings.items()]
    return ["--snakefile", str(clone / "Snakefile"), *OPTIONS, *more, "--config", *config]


def start(clone: Path, **settings: str) -> subprocess.Popen[str]:
    """Begins to fetch the dataset of the phantoms; what is printed goes to printed.txt."""
    return tiny_workflow.start(clone, arguments(clone, **settings), clone / "printed.txt")


def printed(clone: Path) -> str:
    return (clone / "printed.txt").read_text()


def until(is_true: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
    """Returns once it is true; AssertionError if one of the processes ends before."""
    end = time.monotonic() + PATIENCE_S
    while not is_true():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.02)


def dry_run(clone: Path, **settings: str) -> str:
    return tiny_workflow.succeed(clone, arguments(clone, "--dry-run", **settings))


def versions(disk: Path) -> Mapping[str, bytes]:
    """The manifests of all volumes, which are complete."""
    stores = [disk / "phantom" / f"{volume}.zarr" for volume in VOLUMES]
    for store in stores:
        check_manifest(store, digests=True)
    return {s.stem: (disk / "phantom" / f"{s.stem}.manifest.json").read_bytes() for s in stores}


def test_two_clones_fetch_the_same_volumes_at_once(
    clones: tuple[Path, Path, Path], endpoint: str
) -> None:
    *both, disk = clones
    with s3_server.spoiling(endpoint) as proxy:
        with ExitStack() as locks:  # until both wait, so that both have planned to fetch
            for volume in VOLUMES:
                locks.enter_context(locked(disk / "phantom" / f"{volume}.zarr"))
            runs = [start(clone, endpoint_url=proxy.endpoint) for clone in both]
            until(lambda: all(printed(clone).count(WAITS) == 3 for clone in both), *runs)
        statuses = [run.wait(PATIENCE_S) for run in runs]
        chunks = [path for path in proxy.requests if "/volumes/raw/" in path]
    texts = [printed(clone) for clone in both]
    assert statuses == [0, 0], "\n".join(texts)[-6000:]
    for text in texts:
        assert "Traceback" not in text and "Trying to restart" not in text
    assert sum(text.count(COMPLETE) for text in texts) == 3
    assert len(chunks) == len(set(chunks)), "each object is transferred once"
    before = versions(disk)
    for clone in both:
        assert "Nothing to be done" in dry_run(clone, endpoint_url=endpoint)
    assert versions(disk) == before


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL to Snakemake and its jobs."""
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        one.kill()
    process.wait(PATIENCE_S)


def is_held(disk: Path) -> bool:
    """Whether a run has begun to fetch all volumes."""
    return all(lock_file(disk / "phantom" / f"{v}.zarr").is_file() for v in VOLUMES)


def start_one_that_waits(
    clones: tuple[Path, Path, Path], proxy: s3_server.Proxy, **changes: str
) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """A run that fetches, and one that waits for it, with `changes` of its settings.

    The server answers neither.
    """
    holder, waiting, disk = clones
    proxy.let(0)
    first = start(holder, endpoint_url=proxy.endpoint)
    until(lambda: is_held(disk), first)
    second = start(waiting, endpoint_url=proxy.endpoint, **changes)
    until(lambda: printed(waiting).count(WAITS) == 3, second)
    return first, second


def test_a_killed_run_leaves_its_work_to_the_one_that_waits(
    clones: tuple[Path, Path, Path], endpoint: str
) -> None:
    killed, waiting, disk = clones
    with s3_server.spoiling(endpoint) as proxy:
        first, second = start_one_that_waits(clones, proxy)
        kill_all(first)
        proxy.let(None)
        assert second.wait(PATIENCE_S) == 0, printed(waiting)[-6000:]
        assert "Traceback" not in printed(waiting)
        before = versions(disk)
        proxy.requests.clear()
        # Snakemake only knows that the job was interrupted.
        tiny_workflow.finish(killed, arguments(killed, "--unlock", endpoint_url=proxy.endpoint))
        again = start(killed, endpoint_url=proxy.endpoint)
        assert again.wait(PATIENCE_S) == 0, printed(killed)[-6000:]
        assert not [path for path in proxy.requests if "/volumes/" in path]
    assert versions(disk) == before


def test_a_run_with_other_settings_fails_and_leaves_the_other_run_its_volumes(
    clones: tuple[Path, Path, Path], endpoint: str
) -> None:
    good, other, disk = clones
    with s3_server.spoiling(endpoint) as proxy:
        runs = start_one_that_waits(clones, proxy, bucket="elsewhere")
        proxy.let(None)
        statuses = [run.wait(PATIENCE_S) for run in runs]
    assert statuses == [0, 1], printed(good)[-3000:] + printed(other)[-3000:]
    refused = "with other settings (bucket 'open-neurodata', here 'elsewhere'). It is kept"
    assert refused in printed(other) and "Traceback" not in printed(other)
    assert "Trying to restart" not in printed(good), "Snakemake removed its manifests"
    versions(disk)
    assert "Nothing to be done" in dry_run(good, endpoint_url=endpoint)
    assert "bucket changed from 'open-neurodata' to 'elsewhere'" in dry_run(
        other, endpoint_url=endpoint, bucket="elsewhere"
    )

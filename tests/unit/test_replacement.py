"""Outputs of a program are replaced together; a kill leaves all old ones or all new ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replaced_outputs import HOOK
from retrace.files import atomic_write
from retrace.replacement import (
    declare_with,
    journal_of,
    newest,
    put,
    remove_afterwards,
    replacing_together,
    settle,
)

LEGACY = Path(__file__).resolve().parents[2] / "workflow/scripts/legacy"
REPLACED_BY_LEGACY = """
import record
record.write(None, [("store.partial", "store"), (record.waiting("history"), "history")])
"""
REPLACED = """
from pathlib import Path
from retrace.files import atomic_write
from retrace.replacement import put, replacing_together
with replacing_together([Path("store"), Path("history")]):
    put(Path("store.partial"), Path("store"))
    atomic_write(Path("history"), "new")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store and a file of the previous version in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_store(Path("store"), "old")
    Path("history").write_text("old")
    yield tmp_path


def write_store(store: Path, version: str) -> Path:
    store.mkdir()
    (store / "chunk").write_text(version)
    return store


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def versions() -> set[str]:
    return {Path("store/chunk").read_text(), Path("history").read_text()}


def replace_both() -> None:
    """Writes a new version of both outputs."""
    put(write_store(Path("store.partial"), "new"), Path("store"))
    atomic_write(Path("history"), "new")


def test_outputs_appear_together_at_the_end() -> None:
    with replacing_together([Path("store"), Path("history")]):
        replace_both()
        assert versions() == {"old"}
        assert newest(Path("history")).read_text() == "new"
        assert (newest(Path("store")) / "chunk").read_text() == "new"
    assert versions() == {"new"}
    assert names_in(Path()) == {"history", "store"}


def test_an_error_keeps_the_previous_outputs() -> None:
    with pytest.raises(RuntimeError), replacing_together([Path("store"), Path("history")]):
        replace_both()
        raise RuntimeError
    assert versions() == {"old"}


def test_other_files_are_replaced_at_once() -> None:
    with replacing_together([Path("store")]):
        replace_both()
        assert versions() == {"old", "new"}
        assert newest(Path("history")) == Path("history")


def test_files_next_to_an_output_follow_it() -> None:
    with replacing_together([Path("store")]):
        declare_with(Path("store"), Path("history"))
        declare_with(Path("elsewhere"), Path("other"))
        replace_both()
        atomic_write(Path("other"), "new")
        assert versions() == {"old"} and Path("other").read_text() == "new"
    assert versions() == {"new"}


def test_work_is_kept_until_the_outputs_are_in_place() -> None:
    work = write_store(Path("work"), "half")
    with pytest.raises(RuntimeError), replacing_together([Path("store"), Path("history")]):
        replace_both()
        remove_afterwards(work)
        raise RuntimeError
    assert work.is_dir()
    remove_afterwards(work)
    assert not work.exists()


def test_outputs_share_the_journal_of_their_manifest() -> None:
    names = ("a/x.1.zarr", "a/x.1.manifest.json", "a/x.1.record.json")
    assert {journal_of(Path(name)) for name in names} == {Path("a/.x.1.replacement.json")}


def run(program: str, crash_at: int) -> int:
    """The exit status of a program that replaces both outputs, and is killed after some changes."""
    path = os.pathsep.join(map(str, (HOOK, LEGACY, LEGACY.parent)))
    environment = {**os.environ, "PYTHONPATH": path, "CRASH_AT": str(crash_at)}
    Path("store.partial").mkdir(exist_ok=True)
    Path("store.partial/chunk").write_text("new")
    Path(".history.next").write_text("new")
    return subprocess.run([sys.executable, "-c", program], env=environment).returncode


@pytest.mark.parametrize("program", [REPLACED, REPLACED_BY_LEGACY])
def test_a_folder_may_be_moved_after_a_kill(folder: Path, program: str) -> None:
    assert run(program, crash_at=1) < 0
    assert versions() == {"old"}
    moved = folder.rename(folder.with_name(f"{folder.name}_moved"))
    settle(moved / "store")
    assert (moved / "store/chunk").read_text() == (moved / "history").read_text() == "new"


def test_each_step_of_the_legacy_engine_may_be_the_last(folder: Path) -> None:
    for allowed in range(20):
        status = run(REPLACED_BY_LEGACY, crash_at=allowed)
        settle(folder / "store")
        assert versions() == ({"old"} if allowed == 0 else {"new"}), allowed
        if status == 0:
            break
        assert status < 0
        (folder / "store/chunk").write_text("old")
        (folder / "history").write_text("old")
    assert 4 < allowed < 19
    assert names_in(folder) == {"history", "store"}

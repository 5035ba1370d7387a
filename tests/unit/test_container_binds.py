"""Folders that containers see: under which names, and as options that no shell misreads."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrace.errors import ConfigError
from retrace.planning.container_binds import (
    bind_options,
    bound_folders,
    check_system,
    linked_folders,
    with_options,
)
from retrace.planning.plain_names import check_folders

NAMES = st.text(
    st.characters(exclude_characters="/{}", exclude_categories=("Cs", "Cc")), min_size=1
)


@given(name=NAMES, user=st.sampled_from(["", "--nv", "--bind /a", "--env 'A=b c' --bind /x"]))
def test_options_are_words_of_a_shell_and_are_added_once(name: str, user: str) -> None:
    options = bind_options([Path("/data") / name])
    arguments = with_options(user, options)
    assert shlex.split(arguments) == shlex.split(user) + options[0]
    assert with_options(arguments, options) == arguments


def test_a_folder_below_a_bound_one_is_bound_too() -> None:
    assert with_options("--bind /a/b", bind_options([Path("/a")])) == "--bind /a/b --bind /a"


@pytest.mark.parametrize("name", ["with,comma", "with:colon", "a space at its end "])
def test_names_that_bind_would_split_are_mounted(name: str) -> None:
    ((option, value),) = bind_options([Path("/data") / name])
    assert option == "--mount"
    assert value == f'type=bind,"source=/data/{name}","destination=/data/{name}"'


def test_files_and_links_are_bound_under_their_names_and_where_they_lead(tmp_path: Path) -> None:
    here, disk, alias = tmp_path / "here", tmp_path / "disk", tmp_path / "alias"
    for folder in (here / "data" / "mine", disk / "results", disk / "volumes" / "v.zarr"):
        folder.mkdir(parents=True)
    alias.symlink_to(disk)
    (here / "results").symlink_to(alias / "results")
    (here / "data" / "mine" / "v.zarr").symlink_to(disk / "volumes" / "v.zarr")
    (here / "own").mkdir()
    files = [str(alias / "volumes" / "x.h5"), "own/y.h5"]
    bound = bound_folders(here, files, [here / "own", *linked_folders(here)])
    assert bound == sorted(
        [
            alias / "results",
            alias / "volumes",
            disk / "results",
            disk / "volumes",
            disk / "volumes" / "v.zarr",
        ]
    )


def test_broken_links_and_absent_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(tmp_path.parent / "absent")
    assert linked_folders(tmp_path) == []
    assert bound_folders(tmp_path, ["/absent/x.h5"], [Path("/nowhere")]) == []


@pytest.mark.parametrize("name", ["a:b", "it's", "a\nb"])
def test_working_directories_that_no_container_sees_are_refused(name: str) -> None:
    where = {"on_cluster": False, "in_containers": True}
    with pytest.raises(ConfigError, match="the working directory .* rename it"):
        check_folders(Path("/w"), Path("/x") / name, **where)
    check_folders(Path("/w"), Path("/x/a b, $(c)"), **where)


def test_containers_are_refused_where_apptainer_does_not_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_system()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="Linux only, and this is darwin; leave --use-sing"):
        check_system()

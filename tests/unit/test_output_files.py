"""Programs that write a file refuse a folder in its place before they do any work."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

from retrace.command_line import output_file
from retrace.files import write_json

PROGRAMS = (
    *((f"evaluate {verb}", "--output") for verb in ("learn", "choose", "score", "count")),
    ("evaluate compare", "--output"),
    ("evaluate rescore", "--output"),
    *(("evaluate score", option) for option in ("--plot", "--errors")),
    *((program, "--output") for program in ("evaluate_boundaries", "evaluate_classes")),
    *(("compare", option) for option in ("--output", "--text", "--plot")),
    *((program, "--output") for program in ("convert", "comparison_page", "report")),
    *((program, "--output") for program in ("fetch_file", "fetch_object")),
    *((f"examples {verb}", "--output") for verb in ("predict", "evaluate")),
    *((f"znn {verb}", "--output") for verb in ("model", "network", "outputs")),
    *((f"elektronn {verb}", "--output") for verb in ("profile", "model", "network")),
    *((f"reproduce {verb}", "--output") for verb in ("table", "judge")),
    *((f"align {verb}", "--output") for verb in ("train", "evaluate")),
    *((program, "--output") for program in ("defects train", "seamless inspect_enc")),
    *((program, "--history") for program in ("train", "align train", "defects train")),
    ("train", "--output"),
    ("crate", "--zip"),
    ("view", "--screenshot"),
)


@pytest.mark.parametrize(("program", "option"), PROGRAMS)
def test_a_folder_is_no_output_file(
    tmp_path: Path, program: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *verb = program.split()
    with pytest.raises(SystemExit):
        importlib.import_module(name).main([*verb, option, str(tmp_path)])
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path} is a folder; name a file in it" in last and option in last


def test_folders_that_do_not_exist_are_made_and_files_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("new.json", "a/b/new.json", "file"):
        assert output_file(str(tmp_path / name)) == tmp_path / name
    assert output_file("new.json") == Path("new.json")
    with pytest.raises(argparse.ArgumentTypeError, match="file is no folder"):
        output_file(str(tmp_path / "file/new.json"))


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "folder", {})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]

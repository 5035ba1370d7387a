"""Folders of sections: the order of files, and names that leave it unclear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from retrace.errors import DataError
from retrace.formats.section_order import section_files


def folder_of(path: Path, names: Sequence[str]) -> Path:
    """A folder of empty files."""
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).touch()
    return path


@pytest.mark.parametrize(
    "names",
    [
        [f"slice_{i}.tif" for i in range(1, 13)],
        [f"{i:03d}.tif" for i in range(12)],
        [f"s{i:02d}.TIF" for i in range(95, 103)],  # longer numbers after 99
        [f"z{i}.tiff" for i in range(0, 120, 10)],  # every tenth
        [f"w{1 + i // 5}_s{i:02d}.tif" for i in range(10)],  # the wafer rises with the section
        [f"s{i}_2024010{1 + i // 4}T{1200 + 7 * i}.tif" for i in range(12)],  # and so does the time
        ["a.tif", "b.tif", "c.tif"],
        ["Slice_9.tif", "slice_10.tif"],
        ["only.tif"],
    ],
)
def test_sections_are_in_the_order_of_their_numbers(tmp_path: Path, names: Sequence[str]) -> None:
    folder = folder_of(tmp_path / "f", reversed(names))

    assert [path.name for path in section_files(folder)] == list(names)


def test_hidden_files_and_other_formats_are_left_out(tmp_path: Path) -> None:
    names = [f"s_{i}.tif" for i in range(3)]
    stray = ["._s_0.tif", ".DS_Store", "Thumbs.db", "notes.txt", ".s_1.tif.swp"]
    folder = folder_of(tmp_path / "f", [*names, *stray])
    (folder / "old").mkdir()

    assert [path.name for path in section_files(folder)] == names


@pytest.mark.parametrize("other", ["s_3.png", "S_3.JPG"])
def test_sections_of_another_format_are_not_left_out(tmp_path: Path, other: str) -> None:
    names = [f"s_{i}.tif" for i in range(3)]
    folder = folder_of(tmp_path / "f", [*names, "s_1.png", "overview.png", other])

    with pytest.raises(DataError, match=f"{other} is named like a section and is no tif"):
        section_files(folder)
    (folder / other).unlink()
    assert [path.name for path in section_files(folder)] == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["s1.tif", "s2.tif", "s4.tif"], r"section 3 of 1 to 4 is missing \(1 in all.*s2\.tif"),
        (["z0.tif", "z10.tif", "z30.tif", "z80.tif"], "section 20, 40, 50, … of 0 to 80"),
        (["s1.tif", "s01.tif", "s2.tif"], "s01.tif and s1.tif have the same number"),
        (["s1.tif", "s1.tiff", "s2.tif"], "s1.tif and s1.tiff have the same number"),
        (["01.tif", "2.tif", "10.tif"], "some numbers have leading zeros and others do not"),
        (["z1_c0.tif", "z1_c1.tif", "z2_c0.tif", "z2_c1.tif"], "2 numbers change .* channels"),
        (["r0c1.tif", "r1c0.tif"], "2 numbers change .* tiles"),
        (["z0.5.tif", "z1.0.tif", "z1.5.tif"], "2 numbers change"),
        (["z-1.tif", "z0.tif", "z1.tif"], r"z-1\.tif is not named like .*z0\.tif"),
        (["s1.tif", "s2.tif", "overview.tif"], "overview.tif is not named like"),
        (["s1.tif", "s2.tif", "s2 copy.tif"], "s2 copy.tif is not named like"),
        (["a.tif", "B.tif"], "mix small and capital letters"),
        ([], "contains no .tif or .tiff file"),
        (["._s1.tif"], "contains no .tif or .tiff file"),
    ],
)
def test_an_unclear_order_is_refused(tmp_path: Path, names: Sequence[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        section_files(folder_of(tmp_path / "f", names))


def test_links_to_nothing_and_folders_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", ["s1.tif", "s3.tif"])
    (folder / "s2.tif").symlink_to(tmp_path / "gone.tif")
    with pytest.raises(DataError, match=r"s2\.tif is a link to nothing"):
        section_files(folder)

    (folder / "s2.tif").unlink()
    (folder / "s2.tif").mkdir()
    with pytest.raises(DataError, match=r"s2\.tif is no file"):
        section_files(folder)

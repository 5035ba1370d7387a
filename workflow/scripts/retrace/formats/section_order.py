"""The order of a folder's tif files, by the numbers in their names; refused where it is unclear."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from retrace.errors import DataError
from retrace.formats.folder_kinds import OTHER_IMAGES, TIF_SUFFIXES, instead_of_tifs, is_hidden

LISTED = 3
"""Missing numbers that a message lists."""
RENAME = "rename them, or make a folder of links with one number in each name"


def section_files(folder: Path) -> list[Path]:
    """The tif files of a folder from the first section to the last, in the order of their numbers.

    Hidden files, such as the ._ files of macOS, and files that are no tif are left out. DataError
    for names that allow two orders, for a number that occurs twice, and for a missing number:
    without its section, all sections after it would be at a wrong place.
    """
    files = [path for path in folder.iterdir() if _is_section(path)]
    if not files:
        raise DataError(f"{folder} contains no .tif or .tiff file; {instead_of_tifs(folder)}")
    for path in files:
        if not path.is_file():
            what = "a link to nothing" if path.is_symlink() and not path.exists() else "no file"
            raise DataError(f"{path} is {what}; restore the section, or remove the name")
    _check_other_formats(folder, files)
    return _in_order(folder, sorted(files, key=lambda path: path.name))


def _check_other_formats(folder: Path, files: Sequence[Path]) -> None:
    """DataError for an image of another format that has the name of a missing section."""
    patterns = {_cut(path).text for path in files if _cut(path).digits}
    numbers = {_cut(path).numbers for path in files}
    for path in sorted(folder.iterdir()):
        is_image = path.suffix.lower() in OTHER_IMAGES and not is_hidden(path)
        name = _cut(path)
        if is_image and name.text in patterns and name.numbers not in numbers:
            raise DataError(
                f"{folder}: {path.name} is named like a section and is no tif; convert it to tif, "
                "or move it to another folder if it is no section"
            )


def _is_section(path: Path) -> bool:
    return path.suffix.lower() in TIF_SUFFIXES and not is_hidden(path)


@dataclass(frozen=True)
class _Name:
    """A file's name, cut into text and numbers."""

    path: Path
    text: tuple[str, ...]
    digits: tuple[str, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(run) for run in self.digits)


def _cut(path: Path) -> _Name:
    pieces = re.split("([0-9]+)", path.stem)
    text = tuple(piece.casefold() for piece in pieces[::2])
    return _Name(path, text, tuple(pieces[1::2]))


def _in_order(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The files in the only order that their names allow."""
    names = [_cut(path) for path in files]
    if not any(name.digits for name in names):
        return _in_name_order(folder, files)
    _check_pattern(folder, names)
    ordered = sorted(names, key=lambda name: name.numbers)
    _check_zeros(folder, names, ordered)
    _check_numbers(folder, ordered)
    return [name.path for name in ordered]


def _in_name_order(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Files without numbers, by their names."""
    if sorted(files, key=lambda path: path.name.casefold()) != list(files):
        raise DataError(
            f"{folder}: the order of the sections is unclear, because names without numbers mix "
            f"small and capital letters ({files[0].name}, {files[-1].name}); number the files"
        )
    return list(files)


def _check_pattern(folder: Path, names: Sequence[_Name]) -> None:
    """DataError if names differ in more than their numbers, as where a file is no section."""
    counts = Counter(name.text for name in names)
    if len(counts) == 1:
        return
    common = counts.most_common(1)[0][0]
    usual = next(name for name in names if name.text == common)
    other = next(name for name in names if name.text != common)
    raise DataError(
        f"{folder}: {other.path.name} is not named like the other sections ({counts[common]} are "
        f"named like {usual.path.name}); move files that are no sections to another folder, and "
        "give all sections names that differ only in their number"
    )


def _check_numbers(folder: Path, names: Sequence[_Name]) -> None:
    """DataError unless each number of the names rises with the sections, and one without gaps.

    `names`: in natural order.
    """
    columns = zip(*(name.numbers for name in names), strict=True)
    varying = [column for column in columns if len(set(column)) > 1]
    rising = [c for c in varying if all(a < b for a, b in pairwise(c))]
    for one, other in pairwise(names):
        if one.numbers == other.numbers:
            raise DataError(
                f"{folder}: {one.path.name} and {other.path.name} have the same number; remove one"
            )
    is_clear = all(a <= b for column in varying for a, b in pairwise(column))
    if varying and not (rising and is_clear):
        raise DataError(
            f"{folder}: {len(varying)} numbers change from name to name ({names[0].path.name}, "
            f"{names[1].path.name} … {names[-1].path.name}), and it is unclear which one is the "
            "section's, as for tiles or channels; keep one tile or channel in a folder, or "
            f"{RENAME}"
        )
    if rising:
        _check_gaps(folder, names, min(rising, key=_missing_count))


def _step(numbers: Sequence[int]) -> int:
    """The distance of two sections: 1, or 10 for 0, 10, 20."""
    return math.gcd(*(b - a for a, b in pairwise(numbers)))


def _missing_count(numbers: Sequence[int]) -> int:
    return (numbers[-1] - numbers[0]) // _step(numbers) + 1 - len(numbers)


def _check_gaps(folder: Path, names: Sequence[_Name], numbers: Sequence[int]) -> None:
    """DataError if a number between the first and the last is missing."""
    count, step = _missing_count(numbers), _step(numbers)
    if not count:
        return
    gaps = [n for a, b in pairwise(numbers) for n in range(a + step, min(b, a + step * 4), step)]
    listed = ", ".join(str(number) for number in gaps[:LISTED]) + (", …" if count > LISTED else "")
    after = names[numbers.index(gaps[0] - step)].path.name
    raise DataError(
        f"{folder}: section {listed} of {numbers[0]} to {numbers[-1]} is missing ({count} in all, "
        f"the first after {after}); without it, all later sections would be at a wrong place. "
        "Restore it, put a black section or a link to a neighbour in its place, or number the "
        "files without gaps if nothing is missing"
    )


def _check_zeros(folder: Path, names: Sequence[_Name], ordered: Sequence[_Name]) -> None:
    """DataError if some numbers have leading zeros and others lack them.

    `names`: in name order. Widths that agree are right whatever the order: 1 … 12, 001 … 1000.
    """
    if list(names) == list(ordered):
        return
    for column in zip(*(name.digits for name in ordered), strict=True):
        padded = {len(run) for run in column if len(run) > 1 and run[0] == "0"}
        if padded and (len(padded) > 1 or min(map(len, column)) < max(padded)):
            raise DataError(
                f"{folder}: some numbers have leading zeros and others do not, so that the order "
                f"of names ({names[0].path.name}, {names[1].path.name} …) and that of numbers "
                f"({ordered[0].path.name}, {ordered[1].path.name} …) differ; {RENAME}"
            )

"""Checks the names of files and targets that an RO-Crate or a bundle from elsewhere states.

Standard library only: a packed experiment is checked before anything is installed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from retrace.errors import DataError
from retrace.remote.object_names import clashes, folded

TARGET = re.compile("[A-Za-z][A-Za-z0-9_]*")
"""The name of a target, such as evaluate_zfinch_mtlsd."""


def check_plain(folder: Path, name: str, kind: str) -> None:
    """DataError for a name that would lead out of `folder`, which `kind` (RO-Crate) describes."""
    parts = name.split("/")
    is_plain = not any(part in ("", ".", "..") for part in parts) and "\\" not in name
    if not is_plain or any(unicodedata.category(letter) == "Cc" for letter in name):
        raise DataError(
            f"{kind} {folder}: the name {name!r} is not a plain relative path, and could lead out "
            f"of the folder; get the {kind} again, from somebody you trust"
        )


def inside(folder: Path, name: str, kind: str) -> Path:
    """The path of a file in `folder`; DataError for a name, or a link, that leads out of it."""
    check_plain(folder, name, kind)
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{kind} {folder}: {name} leads out of the folder, because a link is on its way; "
            "remove the link, or use another folder"
        )
    return folder / name


def check_names(folder: Path, names: Iterable[str], kind: str) -> None:
    """DataError for a name that leads out of `folder`, or collides with another one.

    File systems may take names for the same that differ in case, or in how an accent is encoded.
    """
    different = list(dict.fromkeys(names))
    for name in different:
        check_plain(folder, name, kind)
    if pair := next(clashes(different, folded), None):
        raise DataError(f"{kind} {folder}: {_collide(*pair, kind)}")


def _collide(one: str, other: str, kind: str) -> str:
    return (
        f"{one} and {other} cannot both be files on every machine, because their names differ in "
        f"case only, or one is a folder of the other; get the {kind} again, from somebody you trust"
    )


def check_target(target: str, where: str) -> str:
    """The target that a file states; DataError for an invalid name, such as an option."""
    if TARGET.fullmatch(target) is None:
        raise DataError(
            f"{where}: {target!r} is not the name of a target; names have letters, digits and _, "
            "such as evaluate_zfinch_mtlsd"
        )
    return target

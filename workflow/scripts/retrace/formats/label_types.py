"""Which types of values labels may have: the same during planning and in jobs."""

from __future__ import annotations

from retrace.errors import DataError
from retrace.formats.setting_names import CONFIG, SettingNames


def check_label_type(name: str, dtype: str, names: SettingNames = CONFIG) -> None:
    """DataError for labels of a type, by its name, that cannot hold ids: floats and truth values.

    `name`: of the labels, for messages.
    """
    if dtype.startswith(("uint", "int")):
        return
    steps = [
        step for step in (names.separate_objects, "save it as integers, such as uint64") if step
    ]
    raise DataError(
        f"{name} is {dtype}; labels must be of an integer type, with one number for each object or "
        f"class: {', or '.join(steps)}"
    )


def check_not_empty(name: str, shape: tuple[int, ...], part: str) -> None:
    """DataError for an array without voxels; `part`: what it is read as."""
    if 0 in shape:
        raise DataError(
            f"{name} is empty, its shape is {list(shape)}; choose another array as {part}, or "
            "write the file again"
        )

"""The texts of a `.cfg` and a `.spec` for a folder in which the files that they name have moved.

They hold what counts and nothing else: comments, samples without files and earlier names of
parameters are left out, so that no path of the machine is left in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from retrace.errors import DataError
from retrace.znn.cfg import FOLDER_PARAMETERS, NAMED_PARAMETERS, SECTION, read_cfg, written_cfg
from retrace.znn.spec import SpecSection, read_spec

DATA = "fdata_spec"
"""The parameter of a `.cfg` that names its data."""
Place = Callable[[Path], str | None]
"""The new path of a file, as it is written there; None if it has none."""


def moved_cfg(path: Path, place: Place, outputs: str) -> str:
    """The text of a `.cfg`; `outputs`: the folder for files that it has written.

    A `forward_net` that does not exist yet is left out, and an `fdata_spec` that has not moved:
    data of another dataset. DataError for an `fnet_spec` that has not moved.
    """
    config, values = read_cfg(path), {}
    for name, field in written_cfg(path).items():
        values[name] = " ".join(field.text.split())
        if (named := getattr(config, name, None)) is None:
            continue
        if name in NAMED_PARAMETERS:
            has_moved = Path(named).is_file() and (name != DATA or place(Path(named)) is not None)
            values[name] = _placed(Path(named), path, place) if has_moved else ""
        elif name in FOLDER_PARAMETERS:
            values[name] = f"{outputs}/{Path(named).name}"
    return _section(SECTION, values)


def moved_spec(path: Path, base: Path | None, place: Place) -> str:
    """The text of a `.spec`; `base`: the folder of the `.cfg` that names it.

    DataError for a file in it that has not moved.
    """
    parts: dict[str, Mapping[str, str]] = {}
    for number, sample in read_spec(path, base).items():
        sections = {**sample.images, **sample.labels}
        parts |= {s.name: dict(_values(s, path, place)) for s in sections.values()}
        parts[f"sample{number}"] = {
            node: re.sub(r"\D", "", section.name) for node, section in sections.items()
        }
    return "\n".join(_section(name, values) for name, values in parts.items())


def _placed(named: Path, by: Path, place: Place) -> str:
    """The new path of a file that `by` names."""
    new = place(named)
    if new is None:
        raise DataError(f"{by} names {named}, which is not packed; correct the path")
    return new


def _values(section: SpecSection, spec: Path, place: Place) -> Iterator[tuple[str, str]]:
    yield "fnames", ", ".join(_placed(file.path, spec, place) for file in section.files)
    masks = [_placed(mask.path, spec, place) for mask in section.masks if mask is not None]
    if masks:
        yield "fmasks", ", ".join(masks)
    yield "pp_types", ", ".join(section.preprocess)
    yield "is_auto_crop", "yes" if section.auto_crop else "no"


def _section(name: str, values: Mapping[str, str]) -> str:
    lines = [f"{key} = {value}\n" for key, value in values.items() if value]
    return f"[{name}]\n{''.join(lines)}"

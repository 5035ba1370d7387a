"""The texts of a `.cfg` and a `.spec` for a folder in which the files that they name have moved.

They hold what counts and nothing else: comments, samples without files and earlier names of
parameters are left out, so that no path of the machine is left in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from retrace.znn.cfg import FOLDER_PARAMETERS, NAMED_PARAMETERS, SECTION, read_cfg, written_cfg
from retrace.znn.spec import SpecSection, read_spec

Place = Callable[[Path], str]
"""The new path of a file, as it is written there."""


def moved_cfg(path: Path, place: Place, outputs: str) -> str:
    """The text of a `.cfg`; `outputs`: the folder for files that it has written.

    A `forward_net` that does not exist yet is left out.
    """
    config, values = read_cfg(path), {}
    for name, field in written_cfg(path).items():
        values[name] = " ".join(field.text.split())
        if (named := getattr(config, name, None)) is None:
            continue
        if name in NAMED_PARAMETERS:
            values[name] = place(Path(named)) if Path(named).is_file() else ""
        elif name in FOLDER_PARAMETERS:
            values[name] = f"{outputs}/{Path(named).name}"
    return _section(SECTION, values)


def moved_spec(path: Path, base: Path | None, place: Place) -> str:
    """The text of a `.spec`; `base`: the folder of the `.cfg` that names it."""
    parts: dict[str, Mapping[str, str]] = {}
    for number, sample in read_spec(path, base).items():
        sections = {**sample.images, **sample.labels}
        parts |= {section.name: dict(_values(section, place)) for section in sections.values()}
        parts[f"sample{number}"] = {
            node: re.sub(r"\D", "", section.name) for node, section in sections.items()
        }
    return "\n".join(_section(name, values) for name, values in parts.items())


def _values(section: SpecSection, place: Place) -> Iterator[tuple[str, str]]:
    yield "fnames", ", ".join(place(file.path) for file in section.files)
    masks = [place(mask.path) for mask in section.masks if mask is not None]
    if masks:
        yield "fmasks", ", ".join(masks)
    yield "pp_types", ", ".join(section.preprocess)
    yield "is_auto_crop", "yes" if section.auto_crop else "no"


def _section(name: str, values: Mapping[str, str]) -> str:
    lines = [f"{key} = {value}\n" for key, value in values.items() if value]
    return f"[{name}]\n{''.join(lines)}"

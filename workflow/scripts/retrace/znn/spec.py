"""Reader of `.spec` files: which images and labels belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import ConfigError
from retrace.znn.ini_sections import read_sections
from retrace.znn.values import Field, find_file

IMAGE_TYPES = ("standard2D", "standard3D", "symetric_rescale", "none")
"""Preprocessing of images; "symetric" is how ZNN spells it."""
LABEL_TYPES = ("one_class", "binary_class", "affinity", "auto", "none")
"""Read and without effect, as in ZNN: `out_type` decides what is made of labels."""
KINDS = ("image", "label", "sample")


@dataclass(frozen=True)
class Section:
    """One [imageN] or [labelN]."""

    number: int
    where: str
    file: Path
    mask: Path | None
    preprocess: str
    auto_crop: bool


@dataclass(frozen=True)
class Sample:
    """One [sampleN]: image by input node, label by output node."""

    number: int
    images: Mapping[str, Section]
    labels: Mapping[str, Section]


def read_spec(path: Path) -> dict[int, Sample]:
    """The samples of a `.spec` by number; ConfigError with file, line, field for what is wrong."""
    parts: dict[str, dict[int, dict[str, Field]]] = {kind: {} for kind in KINDS}
    for name, fields in read_sections(path, ".spec file").items():
        match = re.fullmatch(r"(image|label|sample)(\d+)", name)
        if not match:
            raise ConfigError(
                f"{path}: section [{name}]; allowed: [imageN], [labelN], [sampleN] with a number N"
            )
        parts[match[1]][int(match[2])] = fields
    if not parts["sample"]:
        raise ConfigError(f"{path} has no [sampleN]; add one that names images and labels")
    images = {n: _section(path, "image", n, fields) for n, fields in parts["image"].items()}
    labels = {n: _section(path, "label", n, fields) for n, fields in parts["label"].items()}
    return {n: _sample(path, n, fields, images, labels) for n, fields in parts["sample"].items()}


def _section(path: Path, kind: str, number: int, fields: Mapping[str, Field]) -> Section:
    if "fnames" not in fields:
        raise ConfigError(f"{path}: [{kind}{number}] has no `fnames`; add the file's path")
    files = _files(fields["fnames"], path)
    masks = next((fields[key] for key in ("fmasks", "fmask") if key in fields), None)
    mask = _files(masks, path) if masks and kind == "label" else []
    for given, field in ((files, fields["fnames"]), (mask, masks)):
        if field and len(given) > 1:
            raise ConfigError(
                f"{field.where}: {field.name} names {len(given)} files; ZNN reads one a section. "
                f"Write a [{kind}N] and a [sampleN] for each"
            )
    if not files:
        raise fields["fnames"].error("the path of a tif or h5 file")
    return Section(
        number,
        fields["fnames"].where,
        files[0],
        mask[0] if mask else None,
        _preprocess(fields.get("pp_types"), kind),
        fields["is_auto_crop"].boolean() if "is_auto_crop" in fields else False,
    )


def _files(field: Field, beside: Path) -> list[Path]:
    """Paths between commas or on lines of their own; ZNN wanted both at once."""
    names = [name.strip() for name in re.split(r"[,\n]", field.text) if name.strip()]
    found = [find_file(name, beside) for name in names]
    for path in found:
        if not path.is_file():
            raise ConfigError(
                f"{field.where}: {field.name} names {path}, which there is not; correct the path "
                f"(from {Path.cwd()}, or from the folder of the .spec)"
            )
    return found


def _preprocess(field: Field | None, kind: str) -> str:
    if field is None:
        return "none"
    text = field.text.split(",")[0].strip()
    if kind == "label":
        return Field(field.path, field.line, field.name, text).choice(LABEL_TYPES)
    if "none" in text.lower():
        return "none"
    return Field(field.path, field.line, field.name, text).choice(IMAGE_TYPES)


def _sample(
    path: Path,
    number: int,
    fields: Mapping[str, Field],
    images: Mapping[int, Section],
    labels: Mapping[int, Section],
) -> Sample:
    """Options named input... are images, output... labels; others what the numbers allow."""
    found: dict[str, dict[str, Section]] = {"image": {}, "label": {}}
    known = {"image": images, "label": labels}
    for name, field in fields.items():
        kind = _kind(field, images, labels)
        index = field.integer(0)
        if index not in known[kind]:
            raise field.error(f"numbers of [{kind}N]: {', '.join(map(str, sorted(known[kind])))}")
        found[kind][name] = known[kind][index]
    if not found["image"]:
        raise ConfigError(f"{path}: [sample{number}] names no image; add `input = N`")
    return Sample(number, found["image"], found["label"])


def _kind(field: Field, images: Mapping[int, Section], labels: Mapping[int, Section]) -> str:
    for start, kind in (("in", "image"), ("out", "label")):
        if field.name.startswith(start):
            return kind
    number = field.integer(0)
    if (number in images) == (number in labels):
        raise ConfigError(
            f"{field.where}: {field.name!r} may mean an image or a label; name the network's "
            "nodes input... and output..."
        )
    return "image" if number in images else "label"

"""Reader of `.spec` files, which say which images and labels belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import ConfigError
from retrace.znn.ini_sections import read_sections
from retrace.znn.values import WrittenValue, find_file

PREPROCESSINGS = ("standard2D", "standard3D", "symetric_rescale", "none")
"""Normalisations of images, spelt as in ZNN."""
LABEL_PREPROCESSINGS = ("one_class", "binary_class", "affinity", "auto", "none")
"""Values for labels. They have no effect, as in ZNN: `out_type` decides how labels are used."""
H5_ARRAY = "main"
"""The array that ZNN reads from every h5 file."""
SECTION_KINDS = ("image", "label", "sample")


@dataclass(frozen=True)
class SpecSection:
    """One [imageN] or [labelN]."""

    number: int
    where: str
    file: Path
    mask: Path | None
    preprocess: str
    auto_crop: bool


@dataclass(frozen=True)
class SpecSample:
    """One [sampleN]: images by input node, labels by output node."""

    number: int
    images: Mapping[str, SpecSection]
    labels: Mapping[str, SpecSection]


def read_spec(path: Path) -> dict[int, SpecSample]:
    """The samples of a `.spec` by number; ConfigError names file, line and field of an error."""
    parts: dict[str, dict[int, dict[str, WrittenValue]]] = {kind: {} for kind in SECTION_KINDS}
    for name, fields in read_sections(path, ".spec file").items():
        match = re.fullmatch(r"(image|label|sample)(\d+)", name)
        if not match:
            raise ConfigError(
                f"{path}: section [{name}]; allowed: [imageN], [labelN], [sampleN] with a number N"
            )
        parts[match[1]][int(match[2])] = fields
    if not parts["sample"]:
        raise ConfigError(f"{path} has no [sampleN]; add one with images and labels")
    images = {n: _section(path, "image", n, fields) for n, fields in parts["image"].items()}
    labels = {n: _section(path, "label", n, fields) for n, fields in parts["label"].items()}
    return {n: _sample(path, n, fields, images, labels) for n, fields in parts["sample"].items()}


def _section(path: Path, kind: str, number: int, fields: Mapping[str, WrittenValue]) -> SpecSection:
    if "fnames" not in fields:
        raise ConfigError(f"{path}: [{kind}{number}] has no `fnames`; add the file's path")
    files = _files(fields["fnames"], path)
    masks = next((fields[key] for key in ("fmasks", "fmask") if key in fields), None)
    mask = _files(masks, path) if masks and kind == "label" else []
    for paths, field in ((files, fields["fnames"]), (mask, masks)):
        if field and len(paths) > 1:
            raise ConfigError(
                f"{field.where}: {field.name} names {len(paths)} files; ZNN reads one per section. "
                f"Write a [{kind}N] and a [sampleN] for each"
            )
    if not files:
        raise fields["fnames"].error("the path of a tif or h5 file")
    return SpecSection(
        number,
        fields["fnames"].where,
        files[0],
        mask[0] if mask else None,
        _preprocess(fields.get("pp_types"), kind),
        fields["is_auto_crop"].boolean() if "is_auto_crop" in fields else False,
    )


def _files(field: WrittenValue, spec: Path) -> list[Path]:
    """Paths separated by commas or line breaks; ZNN needed both."""
    names = [name.strip() for name in re.split(r"[,\n]", field.text) if name.strip()]
    paths = [find_file(name, spec) for name in names]
    for path in paths:
        if not path.is_file():
            raise ConfigError(
                f"{field.where}: {field.name} names {path}, which does not exist; correct the path "
                f"(relative to {Path.cwd()}, or to the folder of the .spec)"
            )
    return paths


def _preprocess(field: WrittenValue | None, kind: str) -> str:
    if field is None:
        return "none"
    text = field.text.split(",")[0].strip()
    if kind == "label":
        return WrittenValue(field.path, field.line, field.name, text).choice(LABEL_PREPROCESSINGS)
    if "none" in text.lower():
        return "none"
    return WrittenValue(field.path, field.line, field.name, text).choice(PREPROCESSINGS)


def _sample(
    path: Path,
    number: int,
    fields: Mapping[str, WrittenValue],
    images: Mapping[int, SpecSection],
    labels: Mapping[int, SpecSection],
) -> SpecSample:
    """A sample; options named in... are images, out... labels, others by their number."""
    chosen: dict[str, dict[str, SpecSection]] = {"image": {}, "label": {}}
    sections = {"image": images, "label": labels}
    for name, field in fields.items():
        kind = _kind(field, images, labels)
        number_of_part = field.integer(0)
        if number_of_part not in sections[kind]:
            raise field.error(
                f"numbers of [{kind}N]: {', '.join(map(str, sorted(sections[kind])))}"
            )
        chosen[kind][name] = sections[kind][number_of_part]
    if not chosen["image"]:
        raise ConfigError(f"{path}: [sample{number}] names no image; add `input = N`")
    return SpecSample(number, chosen["image"], chosen["label"])


def _kind(
    field: WrittenValue, images: Mapping[int, SpecSection], labels: Mapping[int, SpecSection]
) -> str:
    for start, kind in (("in", "image"), ("out", "label")):
        if field.name.startswith(start):
            return kind
    number = field.integer(0)
    if (number in images) == (number in labels):
        raise ConfigError(
            f"{field.where}: {field.name!r} could be an image or a label; name the network's "
            "nodes input... and output..."
        )
    return "image" if number in images else "label"

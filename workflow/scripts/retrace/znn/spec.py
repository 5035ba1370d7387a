"""Reader of `.spec` files, which say which images and labels belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import ConfigError, nearest
from retrace.znn.ini_sections import read_sections
from retrace.znn.paths import NamedFile, named_file
from retrace.znn.values import WrittenValue

PREPROCESSINGS = ("standard2D", "standard3D", "symetric_rescale", "none")
"""Normalisations of images, spelt as in ZNN."""
SPELLINGS = {"symmetric_rescale": "symetric_rescale", "None": "none"}
"""Other spellings: that of ZNN's documentation, and one that ZNN reads, too."""
LABEL_PREPROCESSINGS = ("one_class", "binary_class", "affinity", "auto", "none")
"""What ZNN's documentation names for labels; see `check_label_types`."""
TARGETS_OF_LABEL_TYPES = {
    "one_class": ("boundary", 1),
    "binary_class": ("boundary", 2),
    "affinity": ("affinity", 3),
}
"""The `out_type` and the number of maps that they make; auto and none follow the network."""
H5_ARRAY = "main"
"""The array that ZNN reads from every h5 file."""
OPTIONS = {
    "image": ("fnames", "pp_types", "is_auto_crop"),
    "label": ("fnames", "pp_types", "is_auto_crop", "fmasks", "fmask"),
}
"""What an [imageN] and a [labelN] may set."""


@dataclass(frozen=True)
class SpecSection:
    """One [imageN] or [labelN]: its files, and for each of them a mask and a preprocessing."""

    name: str
    where: str
    files: tuple[NamedFile, ...]
    masks: tuple[NamedFile | None, ...]
    preprocess: tuple[str, ...]
    auto_crop: bool

    def check(self) -> None:
        """ConfigError if a file does not exist."""
        for file in (*self.files, *self.masks):
            if file is not None:
                file.check()

    def one(self, index: int) -> SpecSection:
        """The section with the file of that index alone."""
        part = slice(index, index + 1)
        files, masks, preprocess = self.files[part], self.masks[part], self.preprocess[part]
        return SpecSection(self.name, self.where, files, masks, preprocess, self.auto_crop)


@dataclass(frozen=True)
class SpecSample:
    """One [sampleN]: images by input node, labels by output node."""

    number: int
    where: str
    images: Mapping[str, SpecSection]
    labels: Mapping[str, SpecSection]


def read_spec(path: Path, base: Path | None = None) -> dict[int, SpecSample]:
    """The samples of a `.spec` by number; ConfigError names file, line and field of an error.

    `base`: the folder of the `.cfg` that names the `.spec`, which paths are relative to. That the
    files exist is checked by `SpecSection.check`, for those that are used.
    """
    parts: dict[str, dict[int, dict[str, WrittenValue]]] = {"image": {}, "label": {}, "sample": {}}
    for name, fields in read_sections(path, ".spec file").items():
        match = re.fullmatch(r"(image|label|sample)(\d+)", name)
        if not match:
            raise ConfigError(
                f"{path}: section [{name}]; allowed: [imageN], [labelN], [sampleN] with a number N"
            )
        parts[match[1]][int(match[2])] = fields
    if not parts["sample"]:
        raise ConfigError(f"{path} has no [sampleN]; add one with images and labels")
    folders = [*([base] if base is not None else []), path.parent, Path()]
    sections = {
        kind: {n: _section(path, folders, kind, n, fields) for n, fields in parts[kind].items()}
        for kind in OPTIONS
    }
    return {
        n: _sample(path, n, fields, sections["image"], sections["label"])
        for n, fields in parts["sample"].items()
    }


def _section(
    path: Path, folders: Sequence[Path], kind: str, number: int, fields: Mapping[str, WrittenValue]
) -> SpecSection:
    _check_options(kind, fields)
    if "fnames" not in fields:
        raise ConfigError(f"{path}: [{kind}{number}] has no `fnames`; add the file's path")
    files = _files(fields["fnames"], folders)
    if not files:
        raise fields["fnames"].error("the path of a tif or h5 file")
    if "fmask" in fields and "fmasks" in fields:
        raise ConfigError(f"{fields['fmask'].where}: both fmask and fmasks; keep one of them")
    named = fields.get("fmasks", fields.get("fmask"))
    masks = _files(named, folders) if named else []
    if named and len(masks) not in (0, len(files)):
        raise named.error(f"one mask for each of the {len(files)} files of fnames, or none")
    return SpecSection(
        f"{kind}{number}",
        fields["fnames"].where,
        tuple(files),
        tuple(masks or [None] * len(files)),
        _preprocess(fields.get("pp_types"), kind, len(files)),
        fields["is_auto_crop"].boolean() if "is_auto_crop" in fields else False,
    )


def _check_options(kind: str, fields: Mapping[str, WrittenValue]) -> None:
    for name, field in fields.items():
        if name in ("fmask", "fmasks") and kind == "image":
            raise ConfigError(f"{field.where}: {name} in an [imageN]; masks belong to a [labelN]")
        if name not in OPTIONS[kind]:
            raise ConfigError(
                f"{field.where}: unknown option {name!r}; {nearest(name, OPTIONS[kind])}"
            )


def _files(field: WrittenValue, folders: Iterable[Path]) -> list[NamedFile]:
    """Files separated by commas or line breaks; ZNN needed both."""
    names = [name.strip() for name in re.split(r"[,\n]", field.text) if name.strip()]
    return [named_file(field, folders, name) for name in names]


def _preprocess(field: WrittenValue | None, kind: str, count: int) -> tuple[str, ...]:
    """The preprocessing of each of `count` files; a single one is for all of them."""
    allowed = LABEL_PREPROCESSINGS if kind == "label" else PREPROCESSINGS
    if field is None:
        return ("none",) * count
    parts = [part.strip() for part in re.split(r"[,\n]", field.text) if part.strip()]
    types = [field.part(SPELLINGS.get(part, part)).choice(allowed) for part in parts]
    if len(types) not in (1, count):
        raise field.error(f"one type, or one for each of the {count} files of fnames")
    return tuple(types * count if len(types) == 1 else types)


def check_label_types(section: SpecSection, node: str, maps: int, out_type: str) -> None:
    """ConfigError for a `pp_types` of labels that does not make what an output node learns.

    one_class: 1 where the label is above 0; binary_class: also the inverse; affinity: affinities
    to three neighbours. auto and none leave it to `out_type`, which in ZNN always decided.
    """
    for kind in section.preprocess:
        expected = TARGETS_OF_LABEL_TYPES.get(kind)
        if expected is not None and expected != (out_type, maps):
            raise ConfigError(
                f"{section.where}: pp_types of [{section.name}] is {kind}, which makes "
                f"{expected[1]} maps for out_type {expected[0]}; output node {node!r} has {maps}, "
                f"and out_type is {out_type}. Write auto, which follows out_type, or change the "
                "network or out_type"
            )


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
                f"numbers of [{kind}N]: {', '.join(map(str, sorted(sections[kind]))) or 'none'}"
            )
        chosen[kind][name] = sections[kind][number_of_part]
    if not chosen["image"]:
        raise ConfigError(f"{path}: [sample{number}] names no image; add `input = N`")
    where = next(iter(fields.values())).where
    return SpecSample(number, where, chosen["image"], chosen["label"])


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

"""Errors of a segmentation as annotation layers of neuroglancer, in x, y, z and nm.

A layer is the JSON that neuroglancer itself keeps in its state and its links. The viewer and the
exported file show the same layers. Its panel lists the errors, the largest first; a click on one
shows its segments, a right click moves the view to its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLOURS = {"split": "#ffb000", "merge": "#00e5ff"}
"""Colour of the points by kind."""

SHADER = """\
void main() {
  vec3 split = vec3(1.0, 0.69, 0.0);
  vec3 merge = vec3(0.0, 0.9, 1.0);
  setColor(prop_merge() == 1u ? merge : split);
  setPointMarkerSize(12.0);
}
"""

PROPERTIES = [
    {"id": "merge", "type": "uint8", "enum_values": [0, 1], "enum_labels": ["split", "merge"]},
    {"id": "millibits", "type": "float32", "description": "share of the VOI, 1/1000 bits"},
    {"id": "size", "type": "uint32", "description": "voxels or nodes"},
]

SEGMENTATIONS = ("segments", "labels")
"""Layers whose ids the errors are linked with, in this order."""


def error_layers(content: Mapping[str, Any], volume: str | None = None) -> list[dict[str, Any]]:
    """A layer for each list of errors in the content of errors.json; of one volume, or of all."""
    entries = {
        name: entry
        for name, entry in content["volumes"].items()
        if volume is None or entry["volume"] == volume
    }
    lists = [(n, key, errors) for n, e in entries.items() for key, errors in e["lists"].items()]
    return [_layer(_title(name, key, len(lists)), errors) for name, key, errors in lists]


def errors_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """A state of neuroglancer with the layers of all errors; layers of images can be added."""
    return {"dimensions": _dimensions(), "layers": error_layers(content)}


def _title(name: str, key: str, count: int) -> str:
    return "errors" if count == 1 else f"errors {name} {key}"


def _dimensions() -> dict[str, Any]:
    return {axis: [1e-9, "m"] for axis in "xyz"}


def _layer(name: str, errors: Mapping[str, Any]) -> dict[str, Any]:
    # Skeletons are cut where they leave the scored box, and numbered again: no labels of a layer.
    linked = SEGMENTATIONS if errors["counted"] == "voxels" else SEGMENTATIONS[:1]
    return {
        "type": "annotation",
        "name": name,
        "source": {
            "url": "local://annotations",
            "transform": {"outputDimensions": _dimensions()},
        },
        "tab": "annotations",
        "annotationProperties": PROPERTIES,
        "annotationRelationships": list(linked),
        "linkedSegmentationLayer": {name: name for name in linked},
        "shader": SHADER,
        "annotations": [
            _annotation(row, errors["counted"], len(linked)) for row in errors["errors"]
        ],
    }


def _annotation(row: Mapping[str, Any], counted: str, linked: int) -> dict[str, Any]:
    size = row["voxels"] if "voxels" in row else row["nodes"]
    return {
        "type": "point",
        "id": str(row["rank"]),
        "point": row["point_nm"][::-1],
        "description": describe_error(row, counted),
        "props": [int(row["kind"] == "merge"), row["voi_bits"] * 1000, min(size, 2**32 - 1)],
        "segments": [[str(i) for i in row[key]] for key in ("segments", "ground_truth")[:linked]],
    }


def describe_error(row: Mapping[str, Any], counted: str) -> str:
    """One line about an error, such as `1. split 8.6 %: 2150 in 9, 1; 0.137 bits, 29 voxels`.

    First the part of the VOI, then the objects and the segments.
    """
    segments, objects = (", ".join(map(str, row[k])) for k in ("segments", "ground_truth"))
    size = row["voxels"] if "voxels" in row else row["nodes"]
    share = f"{100 * row['voi_fraction']:.2g} %"
    more = f"{row['voi_bits']:.3g} bits, {size:,} {counted}"
    return f"{row['rank']}. {row['kind']} {share}: {objects} in {segments}; {more}"

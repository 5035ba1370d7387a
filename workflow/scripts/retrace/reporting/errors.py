"""The largest errors of an experiment with their pictures, from errors.json."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.config.view_model import ViewLayerSource
from retrace.files import read_parsed
from retrace.reporting.drawings import embedded
from retrace.viewing.error_pictures import PictureVolumes, error_pictures
from retrace.viewing.layers import open_layers

SHOWN = 10
"""Number of errors on the page."""


@dataclass(frozen=True)
class ShownError:
    """An error in words, and its picture as a data URL."""

    title: str
    picture: str


def read_errors(
    folder: Path, layers: Mapping[str, Sequence[ViewLayerSource]]
) -> list[ShownError] | None:
    """The largest errors of all test entries; None without a list of errors, or the segments.

    `layers`: by volume the layers that pictures show. DataError if a file is damaged.
    """
    path = folder / "errors.json"
    if not path.is_file():
        return None
    shown = read_parsed(path, _largest)
    drawn = [error for entry, errors in shown for error in _drawn(entry, errors, layers)]
    return None if not drawn and any(errors["errors"] for _, errors in shown) else drawn


def _largest(content: Any) -> list[tuple[str, dict[str, Any]]]:
    """Volumes and lists of errors that hold the largest of all, of a volume's voxels or nodes."""
    lists = [
        (str(entry["volume"]), {**errors, "errors": [{**row} for row in errors["errors"]]})
        for entry in content["volumes"].values()
        for errors in list(entry["lists"].values())[:1]
    ]
    bits = sorted((row["voi_bits"] for _, one in lists for row in one["errors"]), reverse=True)
    least = bits[:SHOWN][-1] if bits else 0.0
    return [
        (volume, {**one, "errors": [row for row in one["errors"] if row["voi_bits"] >= least]})
        for volume, one in lists
    ]


def _drawn(
    volume: str, errors: Mapping[str, Any], layers: Mapping[str, Sequence[ViewLayerSource]]
) -> Iterator[ShownError]:
    opened, _ = open_layers(layers[volume])
    by_kind = {layer.kind: layer.volume for layer in opened}
    if "segments" not in by_kind:
        return
    # Skeletons have other numbers than labels.
    labels = by_kind.get("labels") if errors["counted"] == "voxels" else None
    volumes = PictureVolumes(by_kind["segments"], by_kind.get("raw"), labels)
    for one in error_pictures(errors, volumes, SHOWN):
        yield ShownError(f"{volume}: {one.title}", embedded(io.BytesIO(one.png)))

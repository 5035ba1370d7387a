"""Links that open exported layers in neuroglancer; the link contains the viewer's whole state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retrace.errors import DataError
from retrace.files import read_parsed

PORT = 9000
"""Port of served layers, unless another one is chosen."""
NEUROGLANCER = "https://neuroglancer-demo.appspot.com"
"""The public neuroglancer, which reads layers from this machine too."""


def exported_layers(folder: Path) -> list[str]:
    """Names of the precomputed layers in a folder; DataError if there are none."""
    names = sorted(path.parent.name for path in folder.glob("*/info"))
    if not names:
        raise DataError(
            f"{folder} has no precomputed layers; export some, or name their folder, as in "
            "results/DATASET/NETWORK/VOLUME/precomputed"
        )
    return names


def served_state(folder: Path, address: str, errors: Path | None = None) -> dict[str, Any]:
    """The state of neuroglancer with all layers of a folder that is served at `address`.

    Images come first. `errors`: an errors_layer.json, whose layers come last.
    """
    kinds = {
        name: read_parsed(folder / name / "info", lambda info: str(info["type"]))
        for name in exported_layers(folder)
    }
    state = _state(kinds, address)
    if errors is not None:
        state["layers"] += read_parsed(errors, lambda content: list(content["layers"]))
    return state


def layer_link(name: str, kind: str, address: str) -> str:
    """The link to the public neuroglancer with one layer, `image` or `segmentation`."""
    state = json.dumps(_state({name: kind}, address), separators=(",", ":"))
    return f"{NEUROGLANCER}/#!{quote(state)}"


def _state(kinds: Mapping[str, str], address: str) -> dict[str, Any]:
    layers = [
        {"type": kind, "name": name, "source": f"precomputed://{address}/{quote(name)}"}
        for name, kind in sorted(kinds.items(), key=lambda item: (item[1] != "image", item[0]))
    ]
    return {"layers": layers, "layout": "4panel", "showSlices": False}

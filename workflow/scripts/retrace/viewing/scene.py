"""Layers as a neuroglancer viewer. This module converts z, y, x into neuroglancer's x, y, z."""

from __future__ import annotations

import math
import socket
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import neuroglancer
import numpy as np

from retrace.errors import ConfigError
from retrace.geometry import NmTriple
from retrace.storage.volumes import Volume
from retrace.viewing.captions import GAP_PX, caption
from retrace.viewing.exported_meshes import ExportedMeshes
from retrace.viewing.layers import SEGMENTATIONS, ViewLayer, focus
from retrace.viewing.look import Look, look_of

MAX_MESH_VOXELS = 64_000_000
"""Meshes need the whole volume in memory; larger volumes have none."""
LAZY_VOXELS = 1 << 28
"""Larger volumes are downsampled by 8 at most, so that no zoom level reads the whole volume."""

GREY = "void main() { emitGrayscale(toNormalized(getDataValue())); }"
MASK = "void main() { if (toRaw(getDataValue()) == 0u) emitRGBA(vec4(1, 0, 0, 0.5)); }"
RGB = """\
void main() {
    emitRGB(
        vec3(
            toNormalized(getDataValue(%d)),
            toNormalized(getDataValue(%d)),
            toNormalized(getDataValue(%d)))
        );
}
"""
JET = """\
void main() {
    float v = toNormalized(getDataValue(%d));
    vec4 rgba = vec4(0,0,0,0);
    if (v != 0.0) {
        rgba = vec4(colormapJet(v), 1.0);
    }
    emitRGBA(rgba);
}
"""

SHOWN_AS = {"b": np.uint8, "i": np.uint64, "f": np.float32}
"""By numpy's kind of dtype, the type that neuroglancer draws instead."""


class LazyArray:
    """An array that neuroglancer reads in pieces, converted to a type that it can draw.

    int64, float16, bool and labels below 32 bits are converted when a piece is read.
    """

    def __init__(self, array: Any, labels: bool) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = _drawable(np.dtype(array.dtype), labels)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self._array[key]).astype(self.dtype, copy=False)

    def transpose(self) -> np.ndarray:
        """The whole volume with axes x, y, z, for meshes of small volumes."""
        if math.prod(self.shape) > MAX_MESH_VOXELS:
            raise neuroglancer.local_volume.MeshesNotSupportedForVolume
        return self[...].transpose()


def _drawable(dtype: np.dtype[Any], labels: bool) -> np.dtype[Any]:
    """The type in which neuroglancer draws values of `dtype`."""
    if labels:
        return np.dtype(np.uint64 if dtype.itemsize > 4 else np.uint32)
    if dtype.kind == "u" and dtype.itemsize <= 4:
        return dtype
    return np.dtype(SHOWN_AS.get(dtype.kind, np.float32))


def rgb_shader(channels: Sequence[int]) -> str:
    """Shader for three channels as red, green and blue (tutorial of Sheridan et al. 2023)."""
    one, two, three = channels
    return RGB % (one, two, three)


def jet_shader(channel: int) -> str:
    """Shader for one channel in the colours of jet, 0 transparent (the same tutorial)."""
    return JET % channel


class MeshedVolume(neuroglancer.LocalVolume):
    """A volume of ids whose meshes were exported."""

    exported: ExportedMeshes
    origin_nm: NmTriple

    def get_object_mesh(self, object_id: int) -> bytes:
        """The mesh of a segment; the viewer shows none where none was exported."""
        mesh = self.exported.read(object_id)
        if mesh is None:
            raise neuroglancer.local_volume.InvalidObjectIdForMesh
        return mesh.as_bytes(self.origin_nm)


def local_volume(volume: Volume, labels: bool, meshes: ExportedMeshes | None = None) -> Any:
    """The volume for neuroglancer, with its voxel size (nm) and offset (voxels).

    `meshes`: those of its ids; None: neuroglancer computes them, of small volumes.
    """
    names, units = ["z", "y", "x"], ["nm"] * 3
    scales, offset = list(volume.voxel_size_nm), list(volume.box.offset)
    if volume.channels:
        names, units, scales, offset = ["c^", *names], ["", *units], [1, *scales], [0, *offset]
    array = LazyArray(volume.array, labels)
    lazy = math.prod(array.shape) > LAZY_VOXELS
    kind = neuroglancer.LocalVolume if meshes is None else MeshedVolume
    shown = kind(
        array,
        dimensions=neuroglancer.CoordinateSpace(names=names, units=units, scales=scales),
        volume_type="segmentation" if labels else "image",
        voxel_offset=offset,
        max_downsampling=8 if lazy else 64,
    )
    if meshes is not None:
        shown.exported = meshes
        shown.origin_nm = volume.box.to_nm(volume.voxel_size_nm).offset
    return shown


def start_server(bind_address: str, port: int) -> None:
    """Sets the address of neuroglancer's server; port 0 means any free port.

    ConfigError if the address cannot be used.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((bind_address, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"view: cannot listen on {bind_address}:{port} ({error}); change "
            "`view.bind_address` or `view.port` (0: any free port)"
        ) from error
    neuroglancer.set_server_bind_address(bind_address, port)


def build_viewer(layers: Sequence[ViewLayer], errors: Sequence[Mapping[str, Any]] = ()) -> Any:
    """A viewer with all layers, centred on the result, of which it opens with `shown_names`.

    The others are one click away, in the bar at the top. `errors`: layers of annotations
    (`viewing.error_layer`); the panel on the right lists those of the first.
    """
    viewer = neuroglancer.Viewer()
    shown = shown_names(layers)
    with viewer.txn() as state:
        size = layers[0].volume.voxel_size_nm
        state.dimensions = neuroglancer.CoordinateSpace(
            names=["x", "y", "z"], units="nm", scales=size[::-1]
        )
        box = focus(layers)
        middle = [o + s / 2 for o, s in zip(box.offset, box.shape, strict=True)]
        z, y, x = (m / v for m, v in zip(middle, size, strict=True))
        state.position = [x, y, math.floor(z) + 0.5]  # the middle of a section
        for layer in layers:
            _add(state, layer, shown)
        for annotations in errors:
            _add_errors(state, annotations)
        state.show_axis_lines = state.show_slices = False
        state.projection_scale = 1.2 * max(box.shape) / size[2]
        state.layout = "4panel"
        state.cross_section_scale = _scale(layers, (600, 400))
    return viewer


def show_panels(viewer: Any, layers: Sequence[ViewLayer], size: tuple[int, int]) -> None:
    """Fills `size` pixels (w, h) with one xy panel per layer, each drawn over raw."""
    groups = panel_groups(layers)
    rows, columns = panel_grid(len(groups))
    panels = [neuroglancer.LayerGroupViewer(layers=names, layout="xy") for names in groups]
    lines = [
        neuroglancer.row_layout(panels[start : start + columns])
        for start in range(0, len(panels), columns)
    ]
    with viewer.txn() as state:
        for name in {name for group in groups for name in group}:
            state.layers[name].visible = True
        for layer in layers:
            if layer.kind in SEGMENTATIONS:
                state.layers[layer.name].segments = []  # all, each in its full colour
        state.layout = lines[0] if len(lines) == 1 else neuroglancer.column_layout(lines)
        state.show_default_annotations = False  # no yellow frames
        panel = [
            (pixels - GAP_PX * (count - 1)) / count
            for pixels, count in zip(size, (columns, rows), strict=True)
        ]
        state.cross_section_scale = _scale(layers, panel)


def shown_names(layers: Sequence[ViewLayer]) -> set[str]:
    """Names of the images that a view opens with: raw with segments, or with labels before that.

    All of a view of other results; of descriptors the first image.
    """
    kinds = {layer.kind for layer in layers}
    if "segments" in kinds:
        kinds = {"raw", "segments"}
    elif kinds <= {"raw", "labels", "mask"} and "labels" in kinds:
        kinds = {"raw", "labels"}
    return {next(iter(layer.images)) for layer in layers if layer.kind in kinds}


def panel_groups(layers: Sequence[ViewLayer]) -> list[list[str]]:
    """Names of the layers in each panel: raw alone, then every other layer over raw."""
    raw = [layer.name for layer in layers if layer.kind == "raw"]
    others = [
        [*raw, next(iter(layer.images))] for layer in layers if layer.kind not in ("raw", "mask")
    ]
    masks = [layer.name for layer in layers if layer.kind == "mask"]
    if masks and others:
        others[0] += masks
    elif masks:
        others = [[*raw, *masks]]
    return [raw, *others] if raw else others


def panel_captions(layers: Sequence[ViewLayer]) -> list[list[str]]:
    """A caption for each panel of `show_panels`, row by row: its layer and section."""
    names = [next((n for n in g if n not in g[:1]), g[0]) for g in panel_groups(layers)]
    box, (size, *_) = focus(layers), layers[0].volume.voxel_size_nm
    section = math.floor((box.offset[0] + box.shape[0] / 2) / size)
    texts = [caption(name, section, size) for name in names]
    columns = panel_grid(len(texts))[1]
    return [texts[start : start + columns] for start in range(0, len(texts), columns)]


def panel_grid(panels: int) -> tuple[int, int]:
    """Rows and columns for a number of panels, up to four in a row."""
    rows = math.ceil(panels / 4)
    return rows, math.ceil(panels / rows)


def _scale(layers: Sequence[ViewLayer], panel: Sequence[float]) -> float:
    """Voxels along x per pixel, so that the focus fills a panel of (w, h) pixels."""
    _, height_nm, width_nm = focus(layers).shape
    nm_per_pixel = max(width_nm / panel[0], height_nm / panel[1]) * 1.04
    return float(nm_per_pixel / layers[0].volume.voxel_size_nm[2])


def _add(state: Any, layer: ViewLayer, shown: Collection[str]) -> None:
    """Adds a layer to the viewer's state."""
    if layer.kind in SEGMENTATIONS:
        state.layers[layer.name] = _segmentation(layer, layer.name in shown)
        state.layers[layer.name].visible = layer.name in shown
        return
    source = local_volume(layer.volume, labels=False)
    for name, channels in layer.images.items():
        shader = _shader(layer, channels)
        state.layers[name] = neuroglancer.ImageLayer(source=source, shader=shader, opacity=1.0)
        state.layers[name].visible = name in shown


def _segmentation(layer: ViewLayer, shown: bool) -> Any:
    """Ids as a layer; where it is shown with its largest ids selected, and colours of its own."""
    seen = look_of(layer) if shown else Look((), {})
    return neuroglancer.SegmentationLayer(
        source=local_volume(layer.volume, labels=True, meshes=layer.meshes),
        segments=seen.largest,
        segment_colors=seen.colours,
        selected_alpha=0.4,
        not_selected_alpha=0.15,
    )


def _add_errors(state: Any, annotations: Mapping[str, Any]) -> None:
    """Adds a layer of errors; the first one is listed in the panel on the right."""
    name = annotations["name"]
    state.layers[name] = neuroglancer.AnnotationLayer(dict(annotations))
    if state.selected_layer.layer is None:
        state.selected_layer.layer, state.selected_layer.visible = name, True
        state.selected_layer.size = 420


def _shader(layer: ViewLayer, channels: Sequence[int]) -> str:
    if layer.kind == "mask":
        return MASK
    if len(channels) == 3:
        return rgb_shader(channels)
    return jet_shader(channels[0]) if channels else GREY

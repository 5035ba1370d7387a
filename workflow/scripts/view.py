"""Shows volumes in neuroglancer: as a PNG, or in a browser until Ctrl-C.

    view.py --settings JSON --screenshot view.png
    view.py --settings JSON --serve

The settings are one JSON object: `bind_address`, `port` (0: any free one) and `layers`, a list of
{kind, path, array, name, voxel_size_nm, offset_nm ...} where kind is raw, labels, mask, affinities,
lsds, boundary, fragments or segments. Layers whose files do not exist are left out. `errors` may
name an errors.json and a volume, whose errors the served viewer lists, and `meshes` the folder of
an exported layer of segments, whose meshes it shows.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import neuroglancer

from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.config.view_model import ErrorsSource, ViewSettings
from retrace.errors import ConfigError, run
from retrace.files import atomic_write, read_parsed
from retrace.viewing.browser import BrowserError, find_browser, screenshot
from retrace.viewing.captions import with_captions
from retrace.viewing.error_layer import error_layers
from retrace.viewing.exported_meshes import find_meshes
from retrace.viewing.layers import ViewLayer, open_layers
from retrace.viewing.picture import draw_sections
from retrace.viewing.scene import (
    MAX_MESH_VOXELS,
    build_viewer,
    panel_captions,
    show_panels,
    start_server,
)

SIZE = (1600, 900)
"""Default width and height of the screenshot, pixels."""


def write_picture(
    layers: Sequence[ViewLayer], path: Path, size: tuple[int, int], bind_address: str
) -> None:
    """Writes a PNG with a headless browser; without one, with matplotlib, and says so."""
    try:
        find_browser()
        start_server(bind_address, 0)
        viewer = build_viewer(layers)
        show_panels(viewer, layers, size)
        picture = with_captions(screenshot(viewer, size), panel_captions(layers))
        atomic_write(path, picture)
        print(f"[view] {path}: neuroglancer in a headless browser", flush=True)
    except BrowserError as error:
        draw_sections(layers, path, size)
        print(f"[view] {path}: central sections without neuroglancer ({error})", flush=True)


def open_errors(source: ErrorsSource | None) -> list[dict[str, Any]]:
    """Layers of the errors of a volume; none where they have not been listed yet."""
    if source is None or not Path(source.path).is_file():
        return []
    return read_parsed(Path(source.path), lambda content: error_layers(content, source.volume))


def with_meshes(layers: Sequence[ViewLayer], settings: ViewSettings) -> list[ViewLayer]:
    """The layers, those of segments with the meshes that were exported; prints where from."""
    shown = [*layers]
    stores = {source.name or source.kind: source.path for source in settings.layers}
    for index, layer in enumerate(shown):
        if layer.kind != "segments" or settings.meshes is None:
            continue
        meshes, why = find_meshes(Path(settings.meshes), Path(stores[layer.name]))
        if meshes is None:
            why = f"{without_export(layer)}; {why}"
        print(f"[view] meshes: {why}", flush=True)
        shown[index] = replace(layer, meshes=meshes)
    return shown


def without_export(layer: ViewLayer) -> str:
    """Whether there are meshes although none were exported, in words."""
    if layer.volume.box.size <= MAX_MESH_VOXELS:
        return "neuroglancer computes them from the voxels"
    return f"none, as there are more than {MAX_MESH_VOXELS / 1e6:.0f} million voxels"


def serve(
    layers: Sequence[ViewLayer], errors: Sequence[dict[str, Any]], bind_address: str, port: int
) -> None:
    """Prints the viewer's address and serves it until Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    # No exception: the terminal and Snakemake may both send the signal.
    signal.signal(signal.SIGINT, lambda *_: stopped.set())
    start_server(bind_address, port)
    viewer = build_viewer(layers, errors)
    print(f"[view] open {viewer.get_viewer_url()} (Ctrl-C to stop)", flush=True)
    stopped.wait()
    print("[view] stopped", flush=True)


def _parse_size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(value) for value in text.split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, e.g. 1600x900") from error
    return width, height


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_job(parser)
    parser.add_argument("--screenshot", type=Path, metavar="PNG")
    parser.add_argument("--size", type=_parse_size, default=SIZE, metavar="WIDTHxHEIGHT")
    parser.add_argument("--serve", action="store_true", help="keep serving until Ctrl-C")
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    if not args.screenshot and not args.serve:
        raise ConfigError("nothing to do; use --screenshot PNG, --serve, or both")
    settings = check(ViewSettings, args.settings, "--settings")
    layers, absent = open_layers(settings.layers, settings.lsd_channels)
    if absent:
        print(f"[view] left out: {', '.join(absent)}; not there yet", flush=True)
    try:
        if args.screenshot:
            write_picture(layers, args.screenshot, args.size, settings.bind_address)
            neuroglancer.stop()
        if args.serve:
            errors = open_errors(settings.errors)
            shown = with_meshes(layers, settings)
            serve(shown, errors, settings.bind_address, settings.port)
    finally:
        neuroglancer.stop()


if __name__ == "__main__":
    run(main)

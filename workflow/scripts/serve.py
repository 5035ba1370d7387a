"""Serves exported precomputed layers, and neuroglancer to look at them, until Ctrl-C.

    serve.py results/DATASET/NETWORK/VOLUME/precomputed
    serve.py --port 9000 --errors results/DATASET/NETWORK/errors_layer.json FOLDER

Prints the address that shows all layers of the folder. It needs no internet access.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import neuroglancer

from retrace.errors import ConfigError, run
from retrace.viewing.links import PORT, exported_layers, served_state
from retrace.viewing.scene import start_server


class LayerFiles(SimpleHTTPRequestHandler):
    """Files of a folder, which pages of other servers may read too."""

    def end_headers(self) -> None:
        """Adds that pages of other servers may read the answer."""
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Prints nothing: a view reads thousands of files."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder that the layers are in")
    parser.add_argument("--errors", type=Path, metavar="JSON", help="errors_layer.json to show too")
    parser.add_argument("--bind-address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT, help="0: any free one")
    return parser.parse_args(argv)


def open_server(folder: Path, bind_address: str, port: int) -> ThreadingHTTPServer:
    """A server of the files of `folder`; ConfigError if the address cannot be used."""
    handler = partial(LayerFiles, directory=str(folder))
    try:
        return ThreadingHTTPServer((bind_address, port), handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on {bind_address}:{port} ({error}); choose another --port (0: any free "
            "one) or --bind-address"
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    names, stopped = exported_layers(args.folder), threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stopped.set())
    with open_server(args.folder, args.bind_address, args.port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{args.bind_address}:{server.server_address[1]}"
        start_server(args.bind_address, 0)
        viewer = neuroglancer.Viewer()
        viewer.set_state(served_state(args.folder, address, args.errors))
        url = viewer.get_viewer_url()
        print(f"[serve] {', '.join(names)} (Ctrl-C to stop): {url}", flush=True)
        stopped.wait()
        server.shutdown()
    neuroglancer.stop()
    print("[serve] stopped", flush=True)


if __name__ == "__main__":
    run(main)

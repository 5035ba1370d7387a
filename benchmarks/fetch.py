"""Rate of a fetch, compared with downloading one object after another.

    python benchmarks/fetch.py [--objects 500] [--repeats 3] [--servers distant near moto]

The comparison is the loop of the LSD tutorial (fetch_data.py: `objects.filter`, then
`bucket.download_file` for each). Both list, transfer and write the same objects of 64 KiB; ours
also verifies them and writes a manifest. `distant` and `near` are bucket_server.py with and
without 30 ms added to each answer, `moto` is moto. Every run is a new process; its imports
are not timed. Processor time per object is the client's alone: on a busy
machine it is more reliable than the rate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent / "workflow" / "scripts"

BUCKET, PREFIX, ARRAY = "open-neurodata", "funke/benchmark/volume.zarr", "volumes/raw"
OBJECT_BYTES = 1 << 16
DELAYS_MS = {"distant": 30.0, "near": 0.0}
METADATA = {
    "zarr_format": 2,
    "shape": [1, 1, 1],
    "chunks": [1, 1, OBJECT_BYTES],
    "dtype": "|u1",
    "compressor": None,
    "fill_value": 0,
    "order": "C",
    "filters": None,
}


def make_objects(folder: Path, count: int) -> None:
    """BUCKET/PREFIX/volumes/raw with `count` incompressible chunks below `folder`."""
    array = folder / BUCKET / PREFIX / ARRAY
    array.mkdir(parents=True)
    shape = {"shape": [1, 1, count * OBJECT_BYTES]}
    (array / ".zarray").write_text(json.dumps({**METADATA, **shape}))
    for index in range(count):
        (array / f"0.0.{index}").write_bytes(os.urandom(OBJECT_BYTES))


@contextmanager
def listening(command: list[str]) -> Iterator[str]:
    """The address that a server process prints as its first line."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


def serve_moto(folder: Path) -> None:
    """Runs moto with the objects of `folder` until it is killed."""
    sys.path.insert(0, str(SCRIPTS))
    from moto.server import ThreadedMotoServer

    import phantom

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = phantom.writing_client(f"http://{host}:{port}", threads=8)
    phantom.make_public_bucket(client, BUCKET)
    phantom.upload_folder(client, BUCKET, folder / BUCKET)
    print(f"http://{host}:{port}", flush=True)
    time.sleep(3600)


def server_command(name: str, folder: Path) -> list[str]:
    if name == "moto":
        return [sys.executable, __file__, "--serve-moto", str(folder)]
    delay = str(DELAYS_MS[name])
    return [sys.executable, str(HERE / "bucket_server.py"), str(folder), "--delay-ms", delay]


def tutorial_loop(endpoint: str, output: Path) -> tuple[float, float]:
    """Seconds and processor seconds of the tutorial's loop, with anonymous access."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    begin, cpu_begin = time.perf_counter(), time.process_time()
    config = Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})
    resource = boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)
    bucket = resource.Bucket(BUCKET)
    for item in bucket.objects.filter(Prefix=PREFIX):
        target = output / item.key
        target.parent.mkdir(parents=True, exist_ok=True)
        bucket.download_file(item.key, str(target))
    return time.perf_counter() - begin, time.process_time() - cpu_begin


def our_fetch(endpoint: str, output: Path) -> tuple[float, float]:
    """Seconds and processor seconds of a whole fetch: listing, transfer, verification, manifest."""
    sys.path.insert(0, str(SCRIPTS))
    sys.path.remove(str(HERE))
    import boto3  # noqa: F401  imported on first use otherwise

    import fetch
    from retrace.remote.store import FetchSettings

    settings = FetchSettings(bucket=BUCKET, prefix=PREFIX, endpoint_url=endpoint, arrays=(ARRAY,))
    begin, cpu_begin = time.perf_counter(), time.process_time()
    fetch.fetch(settings, output / "volume.zarr")
    return time.perf_counter() - begin, time.process_time() - cpu_begin


def run_child(method: str, endpoint: str, output: Path) -> None:
    """One timed run; its last line of output is JSON."""
    seconds, cpu_seconds = (our_fetch if method == "ours" else tutorial_loop)(endpoint, output)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    peak_mb = int(peak.group(1)) / 1024 if peak else None
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}))


def measure(method: str, endpoint: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, __file__, "--child", method, endpoint, output]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(name: str, folder: Path, objects: int, repeats: int) -> None:
    """Prints one row: both methods, run alternately against the same server."""
    runs: dict[str, list[dict[str, Any]]] = {"loop": [], "ours": []}
    with listening(server_command(name, folder)) as endpoint:
        # The first listing computes the ETags, which a bucket has stored.
        measure("ours", endpoint)
        for _ in range(repeats):
            for method, results in runs.items():
                results.append(measure(method, endpoint))
    seconds = {method: [run["seconds"] for run in results] for method, results in runs.items()}
    rate = {method: objects / median(times) for method, times in seconds.items()}
    pairs = [a / b for a, b in zip(seconds["loop"], seconds["ours"], strict=True)]
    cpu = {m: 1000 * median(r["cpu_seconds"] for r in runs[m]) / objects for m in runs}
    peak = max(run["peak_mb"] for run in runs["ours"])
    print(
        f"| {name} | {rate['loop']:.0f} | {rate['ours']:.0f} | {rate['ours'] / rate['loop']:.1f} "
        f"({min(pairs):.1f}-{max(pairs):.1f}) | {cpu['loop']:.1f} / {cpu['ours']:.1f} ms "
        f"| {peak:.0f} MB |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--servers", nargs="+", default=["distant", "near", "moto"])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--serve-moto", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_child(args.child[0], args.child[1], Path(args.child[2]))
    if args.serve_moto:
        return serve_moto(args.serve_moto)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load "
        f"{load}; {args.objects} objects of {OBJECT_BYTES // 1024} KiB, {args.repeats} runs each\n"
    )
    print(
        "| server | loop, objects/s | ours, objects/s | ratio (of pairs) | processor per object, "
        "loop / ours | peak memory, ours |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        make_objects(Path(folder), args.objects)
        for name in args.servers:
            compare(name, Path(folder), args.objects, args.repeats)
    return None


if __name__ == "__main__":
    main()

"""Time, memory and size of the meshes and skeletons of a segmentation, in blocks of some edges.

    python benchmarks/meshes.py ../shared/data/fib25/training_sample2_z000-124.h5
    python benchmarks/meshes.py LABELS.h5 --kimimaro PYTHON --zmesh PYTHON

Each row is a new process with one thread, which writes a precomputed layer of the labels and then
its meshes, or its skeletons; times are of the processor, without the layer itself. `--kimimaro` and
`--zmesh` name the Python of an environment with these packages (GPL and LGPL: not in ours), which
computes the same without blocks, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

SIZE_NM = (10, 10, 10)
CONSTANT_NM = 300
OTHERS = {
    "zmesh": """
import zmesh
mesher = zmesh.Mesher((10, 10, 10))
mesher.mesh(labels)
for name in mesher.ids():
    mesh = mesher.get(name, reduction_factor=10, max_error=10)
    count += len(mesh.faces)
    mesher.erase(name)
""",
    "kimimaro": """
import kimimaro
teasar = {"scale": 1.5, "const": 300}
found = kimimaro.skeletonize(labels, anisotropy=(10, 10, 10), teasar_params=teasar, progress=False)
count = sum(len(skeleton.vertices) for skeleton in found.values())
""",
}
"""What the other packages compute, with parameters that mean the same."""
AROUND = """
import json, resource, sys, time, h5py
labels = h5py.File(sys.argv[1])[sys.argv[2]][:]
count, begin = 0, time.process_time()
{code}
seconds, peak = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"seconds": seconds, "peak_mib": peak / 1024, "items": count}}))
"""


def measure(file: Path, array: str, kind: str, block: int) -> dict[str, float]:
    """Writes meshes or skeletons in blocks of one edge; seconds, MiB, triangles or nodes, bytes."""
    from retrace.config.export_model import ShapeSettings
    from retrace.geometry import VoxelBox
    from retrace.shapes.layer import ShapeWriter
    from retrace.storage.precomputed_writer import LayerPlan, LayerWriter, all_mips
    from retrace.storage.volumes import Volume

    labels = h5py.File(file)[array][:]
    box = VoxelBox((0, 0, 0), labels.shape)
    plan = LayerPlan(all_mips(SIZE_NM, box), labels.dtype.name, 0, labels=True, gzip=False)
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder) / "layer"
        volume = Volume(labels, SIZE_NM, (0, 0, 0), array)
        LayerWriter(layer, Path(folder) / "work", plan).write(volume, 1)
        settings = ShapeSettings(
            meshes=kind == "mesh",
            skeletons=kind == "skeletons",
            skeleton_constant_nm=CONSTANT_NM,
        )
        begin = time.process_time()
        writer = ShapeWriter(layer, Path(folder) / "shapes", settings, False, (block,) * 3)
        writer.write(1)
        seconds = time.process_time() - begin
        files = [path for path in (layer / kind).iterdir() if path.stem != "info"]
        counts = [np.fromfile(path, "<u4", 2) for path in files if ":" not in path.name]
        sizes = [path.stat().st_size for path in files if ":" not in path.name]
        items = sum(
            (size - 4 - 12 * int(count[0])) // 12 if kind == "mesh" else int(count[0])
            for size, count in zip(sizes, counts, strict=True)
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mib": peak, "items": items, "bytes": sum(sizes)}


def rows(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each measurement."""
    place = [str(arguments.file), arguments.array]
    for kind in ("mesh", "skeletons"):
        for block in arguments.blocks:
            own = [sys.executable, __file__, *place, "--one", kind, "--blocks", str(block)]
            yield f"{kind}, blocks of {block}³", [own[0], own[1], own[2], "--array", *own[3:]]
        other = "zmesh" if kind == "mesh" else "kimimaro"
        if python := getattr(arguments, other):
            yield other, [python, "-c", AROUND.format(code=OTHERS[other]), *place]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--array", default="labels_gt")
    parser.add_argument("--blocks", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--zmesh", help="Python of an environment with zmesh and h5py")
    parser.add_argument("--kimimaro", help="Python of an environment with kimimaro and h5py")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        found = measure(arguments.file, arguments.array, arguments.one, arguments.blocks[0])
        print(json.dumps(found))
        return
    commands = dict(rows(arguments))
    results: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(arguments.repeats):
        for name, command in commands.items():
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        "| | s of the processor | peak memory, MiB | triangles or nodes | MB |\n" + "|---" * 5 + "|"
    )
    for name, all_found in results.items():
        times = sorted(found["seconds"] for found in all_found)
        last = all_found[-1]
        spread = f"{times[len(times) // 2]:.3g} ({times[0]:.3g} to {times[-1]:.3g})"
        size = f"{last['bytes'] / 1e6:.2f}" if "bytes" in last else ""
        print(f"| {name} | {spread} | {last['peak_mib']:.0f} | {last['items']:.0f} | {size} |")


if __name__ == "__main__":
    main()

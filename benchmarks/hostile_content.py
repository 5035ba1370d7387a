"""Content that asks for too much, endless servers, impossible names, power cuts: what happens?

    python benchmarks/hostile_content.py
    python benchmarks/hostile_content.py --workflow ../other-clone     # the same inputs, other code

Each input goes to its reader in a process of its own, with 20 s and 3 GiB of memory. It is *right*
if it is refused in one line, or read as what it is. It is *wrong* if it ends with a traceback,
hangs, needs more memory, crashes, loses an object, or reads another file of the machine. A power
cut is wrong if an output that counts as finished is not whole, or is not made again as it was.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = (
    Path(sys.argv[sys.argv.index("--workflow") + 1]) if "--workflow" in sys.argv else ROOT
).resolve()
sys.path[:0] = [str(WORKFLOW / "workflow" / "scripts"), str(ROOT / "tests")]
sys.path.append(str(ROOT / "tests" / "unit"))

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import test_power_cut as cuts  # noqa: E402
import torch  # noqa: E402

import hostile_chunks as chunks  # noqa: E402
import hostile_content as hostile  # noqa: E402
import hostile_networks as networks  # noqa: E402
from fuzz_volumes import read_layer, read_zarr, write_layer, write_v2, write_v3  # noqa: E402
from mutations import mutated  # noqa: E402
from retrace.alignment.stack_files import stack_sets  # noqa: E402
from retrace.checkpoints.torch_files import read_torch  # noqa: E402
from retrace.checkpoints.znn import read_h5  # noqa: E402
from retrace.config.yaml_files import read_yaml  # noqa: E402
from retrace.elektronn.assignments import read_assignments  # noqa: E402
from retrace.errors import RetraceError  # noqa: E402
from retrace.files import digest  # noqa: E402
from retrace.formats.examples import read_array  # noqa: E402
from retrace.formats.examples_source import ExampleArray  # noqa: E402
from retrace.formats.safe_pickle import read_pickles  # noqa: E402
from retrace.reading import parse_json, reading_content  # noqa: E402
from retrace.remote import s3 as s3_module  # noqa: E402
from retrace.remote.download import FolderDownload  # noqa: E402
from retrace.remote.s3 import BucketStore  # noqa: E402
from retrace.remote.store import FetchSettings  # noqa: E402
from retrace.storage.volumes import open_volume  # noqa: E402
from retrace.znn.cfg import read_cfg  # noqa: E402

SECONDS, MEMORY_BYTES = 20, 3 << 30
Read = Callable[[Path], object]
"""Reads an input in an empty folder. AssertionError, or any error but ours, is wrong."""
Kind = Iterator[Read]


def written(name: str, content: bytes, read: Read) -> Read:
    """Reads a file of the given content."""

    def reading(folder: Path) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return reading


def must_refuse(read: Read) -> Read:
    """The same, for what must not be accepted."""

    def refused(folder: Path) -> object:
        found = read(folder)
        raise AssertionError(f"accepted: {found!r:.80}")

    return refused


def pickles(mutations: int) -> Kind:
    """Hostile pickles, bombs, and changed sound ones."""

    def read(path: Path) -> object:
        return digest(repr(read_pickles(path)))

    for content in (*hostile.HOSTILE.values(), *hostile.BOMBS.values()):
        yield must_refuse(written("a.pkl", content, read))
    sound = pickle.dumps([np.arange(6.0).reshape(2, 3), {"a": (1, "b")}], 2)
    for number in range(mutations):
        rng = random.Random(number)
        yield written("a.pkl", mutated(mutated(sound, rng), rng), read)


def configurations() -> Kind:
    """ELEKTRONN's expressions, ranges of ZNN, YAML and JSON."""

    def settings(path: Path) -> object:
        return digest(read_yaml(path))  # all of it is used, as for a record

    for text in hostile.EXPRESSIONS.values():
        yield must_refuse(written("a.py", text.encode(), lambda p: digest(read_assignments(p))))
    for numbers in ("1-3000000000", "1-999999999", "1-99999999,200000000-299999999"):
        content = f"[parameters]\ntrain_range = {numbers}\n".encode()
        yield must_refuse(written("a.cfg", content, read_cfg))
    for text in hostile.YAML.values():
        yield must_refuse(written("a.yaml", text.encode(), settings))
    for text in ("[" * 10**6, '{"a":' * 500 + "1" + "}" * 500, "[" * 990 + "]" * 990):
        yield must_refuse(written("a.json", text.encode(), lambda p: parse_json(p.read_bytes(), p)))


def other_files() -> Kind:
    """HDF5 files whose content is in another file of the machine."""
    readers: tuple[Read, ...] = (
        lambda path: open_volume(path, "images", voxel_size_nm=(1, 1, 1)),
        lambda path: read_array(ExampleArray(path=str(path), array="images")),
        read_h5,
        stack_sets,
    )

    def reading(read: Read, refer: Callable[..., None], folder: Path) -> object:
        with h5py.File(folder / "other.h5", "w") as file:
            file["x"] = np.zeros((1, 2, 4, 4), np.uint8)
        with h5py.File(folder / "a.h5", "w") as file:
            refer(file, folder / "other.h5")
        return read(folder / "a.h5")

    for refer in (hostile.linked, hostile.external, hostile.virtual, hostile.by_a_link):
        for read in readers:
            yield must_refuse(partial(reading, read, refer))


def headers() -> Kind:
    """Chunks and weights of more bytes than a machine has."""

    def changed(folder: Path, write: Read, file: str, read: Read) -> object:
        write(folder)
        hostile.state_huge_chunks(folder / file)
        return read(folder)

    for write, file, read in (
        (lambda f: write_v2(f, None), "a.zarr/raw/.zarray", read_zarr),
        (lambda f: write_v3(f, None), "a.zarr/raw/zarr.json", read_zarr),
        (lambda f: write_layer(f, "raw"), "layer/info", read_layer),
    ):
        yield must_refuse(partial(changed, write=write, file=file, read=read))

    def weights(folder: Path) -> object:
        torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, folder / "a.pt")
        with reading_content(folder / "a.pt"):
            return read_torch(folder / "a.pt")

    yield must_refuse(weights)


def layers() -> Kind:
    """Chunks of precomputed layers that ask for more than `info` allows."""

    def reading(write: Callable[[Path], None], folder: Path) -> object:
        write(folder)
        return chunks.read_layer(folder)

    for write, _ in chunks.REFUSED.values():
        yield must_refuse(partial(reading, write))


def sizes() -> Kind:
    """Settings of networks that no machine holds."""

    def resolving(name: str, changes: dict[str, Any], folder: Path) -> object:
        return networks.resolve(name, changes).name

    for name, changes, _ in networks.SETTINGS.values():
        yield must_refuse(partial(resolving, name, changes))


def listings() -> Kind:
    """Servers whose listings are none, or never end; the limits are lower than usual, if any."""

    def listed(answer: hostile.Answer, folder: Path) -> object:
        for name, value in (("LISTED_OBJECTS", 50), ("EMPTY_PAGES", 20)):
            if hasattr(s3_module, name):
                setattr(s3_module, name, value)
        with hostile.listing(answer) as address:
            settings = {"bucket": "b", "prefix": "p", "endpoint_url": address, "threads": 2}
            return BucketStore(FetchSettings(**settings, retries=1)).objects()

    for answer, _ in hostile.LISTINGS.values():
        yield must_refuse(partial(listed, answer))


def names() -> Kind:
    """Objects that a disk cannot hold, or that are called like our own files."""

    def stored(listed: Sequence[str], folder: Path) -> object:
        store = hostile.NamedBytes()
        FolderDownload(store, folder / "x", threads=4, retries=1).run(store.items(listed))
        for name in listed:
            assert (folder / "x" / name).read_bytes() == name.encode(), name
        return None

    for name in hostile.UNUSUAL:
        yield partial(stored, [name])
    yield partial(stored, hostile.UNUSUAL)
    for pair in (["x", ".x.part"], [".x.part", "x"], ["a", "a/b"], ["x/y", "x/y/z/1"], ["n" * 256]):
        yield partial(stored, pair)
    yield partial(stored, ["/".join(["n" * 200] * 21)])


def power_cuts() -> Kind:
    """Programs that lose what was not flushed, at several moments; each is one input."""

    def cut(name: str, is_job: bool, folder: Path) -> object:
        (folder / "sources").mkdir()
        sources = cuts.write_sources(folder / "sources")
        program = partial(cuts.PROGRAMS[name], sources)
        return list(cuts.repaired(program, is_job, folder, random.Random(name)))

    for name in cuts.PROGRAMS:
        for is_job in (True, False):
            yield partial(cut, name, is_job)


KINDS: dict[str, Callable[[], Kind]] = {
    "pickles": partial(pickles, 500),
    "configurations, YAML, JSON": configurations,
    "HDF5 that leads to other files": other_files,
    "headers and weights": headers,
    "layers": layers,
    "sizes of networks": sizes,
    "listings": listings,
    "names of objects": names,
    "power cuts (runs of 12 cuts)": power_cuts,
}


def outcome(read: Read, limit_s: int) -> str:
    """What happens in a process of its own: "" if it is right."""
    begin, end = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if not child:
            answer(read, Path(folder), limit_s, end)
        os.close(end)
        with os.fdopen(begin) as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
    return text.removeprefix("right") if text else f"the process ended with {status}"


def answer(read: Read, folder: Path, limit_s: int, end: int) -> None:
    """Reads in this process, and writes to `end` what happened."""
    signal.alarm(limit_s)  # it ends the process: a handler would wait for a library's call
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    quiet = os.open(os.devnull, os.O_WRONLY)
    for handle in (1, 2):
        os.dup2(quiet, handle)
    os.chdir(folder)
    try:
        read(folder)
        text = "right"
    except RetraceError as error:
        text = "right" if len(str(error).strip().splitlines()) == 1 else "several lines"
    except BaseException as error:
        text = f"{type(error).__name__}: {str(error)[:200]}"
    if text == "right" and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 2 << 20:
        text = "more than 2 GiB of memory"
    os.write(end, text.encode(errors="replace"))
    os._exit(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table of the counts, and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflow", type=Path, default=ROOT)
    parser.add_argument("--only", default="", help="part of the name of a kind")
    args = parser.parse_args(argv)
    rows: dict[str, Counter[str]] = {}
    for kind, inputs in KINDS.items():
        if args.only not in kind:
            continue
        rows[kind] = Counter()
        limit_s = 600 if "cuts" in kind else SECONDS
        for number, read in enumerate(inputs()):
            wrong = outcome(read, limit_s)
            rows[kind].update(tried=1, right=int(not wrong), wrong=int(bool(wrong)))
            if wrong:
                print(f"{kind} {number}: {wrong}", flush=True)
    print("| kind | tried | right | wrong |\n|---|---|---|---|")
    for kind, row in rows.items():
        print(f"| {kind} | {row['tried']} | {row['right']} | {row['wrong']} |")
    sys.exit(int(any(row["wrong"] for row in rows.values())))


if __name__ == "__main__":
    main()

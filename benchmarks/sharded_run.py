"""A volume predicted and segmented in shards by the real programs, as the workflow calls them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

import assemble  # noqa: E402
import predict as predict_program  # noqa: E402
import segment  # noqa: E402
from retrace.errors import run  # noqa: E402
from retrace.storage.manifest import manifest_path, read_manifest  # noqa: E402
from retrace.storage.shards import shard_names  # noqa: E402

Program = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Step:
    """One process: a program, its arguments, and the store it writes."""

    name: str
    program: Program
    arguments: list[str]
    output: Path

    @property
    def is_done(self) -> bool:
        return manifest_path(self.output).is_file() and self.output.is_dir()

    def clear(self) -> None:
        """Removes the output, as the workflow does before it computes it again."""
        shutil.rmtree(self.output, ignore_errors=True)
        manifest_path(self.output).unlink(missing_ok=True)

    def start(self) -> int:
        """Starts the process as a copy of this one, with one thread; returns its number."""
        self.clear()
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            torch.set_num_threads(1)
            run(lambda: self.program(self.arguments))
            status = 0
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        finally:
            os._exit(status)

    def run_program(self) -> dict[str, Any]:
        """Runs the program as the workflow does; returns its manifest (seconds, peak memory)."""
        self.clear()
        script = sys.modules[self.program.__module__].__file__
        done = subprocess.run(
            [sys.executable, str(script), *self.arguments],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{self.name} failed:\n{done.stdout[-2000:]}")
        return read_manifest(self.output)


def options(**values: object) -> list[str]:
    """--name value for each; _ in a name becomes -."""
    return [part for k, v in values.items() for part in (f"--{k.replace('_', '-')}", str(v))]


@dataclass
class ShardedRun:
    """The steps in `folder`, in an order that respects their dependencies.

    The folder holds `raw.zarr`, `model.safetensors` and `threshold.json`. Fragments are computed
    from `affinities`, a store of its own or, where there is none, the prediction.
    """

    folder: Path
    shards: int
    predict: dict[str, Any]
    """Settings of predict.py, without the volume."""
    segment: dict[str, Any]
    """Settings of segment.py."""
    affinities: Path | None = None
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.results, self.work = self.folder / "results", self.folder / "work"
        self.prediction = self.results / "prediction.zarr"
        self._predict()
        self._segment()

    def _shards(self, name: str) -> Iterator[tuple[str, Path]]:
        for shard in shard_names(self.shards):
            yield shard, self.results / "shards" / f"{name}_{shard}.zarr"

    def _add(self, name: str, program: Program, arguments: list[str], output: Path) -> None:
        self.steps.append(Step(name, program, arguments, output))

    def _assemble(self, shards: list[Path], output: Path) -> None:
        arguments = ["--shards", *map(str, shards), "--output", str(output)]
        self._add("assemble", assemble.main, arguments, output)

    def _predict(self) -> None:
        raw = {"path": str(self.folder / "raw.zarr"), "array": "raw"}
        settings = self.predict | {"volume": {"raw": raw, "roi_nm": None}}
        common = {"settings": json.dumps(settings), "work": self.work}
        for shard, store in self._shards("prediction"):
            places = common | {"model": self.folder / "model.safetensors", "output": store}
            self._add("predict", predict_program.main, options(shard=shard, **places), store)
        self._assemble([s for _, s in self._shards("prediction")], self.prediction)

    def _segment(self) -> None:
        fragments, graph = self.results / "shards" / "fragments.zarr", self.results / "f.zarr"
        common: dict[str, Any] = {"settings": json.dumps(self.segment), "work": self.work}
        common["prediction"] = self.affinities or self.prediction
        self._each("fragments", "fragments", common)
        self._assemble([s for _, s in self._shards("fragments")], fragments)
        self._each("edges", "edges", common | {"fragments": fragments})
        self._assemble([fragments, *(s for _, s in self._shards("edges"))], graph)
        joined = {"fragments": graph, "threshold_file": self.folder / "threshold.json"}
        lut = self.results / "shards" / "lut.zarr"
        self._add("join", segment.main, ["join", *options(output=lut, **joined)], lut)
        self._each("segments", "apply", joined | {"lut": lut})
        final = self.results / "segmentation.zarr"
        self._assemble([s for _, s in self._shards("segments")], final)

    def _each(self, name: str, verb: str, common: dict[str, Any]) -> None:
        for shard, store in self._shards(name):
            arguments = [verb, *options(shard=shard, output=store, **common)]
            self._add(verb, segment.main, arguments, store)

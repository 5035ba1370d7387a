"""Predicts a volume tile by tile, and publishes the finished store with its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from retrace.inference.inputs import NetworkInputs
from retrace.inference.pipeline import overlapped, side_by_side
from retrace.inference.prediction_store import PartialPrediction
from retrace.inference.predictor import Predictor
from retrace.inference.tiles import Tile
from retrace.planning.predict_settings import PredictionSettings
from retrace.progress import progress
from retrace.replacement import remove_afterwards
from retrace.storage.manifest import write_manifest
from retrace.storage.reads import remote_reads, same_version
from retrace.storage.shards import Shard
from retrace.storage.unfinished import remove_partial_files
from retrace.storage.zarr_writer import publish


@dataclass(frozen=True)
class Prediction:
    """Everything that one prediction job computes with; see retrace.inference.build."""

    predictors: Sequence[Predictor]
    """One for each device."""
    inputs: NetworkInputs
    partial: PartialPrediction
    grid: Sequence[Tile]
    """The tiles of this job's shard."""
    shard: Shard
    work: Path
    """Scratch folder, from which an interrupted job resumes."""

    def run(self) -> None:
        """Predicts the tiles that are not done."""
        with same_version(self.work, *self.inputs.volumes, self.inputs.tissue_mask):
            for _ in predict_tiles(self.predictors, self.inputs, self.partial, self.grid):
                pass

    def publish(
        self,
        output: Path,
        input_files: Sequence[Path],
        settings: PredictionSettings,
        seconds: float,
    ) -> None:
        """Renames the finished store to `output`, writes its manifest last, and removes scratch.

        `input_files`, `settings` and `seconds` are recorded in the manifest.
        """
        self.partial.journal.keep(output)
        publish(self.partial.store, output)
        write_manifest(
            output,
            inputs=input_files,
            settings=settings.plain(),
            seconds=seconds,
            extra={
                "tile_shape": list(self.partial.tile_shape),
                "tiles": len(self.grid),
                "library": self.predictors[0].forward.library,
                "shard": str(self.shard),
            },
            read=remote_reads(*self.inputs.volumes, self.inputs.tissue_mask),
        )
        remove_afterwards(self.work)


def predict_tiles(
    predictors: Sequence[Predictor],
    inputs: NetworkInputs,
    partial: PartialPrediction,
    grid: Sequence[Tile],
) -> Iterator[Tile]:
    """Predicts the tiles of `grid` that `partial` does not hold; yields each after it is written.

    The predictors, one for each device, take the tiles in turn. Tiles of one shape follow each
    other: OpenVINO prepares for each new shape.
    """
    remove_partial_files(partial.store)
    missing = partial.missing(grid)
    if len(missing) < len(grid):
        print(f"[predict] {len(grid) - len(missing)} of {len(grid)} tiles are done already")
    with_tissue = []
    for tile in missing:
        if not inputs.is_masked(tile.core):
            with_tissue.append(tile)
            continue
        partial.write_zeros(tile)
        yield tile

    with_tissue.sort(key=lambda tile: tile.window.shape, reverse=True)

    def lane(number: int, predictor: Predictor) -> Iterator[Tile]:
        def read(tile: Tile) -> Tensor:
            return predictor.staged(inputs.read(tile.window))

        mine = with_tissue[number :: len(predictors)]
        return overlapped(mine, read, predictor, partial.write)

    done = side_by_side([lane(*numbered) for numbered in enumerate(predictors)])
    yield from progress(done, len(with_tissue), "predict", "tiles")

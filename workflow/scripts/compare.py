"""Every network of a dataset in one table: scores, parameters, work, seconds, memory.

    compare.py --settings JSON --evaluation N=evaluation.json ... --model N=model.safetensors ...
               --history N=training.json ... --prediction N=prediction.manifest.json ...
               --masks V=MASK ... --published config/published/NAME.yaml
               --output NAME.json --text NAME.md --plot NAME.png

The settings are one JSON object: `dataset` (name, volumes, test), `planar`, `families` (family of
each network), `refused` (network: why it cannot run), `segmentations` ({name: {volume: source}},
made by others), `published` (which figures of that file are shown, or null). A network may have
several predictions, one a volume.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrace.checkpoints.safetensors import read_metadata
from retrace.command_line import add_job, parse_job
from retrace.config.yaml_files import read_yaml
from retrace.errors import run
from retrace.evaluation.comparison import (
    BOUNDARIES,
    NOTE,
    OBJECTS,
    Cost,
    beside,
    figures,
    footnote,
    mean_scores,
    plot,
    text_table,
    training_seconds,
)
from retrace.evaluation.counting import count_volumes
from retrace.evaluation.ground_truth import read_entries, read_truth
from retrace.evaluation.scores import CONVENTION, score
from retrace.files import atomic_write, read_json
from retrace.networks import build_network
from retrace.storage.volumes import open_source


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    by_name = ["evaluation", "model", "history", "prediction", "masks"]
    add_job(parser, files_by_name=by_name, optional_file=["published"])
    parser.add_argument("--threads", type=int, default=1)
    for name in ("output", "text", "plot"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    return parse_job(parser, argv)


def cost(model: Path, history: Mapping[str, Any], predicted: Mapping[str, Any]) -> Cost:
    """What a network costs, from its own files and the manifest of one prediction."""
    network = read_metadata(model)["network"]
    module = build_network(network, device="meta")
    window = module.valid_shape(predicted["tile_shape"]) if "tile_shape" in predicted else None
    tile = window or module.valid_shape((64, 64, 64))
    voxels = math.prod(next(iter(predicted["arrays"].values()))["shape"][-3:])
    seconds = predicted["seconds"] if window else None
    return Cost(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        kflop_per_voxel=module.flop(tile) / math.prod(module.output_shape(tile)) / 1000,
        iterations=history["iterations"],
        training_s=training_seconds(history),
        prediction_voxels_per_s=voxels / seconds if seconds else None,
        prediction_peak_mb=predicted["peak_memory_mb"] if window else None,
    )


def network_rows(args: argparse.Namespace, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every network that was evaluated."""
    models, histories, predictions = args.model, args.history, args.prediction
    return [
        {
            "name": name,
            "family": args.settings["families"][name],
            **mean_scores(read_json(path)["volumes"], metrics),
            **asdict(cost(models[name], read_json(histories[name]), read_json(predictions[name]))),
        }
        for name, path in args.evaluation.items()
    ]


def other_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every segmentation by others, scored on the same voxels."""
    entries, masks = read_entries(args.settings, "test"), args.masks
    rows = []
    for name, sources in args.settings["segmentations"].items():
        found = {}
        for entry in (e for e in entries if e.volume in sources):
            volume = open_source(sources[entry.volume])
            truth = read_truth(args.settings, entry, masks)
            counted = count_volumes(volume, truth, threads=args.threads)
            found[entry.name] = score(counted.table).as_dict()
        rows.append({"name": name, "family": "others", **mean_scores(found, OBJECTS)})
    return rows


def published_rows(
    args: argparse.Namespace, metrics: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Rows of what others published, and where that is from; none where the dataset names none."""
    if not args.published:
        return [], None
    content, chosen = read_yaml(args.published), args.settings["published"]
    told = {key: content[key] for key in ("source", "convention")}
    return figures(content, chosen, metrics), {**told, "differs": chosen["differs"]}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    settings = args.settings
    metrics = BOUNDARIES if settings["planar"] else OBJECTS
    ours = network_rows(args, metrics) + ([] if settings["planar"] else other_rows(args))
    others, published = published_rows(args, metrics)
    sorting = metrics[0] if settings["planar"] else "voi_sum"
    differs = published["differs"] if published else None
    rows = beside(ours, others, sorting, differs)
    refused = settings["refused"]
    content = {
        "dataset": settings["dataset"]["name"],
        "note": NOTE,
        "convention": None if settings["planar"] else CONVENTION,
        "rows": rows,
        "published": published,
        "refused": refused,
    }
    lines = [text_table(rows), *([f"\n{footnote(published)}"] if published else [])]
    lines += [f"\nnot run: {name}: {why}" for name, why in refused.items()]
    atomic_write(args.output, json.dumps(content, indent=1) + "\n")
    atomic_write(args.text, "\n".join(lines) + "\n")
    plot(beside(ours, [], sorting, None), metrics, args.plot)
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    run(main)

"""Scores segmentations: chooses a threshold on validation volumes, scores test volumes.

    evaluate.py count   --settings JSON --volume V --split test --store F.zarr --array fragments
                        --shard 1-of-8 --output tables.npz
    evaluate.py choose  --settings JSON --fragments V=F.zarr ... --output threshold.json
    evaluate.py score   --settings JSON --fragments V=F.zarr ... --segmentation V=S.zarr ...
                        --threshold-file threshold.json --output evaluation.json --plot PNG
    evaluate.py compare --labels FILE:ARRAY --segmentation NAME=FILE:ARRAY ... [--roi-nm z0:z1,...]
    evaluate.py nodes   --settings JSON --volume V --fragments F.zarr --threshold-file JSON
                        --output nodes
    evaluate.py rescore nodes/skeletons.npz [--segmentation NAME=FILE:ARRAY] [--csv NAME=FILE]

The settings are one JSON object: `dataset` (name, background_ids, volumes, validation, test),
`thresholds` [low, high, step], and for score `untrained`, `merge_threshold` and `compute_mincut`.
The truth of an entry is its volume's labels, or, where there are none, the entry's skeletons.
`choose` and `score` count voxels themselves, or take what `count` counted in shares
(--fragment-tables and --segment-tables, once for each volume). `nodes` writes what every skeleton
node lies in, `rescore` scores such tables again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrace.addresses import is_address
from retrace.errors import ConfigError, DataError, StateError, nearest, run
from retrace.evaluation import untrained
from retrace.evaluation.counting import Counted, Truth, check_scored, count_volumes
from retrace.evaluation.curve import (
    RegionGraph,
    agglomerated,
    best,
    open_region_graph,
    pooled,
    threshold_curve,
)
from retrace.evaluation.fill import fill_unassigned
from retrace.evaluation.mincut import mincut
from retrace.evaluation.nodes import node_table, read_segments, read_table, write_table
from retrace.evaluation.report import curve_rows, plot_evaluation, table
from retrace.evaluation.scores import CONVENTION, score
from retrace.evaluation.skeletons import (
    Skeletons,
    count_nodes,
    open_skeletons,
    sample_nodes,
    skeleton_scores,
)
from retrace.evaluation.tables import read_tables, save_tables
from retrace.geometry import NmBox, triple
from retrace.manifest import atomic_write, check_manifest, input_digest, write_manifest
from retrace.named import named_paths
from retrace.progress import progress
from retrace.segmentation.lut import threshold_list
from retrace.shards import WHOLE, parse_shard
from retrace.volumes import (
    Opened,
    Volume,
    noting_opened,
    open_source,
    open_volume,
    origin_of,
    read_json,
    writing,
)

CURVE_NOTE = "scores of the test volume at every threshold; not used to choose the threshold"
BEST_NOTE = (
    "every fragment joined to the truth it overlaps most: about the best that any agglomeration "
    "of these fragments could reach"
)
ONE_NOTE = "everything as one segment: what no segmentation at all scores"


@dataclass(frozen=True)
class Entry:
    """One validation or test entry: a volume, perhaps cut to a region."""

    volume: str
    roi_nm: NmBox | None
    skeletons: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The volume's name, with the region where it is cut."""
        if self.roi_nm is None:
            return self.volume
        ends = zip(self.roi_nm.offset, self.roi_nm.end, strict=True)
        return f"{self.volume}[{','.join(f'{begin}:{end}' for begin, end in ends)} nm]"


@dataclass(frozen=True)
class Inputs:
    """What the command line gives: stores by volume, and how many threads count."""

    fragments: dict[str, Path]
    masks: dict[str, Path]
    segmentation: dict[str, Path]
    threads: int
    tables: dict[str, Counted]
    """Counted already: by array and entry."""
    table_files: list[Path] = field(default_factory=list)
    opened: Opened = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def origin(self, settings: dict[str, Any], *files: Path) -> dict[str, Any]:
        """What the scores were made of: all volumes opened so far, tables, skeletons, `files`."""
        tests = [e.skeletons for key in ("validation", "test") for e in _entries(settings, key)]
        paths = [s["path"] for s in tests if s and not is_address(s["path"])]
        read = [*files, *self.table_files, *map(Path, paths)]
        return origin_of(self.opened, read, settings, time.monotonic() - self.begun)

    def count(self, volume: Volume, truth: Truth, entry: Entry) -> Counted:
        """Contingency of an array with the truth of an entry, read or counted now."""
        counted = self.tables.get(f"{Path(volume.name).name} {entry.name}")
        if counted is None:
            return count_volumes(volume, truth, threads=self.threads)
        check_scored(counted, volume, truth)
        return counted


def read_entries(settings: dict[str, Any], key: str) -> list[Entry]:
    """The `validation` or `test` entries of the dataset; ConfigError where there are none."""
    dataset, entries = settings["dataset"], _entries(settings, key)
    if not entries:
        raise ConfigError(
            f"dataset {dataset['name']!r} has no `{key}` volumes; name at least one (or a region "
            f"of one) under `{key}` in its config"
        )
    return entries


def _entries(settings: dict[str, Any], key: str) -> list[Entry]:
    dataset = settings["dataset"]
    entries = []
    for item in dataset.get(key) or []:
        item = {"volume": item} if isinstance(item, str) else item
        if item["volume"] not in dataset["volumes"]:
            raise ConfigError(
                f"{key} entry {item['volume']!r} is no volume of dataset {dataset['name']!r}; "
                f"{nearest(item['volume'], dataset['volumes'])}"
            )
        roi = item.get("roi_nm")
        box = NmBox(triple(roi["offset"]), triple(roi["shape"])) if roi else None
        entries.append(Entry(item["volume"], box, item.get("skeletons")))
    return entries


def has_labels(settings: dict[str, Any], entry: Entry) -> bool:
    """Whether voxels are scored; skeleton nodes are where the volume has no labels."""
    return bool(settings["dataset"]["volumes"][entry.volume].get("labels"))


def read_truth(settings: dict[str, Any], entry: Entry, masks: dict[str, Path]) -> Truth:
    """Labels, mask and region of an entry; DataError where it has neither labels nor skeletons."""
    dataset = settings["dataset"]
    source = dataset["volumes"][entry.volume].get("labels")
    if not source:
        raise DataError(
            f"volume {entry.volume!r} has no `labels` and no `skeletons`; it cannot be scored"
        )
    mask = masks.get(entry.volume)
    if mask is not None:
        check_manifest(mask)
    return Truth(
        labels=_open(dataset, source),
        mask=None if mask is None else open_volume(mask, "labels_mask"),
        roi_nm=entry.roi_nm,
        ignored_ids=tuple(dataset.get("background_ids") or ()),
    )


def skeleton_sets(entry: Entry, fragments: Volume) -> dict[str, Skeletons]:
    """`skeletons`: the parts inside the scored box; `skeletons_masked`: the published parts."""
    if entry.skeletons is None:
        return {}
    box = fragments.box.to_nm(fragments.voxel_size_nm)
    return open_skeletons(entry.skeletons, box.intersect(entry.roi_nm) if entry.roi_nm else box)


def count(
    settings: dict[str, Any], entry: Entry, inputs: Inputs, segmentations: Sequence[Volume]
) -> list[Counted]:
    """Each segmentation's table of voxels with labels, or of skeleton nodes without any.

    Of skeletons the masked ones count where there are some: the paper's main numbers.
    """
    if has_labels(settings, entry) or entry.skeletons is None:
        truth = read_truth(settings, entry, inputs.masks)
        return [inputs.count(s, truth, entry) for s in segmentations]
    *_, chosen = skeleton_sets(entry, segmentations[0]).values()
    return [count_nodes(s, chosen) for s in segmentations]


def _counted_unit(settings: dict[str, Any], entry: Entry) -> str:
    return "voxels" if has_labels(settings, entry) else "skeleton nodes"


def _open(dataset: dict[str, Any], source: dict[str, Any]) -> Volume:
    return open_source({"voxel_size_nm": dataset.get("voxel_size_nm"), **source})


def _store(stores: dict[str, Path], volume: str, option: str) -> Path:
    if volume not in stores:
        raise ConfigError(f"no --{option} for volume {volume!r}; add --{option} {volume}=PATH")
    check_manifest(stores[volume])
    return stores[volume]


def count_share(args: argparse.Namespace) -> None:
    """Writes the tables of a share of the blocks for all entries of one volume in one split."""
    check_manifest(args.store)
    volume, masks = open_volume(args.store, args.array), named_paths(args.masks)
    entries = [e for e in read_entries(args.settings, args.split) if e.volume == args.volume]
    tables = {}
    for entry in progress(entries, len(entries), "count", "entries"):
        truth = read_truth(args.settings, entry, masks)
        tables[f"{args.array} {entry.name}"] = count_volumes(
            volume, truth, threads=args.threads, shard=args.shard
        )
    save_tables(args.output, args.shard, tables)


def _read_counted(args: argparse.Namespace) -> dict[str, Counted]:
    """All tables that the command line names, which come volume by volume."""
    found: dict[str, Counted] = {}
    for paths in [*args.fragment_tables, *args.segment_tables]:
        found |= read_tables([Path(path) for path in paths])
    return found


def _coverage(counted: Counted) -> dict[str, int]:
    return {"scored_voxels": counted.scored_voxels, "label_voxels": counted.label_voxels}


def _roi(entry: Entry) -> dict[str, Any] | None:
    if entry.roi_nm is None:
        return None
    return {"offset": list(entry.roi_nm.offset), "shape": list(entry.roi_nm.shape)}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def choose(settings: dict[str, Any], inputs: Inputs, output: Path) -> None:
    """Writes the threshold of the least VOI sum on the validation entries, and the whole table."""
    thresholds = threshold_list(*settings["thresholds"])
    entries = read_entries(settings, "validation")
    curves, chosen_on = [], []
    for entry in progress(entries, len(entries), "choose", "volumes"):
        store = _store(inputs.fragments, entry.volume, "fragments")
        (counted,) = count(settings, entry, inputs, [open_volume(store, "fragments")])
        curves.append(threshold_curve(counted, open_region_graph(store), thresholds))
        unit = _counted_unit(settings, entry)
        place = {"volume": entry.volume, "roi_nm": _roi(entry), "counted": unit}
        chosen_on.append({**place, **_coverage(counted)})
    together = pooled(curves)
    threshold = best(thresholds, together)
    at = thresholds.index(threshold)
    content = {
        "threshold": threshold,
        "rule": "least VOI sum over the validation entries, weighted by scored voxels",
        **together[at].as_dict(),
        "chosen_on": chosen_on,
        "convention": CONVENTION,
        "table": curve_rows(thresholds, together),
        "origin": inputs.origin(settings),
    }
    _write_json(output, content)
    print(table({f"validation at {threshold:g}": content}), flush=True)


def score_entry(
    settings: dict[str, Any], entry: Entry, inputs: Inputs, threshold: float
) -> dict[str, Any]:
    """All scores of one test entry at the chosen threshold."""
    store = _store(inputs.fragments, entry.volume, "fragments")
    segments = open_volume(_store(inputs.segmentation, entry.volume, "segmentation"), "segments")
    graph = open_region_graph(store)
    both = [open_volume(store, "fragments"), segments]
    fragments, counted = count(settings, entry, inputs, both)
    scores = score(counted.table)
    expected = score(agglomerated(fragments.table, graph, threshold))
    if abs(scores.voi_sum - expected.voi_sum) > 1e-9:
        raise StateError(
            f"{segments.name} is not {store} at threshold {threshold:g}; delete it and run segment "
            "again"
        )
    thresholds = threshold_list(*settings["thresholds"])
    one_segment = counted.table.relabeled(np.zeros_like(counted.table.segments))
    result = {
        "volume": entry.volume,
        **scores.as_dict(),
        "threshold": threshold,
        "convention": CONVENTION,
        "counted": _counted_unit(settings, entry),
        **_coverage(counted),
        "roi_nm": _roi(entry),
        "fragments": score(fragments.table).as_dict(),
        "best_possible": {**score(fragments.table.majority()).as_dict(), "note": BEST_NOTE},
        "one_segment": {**score(one_segment).as_dict(), "note": ONE_NOTE},
        "curve": curve_rows(thresholds, threshold_curve(fragments, graph, thresholds)),
        "curve_note": CURVE_NOTE,
    }
    for key, skeletons in skeleton_sets(entry, both[0]).items():
        result[key] = score_skeletons(settings, skeletons, both[0], graph, threshold)
    return result


def score_skeletons(
    settings: dict[str, Any],
    skeletons: Skeletons,
    fragments: Volume,
    graph: RegionGraph,
    threshold: float,
) -> dict[str, Any]:
    """Run lengths at the chosen and at all thresholds; the min-cut metric if asked for."""
    at_nodes = sample_nodes(fragments, skeletons)
    merge_threshold = int(settings.get("merge_threshold") or 1)

    def at(value: float) -> dict[str, float]:
        return skeleton_scores(skeletons, graph.segments(at_nodes, value), merge_threshold)

    curve = [{"threshold": t, **at(t)} for t in threshold_list(*settings["thresholds"])]
    result = {**at(threshold), "merge_threshold": merge_threshold, "curve": curve}
    if settings.get("compute_mincut"):
        cut = mincut(skeletons, at_nodes, graph, threshold, merge_threshold)
        result["min_cut"] = cut.as_dict()
    return result


def _region(settings: dict[str, Any], entry: Entry, inputs: Inputs) -> untrained.Region:
    dataset = settings["dataset"]
    truth = read_truth(settings, entry, inputs.masks)
    raw = _open(dataset, dataset["volumes"][entry.volume]["raw"])
    store = _store(inputs.fragments, entry.volume, "fragments")
    return untrained.Region(raw, truth, truth.box.intersect(open_volume(store, "fragments").box))


def score_untrained(settings: dict[str, Any], inputs: Inputs) -> list[dict[str, Any]]:
    """The untrained watershed's scores per test entry, or the reason why there are none."""
    entries = [read_entries(settings, split) for split in ("validation", "test")]
    if not all(has_labels(settings, entry) for split in entries for entry in split):
        return [{"note": "no labels to choose the watershed's parameters on"} for _ in entries[1]]
    validation, test = ([_region(settings, e, inputs) for e in split] for split in entries)
    reason = untrained.too_large([*validation, *test])
    if reason is not None:
        return [{"note": reason} for _ in test]
    chosen = untrained.choose_parameters(validation)
    return [
        {
            **untrained.score_untrained(region, chosen).as_dict(),
            "parameters": chosen.as_dict(),
            "note": "watershed of smoothed raw on the same voxels; parameters of the least VOI sum "
            "on the validation entries",
        }
        for region in test
    ]


def score_all(
    settings: dict[str, Any], inputs: Inputs, threshold_file: Path, output: Path, plot: Path | None
) -> None:
    """Writes the evaluation of all test entries and prints a small table."""
    chosen = read_json(threshold_file)
    entries = read_entries(settings, "test")
    volumes = {
        entry.name: score_entry(settings, entry, inputs, float(chosen["threshold"]))
        for entry in progress(entries, len(entries), "score", "volumes")
    }
    if settings.get("untrained", True):
        for result, yardstick in zip(
            volumes.values(), score_untrained(settings, inputs), strict=True
        ):
            result["untrained_watershed"] = yardstick
    content = {
        "dataset": settings["dataset"]["name"],
        "threshold": chosen["threshold"],
        "threshold_chosen_on": chosen["chosen_on"],
        "convention": CONVENTION,
        "volumes": volumes,
        "origin": inputs.origin(settings, threshold_file),
    }
    if plot is not None:
        plot_evaluation(volumes, plot)
    _write_json(output, content)
    for name, result in volumes.items():
        print(f"\n{name} at threshold {result['threshold']:g}\n{table(_shown(result))}", flush=True)
        scored, labelled = result["scored_voxels"], result["label_voxels"]
        print(f"scored {scored} of {labelled} labelled {result['counted']}")


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    rows = {"segmentation": result}
    keys = ("fragments", "best_possible", "untrained_watershed", "one_segment")
    rows |= {key: result[key] for key in keys if "voi_sum" in result.get(key, {})}
    return rows


def compare(args: argparse.Namespace) -> None:
    """Scores existing segmentations on the same voxels, prints a table, writes JSON on request."""
    truth = Truth(
        _open_named(args.labels, args.voxel_size_nm),
        _open_named(args.mask, args.voxel_size_nm) if args.mask else None,
        args.roi_nm,
        tuple(args.background_id),
    )
    rows: dict[str, Any] = {}
    for text in args.segmentation:
        name, _, source = text.partition("=") if "=" in text else (text, "=", text)
        volume = _open_named(source, args.voxel_size_nm)
        if args.fill_unassigned:
            volume = fill_unassigned(volume)
        counted = count_volumes(volume, truth, threads=args.threads)
        rows[name] = {**score(counted.table).as_dict(), **_coverage(counted)}
    print(table(rows), flush=True)
    if args.output:
        _write_json(args.output, {"convention": CONVENTION, "segmentations": rows})


def write_nodes(args: argparse.Namespace) -> None:
    """Writes a table for each set of skeletons of the volume's test entries; the manifest last."""
    begin = time.monotonic()
    check_manifest(args.fragments)
    fragments, graph = open_volume(args.fragments, "fragments"), open_region_graph(args.fragments)
    threshold = float(read_json(args.threshold_file)["threshold"])
    thresholds = threshold_list(*args.settings["thresholds"])
    entries = [e for e in read_entries(args.settings, "test") if e.volume == args.volume]
    with writing(args.output) as folder:
        for index, entry in enumerate(progress(entries, len(entries), "nodes", "entries"), 1):
            for key, skeletons in skeleton_sets(entry, fragments).items():
                if not len(skeletons.skeleton):
                    raise DataError(f"no node of {key} lies inside {entry.name}; correct `roi_nm`")
                found = node_table(fragments, skeletons, graph, thresholds, threshold)
                write_table(folder / f"{key}{f'_{index}' if index > 1 else ''}.npz", found)
    files = {path.name: input_digest(path) for path in sorted(args.output.iterdir())}
    write_manifest(
        args.output,
        inputs=[args.fragments, args.threshold_file],
        settings=args.settings,
        seconds=time.monotonic() - begin,
        extra={"files": files},
    )
    print(f"[nodes] {args.output}: {', '.join(files)}", flush=True)


def rescore(args: argparse.Namespace) -> None:
    """Scores a table at its threshold or another one, and other segmentations at its nodes."""
    found = read_table(args.table)
    threshold = found.threshold if args.threshold is None else args.threshold
    size = triple(found.voxel_size_nm.tolist())
    segments = {f"threshold {threshold:g}": found.at(threshold)}
    for name, source in named_paths(args.segmentation).items():
        volume = _open_named(str(source), size)
        segments[name] = sample_nodes(volume, found.skeletons)
    for name, path in named_paths(args.csv).items():
        segments[name] = read_segments(path, len(found.fragment))
    rows = {
        name: skeleton_scores(found.skeletons, ids, args.merge_threshold)
        for name, ids in segments.items()
    }
    for name, scores in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.6g}" for key, value in scores.items()))
    if args.output:
        _write_json(args.output, {"convention": CONVENTION, "tables": rows})


def _open_named(text: str, voxel_size_nm: Sequence[int] | None) -> Volume:
    path, _, array = text.rpartition(":")
    return open_volume(path, array, voxel_size_nm) if path else open_volume(text, "", voxel_size_nm)


def _parse_roi(text: str) -> NmBox:
    try:
        ends = [[int(value) for value in axis.split(":")] for axis in text.split(",")]
        (z0, z1), (y0, y1), (x0, x1) = ends
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not z0:z1,y0:y1,x0:x1 (nm)") from error
    return NmBox((z0, y0, x0), (z1 - z0, y1 - y0, x1 - x0))


def _parse_triple(text: str) -> tuple[int, int, int]:
    return triple([int(value) for value in text.split(",")])


def _add_store_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", required=True, type=json.loads, help="one JSON object")
    for name in ("fragments", "masks", "segmentation"):
        parser.add_argument(f"--{name}", nargs="*", default=[], metavar="VOLUME=PATH")
    for name in ("fragment", "segment"):
        option = f"--{name}-tables"
        parser.add_argument(option, nargs="+", action="append", default=[], help="of one volume")
    parser.add_argument("--threads", type=int, default=1, help="threads that read and count")
    parser.add_argument("--output", required=True, type=Path)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_store_options(verbs.add_parser("choose", help="choose the threshold on validation"))
    scoring = verbs.add_parser("score", help="score the test volumes at the chosen threshold")
    _add_store_options(scoring)
    scoring.add_argument("--threshold-file", required=True, type=Path)
    scoring.add_argument("--plot", type=Path)
    counting = verbs.add_parser("count", help="count a share of one volume's voxels")
    counting.add_argument("--settings", required=True, type=json.loads, help="one JSON object")
    for name in ("volume", "split", "array"):
        counting.add_argument(f"--{name}", required=True)
    counting.add_argument("--store", required=True, type=Path)
    counting.add_argument("--masks", nargs="*", default=[], metavar="VOLUME=PATH")
    counting.add_argument("--shard", type=parse_shard, default=WHOLE, metavar="1-of-8")
    counting.add_argument("--threads", type=int, default=1)
    counting.add_argument("--output", required=True, type=Path, help="npz")
    comparing = verbs.add_parser("compare", help="score any segmentations against labels")
    comparing.add_argument("--labels", required=True, metavar="FILE:ARRAY")
    comparing.add_argument("--segmentation", required=True, nargs="+", metavar="NAME=FILE:ARRAY")
    comparing.add_argument("--mask", metavar="FILE:ARRAY", help="voxels of 0 do not count")
    comparing.add_argument("--roi-nm", type=_parse_roi, metavar="z0:z1,y0:y1,x0:x1")
    comparing.add_argument("--voxel-size-nm", type=_parse_triple, metavar="z,y,x")
    comparing.add_argument("--background-id", type=int, action="append", default=[])
    comparing.add_argument("--fill-unassigned", action="store_true", help="grow into voxels of 0")
    comparing.add_argument("--threads", type=int, default=1)
    comparing.add_argument("--output", type=Path, help="JSON")
    _add_node_verbs(verbs)
    return parser.parse_args(argv)


def _add_node_verbs(verbs: Any) -> None:
    making = verbs.add_parser("nodes", help="write what each skeleton node of a volume lies in")
    making.add_argument("--settings", required=True, type=json.loads, help="one JSON object")
    making.add_argument("--volume", required=True)
    making.add_argument("--fragments", required=True, type=Path, help="fragments.zarr")
    making.add_argument("--threshold-file", required=True, type=Path)
    making.add_argument("--output", required=True, type=Path, help="folder")
    scoring = verbs.add_parser("rescore", help="score a table of nodes")
    scoring.add_argument("table", type=Path, metavar="NODES.npz")
    scoring.add_argument("--threshold", type=float, help="one of the table's; else the chosen one")
    for name, source in (("segmentation", "FILE:ARRAY"), ("csv", "FILE")):
        help_text = "another segmentation of the same nodes"
        scoring.add_argument(
            f"--{name}", nargs="+", default=[], metavar=f"NAME={source}", help=help_text
        )
    scoring.add_argument("--merge-threshold", type=int, default=1, help="nodes that make a merger")
    scoring.add_argument("--output", type=Path, help="JSON")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    others = {"compare": compare, "count": count_share, "nodes": write_nodes, "rescore": rescore}
    if args.verb in others:
        others[args.verb](args)
        return
    with noting_opened() as opened:
        inputs = Inputs(
            named_paths(args.fragments),
            named_paths(args.masks),
            named_paths(args.segmentation),
            args.threads,
            _read_counted(args),
            [Path(p) for paths in (*args.fragment_tables, *args.segment_tables) for p in paths],
            opened,
        )
        if args.verb == "choose":
            choose(args.settings, inputs, args.output)
        else:
            score_all(args.settings, inputs, args.threshold_file, args.output, args.plot)


if __name__ == "__main__":
    run(main)

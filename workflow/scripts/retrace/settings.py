"""What each script is told: one plain dict per job, holding exactly what that script reads.

The workflow hands them over as JSON (`--settings`), so changing a value reruns what reads it and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrace.config import (
    BOUNDARY,
    LABELS_BOX,
    NAMED_PARTS,
    SPLITS,
    Settings,
    context_network,
    head_names,
    interior_map,
    is_planar,
    network_for,
    output_shape,
    scorable,
)

MEASURED = ("znn", "elektronn")
"""Families whose trainings draw patches of the validation split."""
COMPUTE = ("device", "precision", "compile")
HEAD_LAYERS = {"affs": "affinities", "lsds": "lsds", BOUNDARY: "boundary", "classes": "boundary"}
"""How the viewer calls a network's outputs."""


def results(dataset: str, *parts: str) -> str:
    """A path below the results of a dataset."""
    return "/".join(["results", dataset, *parts])


def source_paths(volume: Mapping[str, Any], parts: Sequence[str]) -> list[str]:
    """Paths of those parts that a volume has, those of several sources last."""
    found = [volume[part]["path"] for part in parts if part in volume and part not in NAMED_PARTS]
    named = [volume.get(part, {}) for part in NAMED_PARTS if part in parts]
    return found + [source["path"] for sources in named for source in sources.values()]


def mask_store(dataset: Mapping[str, Any], volume: str) -> str:
    """Where the labels mask of a volume lies."""
    return results(dataset["name"], "masks", f"{volume}.zarr")


def volumes_of(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The volumes that entries name, each once, in order."""
    return list(dict.fromkeys(entry["volume"] for entry in entries))


def predicted(dataset: Mapping[str, Any]) -> list[str]:
    """Volumes that are predicted: validation and test, or, without any, those trained on."""
    return volumes_of([*dataset["validation"], *dataset["test"]] or dataset["train"])


def fetch_settings(config: Mapping[str, Any], dataset: Mapping[str, Any], volume: str) -> Settings:
    """What fetch.py reads for one volume of a bucket."""
    bucket = dataset["bucket"]
    return {
        "bucket": config["bucket"],
        "prefix": f"{bucket['prefix']}/{volume}.zarr",
        "endpoint_url": config["endpoint_url"],
        "unsigned": config["unsigned"],
        "threads": config["fetch_threads"],
        "bundle": config["bundle"],
        "arrays": [bucket["raw"], bucket["labels"]],
    }


def fetch_checkpoint_settings(
    config: Mapping[str, Any], dataset: Mapping[str, Any], network: str
) -> Settings:
    """What fetch.py reads for one published checkpoint."""
    prefix = f"{dataset['bucket']['checkpoints']}/{network}"
    return fetch_settings(config, dataset, network) | {"prefix": prefix, "arrays": []}


def fetch_object_settings(config: Mapping[str, Any], key: str, sha256: str | None) -> Settings:
    """What fetch_object.py reads for one object of the bucket."""
    return {
        "bucket": config["bucket"],
        "key": key,
        "sha256": sha256,
        "endpoint_url": config["endpoint_url"],
        "unsigned": config["unsigned"],
        "threads": config["fetch_threads"],
        "bundle": config["bundle"],
    }


def fetch_ground_truth_settings(
    config: Mapping[str, Any], dataset: Mapping[str, Any], folder: str
) -> Settings:
    """What fetch.py reads for one `ground_truth` folder."""
    keys = ("bucket", "endpoint_url", "unsigned", "bundle")
    own = {key: config[key] for key in keys}
    return {**own, "threads": config["fetch_threads"], "prefix": dataset["ground_truth"][folder]}


def ground_truth(dataset: Mapping[str, Any], path: str) -> str | None:
    """The fetched folder that a path lies in, None for a path elsewhere."""
    base = f"data/{dataset['name']}/ground_truth/"
    name = path.removeprefix(base).split("/")[0]
    known = path.startswith(base) and name in dataset.get("ground_truth", {})
    return base + name if known else None


def iterations_for(config: Mapping[str, Any], network: str) -> int | None:
    """The iterations that the configuration asks of a network; None: the network's own number."""
    asked = config["iterations"]
    if isinstance(asked, Mapping):
        asked = asked.get(network)
    return None if asked is None else int(asked)


def gpus_for(config: Mapping[str, Any], verb: str) -> int:
    """The GPUs that one job of a verb, `train` or `predict`, uses."""
    asked = config["gpus"]
    return int(asked.get(verb, 1) if isinstance(asked, Mapping) else asked)


def trained_network(config: Mapping[str, Any], network: Mapping[str, Any]) -> Settings:
    """The network with the `batch_size` that the configuration asks for, if it does."""
    asked = config["batch_size"]
    return {**network, **({} if asked is None else {"batch_size": asked})}


def is_published(config: Mapping[str, Any], network: str) -> bool:
    """Whether a network is used as it was published, with no training after it."""
    return config["weights"] == "published" and iterations_for(config, network) is None


def model_file(config: Mapping[str, Any], dataset: str, network: str) -> str:
    """The weights that are predicted with."""
    name = "published" if is_published(config, network) else "model"
    return results(dataset, network, f"{name}.safetensors")


def mask_settings(dataset: Mapping[str, Any], volume: str) -> Settings:
    """What mask.py reads for one volume."""
    source = dataset["volumes"][volume]
    given = {"labels_mask": source["labels_mask"]} if "labels_mask" in source else {}
    return {"background_ids": dataset["background_ids"], "labels": source["labels"], **given}


def _without(content: Mapping[str, Any], *keys: str) -> Settings:
    return {key: value for key, value in content.items() if key not in keys}


def train_settings(
    config: Mapping[str, Any], dataset: Mapping[str, Any], network: Mapping[str, Any]
) -> Settings:
    """What train.py reads: the volumes trained on, the network, iterations, seed, device.

    The boxes kept for validation and test are in each training entry's `exclude_nm`.
    """
    if "examples" in dataset:
        return _trained(config, network, {"name": dataset["name"], "examples": dataset["examples"]})
    held_out = validation_patches(dataset, network)
    used = trained_volumes(dataset, network)
    tested = {"validation": held_out} if network["family"] in MEASURED else {}
    told = {
        "name": dataset["name"],
        "voxel_size_nm": dataset["voxel_size_nm"],
        "background_ids": dataset["background_ids"],
        "volumes": {v: _trained_volume(dataset, network, v) for v in used},
        "train": dataset["train"],
        **tested,
    }
    return _trained(config, network, told) | {"autocontext": context_network(network, dataset)}


def _trained_volume(dataset: Mapping[str, Any], network: Mapping[str, Any], name: str) -> Settings:
    volume = _without(dataset["volumes"][name], "skeletons")
    made = recursive_inputs(dataset, network, name)
    return {**volume, "inputs": {**volume.get("inputs", {}), **made}} if made else volume


WHOLE = "whole_prediction"
"""The prediction of a whole volume, which another network reads."""


def recursive_inputs(
    dataset: Mapping[str, Any], network: Mapping[str, Any], volume: str
) -> Settings:
    """By input node the source that another network's prediction is, where the volume has none."""
    given = dataset["volumes"][volume].get("inputs", {})
    found = {}
    for node, told in network.get("recursive", {}).items():
        if node in given:
            continue
        first = network_for(told["network"], dataset)
        found[node] = {
            "path": results(dataset["name"], first["name"], volume, f"{WHOLE}.zarr"),
            "array": head_names(first)[0],
            "voxel_size_nm": dataset["voxel_size_nm"],
            "offset_nm": None,
            "channel": told["channel"],
            "preprocess": told["preprocess"],
        }
    return found


def _trained(config: Mapping[str, Any], network: Mapping[str, Any], dataset: Settings) -> Settings:
    """The part of a training's settings that all families share."""
    limit = config["train_seconds"]
    return {
        "dataset": dataset,
        "network": trained_network(config, network),
        "autocontext": None,
        "iterations": iterations_for(config, network["name"]) or network["iterations"],
        "seed": config["seed"],
        "gpus": gpus_for(config, "train"),
        **({} if limit is None else {"seconds": limit}),
        **{key: config[key] for key in COMPUTE},
    }


def examples_settings(
    config: Mapping[str, Any], dataset: Mapping[str, Any], network: Mapping[str, Any]
) -> Settings:
    """What examples.py reads to predict and to score."""
    told = {"name": dataset["name"], "examples": dataset["examples"]}
    own = trained_network(config, network)
    return {"dataset": told, "network": own, "seed": config["seed"], "device": config["device"]}


def trained_volumes(dataset: Mapping[str, Any], network: Mapping[str, Any]) -> list[str]:
    """Volumes that a training reads: those of `train`, and of its test passes."""
    return volumes_of([*dataset["train"], *validation_patches(dataset, network)])


def validation_patches(dataset: Mapping[str, Any], network: Mapping[str, Any]) -> list[Settings]:
    """Entries that a training measures itself on, as training reads them; of some families."""
    if network["family"] not in MEASURED:
        return []
    entries = [e for e in dataset["validation"] if "labels" in dataset["volumes"][e["volume"]]]
    return [
        {**_without(e, "skeletons"), "probability": 1 / len(entries), "exclude_nm": []}
        for e in entries
    ]


def _hull(boxes: Sequence[Mapping[str, Any] | None]) -> Settings | None:
    """The smallest box around all; None, the whole volume, as soon as one is None."""
    given = [box for box in boxes if box is not None]
    if len(given) < len(boxes) or not given:
        return None
    low = [min(box["offset"][a] for box in given) for a in range(3)]
    high = [max(box["offset"][a] + box["shape"][a] for box in given) for a in range(3)]
    return {"offset": low, "shape": [h - b for b, h in zip(low, high, strict=True)]}


def predict_settings(
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    network: Mapping[str, Any],
    volume: str,
) -> Settings:
    """What predict.py reads for one volume; only the part that validation and test need of it."""
    entries = [*dataset["validation"], *dataset["test"]]
    boxes = [entry["roi_nm"] for entry in entries if entry["volume"] == volume]
    source = dataset["volumes"][volume]
    roi = _hull(boxes) if boxes else source["roi_nm"]
    margin = [0, 0, 0]
    if head_names(network) == ["lsds"]:
        margin = _context_nm(network, dataset["voxel_size_nm"])
    volume_of_labels = {}
    if source["roi_nm"] == LABELS_BOX:
        roi, volume_of_labels = None, {"roi_of": source["labels"], "margin_nm": margin}
    elif roi:
        roi = _grown(roi, margin)
    descriptors = None
    if name := network.get("autocontext"):
        store = results(dataset["name"], name, volume, "prediction.zarr")
        descriptors = {"path": store, "array": "lsds"}
    return {
        "volume": {
            "raw": source["raw"],
            "roi_nm": roi,
            **volume_of_labels,
            **_tissue_mask(source),
            **_further_inputs(dataset, network, volume),
        },
        "descriptors": descriptors,
        "network": network,
        "heads": head_names(network),
        "tile": network.get("forward_outsz") or config["tile"],
        "dtype": config["prediction_dtype"],
        "gpus": gpus_for(config, "predict"),
        **{key: config[key] for key in COMPUTE},
    }


def whole_settings(
    config: Mapping[str, Any], dataset: Mapping[str, Any], network: Mapping[str, Any], volume: str
) -> Settings:
    """What predict.py reads for all of a volume, in floats: the image of another network."""
    told = predict_settings(config, dataset, network, volume)
    kept = _without(told["volume"], "roi_of", "margin_nm", "tissue_mask")
    return {**told, "volume": {**kept, "roi_nm": None}, "dtype": "float32"}


def _further_inputs(
    dataset: Mapping[str, Any], network: Mapping[str, Any], volume: str
) -> Settings:
    """Images that a network reads beside raw, by its input nodes."""
    nodes = network.get("inputs", [])[1:]
    found = {**dataset["volumes"][volume].get("inputs", {})}
    found |= recursive_inputs(dataset, network, volume)
    return {"inputs": [found[node] for node in nodes]} if nodes else {}


def _tissue_mask(volume: Mapping[str, Any]) -> Settings:
    return {"tissue_mask": volume["tissue_mask"]} if "tissue_mask" in volume else {}


def _context_nm(network: Mapping[str, Any], voxel_size_nm: Sequence[int]) -> list[int]:
    """Half a context, nm: what auto-context networks read of descriptors around a box."""
    shape = network["input_shape"]
    out = output_shape(network, shape)
    return [(s - o) // 2 * v for s, o, v in zip(shape, out, voxel_size_nm, strict=True)]


def _grown(roi: Mapping[str, Any], margin: Sequence[int]) -> Settings:
    """The box and `margin` around it, nm."""
    return {
        "offset": [o - m for o, m in zip(roi["offset"], margin, strict=True)],
        "shape": [s + 2 * m for s, m in zip(roi["shape"], margin, strict=True)],
    }


def segment_settings(
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    network: Mapping[str, Any],
    volume: str,
) -> Settings:
    """What `segment.py fragments` and `edges` read for one volume."""
    segment = _without(config["segment"], "thresholds")
    if segment["fragments_in_xy"] == "auto":
        segment["fragments_in_xy"] = not dataset["isotropic"]
    segment |= dataset.get("paper", {}).get("segment", {})
    if "affs" in head_names(network):
        segment["neighborhood"] = network["neighborhood"]
    else:
        segment["boundary"] = interior_map(network)
    return {
        **segment,
        **_tissue_mask(dataset["volumes"][volume]),
    }


def _scored(dataset: Mapping[str, Any], splits: Sequence[str], parts: Sequence[str]) -> Settings:
    entries = {split: scorable(dataset, split) for split in splits}
    used = volumes_of(entry for split in splits for entry in entries[split])
    found = {v: dataset["volumes"][v] for v in used}
    volumes = {v: {p: found[v][p] for p in parts if p in found[v]} for v in used}
    return {
        "name": dataset["name"],
        "voxel_size_nm": dataset["voxel_size_nm"],
        "background_ids": dataset["background_ids"],
        "volumes": volumes,
        **{split: [_without(e, "probability") for e in entries[split]] for split in splits},
    }


def count_settings(dataset: Mapping[str, Any], split: str) -> Settings:
    """What `evaluate.py count` reads: the entries of one split and their labels."""
    return {"dataset": _scored(dataset, [split], ["labels"])}


def choose_settings(config: Mapping[str, Any], dataset: Mapping[str, Any]) -> Settings:
    """What `evaluate.py choose` reads: nothing of the test entries."""
    return {
        "dataset": _scored(dataset, ["validation"], ["labels"]),
        "thresholds": config["segment"]["thresholds"],
    }


def score_settings(config: Mapping[str, Any], dataset: Mapping[str, Any]) -> Settings:
    """What `evaluate.py score` reads."""
    asked = config["evaluate"]["compute_mincut"]
    by_paper = dataset.get("paper", {}).get("compute_mincut")
    return {
        "dataset": _scored(dataset, ["validation", "test"], ["raw", "labels"]),
        "thresholds": config["segment"]["thresholds"],
        **_without(config["evaluate"], "boundary_thresholds"),
        "compute_mincut": bool(by_paper if asked is None else asked),
    }


def outputs_settings(
    config: Mapping[str, Any], network: Mapping[str, Any], volume: str
) -> Settings:
    """What `znn.py outputs` reads."""
    return {"prefix": config["output_prefix"], "volume": volume, "heads": network["heads"]}


def boundary_settings(
    config: Mapping[str, Any], dataset: Mapping[str, Any], network: Mapping[str, Any]
) -> Settings:
    """What boundaries.py reads: the labelled entries of validation and test."""
    splits = ("validation", "test")
    content = _scored(dataset, splits, ["labels"])
    for split in splits:
        labelled = [e for e in content[split] if "labels" in content["volumes"][e["volume"]]]
        content[split] = [_without(e, "skeletons") for e in labelled]
    return {
        "dataset": content,
        "array": interior_map(network),
        "grow_boundary": network["grow_boundary"],
        "thresholds": config["evaluate"]["boundary_thresholds"],
    }


def class_settings(dataset: Mapping[str, Any], network: Mapping[str, Any]) -> Settings:
    """What classes.py reads: the labelled entries of test."""
    content = _scored(dataset, ("test",), ["raw", "labels"])
    labelled = [e for e in content["test"] if "labels" in content["volumes"][e["volume"]]]
    keys = ("grow_boundary", "labels_are_classes", "n_lab")
    return {
        "dataset": {**content, "test": [_without(e, "skeletons") for e in labelled]},
        **{key: network[key] for key in keys},
    }


def compare_settings(
    dataset: Mapping[str, Any],
    families: Mapping[str, str],
    refused: Mapping[str, str],
    published: Mapping[str, Any] | None,
) -> Settings:
    """What `compare.py` reads; `published`: which figures of others are shown, None for none."""
    content = _scored(dataset, ["test"], ["labels"])
    others: Settings = {}
    for volume in content["volumes"]:
        for name, source in dataset["volumes"][volume].get("segmentations", {}).items():
            others.setdefault(name, {})[volume] = source
    return {
        "dataset": content,
        "planar": is_planar(dataset),
        "families": dict(families),
        "refused": dict(refused),
        "segmentations": others,
        "published": published,
    }


def data_layers(dataset: Mapping[str, Any], volume: str) -> list[Settings]:
    """Viewer layers of a volume before any training: raw, and labels and mask where it has them."""
    source = dataset["volumes"][volume]
    layers = [{"kind": "raw", **source["raw"]}]
    if "labels" in source:
        mask = {"kind": "mask", "path": mask_store(dataset, volume), "array": "labels_mask"}
        layers += [{"kind": "labels", **source["labels"]}, mask]
    return layers


def result_layers(
    dataset: Mapping[str, Any], network: Mapping[str, Any], volume: str
) -> list[Settings]:
    """Viewer layers of what a network made of a volume."""
    folder = results(dataset["name"], network["name"], volume)
    heads = head_names(network)
    layers = [
        {
            "kind": HEAD_LAYERS[head.split("_")[0]],
            "path": f"{folder}/prediction.zarr",
            "array": head,
        }
        for head in heads
    ]
    if "affs" in heads and dataset["validation"]:
        stores = {"fragments": "fragments", "segments": "segmentation"}
        layers += [
            {"kind": kind, "path": f"{folder}/{store}.zarr", "array": kind}
            for kind, store in stores.items()
        ]
    return layers


EXPORTED = {
    "segments": ("segmentation.zarr", "segments"),
    "fragments": ("fragments.zarr", "fragments"),
    "affinities": ("prediction.zarr", "affs"),
    "raw": ("prediction.zarr", "affs"),
}
"""Where a layer that is exported comes from, as (store, array); of raw, whose box it is cut to."""


def exported_store(dataset: str, network: str, volume: str, layer: str) -> str:
    """The store that an exported layer comes from or is cut to."""
    return results(dataset, network, volume, EXPORTED[layer][0])


def export_settings(
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    network: Mapping[str, Any],
    volume: str,
    layer: str,
    form: str,
) -> Settings:
    """What export.py reads for one layer; `form`: precomputed or ome_zarr."""
    store = exported_store(dataset["name"], network["name"], volume, layer)
    made = {"path": store, "array": EXPORTED[layer][1]}
    raw = layer == "raw"
    compression = {"gzip": config["export"]["gzip"]} if form == "precomputed" else {}
    return {
        "format": form,
        "source": dataset["volumes"][volume]["raw"] if raw else made,
        "within": made if raw else None,
        "labels": layer in ("segments", "fragments"),
        **compression,
    }


def nodes_settings(config: Mapping[str, Any], dataset: Mapping[str, Any]) -> Settings:
    """What `evaluate.py nodes` reads: the test entries and the thresholds."""
    return {
        "dataset": _scored(dataset, ["test"], []),
        "thresholds": config["segment"]["thresholds"],
    }


def package_settings(
    config: Mapping[str, Any], dataset: Mapping[str, Any], network: Mapping[str, Any]
) -> Settings:
    """What package.py reads."""
    about = {key: dataset[key] for key in ("name", "voxel_size_nm") if key in dataset}
    return {"network": network, "dataset": about, **config["package"]}


def report_settings(
    config: Mapping[str, Any], pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Settings:
    """What report.py reads: configuration, and datasets, networks and layers of the experiments."""
    return {
        "config": dict(config),
        "experiments": [_reported(config, data, network) for data, network in pairs],
    }


def _reported(
    config: Mapping[str, Any], dataset: Mapping[str, Any], network: Mapping[str, Any]
) -> Settings:
    volume = predicted(dataset)[-1]
    return {
        "dataset": {
            "name": dataset["name"],
            "voxel_size_nm": dataset["voxel_size_nm"],
            **{split: dataset[split] for split in SPLITS},
        },
        "network": dict(network),
        "segment": segment_settings(config, dataset, network, volume),
        "recipe_iterations": network.get("iterations"),
        "volume": volume,
        "layers": data_layers(dataset, volume) + result_layers(dataset, network, volume),
        "folder": results(dataset["name"], network["name"]),
    }


def view_settings(config: Mapping[str, Any], layers: list[Settings]) -> Settings:
    """What view.py reads."""
    return {**config["view"], "layers": layers}

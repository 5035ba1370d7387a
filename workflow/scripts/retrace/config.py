"""Datasets, networks and the configuration: read from YAML, checked, resolved to plain dicts.

A dataset is `config/datasets/NAME.yaml`, a network `config/networks/NAME.yaml`; both are looked for
in the working directory first, then beside the workflow. What comes out of `load_dataset` and
`network_for` has every value a script needs; the schemas in `config/schemas` explain each field.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from retrace import sections
from retrace.addresses import check_address, is_address, is_zarr, local_folder
from retrace.elektronn import settings as elektronn
from retrace.elektronn.architecture import HEAD
from retrace.errors import ConfigError, nearest
from retrace.labels import NUMBERED
from retrace.precomputed import check_local_layer
from retrace.znn.cfg import read_cfg
from retrace.znn.dataset import output_labels, with_samples
from retrace.znn.settings import resolve

Settings = dict[str, Any]

WORKFLOW_CONFIG = Path(__file__).resolve().parents[3] / "config"
"""The configuration that belongs to the workflow."""

FAMILIES = {
    "lsd": "network",
    "znn": "znn_network",
    "elektronn": "elektronn_network",
    "seamless": "seamless_network",
}
"""Families of networks, and the schema that each one's files follow."""

SPLITS = ("train", "validation", "test")
ISOTROPIC_BELOW = 2.0
"""Voxels whose longest edge is less than this many times the shortest count as isotropic."""

OUR_BUCKET = "s3:///"
"""How an address begins in the bucket that config.yaml names, until `located` names it."""

CLASSES = "classes"
"""The kind of labels that are numbers of classes, and not of objects."""

PARTS = ("raw", "labels", "labels_mask", "tissue_mask")
"""What of a volume is read from sources."""

NAMED_PARTS = ("inputs", "outputs", "outputs_mask", "segmentations")
"""What has several sources, each with a name: further images, labels of several outputs and their
masks, what others made of the volume."""

BOUNDARY = "boundary"
"""The output of networks that tell the inside of cells from what is between them."""

LABELS_BOX = "labels"
"""The `roi_nm` of a volume of which as much is used as its labels cover."""

PASS_LOSS = 4
"""Voxels that the two valid 3x3x3 convolutions of one pass take off every axis."""


@lru_cache(maxsize=512)
def _parsed(text: str) -> bytes:
    """What a YAML text says, pickled, by libyaml's parser where PyYAML was built with it.

    Every start of the workflow reads some fifty files, and each of them dozens of times; unpickling
    makes a copy for the reader in a fifth of the time of deepcopy.
    """
    return pickle.dumps(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def read_yaml(path: Path) -> Settings:
    """The mapping in a YAML file; ConfigError where it is unreadable or something else."""
    try:
        content = pickle.loads(_parsed(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, not {type(content).__name__}")
    return content


@cache
def _validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(read_yaml(WORKFLOW_CONFIG / "schemas" / f"{kind}.schema.yaml"))


def _unknown_keys(error: ValidationError) -> str | None:
    """The message for keys no schema knows, with the nearest key that it does."""
    schema, instance = error.schema, error.instance
    if error.validator != "additionalProperties" or not isinstance(schema, Mapping):
        return None
    known = schema.get("properties", {})
    unknown = [key for key in instance if key not in known]  # type: ignore[union-attr]
    return "; ".join(f"unknown key {key!r}, {nearest(str(key), known)}" for key in unknown)


def check(content: Mapping[str, Any], kind: str, where: str) -> None:
    """Checks against the schema of that kind: dataset, network or config (ConfigError)."""
    error = best_match(_validator(kind).iter_errors(content))
    if error is None:
        return
    place = ".".join(str(part) for part in error.absolute_path)
    message = _unknown_keys(error) or error.message
    raise ConfigError(f"{where}{': ' + place if place else ''}: {message}")


def _folders(kind: str) -> list[Path]:
    return [Path("config") / kind, WORKFLOW_CONFIG / kind]


def names(kind: str) -> list[str]:
    """All `datasets` or `networks` there are, in alphabetical order."""
    files = (path for folder in _folders(kind) for path in folder.glob("*.yaml"))
    return sorted({path.stem for path in files})


def _file(kind: str, name: str) -> Path:
    for folder in _folders(kind):
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise ConfigError(f"no {kind[:-1]} {name!r} in config/{kind}; {nearest(name, names(kind))}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """`over` laid over `base`: mappings key by key, everything else as a whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def retyped(value: Any) -> Any:
    """Numbers, true, false and null that came as text: Snakemake leaves those within a
    `--config key={...}` unread."""
    if isinstance(value, Mapping):
        return {key: retyped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [retyped(inner) for inner in value]
    if not isinstance(value, str):
        return value
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return read if isinstance(read, (bool, int, float, type(None))) and value else value


def check_config(config: Mapping[str, Any]) -> None:
    """Checks config.yaml and what `--config` adds to it; ConfigError names key and nearest key."""
    check(config, "config", "config/config.yaml or --config")


# ---------------------------------------------------------------- datasets


def load_dataset(name: str | Path, chosen: object = None) -> Settings:
    """A dataset by name, or from a file, with paths, voxel sizes and splits filled in.

    `chosen` is the value of `volumes` in config.yaml; it replaces what is trained on. Entries of
    train, validation and test come out as {volume, roi_nm, probability}, sources with path, array,
    voxel_size_nm and offset_nm.
    """
    path = Path(name) if str(name).endswith(".yaml") else _file("datasets", str(name))
    dataset: Settings = read_yaml(path)
    if "examples" in dataset:
        return _examples_dataset(dataset, path)
    if "spec" in dataset or "cfg" in dataset:
        check({"volumes": {"any": {}}} | dataset, "dataset", str(path))
        dataset = with_samples(dataset, str(path))
    check(dataset, "dataset", str(path))
    _check_name(dataset, path)
    dataset = merge({"background_ids": [], "sampling": {}}, dataset)
    dataset["isotropic"] = is_isotropic(dataset)
    if "alignment" in dataset:
        dataset["alignment"] = sections.resolve(dataset, str(path))
    dataset["volumes"] = {v: _volume(dataset, v, path) for v in dataset["volumes"]}
    for split in SPLITS:
        dataset[split] = [_entry(dataset, split, e, path) for e in dataset.get(split, [])]
    return _choose(dataset, chosen)


def _check_name(dataset: Settings, path: Path) -> None:
    if dataset["name"] != path.stem:
        raise ConfigError(
            f"{path}: `name: {dataset['name']}` must be {path.stem!r}, the file's name"
        )


def _examples_dataset(dataset: Settings, path: Path) -> Settings:
    """A dataset of single examples: no volumes, and no voxels that could have a size."""
    check(dataset, "examples_dataset", str(path))
    _check_name(dataset, path)
    told = {"split_seed": 0, **dataset["examples"]}
    if ("archive" in told) == ("train" in told):
        raise ConfigError(f"{path}: give either `archive`, or `train` (and `test`)")
    if "train" in told and "held_out" not in told:
        raise ConfigError(
            f"{path}: `held_out` is needed, the number of training examples that are kept to "
            "measure the error on; for MNIST 5000"
        )
    empty: Settings = {"volumes": {}, "train": [], "validation": [], "test": []}
    return {
        "name": dataset["name"],
        "isotropic": True,
        "background_ids": [],
        **empty,
        "examples": told,
    }


def example_files(dataset: Mapping[str, Any], *parts: str) -> list[str]:
    """Paths of a dataset of single examples: of `train`, `test` and `archive`, or of some."""
    told, found = dataset.get("examples", {}), []
    for part in parts or ("train", "test"):
        if part in told:
            found += [told[part]["values"]["path"], told[part]["labels"]["path"]]
    return [told["archive"]["path"]] if "archive" in told else found


def named_files(dataset: Mapping[str, Any]) -> list[str]:
    """Paths of all files that a dataset is read from."""
    found = example_files(dataset)
    for volume in dataset["volumes"].values():
        for path in (source["path"] for source in _sources(volume)):
            found += [str(local_folder(path) or "")] if is_address(path) else [path]
    mask = dataset.get("alignment", {}).get("mask")
    if mask:
        found += [str(local_folder(mask["path"]) or mask["path"])]
    for split in SPLITS[1:]:
        found += [e["skeletons"]["path"] for e in dataset[split] if e["skeletons"]]
    return [path for path in found if path]


def check_carried(dataset: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuses volumes elsewhere that no rule fetches, which no bundle can hold (ConfigError)."""
    mask = dataset.get("alignment", {}).get("mask")
    found = [("the mask of the sections", mask)] if mask else []
    for name, volume in dataset["volumes"].items():
        stored = f"s3://{config['bucket']}/{_bucket_key(dataset, name)}"
        found += [(f"volume {name!r}", s) for s in _sources(volume) if s["path"] != stored]
    for what, source in found:
        path = str(source["path"])
        if is_address(path) and local_folder(path) is None:
            raise ConfigError(
                f"{what} of dataset {dataset['name']!r} is read block by block at {path}, which "
                "nothing fetches, so no bundle can hold it. Copy that layer or zarr to this "
                "machine and name its folder as file:///FOLDER; what lies in the bucket (`bucket: "
                "{read: blocks}`) is fetched"
            )


def _bucket_key(dataset: Mapping[str, Any], volume: str) -> str | None:
    """The key of a volume that is read in the bucket by block, None for a dataset without any."""
    bucket = dataset.get("bucket", {})
    return f"{bucket['prefix']}/{volume}.zarr" if bucket.get("read") == "blocks" else None


def _sources(volume: Mapping[str, Any]) -> list[Settings]:
    """All that a volume is read from."""
    named = [s for part in NAMED_PARTS for s in volume.get(part, {}).values()]
    return [volume[part] for part in PARTS if part in volume] + named


def located(dataset: Settings, config: Mapping[str, Any]) -> Settings:
    """The dataset with every address complete: bucket, server, and how it is asked.

    With a bundle what would be read in our bucket is a folder in it. ConfigError for an address
    that nothing can be read from.
    """
    volumes = {
        name: {part: _located_part(part, value, config) for part, value in v.items()}
        for name, v in dataset["volumes"].items()
    }
    found = {**dataset, "volumes": volumes}
    if dataset.get("alignment", {}).get("mask"):
        mask = _located(dataset["alignment"]["mask"], config)
        found["alignment"] = {**dataset["alignment"], "mask": mask}
    return found


def _located_part(part: str, value: Any, config: Mapping[str, Any]) -> Any:
    """A part of a volume with its addresses complete: a source, sources by name, or what else."""
    if part in NAMED_PARTS:
        return {name: _located(source, config) for name, source in value.items()}
    return _located(value, config) if part in PARTS else value


def _located(source: Settings, config: Mapping[str, Any]) -> Settings:
    path = str(source["path"])
    if path.startswith(OUR_BUCKET):
        key = path.removeprefix(OUR_BUCKET)
        if config["bundle"]:
            return {**source, "path": f"{config['bundle']}/{key}"}
        path = f"s3://{config['bucket']}/{key}"
    if not is_address(path):
        return source
    check_address(path, source.get("array") or "")
    how = {key: config[key] for key in ("endpoint_url", "unsigned")} if "s3://" in path else {}
    return {**source, "path": path, **how}


def check_layers(dataset: Mapping[str, Any]) -> None:
    """Refuses layers on this machine that lack the mip or a region that is used (DataError)."""
    for split in SPLITS:
        for entry in dataset[split]:
            raw = dataset["volumes"][entry["volume"]]["raw"]
            if is_address(raw["path"]) and not is_zarr(raw["path"]):
                check_local_layer(raw, entry["roi_nm"])


def is_isotropic(dataset: Mapping[str, Any]) -> bool:
    """Which recipe a dataset takes: its own `isotropic`, else by the shape of its voxels."""
    if "isotropic" in dataset:
        return bool(dataset["isotropic"])
    size = dataset["voxel_size_nm"]
    return bool(max(size) / min(size) < ISOTROPIC_BELOW)


def _volume(dataset: Settings, name: str, path: Path) -> Settings:
    """A volume with its sources complete; those of a bucket lie where `fetch` puts them."""
    volume = dict(dataset["volumes"][name] or {})
    if bucket := dataset.get("bucket"):
        store = f"data/{dataset['name']}/{name}.zarr"
        if bucket.get("read") == "blocks":
            store = f"{OUR_BUCKET}{_bucket_key(dataset, name)}"
        for part in ("raw", "labels"):
            volume.setdefault(part, {"path": store, "array": bucket[part]})
    if "raw" not in volume:
        raise ConfigError(f"{path}: volume {name!r} needs `raw: {{path: ...}}`")
    if volume["raw"]["path"] is None:
        raise ConfigError(
            f"{path}: nobody said yet where volume {name!r} lies. Write its address or file into "
            f"`volumes: {name}: raw: path`, there or in a copy in config/datasets of your working "
            "directory"
        )
    offset = volume.pop("offset_nm", None)
    given = {"voxel_size_nm": dataset["voxel_size_nm"], "offset_nm": offset, "array": ""}
    for part in ("raw", "labels", "labels_mask"):
        if part in volume:
            volume[part] = given | volume[part]
    for part in NAMED_PARTS:
        if part in volume:
            volume[part] = {name: given | source for name, source in volume[part].items()}
    if "auto_crop" in volume:
        fit = {"image": volume["raw"], "crop": volume.pop("auto_crop")}
        for part in ("labels", "labels_mask"):
            if part in volume:
                volume[part] = {**volume[part], "fit": fit}
        for part in ("outputs", "outputs_mask"):
            if part in volume:
                volume[part] = {n: {**source, "fit": fit} for n, source in volume[part].items()}
    if "tissue_mask" in volume:  # its voxels may be larger, as its own file says
        given = {"voxel_size_nm": None, "offset_nm": offset, "array": ""}
        volume["tissue_mask"] = given | volume["tissue_mask"]
    volume.setdefault("roi_nm", None)
    _check_box(dataset, volume["roi_nm"], f"{path}: volume {name!r}")
    if volume["roi_nm"] == LABELS_BOX and "labels" not in volume:
        raise ConfigError(f"{path}: volume {name!r} has `roi_nm: labels` and no labels")
    return volume


def _check_box(dataset: Settings, box: Settings | str | None, where: str) -> None:
    if box is None or isinstance(box, str):
        return
    for key in ("offset", "shape"):
        bad = [v % s for v, s in zip(box[key], dataset["voxel_size_nm"], strict=True)]
        if any(bad):
            raise ConfigError(
                f"{where}: roi_nm {key} {box[key]} is not a multiple of "
                f"voxel_size_nm {dataset['voxel_size_nm']}"
            )


def _entry(dataset: Settings, split: str, entry: Any, path: Path) -> Settings:
    """One entry of a split as {volume, roi_nm, probability}."""
    entry = {"volume": entry} if isinstance(entry, str) else dict(entry)
    name = entry["volume"]
    if name not in dataset["volumes"]:
        hint = nearest(name, dataset["volumes"])
        raise ConfigError(f"{path}: {split} names the unknown volume {name!r}; {hint}")
    skeletons = _skeletons(entry.get("skeletons", dataset["volumes"][name].get("skeletons")))
    truth = "labels" in dataset["volumes"][name] or (split != "train" and skeletons)
    if split != "test" and not truth:
        raise ConfigError(f"{path}: {split} needs labels, and volume {name!r} has none")
    _check_box(dataset, entry.get("roi_nm"), f"{path}: {split} of {name!r}")
    probabilities = dataset["sampling"].get("probabilities", {})
    whole = dataset["volumes"][name]["roi_nm"]
    found = {
        "volume": name,
        "roi_nm": entry.get("roi_nm", None if whole == LABELS_BOX else whole),
        "probability": entry.get("probability", probabilities.get(name)),
    }
    return found if split == "train" else {**found, "skeletons": skeletons}


def _skeletons(source: str | Settings | None) -> Settings | None:
    """Where skeletons are read, as {path} or, of a dump, {path, name, region}."""
    return {"path": source} if isinstance(source, str) else source


def _choose(dataset: Settings, chosen: object) -> Settings:
    """Replaces the training entries by the chosen volumes; refuses an overlap with the others."""
    wanted = _wanted(dataset, chosen)
    if wanted is not None:
        path = Path(f"dataset {dataset['name']}")
        known = {entry["volume"]: entry for entry in dataset["train"]}
        dataset["train"] = [known.get(v) or _entry(dataset, "train", v, path) for v in wanted]
    _spread_probabilities(dataset["train"])
    for entry in dataset["train"]:
        entry["exclude_nm"] = _excluded(dataset, entry)
    return dataset


def _wanted(dataset: Settings, chosen: object) -> list[str] | None:
    """Names of the volumes to train on, or None for what the dataset's file says."""
    name = dataset["name"]
    if isinstance(chosen, Mapping):
        chosen = chosen.get(name)
    elif isinstance(chosen, list):  # one list for all datasets: each takes what is its own
        chosen = [v for v in chosen if v in dataset["volumes"]] or None
    if chosen is None:
        return None
    if chosen == "all":
        held_out = {e["volume"] for s in SPLITS[1:] for e in dataset[s] if e["roi_nm"] is None}
        labelled = [v for v, volume in dataset["volumes"].items() if "labels" in volume]
        return [v for v in labelled if v not in held_out]
    wanted = [chosen] if isinstance(chosen, str) else list(chosen)  # type: ignore[call-overload]
    for volume in wanted:
        if volume not in dataset["volumes"]:
            hint = nearest(volume, [*dataset["volumes"], "all"])
            raise ConfigError(f"`volumes`: dataset {name!r} has no volume {volume!r}; {hint}")
    return wanted


def check_chosen(chosen: object) -> None:
    """Refuses a `volumes` setting that names a dataset or a volume that nobody has."""
    if isinstance(chosen, Mapping):
        for name, value in chosen.items():
            load_dataset(name, {name: value})
        return
    if chosen is None:
        return
    wanted = [chosen] if isinstance(chosen, str) else list(chosen)  # type: ignore[call-overload]
    files = (read_yaml(_file("datasets", name)) for name in names("datasets"))
    known = {v for content in files for v in content.get("volumes", {})}
    for volume in wanted:
        if volume != "all" and volume not in known:
            raise ConfigError(
                f"`volumes`: no dataset has a volume {volume!r}; {nearest(volume, [*known, 'all'])}"
            )


def _spread_probabilities(entries: list[Settings]) -> None:
    """Makes the probabilities sum to 1; an entry without one weighs as the mean of the rest."""
    given = [entry["probability"] for entry in entries if entry["probability"] is not None]
    default = sum(given) / len(given) if given else 1.0
    weights = [default if e["probability"] is None else e["probability"] for e in entries]
    for entry, weight in zip(entries, weights, strict=True):
        entry["probability"] = weight / sum(weights)


def _overlaps(one: Settings | None, other: Settings | None) -> bool:
    """Whether two boxes share space; None is the whole volume."""
    if one is None or other is None:
        return True
    sides = zip(one["offset"], one["shape"], other["offset"], other["shape"], strict=True)
    return all(a < b + m and b < a + n for a, n, b, m in sides)


def _covers(outer: Settings | None, inner: Settings | None) -> bool:
    if outer is None or inner is None:
        return outer is None
    sides = zip(outer["offset"], outer["shape"], inner["offset"], inner["shape"], strict=True)
    return all(a <= b and b + m <= a + n for a, n, b, m in sides)


def _excluded(dataset: Settings, entry: Settings) -> list[Settings]:
    """Boxes within a training entry that validation and test keep for themselves."""
    boxes = []
    for split in SPLITS[1:]:
        for other in dataset[split]:
            same = other["volume"] == entry["volume"]
            if not same or not _overlaps(entry["roi_nm"], other["roi_nm"]):
                continue
            if _covers(other["roi_nm"], entry["roi_nm"]):
                raise ConfigError(
                    f"dataset {dataset['name']!r}: volume {entry['volume']!r} is in train and "
                    f"whole in {split}; give the {split} entry a smaller roi_nm"
                )
            boxes.append(other["roi_nm"])
    return boxes


# ---------------------------------------------------------------- networks


def _extended(name: str, seen: tuple[str, ...] = ()) -> Settings:
    """A network's file laid over those it extends, the last named winning."""
    path = _file("networks", name)
    if name in seen:
        raise ConfigError(f"{path}: `extends` runs in a circle: {' -> '.join([*seen, name])}")
    own = read_yaml(path)
    parents = own.pop("extends", [])
    merged: Settings = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        merged = merge(merged, _extended(parent, (*seen, name)))
    return merge(merged, own)


def load_network(name: str) -> Settings:
    """A network with what it extends laid under it, recipes and dataset overrides still apart."""
    network = _extended(name)
    where = f"config/networks/{name}.yaml"
    family = network.get("family", "lsd")
    if family not in FAMILIES:
        raise ConfigError(f"{where}: family {family!r}; {nearest(str(family), FAMILIES)}")
    check(network, FAMILIES[family], where)
    if network["name"] != name:
        raise ConfigError(f"{where}: `name: {network['name']}` must be {name!r}, the file's name")
    return network


def network_for(name: str, dataset: Mapping[str, Any]) -> Settings:
    """The network as it is trained on this dataset: recipe, then overrides, then what follows.

    ConfigError where the input shape does not fit the pooling.
    """
    network = load_network(name)
    check_kind(dataset, network)
    if network["family"] == "znn":
        return resolve(network, has_boundaries(dataset), not is_isotropic(dataset))
    if network["family"] == "elektronn":
        given = {"n_lab": dataset["examples"]["classes"]} if "examples" in dataset else {}
        return elektronn.resolve(
            {**given, **network},
            boundaries_drawn=has_boundaries(dataset),
            are_classes=has_classes(dataset),
            isotropic=is_isotropic(dataset),
        )
    if network["family"] == "seamless":
        return network
    recipes, overrides = network.pop("recipes"), network.pop("datasets", {})
    network = merge(network, recipes["isotropic" if is_isotropic(dataset) else "anisotropic"])
    family = dataset.get("weights_of", dataset["name"])
    network = merge(network, overrides.get(family, {}))
    if "lsd" in network and dataset.get("lsd_sigma_nm"):
        network["lsd"] = network["lsd"] | {"sigma_nm": dataset["lsd_sigma_nm"]}
    for key in ("input_shape", "inference_shape"):
        output_shape(network, network[key])
    if network["label_padding_nm"] == "auto":
        network["label_padding_nm"] = label_padding_nm(network, dataset["voxel_size_nm"])
    return network


def classifies_examples(network: Mapping[str, Any]) -> bool:
    """Whether a network answers once for a whole input, as read from its file."""
    mode = network.get("mode", elektronn.DEFAULTS["mode"])
    return network.get("family", "lsd") == "elektronn" and mode != "img-img"


def check_kind(dataset: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Refuses volumes for networks that classify whole inputs, and examples for all others."""
    name, whole = network["name"], classifies_examples(network)
    if whole == ("examples" in dataset):
        if (
            whole
            and network.get("n_lab", dataset["examples"]["classes"])
            != dataset["examples"]["classes"]
        ):
            raise ConfigError(
                f"network {name!r} has `n_lab: {network['n_lab']}`, and dataset "
                f"{dataset['name']!r} {dataset['examples']['classes']} classes; remove `n_lab`"
            )
        return
    fitting = [n for n in of_family("elektronn") if classifies_examples(_extended(n)) != whole]
    if whole:
        raise ConfigError(
            f"network {name!r} gives one class for a whole image, and dataset {dataset['name']!r} "
            "has volumes, whose voxels are labelled. Take a dataset with `examples`, such as "
            f"mnist, or a network of volumes, such as {', '.join([*fitting[:3], 'mtlsd'])}"
        )
    raise ConfigError(
        f"dataset {dataset['name']!r} has single images with a class each, and network {name!r} "
        f"(family {network['family']}) labels voxels of volumes. Take a network of mode img-scalar "
        f"or vect-scalar: {', '.join(fitting) or 'none is there'}"
    )


EXAMPLE_VERBS = ("train", "predict", "evaluate", "fetch", "package")


def check_verb(dataset: Mapping[str, Any], verb: str) -> None:
    """Refuses what cannot be done with single examples."""
    if "examples" in dataset and verb not in EXAMPLE_VERBS:
        raise ConfigError(
            f"{verb}_{dataset['name']}: dataset {dataset['name']!r} has single examples and no "
            f"volumes, so there is nothing to {verb.replace('_data', '')}; it can be: "
            f"{', '.join(EXAMPLE_VERBS)}"
        )


def has_boundaries(dataset: Mapping[str, Any]) -> bool:
    """Whether labels of different objects have voxels of 0 between them."""
    return bool(dataset.get("boundaries_drawn", is_planar(dataset)))


def has_classes(dataset: Mapping[str, Any]) -> bool:
    """Whether labels are numbers of classes; ConfigError where some are and others are not."""
    labels = {name: v["labels"] for name, v in dataset["volumes"].items() if "labels" in v}
    found = {name: source.get("objects") == CLASSES for name, source in labels.items()}
    if len(set(found.values())) > 1:
        other = next(name for name, are_classes in found.items() if not are_classes)
        raise ConfigError(
            f"dataset {dataset['name']!r}: labels of {other!r} are no `objects: {CLASSES}` as the "
            "others are; give all labels of one dataset in one kind"
        )
    return any(found.values())


def is_planar(dataset: Mapping[str, Any]) -> bool:
    """Whether labels are membranes, whose objects are found section by section."""
    kinds = {
        v["labels"].get("objects", "ids") for v in dataset["volumes"].values() if "labels" in v
    }
    return bool(kinds - set(NUMBERED))


def output_shape(network: Mapping[str, Any], input_shape: Sequence[int]) -> list[int]:
    """Voxels the U-Net gives for an input (z, y, x); ConfigError where pooling leaves a remainder.

    Valid convolutions, two a pass, and transposed convolutions (mala unet).
    """
    return [
        _axis_output(network, size, [factors[axis] for factors in network["downsample"]], axis)
        for axis, size in enumerate(input_shape)
    ]


def _axis_output(network: Mapping[str, Any], size: int, factors: list[int], axis: int) -> int:
    now = size - PASS_LOSS
    for factor in factors:
        if now % factor or now // factor <= PASS_LOSS:
            raise ConfigError(
                f"network {network['name']!r}: {size} voxels on axis {'zyx'[axis]} do not fit the "
                f"pooling by {factors}; {now} is not a multiple of {factor}, or too small"
            )
        now = now // factor - PASS_LOSS
    for factor in reversed(factors):
        now = now * factor - PASS_LOSS
    if now <= 0:
        raise ConfigError(
            f"network {network['name']!r}: {size} voxels on axis {'zyx'[axis]} leave no output"
        )
    return now


def label_padding_nm(network: Mapping[str, Any], voxel_size_nm: Sequence[int]) -> list[int]:
    """How far a batch may reach beyond the labels, nm.

    Half the output in z, half its diagonal in y and x (it may be rotated), and the context of the
    targets: the farthest neighbour, or 3 sigma of the descriptors (Sheridan et al. 2023, training
    scripts; gives their published numbers).
    """
    z, y, x = output_shape(network, network["input_shape"])
    half_diagonal = math.ceil(math.hypot(y, x) / 2)
    reach = target_context(network, voxel_size_nm)
    half = (math.ceil(z / 2), half_diagonal, half_diagonal)
    return [(h + r) * v for h, r, v in zip(half, reach, voxel_size_nm, strict=True)]


def target_context(network: Mapping[str, Any], voxel_size_nm: Sequence[int]) -> list[int]:
    """Voxels around a batch that its targets look at."""
    far = [max((abs(o[a]) for o in network["neighborhood"]), default=0) for a in range(3)]
    if "lsd" not in network:
        return far
    three_sigma = [math.ceil(3 * network["lsd"]["sigma_nm"] / v) for v in voxel_size_nm]
    return [max(pair) for pair in zip(far, three_sigma, strict=True)]


def context_network(network: Mapping[str, Any], dataset: Mapping[str, Any]) -> Settings | None:
    """The network whose descriptors an auto-context network reads, None for the others."""
    name = network.get("autocontext")
    return network_for(name, dataset) if name else None


def head_names(network: Mapping[str, Any]) -> list[str]:
    """The network's outputs, in order; none of one that aligns."""
    return [head["name"] for head in network.get("heads", [])]


def of_family(family: str) -> list[str]:
    """Names of the networks of a family; files that cannot be read are of none."""
    found = []
    for name in names("networks"):
        try:
            if _extended(name).get("family", "lsd") == family:
                found.append(name)
        except ConfigError:
            continue  # whoever asks for that network gets the error
    return found


def answers_once(name: str) -> bool:
    """Whether a network classifies whole inputs; a file that cannot be read counts as none."""
    try:
        return classifies_examples(_extended(name))
    except ConfigError:
        return False


def fetched_examples() -> list[str]:
    """Datasets of single examples that say where their files are fetched."""
    found = {name: read_yaml(_file("datasets", name)) for name in names("datasets")}
    return [n for n, content in found.items() if "fetch" in content.get("examples", {})]


def check_networks(wanted: Iterable[str]) -> None:
    """Refuses the name of no network, with the nearest one (ConfigError)."""
    known = names("networks")
    for name in wanted:
        if name not in known:
            raise ConfigError(f"`compare: networks`: no network {name!r}; {nearest(name, known)}")


def predicts_boundaries(name: str) -> bool:
    """Whether a network predicts interior and membrane, which are scored as they are.

    A file that cannot be read counts as none: whoever asks for that network gets the error.
    """
    try:
        network = _extended(name)
        return network.get("family") == "znn" and _out_type(network) == BOUNDARY
    except ConfigError:
        return False


def _out_type(network: Mapping[str, Any]) -> str:
    """`out_type` of a network of the family znn, from its file or its .cfg."""
    if "cfg" in network:
        return str(read_cfg(Path(network["cfg"]))["out_type"])
    return str(network.get("parameters", {}).get("out_type", BOUNDARY))


def net_prefixes() -> list[str]:
    """Where networks are written by .cfg files that networks are read from."""
    found = []
    for name in of_family("znn"):
        try:
            network = _extended(name)
            if "cfg" in network:
                found.append(read_cfg(Path(network["cfg"]))["train_net_prefix"])
        except ConfigError:
            continue  # whoever asks for that network gets the error
    return [prefix for prefix in found if prefix]


def labels_voxels(name: str) -> bool:
    """Whether a network gives classes of voxels, of the family elektronn or of ZNN's `semantic`.

    A file that cannot be read counts as none: whoever asks for that network gets the error.
    """
    try:
        network = _extended(name)
        if network.get("family") == "znn":
            return _out_type(network) == "semantic"
    except ConfigError:
        return False
    return network.get("family") == "elektronn" and not classifies_examples(network)


# ---------------------------------------------------------------- pairs and targets


def check_pair(dataset: Mapping[str, Any], network: Mapping[str, Any], verb: str) -> None:
    """Refuses what cannot work, before anything runs, with the reason."""
    pair = f"{verb}_{dataset['name']}_{network['name']}"
    check_verb(dataset, verb)
    _check_verb(pair, network, verb)
    if "examples" in dataset:
        return
    if network["family"] == "seamless":
        sections.check_pair(pair, dataset, network)
        return
    if not dataset["train"] and "alignment" in dataset:
        raise ConfigError(
            f"{pair}: dataset {dataset['name']!r} holds sections to align and no labels; take a "
            f"network of the family seamless: {', '.join(of_family('seamless')) or 'none here'}"
        )
    if not dataset["train"] and (verb == "train" or "weights_of" not in dataset):
        parent = dataset.get("weights_of")
        hint = f"; it is predicted with what was published for {parent!r}" if parent else ""
        raise ConfigError(f"{pair}: dataset {dataset['name']!r} has no `train` entry{hint}")
    _check_maps(pair, dataset, network)
    _check_sections(pair, dataset, network)
    _check_border_sections(pair, dataset, network, verb)
    _check_inputs(pair, dataset, network)
    _check_lazy_labels(pair, dataset, network)
    _check_outputs(pair, dataset, network, verb)
    _check_descriptors(pair, dataset, network)
    _check_autocontext(pair, dataset, network)
    if verb == "evaluate" and head_names(network) == [BOUNDARY]:
        _check_labels(pair, dataset)
    elif verb == "evaluate" and head_names(network) == [HEAD]:
        _check_classes(pair, dataset)
    elif verb in ("segment", "evaluate", "export"):
        _check_affinities(pair, dataset, network, verb)
        _check_validation(pair, dataset)
    if verb == "evaluate" and not scorable(dataset, "test"):
        raise ConfigError(
            f"{pair}: dataset {dataset['name']!r} has no `test` entry with labels or skeletons"
        )


ALIGNMENT_VERBS = ("train", "align", "evaluate", "view", "package")
"""What can be done with networks of the family seamless."""


def _check_verb(pair: str, network: Mapping[str, Any], verb: str) -> None:
    """Sections are aligned by one family, which can do nothing else."""
    if network["family"] == "seamless" and verb not in ALIGNMENT_VERBS:
        raise ConfigError(
            f"{pair}: network {network['name']!r} aligns sections; it serves the verbs "
            f"{', '.join(ALIGNMENT_VERBS)}"
        )
    if network["family"] != "seamless" and verb == "align":
        raise ConfigError(
            f"{pair}: network {network['name']!r} of the family {network['family']!r} aligns "
            f"nothing; take one of {', '.join(of_family('seamless'))}"
        )


def _check_affinities(
    pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any], verb: str
) -> None:
    if verb == "segment" and interior_map(network):
        if is_planar(dataset):
            raise ConfigError(
                f"{pair}: the objects of dataset {dataset['name']!r} end with each section, so "
                "there is nothing to segment across them; evaluate_ scores its boundaries"
            )
    elif "affs" not in head_names(network):
        raise ConfigError(
            f"{pair}: network {network['name']!r} predicts no affinities, which a segmentation is "
            "made from; take mtlsd or baseline"
        )


def _check_sections(pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Membranes say nothing about what belongs together from section to section."""
    if not is_planar(dataset) or is_scored_as_it_is(network):
        return
    if network.get("out_type") == BOUNDARY:  # several outputs of boundaries
        return
    raise ConfigError(
        f"{pair}: the labels of dataset {dataset['name']!r} are membranes, whose objects end with "
        f"each section; network {network['name']!r} predicts {', '.join(head_names(network))}, "
        "which need objects that go on across sections. Take a network that predicts boundaries, "
        "such as n4 or vd2d"
    )


def _check_border_sections(
    pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any], verb: str
) -> None:
    """Membranes are scored section by section, and stacks of them are no thicker than some are."""
    if verb != "evaluate" or not is_planar(dataset) or network["family"] != "elektronn":
        return
    if network["n_dim"] == 3 and network["predict_padding"] == "valid":
        raise ConfigError(
            f"{pair}: network {network['name']!r} sees several sections and predicts none near the "
            f"border of a stack, and each section of dataset {dataset['name']!r} is scored. Set "
            "`predict_padding: symmetric` in a network that `extends` it, or take n4 or vd2d"
        )


def _check_maps(pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """A map for each class needs labels that are classes."""
    if network.get("out_type") != "semantic" or has_classes(dataset):
        return
    count = network["n_lab"]
    raise ConfigError(
        f"{pair}: network {network['name']!r} has {count} maps, each a class of voxels (`out_type: "
        f"semantic`), and the labels of dataset {dataset['name']!r} are no classes. Give labels "
        f"with `objects: classes` whose voxels are 0 to {count - 1} (`class_values` says which "
        "stored values make each class), or take a network of boundaries, such as n4"
    )


def _check_inputs(pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Every input node but the first is an image of its own."""
    for node in network.get("inputs", [])[1:]:
        if node in network.get("recursive", {}):
            _check_recursive(pair, dataset, network, node)
            continue
        for name, volume in dataset["volumes"].items():
            if node not in volume.get("inputs", {}):
                raise ConfigError(
                    f"{pair}: network {network['name']!r} reads {', '.join(network['inputs'])}; "
                    f"volume {name!r} has no image for {node!r}. Add `inputs: {{{node}: {{path: "
                    "...}}` to it"
                )


def _check_lazy_labels(pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Lazy labels name classes of the network; what needs them, or weights of voxels, has them."""
    if network["family"] != "elektronn" or "volumes" not in dataset:
        return
    told = {n: v["lazy_labels"] for n, v in dataset["volumes"].items() if "lazy_labels" in v}
    if network["label_prop_thresh"] is not None and not told:
        raise ConfigError(
            f"{pair}: `label_prop_thresh` trains on what is predicted of classes that were not "
            f"looked for, and no volume of dataset {dataset['name']!r} says that there are any; "
            "add `lazy_labels: {labelled: [...]}` to a volume, or drop it"
        )
    if told and network["target"] != "nll":
        raise ConfigError(
            f"{pair}: volume {next(iter(told))!r} has `lazy_labels`, which `target: "
            f"{network['target']}` knows nothing of; only nll does"
        )
    for name, classes in told.items():
        wrong = sorted({c for chosen in classes.values() for c in chosen if c >= network["n_lab"]})
        if wrong:
            raise ConfigError(
                f"{pair}: `lazy_labels` of volume {name!r} name {wrong}, and network "
                f"{network['name']!r} has the classes 0 to {network['n_lab'] - 1}"
            )
    _check_example_weights(pair, dataset, network)


def _check_example_weights(
    pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any]
) -> None:
    if not network["use_example_weights"]:
        return
    if network["target"] != "nll":
        raise ConfigError(
            f"{pair}: `use_example_weights` needs `target: nll`, not {network['target']!r}"
        )
    used = {e["volume"] for part in ("train", "validation") for e in dataset.get(part, [])}
    for name in sorted(used):
        if elektronn.EXAMPLE_WEIGHTS not in dataset["volumes"][name].get("inputs", {}):
            raise ConfigError(
                f"{pair}: `use_example_weights` needs weights of the voxels of volume {name!r}; "
                f"add `inputs: {{{elektronn.EXAMPLE_WEIGHTS}: {{path: ...}}}}` to it"
            )


LABELLED_VERBS = ("train", "package", "predict", "view", "crate", "bundle")
"""What can be done with networks of several outputs: all that needs no score of one of them."""


def _check_outputs(
    pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any], verb: str
) -> None:
    """Of several output nodes each has labels of its own; which one is scored nobody says."""
    heads = network.get("heads", [])
    if network["family"] != "znn" or len(heads) < 2:
        return
    nodes = ", ".join(head["node"] for head in heads)
    if verb not in LABELLED_VERBS:
        raise ConfigError(
            f"{pair}: network {network['name']!r} has the outputs {nodes}; it serves the verbs "
            f"{', '.join(LABELLED_VERBS)}. To {verb} one of them, make a network that ends in it "
            "and begin from this one's h5 (`init`)"
        )
    for entry in [*dataset["train"], *dataset["validation"]]:
        volume = dataset["volumes"][entry["volume"]]
        for head in heads if "labels" in volume else ():
            if output_labels(volume, network, head["node"]) is None:
                raise ConfigError(
                    f"{pair}: network {network['name']!r} has the outputs {nodes}; volume "
                    f"{entry['volume']!r} has no labels for {head['node']!r}. Add `outputs: "
                    f"{{{head['node']}: {{path: ...}}}}` to it, or `{head['node']} = N` to its "
                    "[sample] in the .spec"
                )


def interior_map(network: Mapping[str, Any]) -> str | None:
    """The output whose channel 0 is the inside of cells; None where there is no such output.

    Of classes that is so where they were made from objects: 0 inside, 1 the boundary.
    """
    if head_names(network) == [BOUNDARY]:
        return BOUNDARY
    of_objects = not network.get("labels_are_classes", True)
    if head_names(network) == [HEAD] and of_objects and network["n_lab"] == 2:
        return HEAD
    return None


def _check_recursive(
    pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any], node: str
) -> None:
    """The network run first predicts the whole volume, a map of which is an input."""
    told = network["recursive"][node]
    if all(node in volume.get("inputs", {}) for volume in dataset["volumes"].values()):
        return
    first = network_for(told["network"], dataset)
    heads = first.get("heads", [])
    if first["family"] != "znn" or "recursive" in first or len(heads) != 1:
        reason = "is no network of the family znn with one output that reads images alone"
    elif told["channel"] >= heads[0]["channels"]:
        reason = f"has the maps 0 to {heads[0]['channels'] - 1}, and `channel` is {told['channel']}"
    elif first["predict_padding"] != "symmetric":
        reason = "has `is_bd_mirror: false`, so its prediction is smaller than the image"
    elif elsewhere := [n for n, v in dataset["volumes"].items() if is_address(v["raw"]["path"])]:
        reason = (
            f"would predict all of {elsewhere[0]!r}, which is read where it lies; give `inputs`"
        )
    else:
        check_pair(dataset, first, "predict")
        return
    raise ConfigError(
        f"{pair}: {node!r} of network {network['name']!r} reads what {first['name']!r} predicts; "
        f"{first['name']!r} {reason}"
    )


def is_scored_as_it_is(network: Mapping[str, Any]) -> bool:
    """Whether a network's prediction is compared with labels, and not what is segmented of it."""
    return head_names(network) in ([BOUNDARY], [HEAD])


def _check_classes(pair: str, dataset: Mapping[str, Any]) -> None:
    """Classes are scored on test labels alone; no threshold is chosen."""
    if not any("labels" in dataset["volumes"][e["volume"]] for e in dataset["test"]):
        raise ConfigError(
            f"{pair}: dataset {dataset['name']!r} has no `test` entry with labels, on which error "
            "and likelihood are measured"
        )


def _check_labels(pair: str, dataset: Mapping[str, Any]) -> None:
    """Boundaries are scored on labels alone, and the threshold on validation."""
    _check_validation(pair, dataset)
    for split in SPLITS[1:]:
        for entry in dataset[split]:
            if "labels" not in dataset["volumes"][entry["volume"]] and split == "validation":
                raise ConfigError(
                    f"{pair}: volume {entry['volume']!r} of `validation` has no labels, on which "
                    "boundaries are scored"
                )


def _check_descriptors(pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    if "lsd" not in network:
        return
    sigma = network["lsd"]["sigma_nm"]
    if sigma < max(dataset["voxel_size_nm"]):
        raise ConfigError(
            f"{pair}: descriptors of {sigma} nm see nothing on voxels of "
            f"{dataset['voxel_size_nm']} nm; set `lsd_sigma_nm` of the dataset higher"
        )


def _check_autocontext(pair: str, dataset: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    context = context_network(network, dataset)
    given = 0 if context is None else sum(head["channels"] for head in context["heads"])
    if context is not None and head_names(context) != ["lsds"]:
        raise ConfigError(
            f"{pair}: autocontext {context['name']!r} predicts {head_names(context)}; a network "
            "that predicts `lsds` alone is needed, such as lsd"
        )
    if network["family"] != "lsd":
        return
    if network["input_channels"] not in ((given, given + 1) if given else (1,)):
        raise ConfigError(
            f"{pair}: {network['input_channels']} input channels, but raw has 1 and autocontext "
            f"{network.get('autocontext')!r} gives {given}"
        )


def _check_validation(pair: str, dataset: Mapping[str, Any]) -> None:
    if not dataset["validation"]:
        raise ConfigError(
            f"{pair}: dataset {dataset['name']!r} has no `validation` entry, on which the "
            "threshold is chosen; a part of a training volume will do (left out of training then)"
        )


def scorable(dataset: Mapping[str, Any], split: str) -> list[Settings]:
    """The entries of a split that have a truth: labels of their volume, or skeletons."""
    volumes = dataset["volumes"]
    return [e for e in dataset[split] if "labels" in volumes[e["volume"]] or e["skeletons"]]


def with_skeletons(dataset: Mapping[str, Any]) -> list[str]:
    """The volumes whose test entries have skeletons; ConfigError where there are none."""
    found = [entry["volume"] for entry in dataset["test"] if entry["skeletons"]]
    if not found:
        raise ConfigError(
            f"dataset {dataset['name']!r} has no `test` entry with `skeletons`, which `export: "
            "{layers: [nodes]}` makes tables of; leave out nodes, or add them to an entry"
        )
    return list(dict.fromkeys(found))


def check_segmentation(config: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Refuses a method of segmentation that the network's affinities do not serve."""
    far = any(max(abs(step) for step in offset) > 1 for offset in network["neighborhood"])
    if config["segment"]["method"] == "mutex" and not far:
        raise ConfigError(
            f"segment.method 'mutex' needs long-range affinities, and network {network['name']!r} "
            "has direct ones only; take hist_quant_75"
        )
    if config["shards"] > 1 and config["segment"]["method"] == "mutex":
        raise ConfigError("segment.method 'mutex' sees a whole volume at once; set `shards: 1`")
    if config["shards"] > 1 and not config["segment"]["block_shape"]:
        raise ConfigError(
            f"`shards: {config['shards']}` needs the blocks that are shared out; set "
            "`segment: block_shape` (z, y, x voxels), for example [256, 512, 512]"
        )


def check_legacy_loss(network: Mapping[str, Any], iterations: int) -> None:
    """Refuses a training that would come to MALIS, which the legacy engine does not have here."""
    loss = network["loss"]
    if loss["kind"] == "malis" and iterations > loss["start_iteration"]:
        raise ConfigError(
            f"network {network['name']!r} is trained with MALIS after iteration "
            f"{loss['start_iteration']}, which the legacy engine does not have here; ask for fewer "
            "iterations, predict with `weights: published`, or use `engine: modern`"
        )


def check_legacy_batch(network: Mapping[str, Any], gpus: int) -> None:
    """Refuses a training on more than one sample at a time, which the legacy engine cannot do."""
    size = network.get("batch_size", 1)
    if size > 1 or gpus > 1:
        raise ConfigError(
            f"network {network['name']!r}: `engine: legacy` trains on one sample at a time on one "
            f"GPU, and `batch_size` is {size}, `gpus` {gpus}; set both to 1 (to predict on several "
            "GPUs, use `engine: modern`)"
        )


def check_target(target: str, known: Iterable[str], verbs: Iterable[str]) -> None:
    """Refuses a target that looks like verb_dataset_network and is none, with the nearest one."""
    known = set(known)
    verb = next(
        (v for v in sorted(verbs, key=len, reverse=True) if target.startswith(v + "_")), None
    )
    if verb is None or target in known:
        return
    rest = target.removeprefix(verb + "_")
    datasets = [d for d in names("datasets") if rest == d or rest.startswith(d + "_")]
    if not datasets:
        dataset = rest.split("_")[0]
        raise ConfigError(
            f"{target}: no dataset {dataset!r}; {nearest(dataset, names('datasets'))}"
        )
    network = rest.removeprefix(max(datasets, key=len)).removeprefix("_")
    if not network:
        raise ConfigError(f"{target}: name a network too; allowed: {', '.join(names('networks'))}")
    raise ConfigError(f"{target}: no network {network!r}; {nearest(network, names('networks'))}")

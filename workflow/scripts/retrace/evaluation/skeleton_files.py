"""Skeletons in files: node and edge tables (.npz, .json), and the paper's MongoDB dumps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from retrace.config.dataset_model import SkeletonSource
from retrace.errors import DataError
from retrace.evaluation.skeletons import Skeletons, connected_parts, edges_among
from retrace.formats.mongo_dump import read_columns
from retrace.geometry import NmBox
from retrace.storage.store_check import check_folder

FIELDS = ("id", "position_nm", "skeleton", "edges")
"""The fields of a table; see `read_skeletons`."""


def read_skeletons(path: Path) -> Skeletons:
    """The skeletons in a table of nodes and edges, .npz or .json.

    Its fields are id (nodes,), position_nm (nodes, 3) z y x, skeleton (nodes,) and edges (edges, 2)
    of ids. Raises DataError for a missing field, wrong shapes or an edge to an unknown node.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the skeletons as .npz or .json")
    table = json.loads(path.read_text()) if path.suffix == ".json" else dict(np.load(path))
    missing = [name for name in FIELDS if name not in table]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(FIELDS)}")
    ids = np.asarray(table["id"], np.uint64)
    position = np.asarray(table["position_nm"], np.float64).reshape(-1, 3)
    skeleton = np.asarray(table["skeleton"], np.int64)
    edges = np.asarray(table["edges"], np.uint64).reshape(-1, 2)
    if not len(ids) == len(position) == len(skeleton):
        raise DataError(f"{path}: id, position_nm and skeleton must have one row per node")
    skeletons = Skeletons(position, skeleton, _rows(path, ids, edges))
    _check_one_skeleton_per_edge(path, skeletons)
    return skeletons


def _check_one_skeleton_per_edge(path: Path, skeletons: Skeletons) -> None:
    ends = skeletons.skeleton[skeletons.edges]
    if (ends[:, 0] != ends[:, 1]).any():
        raise DataError(f"{path}: an edge joins two skeletons; each skeleton id must be one tree")


def read_dump(folder: Path, name: str) -> tuple[np.ndarray, Skeletons]:
    """Node ids (nodes,) and skeletons of a MongoDB dump that the authors of the paper published.

    NAME.nodes.bson has id, z, y, x (nm); NAME.edges.bson has source and target. Each connected part
    is one skeleton. Edges to nodes that are not in the dump are ignored, as by MongoDB's reader.
    Raises DataError for a dump without nodes or with two nodes of one id.
    """
    nodes = read_columns(folder / f"{name}.nodes.bson", ["id", "z", "y", "x"])
    edges = read_columns(folder / f"{name}.edges.bson", ["source", "target"])
    ids = nodes["id"].astype(np.uint64)
    if not len(ids) or len(np.unique(ids)) != len(ids):
        raise DataError(
            f"{folder}/{name}.nodes.bson has no nodes, or two of one id; fetch it again"
        )
    pairs = np.stack([edges["source"], edges["target"]], axis=1).astype(np.uint64)
    pairs = pairs.reshape(-1, 2)[np.isin(pairs, ids).all(axis=1)]
    rows = _rows(folder, ids, pairs)
    position = np.stack([nodes[axis] for axis in "zyx"], axis=1).astype(np.float64)
    return ids, Skeletons(position, connected_parts(len(ids), rows), rows)


def read_masked(folder: Path, name: str, region: str) -> Skeletons:
    """The nodes of a published region that are in neuropil, in the parts that the paper scored.

    `nodes_NAME_components_REGION_masked` has the component_id of each node (negative: none), and
    `nodes_NAME_mask_REGION_masked` whether the node is `masked`, which means kept.
    Raises DataError if no node is kept.
    """
    ids, whole = read_dump(folder, name)
    parts_file = folder / f"nodes_{name}_components_{region}_masked.bson"
    parts = read_columns(parts_file, ["id", "component_id"])
    mask = read_columns(folder / f"nodes_{name}_mask_{region}_masked.bson", ["id", "masked"])
    component_of_node = dict(zip(parts["id"].tolist(), parts["component_id"].tolist(), strict=True))
    kept = set(mask["id"][mask["masked"].astype(bool)].tolist())
    component = np.array(
        [component_of_node.get(n, -1) if n in kept else -1 for n in ids.tolist()], np.int64
    )
    keep = component >= 0
    if not keep.any():
        raise DataError(
            f"{parts_file} and its mask keep no node of {name}; is it another region's?"
        )
    # Ground truth 0 is ignored, and components are numbered from 0.
    edges = edges_among(keep, whole.edges)
    skeletons = Skeletons(whole.position_nm[keep], component[keep] + 1, edges)
    _check_one_skeleton_per_edge(parts_file, skeletons)
    return skeletons


def open_skeletons(source: SkeletonSource, box: NmBox) -> dict[str, Skeletons]:
    """The skeletons of an entry, cropped to `box`.

    `skeletons`: the parts inside the box. `skeletons_masked`, only if a published region is named:
    its nodes in neuropil, as the paper scored them; not cropped.
    """
    path = Path(source.path)
    check_folder(path)
    if not path.is_dir():
        return {"skeletons": read_skeletons(path).within(box)}
    name = source.name or ""
    sets = {"skeletons": read_dump(path, name)[1].within(box)}
    if source.region:
        sets["skeletons_masked"] = read_masked(path, name, source.region)
    return sets


def _rows(path: Path, ids: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The edges (edges, 2) as rows of `ids` (nodes,); DataError for an unknown id."""
    order = np.argsort(ids)
    row = np.searchsorted(ids[order], edges).clip(max=max(len(ids) - 1, 0))
    if edges.size and (not len(ids) or (ids[order][row] != edges).any()):
        raise DataError(f"{path}: an edge names a node id that is not in `id`")
    return order[row] if edges.size else np.zeros((0, 2), np.int64)

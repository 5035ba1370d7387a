"""Skeletons: a small node and edge table, and the expected run length on it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrace.errors import DataError
from retrace.evaluation.contingency import count_block
from retrace.evaluation.counting import Counted
from retrace.evaluation.scores import score
from retrace.formats.mongo_dump import read_columns
from retrace.geometry import NmBox, VoxelBox, triple
from retrace.storage.volumes import Volume

FIELDS = ("id", "position_nm", "skeleton", "edges")


@dataclass(frozen=True)
class Skeletons:
    """Nodes with position (nodes, 3) nm z, y, x and skeleton id > 0; edges are pairs of rows.

    Both ends of an edge belong to the same skeleton.
    """

    position_nm: np.ndarray
    skeleton: np.ndarray
    edges: np.ndarray

    @property
    def edge_length_nm(self) -> np.ndarray:
        """Euclidean length of each edge, (edges,) nm."""
        begin, end = self.position_nm[self.edges[:, 0]], self.position_nm[self.edges[:, 1]]
        return np.asarray(np.linalg.norm(end - begin, axis=1))

    def within(self, box: NmBox) -> Skeletons:
        """The parts inside `box`; each connected part becomes a skeleton of its own.

        Sheridan et al. 2023 crop their skeletons to each region the same way.
        """
        low, high = np.array(box.offset), np.array(box.end)
        inside = np.all((self.position_nm >= low) & (self.position_nm < high), axis=1)
        edges = _edges_among(inside, self.edges)
        return Skeletons(self.position_nm[inside], _parts(int(inside.sum()), edges), edges)


def _edges_among(keep: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The edges between nodes of `keep`, as rows of the nodes that are kept."""
    row = np.cumsum(keep) - 1
    return np.asarray(row[edges[np.all(keep[edges], axis=1)]])


def _parts(count: int, edges: np.ndarray) -> np.ndarray:
    """Ids from 1 of the connected parts of `count` nodes, (count,)."""
    links = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    return connected_components(links, directed=False)[1].astype(np.int64) + 1


@dataclass(frozen=True)
class RunLength:
    """Expected run length in nm, the most a perfect segmentation reaches, and merged segments."""

    erl_nm: float
    max_erl_nm: float
    merging_segments: int

    @property
    def nerl(self) -> float:
        """ERL / max ERL, in [0, 1]."""
        return self.erl_nm / self.max_erl_nm


def read_skeletons(path: Path) -> Skeletons:
    """Reads a node and edge table, .npz or .json, with the fields of `FIELDS`.

    id (nodes,), position_nm (nodes, 3) z y x, skeleton (nodes,) and edges (edges, 2) of ids.
    Raises DataError for a missing field, wrong shapes or an edge to an unknown node.
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
    found = Skeletons(position, skeleton, _rows(path, ids, edges))
    _check_trees(path, found)
    return found


def _check_trees(path: Path, skeletons: Skeletons) -> None:
    ends = skeletons.skeleton[skeletons.edges]
    if (ends[:, 0] != ends[:, 1]).any():
        raise DataError(f"{path}: an edge joins two skeletons; each skeleton id must be one tree")


def read_dump(folder: Path, name: str) -> tuple[np.ndarray, Skeletons]:
    """Node ids (nodes,) and skeletons of the MongoDB dump that the paper's authors published.

    NAME.nodes.bson has id, z, y, x (nm), NAME.edges.bson source and target; every connected part
    is a skeleton. An edge to a node that is not in the dump is left out, as MongoDB's reader did.
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
    return ids, Skeletons(position, _parts(len(ids), rows), rows)


def read_masked(folder: Path, name: str, region: str) -> Skeletons:
    """The nodes of one published region that lie in neuropil, in the parts that were scored.

    `nodes_NAME_components_REGION_masked` gives each node's component_id (below 0: none),
    `nodes_NAME_mask_REGION_masked` whether it is `masked`, which means kept.
    """
    ids, whole = read_dump(folder, name)
    parts_file = folder / f"nodes_{name}_components_{region}_masked.bson"
    parts = read_columns(parts_file, ["id", "component_id"])
    mask = read_columns(folder / f"nodes_{name}_mask_{region}_masked.bson", ["id", "masked"])
    of_part = dict(zip(parts["id"].tolist(), parts["component_id"].tolist(), strict=True))
    kept = set(mask["id"][mask["masked"].astype(bool)].tolist())
    component = np.array([of_part.get(n, -1) if n in kept else -1 for n in ids.tolist()], np.int64)
    keep = component >= 0
    if not keep.any():
        raise DataError(
            f"{parts_file} and its mask keep no node of {name}; is it another region's?"
        )
    # Truth 0 would be ignored, and a component may be numbered 0.
    found = Skeletons(whole.position_nm[keep], component[keep] + 1, _edges_among(keep, whole.edges))
    _check_trees(parts_file, found)
    return found


def open_skeletons(source: Mapping[str, Any], box: NmBox) -> dict[str, Skeletons]:
    """What an entry's `skeletons` {path, name, region} gives, cut to `box`.

    `skeletons`: the parts inside the box. `skeletons_masked`, where a published region is named:
    its nodes in neuropil as they were scored.
    """
    path = Path(source["path"])
    if not path.is_dir():
        return {"skeletons": read_skeletons(path).within(box)}
    name = source.get("name") or ""
    sets = {"skeletons": read_dump(path, name)[1].within(box)}
    if source.get("region"):
        sets["skeletons_masked"] = read_masked(path, name, source["region"])
    return sets


def _rows(path: Path, ids: np.ndarray, edges: np.ndarray) -> np.ndarray:
    order = np.argsort(ids)
    row = np.searchsorted(ids[order], edges).clip(max=max(len(ids) - 1, 0))
    if edges.size and (not len(ids) or (ids[order][row] != edges).any()):
        raise DataError(f"{path}: an edge names a node id that is not in `id`")
    return order[row] if edges.size else np.zeros((0, 2), np.int64)


def write_skeletons(path: Path, skeletons: Skeletons) -> None:
    """Writes the .npz table that `read_skeletons` reads, node rows as ids."""
    np.savez_compressed(
        path,
        id=np.arange(len(skeletons.skeleton), dtype=np.uint64),
        position_nm=skeletons.position_nm,
        skeleton=skeletons.skeleton,
        edges=skeletons.edges.astype(np.uint64),
    )


def sample_nodes(segmentation: Volume, skeletons: Skeletons, tile: int = 256) -> np.ndarray:
    """The segment at each node, (nodes,) uint64; 0 outside the volume.

    Each tile of `tile`^3 voxels that holds nodes is read once, cut to the nodes in it.
    """
    voxels = np.floor(skeletons.position_nm / segmentation.voxel_size_nm).astype(np.int64)
    box = segmentation.box
    inside = ((voxels >= box.offset) & (voxels < box.end)).all(axis=1)
    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for node in np.flatnonzero(inside):
        members[tuple((voxels[node] - box.offset) // tile)].append(int(node))
    result = np.zeros(len(voxels), np.uint64)
    for nodes in members.values():
        at = voxels[nodes]
        low = at.min(axis=0)
        extent = at.max(axis=0) - low + 1
        data = segmentation.read(VoxelBox(triple(low.tolist()), triple(extent.tolist())))
        result[nodes] = data[tuple((at - low).T)]
    return result


def count_nodes(segmentation: Volume, skeletons: Skeletons) -> Counted:
    """How many nodes each pair of segment and skeleton shares: VOI over nodes, as over voxels."""
    if not len(skeletons.skeleton):
        raise DataError(f"no skeleton node lies inside {segmentation.name}; correct `roi_nm`")
    table = count_block(sample_nodes(segmentation, skeletons), skeletons.skeleton)
    return Counted(table, table.voxels)


def run_length(
    skeletons: Skeletons, node_segments: np.ndarray, merge_threshold: int = 1
) -> RunLength:
    """Expected run length (Januszewski et al. 2018; spec as in funlib.evaluate).

    An edge is correct if both ends lie in the same segment, which is neither 0 nor merging. A
    segment is merging if it touches two or more skeletons, each with at least `merge_threshold`
    nodes. ERL is the length-weighted mean over skeletons of sum(correct length per segment)^2 /
    skeleton length. `node_segments` has shape (nodes,). Raises DataError without edges.
    """
    lengths = skeletons.edge_length_nm
    total = float(lengths.sum())
    if not total:
        raise DataError("the skeletons have no cable inside the scored region; ERL needs edges")
    merging = merging_segments(skeletons.skeleton, node_segments, merge_threshold)
    begin, end = node_segments[skeletons.edges].T
    correct = (begin == end) & (begin != 0) & ~np.isin(begin, merging)
    owner = skeletons.skeleton[skeletons.edges[:, 0]]
    return RunLength(
        _squared_runs(owner[correct], begin[correct], lengths[correct]) / total,
        _squared_runs(owner, owner, lengths) / total,
        int(np.count_nonzero(merging)),
    )


def merging_segments(
    skeleton: np.ndarray, segments: np.ndarray, merge_threshold: int
) -> np.ndarray:
    """Segments that touch two or more skeletons, each with at least `merge_threshold` nodes."""
    pairs, nodes = np.unique(
        np.stack([segments.astype(np.uint64), skeleton.astype(np.uint64)]),
        axis=1,
        return_counts=True,
    )
    ids, touched = np.unique(pairs[0][nodes >= merge_threshold], return_counts=True)
    return np.asarray(ids[touched >= 2])


def _squared_runs(owner: np.ndarray, segment: np.ndarray, lengths: np.ndarray) -> float:
    if not len(lengths):
        return 0.0
    pairs = np.stack([owner.astype(np.uint64), segment.astype(np.uint64)])
    _, inverse = np.unique(pairs, axis=1, return_inverse=True)
    return float((np.bincount(inverse.ravel(), weights=lengths) ** 2).sum())


def skeleton_scores(
    skeletons: Skeletons, node_segments: np.ndarray, merge_threshold: int
) -> dict[str, float]:
    """ERL, nERL and node-wise VOI of one assignment of segments to nodes (nodes,)."""
    runs = run_length(skeletons, node_segments, merge_threshold)
    nodes = score(count_block(node_segments, skeletons.skeleton))
    return {
        "erl_nm": runs.erl_nm,
        "max_erl_nm": runs.max_erl_nm,
        "nerl": runs.nerl,
        "merging_segments": runs.merging_segments,
        "node_voi_split": nodes.voi_split,
        "node_voi_merge": nodes.voi_merge,
        "nodes": len(skeletons.skeleton),
        "components": len(np.unique(skeletons.skeleton)),
        "segments": len(np.unique(node_segments)),
        "path_length_nm": float(skeletons.edge_length_nm.sum()),
    }

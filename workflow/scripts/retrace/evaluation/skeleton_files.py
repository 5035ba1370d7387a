"""Skeletons in files: node and edge tables (.npz, .json), and the paper's MongoDB dumps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retrace.config.dataset_model import SkeletonSource
from retrace.errors import DataError
from retrace.evaluation.skeleton_checks import (
    check_distinct,
    check_one_skeleton_per_edge,
    check_shape,
    finite_positions,
    rows_of,
)
from retrace.evaluation.skeletons import Skeletons, connected_parts, edges_among
from retrace.formats.label_ids import exact_integers
from retrace.formats.mongo_dump import read_columns
from retrace.formats.npz import opened_npz
from retrace.geometry import NmBox
from retrace.reading import read_json_object, reading_content
from retrace.storage.store_check import check_folder

FIELDS = ("id", "position_nm", "skeleton", "edges")
"""The fields of a table; see `read_skeletons`."""
ID_FIELDS = ("id", "skeleton", "edges")
"""Those with whole numbers."""


def read_skeletons(path: Path) -> Skeletons:
    """The skeletons in a table of nodes and edges, .npz or .json.

    Its fields are id (nodes,), position_nm (nodes, 3) z y x, skeleton (nodes,) and edges (edges, 2)
    of ids. Raises DataError for a missing field, wrong shapes, ids that are not whole or occur
    twice, positions that are not finite, and an edge to an unknown node.
    """
    table = _read_table(path)
    missing = [name for name in FIELDS if name not in table]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(FIELDS)}")
    numbers = {
        name: exact_integers(table[name], f"{path}: `{name}`", np.uint64) for name in ID_FIELDS
    }
    ids, skeleton, edges = (numbers[name] for name in ID_FIELDS)
    check_shape(f"{path}: `id`", ids, (ids.size,), "one id for each node")
    check_distinct(path, ids)
    position = finite_positions(path, table["position_nm"], ids)
    check_shape(f"{path}: `skeleton`", skeleton, (len(ids),), "one row for each node")
    edges = edges if edges.size else edges.reshape(0, 2)
    check_shape(f"{path}: `edges`", edges, (edges.size // 2, 2), "a row of two ids for each edge")
    if not skeleton.all():
        raise DataError(f"{path}: `skeleton` holds 0, which means none; number them from 1")
    skeletons = Skeletons(position, skeleton, rows_of(path, ids, edges))
    check_one_skeleton_per_edge(path, skeletons)
    return skeletons


def _read_table(path: Path) -> dict[str, Any]:
    """The fields of a table by name; DataError if the file is missing, damaged, or no table."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the skeletons as .npz or .json")
    remedy = f"write {', '.join(FIELDS)} as .npz or .json"
    if path.suffix == ".json":
        table = read_json_object(path, remedy)
        return {name: table[name] for name in FIELDS if name in table}
    with reading_content(path, remedy), opened_npz(path) as file:
        return {name: file[name] for name in FIELDS if name in file}


def read_dump(folder: Path, name: str) -> tuple[np.ndarray, Skeletons]:
    """Node ids (nodes,) uint64 and skeletons of a MongoDB dump that the authors published.

    NAME.nodes.bson has id, z, y, x (nm); NAME.edges.bson has source and target. Each connected part
    is one skeleton. Edges to nodes that are not in the dump are ignored, as by MongoDB's reader.
    Raises DataError for a dump without nodes, with two nodes of one id, or with ids or positions
    that are no whole and no finite numbers.
    """
    file = folder / f"{name}.nodes.bson"
    nodes = read_columns(file, ["id", "z", "y", "x"])
    ids = _dumped_ids(file, nodes["id"])
    check_distinct(file, ids)
    position = finite_positions(file, np.stack([nodes[axis] for axis in "zyx"], axis=1), ids)
    file = folder / f"{name}.edges.bson"
    edges = read_columns(file, ["source", "target"])
    pairs = np.stack([_dumped_ids(file, edges[end]) for end in ("source", "target")], axis=1)
    rows = rows_of(file, ids, pairs[np.isin(pairs, ids).all(axis=1)])
    return ids, Skeletons(position, connected_parts(len(ids), rows), rows)


def _dumped_ids(file: Path, values: np.ndarray) -> np.ndarray:
    """Ids (nodes,) uint64. BSON has no unsigned numbers: ids from 2^63 are stored below 0."""
    return exact_integers(values, str(file), np.int64).view(np.uint64)


def read_masked(folder: Path, name: str, region: str) -> Skeletons:
    """The nodes of a published region that are in neuropil, in the parts that the paper scored.

    `nodes_NAME_components_REGION_masked` has the component_id of each node (negative: none), and
    `nodes_NAME_mask_REGION_masked` whether the node is `masked`, which means kept.
    Raises DataError if no node is kept.
    """
    ids, whole = read_dump(folder, name)
    parts_file = folder / f"nodes_{name}_components_{region}_masked.bson"
    mask_file = folder / f"nodes_{name}_mask_{region}_masked.bson"
    component = _of_nodes(parts_file, "component_id", ids, -1)
    keep = (component >= 0) & (_of_nodes(mask_file, "masked", ids, 0) != 0)
    if not keep.any():
        raise DataError(
            f"{parts_file} and its mask keep no node of {name}; is it another region's?"
        )
    # Ground truth 0 is ignored, and components are numbered from 0.
    skeleton = component[keep].astype(np.uint64) + np.uint64(1)
    edges = edges_among(keep, whole.edges)
    skeletons = Skeletons(whole.position_nm[keep], skeleton, edges)
    check_one_skeleton_per_edge(parts_file, skeletons)
    return skeletons


def _of_nodes(file: Path, column: str, ids: np.ndarray, absent: int) -> np.ndarray:
    """A column of a dump for each of `ids`, (nodes,) int64; `absent` for ids without a row."""
    columns = read_columns(file, ["id", column])
    rows = _dumped_ids(file, columns["id"])
    if not rows.size:
        return np.full(len(ids), absent, np.int64)
    check_distinct(file, rows)
    values = columns[column]
    if values.dtype.kind != "b":
        values = exact_integers(values, f"{file}: `{column}`", np.int64)
    order = np.argsort(rows)
    at = np.searchsorted(rows[order], ids).clip(max=len(rows) - 1)
    return np.where(rows[order][at] == ids, values[order][at], absent)


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

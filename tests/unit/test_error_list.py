"""Where a segmentation is wrong: planted splits and merges, shares of the VOI, any blocks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from retrace.evaluation.contingency import count_block
from retrace.evaluation.counting import count_volumes
from retrace.evaluation.error_list import node_errors, voxel_errors
from retrace.evaluation.error_shares import KINDS, largest_errors, number_of_errors, shares
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.metrics.segment_information import voi_merge, voi_split
from retrace.evaluation.node_segments import NodeSegments
from retrace.evaluation.skeletons import Skeletons
from retrace.geometry import NmBox
from retrace.storage.volumes import Volume
from retrace.viewing.error_pictures import (
    OBJECT_COLOURS,
    SEGMENT_COLOURS,
    PictureVolumes,
    error_pictures,
)

VOXEL = (40, 4, 8)
OFFSET_NM = (-80, 400, 24)
LABELS = arrays(np.uint64, (3, 4, 5), elements=st.integers(0, 4))


def volume(data: np.ndarray, offset_nm: Sequence[float] = OFFSET_NM) -> Volume:
    return Volume(data, VOXEL, offset_nm, "test volume")


def found(
    segments: np.ndarray,
    labels: np.ndarray,
    block_shape: tuple[int, int, int] = (64, 256, 256),
    count: int = 100,
    **ground_truth: Any,
) -> dict[str, Any]:
    """The errors of segments against labels, both (Z, Y, X)."""
    truth = GroundTruth(volume(labels), **ground_truth)
    table = count_volumes(volume(segments), truth).table
    return voxel_errors(table, volume(segments), truth, count, block_shape=block_shape)


def in_voxels(row: dict[str, Any]) -> list[float]:
    """The point of an error in voxels of the array; the centre of its first voxel is 0.5."""
    return [(p - o) / v for p, o, v in zip(row["point_nm"], OFFSET_NM, VOXEL, strict=True)]


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Segments and labels (8, 70, 90): three objects along x, one of them split, two merged.

    Object 10 is y 0:20, cut at x 50 into segments 1 and 2. Objects 20 (y 20:40) and 30 (y 42:60)
    are one segment 3; two rows of unlabelled voxels are between them. Object 40 (y 60:70) is right,
    and so is object 50, its last 10 voxels of x.
    """
    labels, segments = np.zeros((8, 70, 90), np.uint64), np.zeros((8, 70, 90), np.uint64)
    labels[:, :20], labels[:, 20:40], labels[:, 42:60], labels[:, 60:] = 10, 20, 30, 40
    labels[:, 60:, 80:] = 50
    segments[:, :20, :50], segments[:, :20, 50:], segments[:, 20:60], segments[:, 60:] = 1, 2, 3, 4
    segments[:, 60:, 80:] = 5
    return segments, labels


def test_planted_errors_are_all_found_at_their_places() -> None:
    segments, labels = planted()
    content = found(segments, labels)

    assert (content["splits"], content["merges"]) == (1, 1)
    merge, split = content["errors"]
    assert (split["kind"], split["segments"], split["ground_truth"]) == ("split", [2, 1], [10])
    assert split["voxels"] == 8 * 20 * 40 and split["gap_nm"] == 0
    z, y, x = in_voxels(split)
    assert x == 50 and 0 < y < 20 and 0 < z < 8
    assert split["box_nm"] == {"offset": [-80, 400, 424], "shape": [320, 80, 320]}
    assert (merge["kind"], merge["segments"], merge["ground_truth"]) == ("merge", [3], [30, 20])
    assert merge["gap_nm"] == 3 * 4 and in_voxels(merge)[1] == 41


def test_shares_in_closed_form() -> None:
    """An object of 3 + 1 voxels contributes all of its bits as the error of the one voxel."""
    table = count_block(np.array([1, 1, 1, 2, 5, 5]), np.array([7, 7, 7, 7, 8, 8]))
    (error,) = largest_errors(table, 10)

    assert error.bits == pytest.approx((3 * np.log2(4 / 3) + np.log2(4)) / 6)
    assert (table.segments[error.piece], table.segments[error.main]) == (2, 1)


@given(LABELS, LABELS)
def test_shares_add_up_to_the_voi(segments: np.ndarray, labels: np.ndarray) -> None:
    table = count_block(segments, labels)
    if not table.voxels:
        return

    for kind, voi in zip(KINDS, (voi_split, voi_merge), strict=True):
        bits = shares(table, kind).bits
        assert bits.sum() == pytest.approx(voi(table), abs=1e-12)
        assert (bits > 0).sum() == number_of_errors(table)[kind]
    errors = largest_errors(table, 1000)
    assert len(errors) == sum(number_of_errors(table).values())
    assert [e.bits for e in errors] == sorted((e.bits for e in errors), reverse=True)


@settings(max_examples=40, deadline=None)
@given(LABELS, LABELS, st.tuples(*[st.integers(1, 5)] * 3), st.integers(1, 5))
def test_places_do_not_depend_on_the_blocks(
    segments: np.ndarray, labels: np.ndarray, block: tuple[int, int, int], count: int
) -> None:
    if not labels.any():
        return

    assert found(segments, labels, block, count) == found(segments, labels, count=count)


@settings(max_examples=60, deadline=None)
@given(LABELS, LABELS)
def test_every_place_is_a_contact_or_the_closest_approach(
    segments: np.ndarray, labels: np.ndarray
) -> None:
    """Against a search over all pairs of voxels."""
    if not labels.any():
        return

    for row in found(segments, labels)["errors"]:
        first, other = ends_of(row, segments, labels)
        distances = np.linalg.norm((first[:, None] - other[None]) * VOXEL, axis=2)
        middles = (first[:, None] + other[None]) / 2 + 0.5
        if row["gap_nm"] == 0:  # they share a face
            near = np.abs(first[:, None] - other[None]).sum(axis=2) == 1
        else:
            near = np.isclose(distances, row["gap_nm"])
            assert distances.min() == pytest.approx(row["gap_nm"])
        assert any(np.allclose(middle, in_voxels(row)) for middle in middles[near])


def ends_of(
    row: dict[str, Any], segments: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of an error's piece and of the other one, both (n, 3)."""
    ids = [row["segments"], row["ground_truth"]]
    pieces = [(segments == s[0]) & (labels == g[0]) for s, g in [ids]]
    pieces += [(segments == s[-1]) & (labels == g[-1]) for s, g in [ids]]
    first, other = (np.argwhere(piece) for piece in pieces)
    return first, other


def test_pieces_in_a_row_are_placed_at_their_own_cuts() -> None:
    """An object of five segments in a row: each cut is listed, at its own place."""
    labels = np.ones((2, 4, 100), np.uint64)
    segments = np.repeat(np.array([5, 4, 1, 2, 3], np.uint64), [30, 10, 20, 15, 25])
    segments = np.broadcast_to(segments, labels.shape).copy()
    errors = found(segments, labels)["errors"]

    assert sorted(in_voxels(row)[2] for row in errors) == [30, 40, 60, 75]
    assert all(row["gap_nm"] == 0 for row in errors)


def test_a_merge_through_a_third_object_is_placed_where_they_touch() -> None:
    """Objects 1, 2 and 3 in a row are one segment: 3 touches 2, and not the largest one, 1."""
    labels = np.repeat(np.array([1, 2, 3], np.uint64), [40, 5, 20])
    labels = np.broadcast_to(labels, (2, 3, 65)).copy()
    errors = found(np.full_like(labels, 9), labels)["errors"]

    assert [row["ground_truth"] for row in errors] == [[3, 2], [2, 1]]
    assert [in_voxels(row)[2] for row in errors] == [45, 40]


@pytest.mark.parametrize("outside", ["mask", "background", "region", "negative"])
def test_voxels_that_do_not_count_hold_no_errors(outside: str) -> None:
    """The merge of `planted` is left when the voxels of the split do not count."""
    segments, labels = planted()
    options: dict[str, Any] = {}
    if outside == "mask":
        mask = np.ones(labels.shape, np.uint8)
        mask[:, :20, 50:] = 0
        options["mask"] = volume(mask)
    elif outside == "background":
        options["ignored_ids"] = (10,)
    elif outside == "region":
        y = OFFSET_NM[1] + 20 * VOXEL[1]
        options["roi_nm"] = NmBox((-80, y, 24), (320, 200, 720))
    else:
        labels = labels.astype(np.int64)
        labels[:, :20, 50:] = -1
    content = found(segments, labels, **options)

    assert [row["kind"] for row in content["errors"]] == ["merge"]
    assert content["splits"] == 0


def test_unassigned_voxels_and_the_largest_ids_are_segments() -> None:
    labels = np.full((2, 4, 6), 2**64 - 1, np.uint64)
    segments = np.full((2, 4, 6), -5, np.int64)
    segments[..., 4:] = 0
    (row,) = found(segments, labels)["errors"]

    assert row["segments"] == [0, 2**64 - 5] and row["ground_truth"] == [2**64 - 1]
    assert in_voxels(row)[2] == 4


def test_a_perfect_segmentation_has_no_errors() -> None:
    _, labels = planted()

    assert found(labels, labels)["errors"] == []


def skeleton_case() -> NodeSegments:
    """A skeleton of 10 nodes along x, cut after node 6, and one of 4 nodes, 60 nm below, merged."""
    along = np.arange(14) * 100.0
    position = np.stack([np.zeros(14), np.zeros(14), along], axis=1)
    position[10:] = [[0, 60, 0], [0, 60, 100], [0, 60, 200], [0, 60, 300]]
    edges = np.array([[n, n + 1] for n in range(13) if n != 9])
    skeleton = np.repeat([1, 2], [10, 4])
    segments = np.repeat(np.array([7, 8, 7], np.uint64), [7, 3, 4])
    return NodeSegments(Skeletons(position, skeleton, edges), segments)


def test_errors_of_skeletons() -> None:
    content = node_errors(skeleton_case(), 10)
    merge, split = content["errors"]

    assert content["counted"] == "skeleton nodes"
    assert (split["kind"], split["segments"], split["nodes"]) == ("split", [8, 7], 3)
    assert split["point_nm"] == [0, 0, 650] and split["cut_edges"] == 1
    assert split["edges_nm"] == [[[0, 0, 600], [0, 0, 700]]]
    assert (merge["kind"], merge["ground_truth"], merge["nodes"]) == ("merge", [2, 1], 4)
    assert merge["point_nm"] == [0, 30, 0] and merge["gap_nm"] == 60
    assert (merge["merged_edges"], merge["length_nm"]) == (3, 300)
    total = sum(row["voi_bits"] for row in content["errors"])
    assert total == pytest.approx(content["voi_split"] + content["voi_merge"])


def test_pictures_show_segments_and_objects_at_the_place() -> None:
    """The split of `planted`: its outlines meet in the middle of the picture, at the cross."""
    segments, labels = planted()
    grey = volume(np.full(labels.shape, 100, np.uint8))
    volumes = PictureVolumes(volume(segments), grey, volume(labels))
    content = found(segments, labels)
    pictures = error_pictures(content, volumes)

    assert [p.row for p in pictures] == content["errors"]
    assert pictures[1].title.startswith("2. split") and "10 in 2, 1" in pictures[1].title
    pixels = imread(io.BytesIO(pictures[1].png))[..., :3]
    outlines = [
        np.abs(pixels - to_rgb(colour)).max(axis=-1) < 0.1
        for colour in (*SEGMENT_COLOURS, OBJECT_COLOURS[0])
    ]
    assert all(outline.sum() > 20 for outline in outlines)
    assert error_pictures(content, PictureVolumes(volume(segments)), 1)[0].row["rank"] == 1

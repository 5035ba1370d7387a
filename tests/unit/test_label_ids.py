"""Ids of labels: exact in every integer type and byte order, with and without a sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrace.errors import DataError
from retrace.formats.label_ids import background_values, exact_integers, is_known
from retrace.formats.label_values import ClassGroups, SectionObjects

DTYPES = [f"{order}{kind}{size}" for order in "<>" for kind in "iu" for size in (1, 2, 4, 8)]
EDGES = [0, 1, 2, 7, -1, -2, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64 - 3]
BACKGROUND = st.lists(st.sampled_from(EDGES), max_size=4)


@st.composite
def integer_arrays(draw: st.DrawFn) -> np.ndarray:
    """Small arrays of any integer type, with values at its limits."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    limits = np.iinfo(dtype)
    held = [value for value in EDGES if limits.min <= value <= limits.max]
    values = st.sampled_from([*held, int(limits.min), int(limits.max)])
    return draw(hnp.arrays(dtype, (2, 3), elements=values))


@given(integer_arrays(), BACKGROUND)
@example(np.full((2, 3), 2**64 - 1, ">u8"), [2**64 - 1])
def test_background_is_what_is_below_0_or_named(labels: np.ndarray, ids: list[int]) -> None:
    known = is_known(labels, background_values(ids, labels.dtype))

    exact = [[value >= 0 and value not in ids for value in row] for row in labels.tolist()]
    assert known.tolist() == exact


@given(integer_arrays(), st.lists(st.sampled_from(EDGES), min_size=1, max_size=6, unique=True))
def test_classes_are_those_of_exactly_their_values(stored: np.ndarray, values: list[int]) -> None:
    groups = [values[::2], values[1::2]] if len(values) > 1 else [values]
    class_of = {value: number for number, group in enumerate(groups) for value in group}

    classes = ClassGroups(stored, groups)[:]

    assert classes.dtype == np.int32
    assert classes.tolist() == [[class_of.get(v, -1) for v in row] for row in stored.tolist()]


def test_uint64_values_do_not_wrap_to_classes_below_0() -> None:
    stored = np.array([[[2**64 - 1, 0, 2**63, 5]]], np.uint64)

    assert ClassGroups(stored, [[0], [-1], [2**63]])[:].tolist() == [[[-1, 0, 2, -1]]]


@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_fractions_have_no_class(dtype: str) -> None:
    stored = np.array([[[1.2, 1.0, np.nan, -0.5]]], dtype)

    assert ClassGroups(stored, [[0], [1]])[:].tolist() == [[[-1, 1, -1, -1]]]


@pytest.mark.parametrize("dtype", ["<i2", ">i8", "<f4", ">f8"])
@pytest.mark.parametrize("kind", ["cells", "membranes"])
def test_unlabelled_voxels_of_membrane_maps_are_no_objects(dtype: str, kind: str) -> None:
    stored = np.array([[[1, 1, 0, -1, 1], [1, 0, 0, -1, 1]]], dtype)
    if kind == "membranes":
        stored = np.where(stored >= 0, 1 - stored, stored)
    if dtype == ">f8":
        stored[stored < 0] = np.nan

    objects = SectionObjects(stored, kind)

    assert objects.dtype == objects[:].dtype == np.int64
    assert objects[:].tolist() == [[[1, 1, 0, -1, 2], [1, 0, 0, -1, 2]]]
    unsigned = SectionObjects(np.ones((1, 2, 5), np.uint8), kind)
    assert unsigned.dtype == unsigned[:].dtype == np.uint64


@given(integer_arrays())
def test_integers_of_any_type_stay_exact(values: np.ndarray) -> None:
    dtype: Any = np.uint64 if values.size and int(values.max()) >= 2**63 else np.int64

    assert exact_integers(values, "ids", dtype).tolist() == values.tolist()
    assert exact_integers(values.tolist(), "ids", dtype).tolist() == values.tolist()


@pytest.mark.parametrize("values", [[3.0, 2**64 - 1], [2**53, 0.0], np.array([1.0, 7.0], ">f4")])
def test_whole_fractions_are_integers(values: Any) -> None:
    assert exact_integers(values, "ids", np.uint64).tolist() == [int(value) for value in values]


@pytest.mark.parametrize(
    "values",
    [[1.2], [np.nan], [np.inf], [2.0**53 + 2], [-1], [2**64], [True], ["3"], [None], [[1, 2], [3]]],
)
def test_numbers_that_are_no_ids_are_refused(values: Any) -> None:
    with pytest.raises(DataError, match="^ids h"):
        exact_integers(values, "ids", np.uint64)
    with pytest.raises(DataError, match="^ids h"):
        exact_integers([1, values[0]], "ids", np.uint64)

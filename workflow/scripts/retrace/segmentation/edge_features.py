"""What a classifier of edges sees: features of contacts and of fragments, and what follows of them.

The features of an edge come from the faces between its two fragments, all of which are in the block
of one of them and the next voxels; those of a fragment come from its own block. So they do not
depend on how blocks are divided among jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retrace.compiled import compiled
from retrace.segmentation.contacts import find_contacts
from retrace.segmentation.fragments import highest_value, mean_of_channels
from retrace.segmentation.image_channels import IMAGE_CHANNELS, face_values

QUANTILES = (10, 25, 50, 75, 90, 98)
"""Of the affinities of a contact, percent."""
AFFINITY, VOXELS, FACES, DESCRIPTOR = "affinity", "voxels", "faces", "lsds_"
MOMENTS = ("mean", "deviation")
CHANNELS = (AFFINITY, *IMAGE_CHANNELS)
"""What is described by its mean and standard deviation, in fragments and on faces."""


def _moments_of(channels: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{channel}_{moment}" for channel in channels for moment in MOMENTS)


CONTACT_NAMES = (
    *(f"q{quantile}" for quantile in QUANTILES),
    *_moments_of([AFFINITY]),
    "highest",
    *_moments_of(IMAGE_CHANNELS),
    FACES,
)
"""Features of a contact: of its affinities in [0, 1], of the image, and the number of its faces."""


@dataclass(frozen=True)
class EdgeTable:
    """Features of the edges of a volume, (E, F) float32, and the number of faces, (E,)."""

    names: tuple[str, ...]
    values: np.ndarray
    faces: np.ndarray


def fragment_names(descriptors: int) -> tuple[str, ...]:
    """The features of a fragment, of a prediction with so many channels of descriptors."""
    return (
        VOXELS,
        *_moments_of(CHANNELS),
        *(f"{DESCRIPTOR}{channel}" for channel in range(descriptors)),
    )


def contact_features(
    affinities: np.ndarray, image: np.ndarray, fragments: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2) int32, u < v, sorted, and their features (E, CONTACT_NAMES) float32.

    `affinities` (C >= 3, Z, Y, X), uint8 or float in [0, 1]; `image` (IMAGE_CHANNELS, Z, Y, X);
    `fragments` (Z, Y, X), compact ids. Quantiles are interpolated linearly, as by numpy.
    """
    contacts = find_contacts(affinities, fragments, highest_value(affinities))
    features = np.empty((len(contacts.edges), len(CONTACT_NAMES)), np.float32)
    own = len(QUANTILES) + len(MOMENTS) + 1
    _describe_affinities(
        contacts.starts, contacts.values, np.array(QUANTILES) / 100, features[:, :own]
    )
    for index, channel in enumerate(image):
        begin = own + index * len(MOMENTS)
        values = find_contacts(face_values(channel), fragments, 1).values
        _describe(contacts.starts, values, features[:, begin : begin + len(MOMENTS)])
    features[:, -1] = np.diff(contacts.starts)
    return contacts.edges, features


@compiled
def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    total, squares = 0.0, 0.0
    for value in values:
        total += value
    mean = total / len(values)
    for value in values:
        squares += (value - mean) ** 2
    return mean, np.sqrt(squares / len(values))


@compiled
def _describe(starts: np.ndarray, values: np.ndarray, features: np.ndarray) -> None:
    for edge in range(len(features)):
        found = values[starts[edge] : starts[edge + 1]]
        features[edge, 0], features[edge, 1] = _mean_and_deviation(found)


@compiled
def _describe_affinities(
    starts: np.ndarray, values: np.ndarray, quantiles: np.ndarray, features: np.ndarray
) -> None:
    for edge in range(len(features)):
        found = np.sort(values[starts[edge] : starts[edge + 1]])
        last = len(found) - 1
        for index, quantile in enumerate(quantiles):
            place = quantile * last
            below = int(place)
            above = min(below + 1, last)
            step = np.float64(found[above]) - np.float64(found[below])
            features[edge, index] = found[below] + step * (place - below)
        features[edge, -3], features[edge, -2] = _mean_and_deviation(found)
        features[edge, -1] = found[last]


def fragment_features(
    affinities: np.ndarray,
    image: np.ndarray,
    descriptors: np.ndarray | None,
    fragments: np.ndarray,
) -> np.ndarray:
    """Features (N, `fragment_names`) float32 of the fragments 1 ... N of `fragments` (Z, Y, X).

    Voxels; means and standard deviations of the mean of the first three affinities (C, Z, Y, X)
    and of `image` (IMAGE_CHANNELS, Z, Y, X); means of `descriptors` (D, Z, Y, X).
    """
    ids, count = np.ascontiguousarray(fragments, np.int64), int(fragments.max(initial=0))
    voxels = np.bincount(ids.ravel(), minlength=count + 1)[1:]
    affinity = mean_of_channels(affinities[:3]) / highest_value(affinities)
    columns = [voxels.astype(np.float64)]
    for channel in (affinity, *image):
        means = _sums(channel, ids, np.zeros(count), 1) / voxels
        columns += [means, np.sqrt(_sums(channel, ids, means, 2) / voxels)]
    if descriptors is not None:
        each = (channel / highest_value(descriptors) for channel in descriptors)
        columns += [_sums(channel, ids, np.zeros(count), 1) / voxels for channel in each]
    return np.stack(columns, axis=1).astype(np.float32)


@compiled
def _sums(channel: np.ndarray, ids: np.ndarray, centres: np.ndarray, power: int) -> np.ndarray:
    """The sum of (`channel` - centre) ** `power` in each fragment 1 ... N, (N,); `centres` (N,)."""
    sums = np.zeros(len(centres))
    for value, row in zip(channel.ravel(), ids.ravel()):  # noqa: B905 (numba has no `strict`)
        if row > 0:
            sums[row - 1] += (value - centres[row - 1]) ** power
    return sums


def edge_table(
    contacts: np.ndarray, fragments: np.ndarray, names: tuple[str, ...], ends: np.ndarray
) -> EdgeTable:
    """All features of the edges: those of the contact, and of both fragments without an order.

    `contacts` (E, CONTACT_NAMES); `fragments` (N, names) as from `fragment_names`; `ends` (E, 2):
    rows of fragments. Of descriptors the differences count, and the smaller of the last ones,
    which for local shape descriptors are sizes.
    """
    columns = _columns(contacts, fragments, names, ends)
    values = np.empty((len(contacts), len(_table_names(names))), np.float32)
    for index, column in enumerate(columns):
        values[:, index] = column
    return EdgeTable(_table_names(names), values, contacts[:, -1].astype(np.float64))


def _descriptors(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name.startswith(DESCRIPTOR))


def _table_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of `_columns`, in their order."""
    sides = ("smaller", "larger", "difference")
    return (
        *CONTACT_NAMES[:-1],
        *("log_faces", "log_smaller", "log_larger", "faces_of_surface"),
        *(f"{side}_{name}" for name in _moments_of(CHANNELS) for side in sides),
        *(f"contrast_{channel}" for channel in IMAGE_CHANNELS),
        *(f"difference_{name}" for name in _descriptors(names)),
        *(f"smaller_{name}" for name in _descriptors(names)[-1:]),
    )


def _columns(
    contacts: np.ndarray, fragments: np.ndarray, names: tuple[str, ...], ends: np.ndarray
) -> Iterator[np.ndarray]:
    """The columns of `edge_table`, one at a time: all together are several times the table."""

    def of(name: str) -> np.ndarray:
        return np.sort(fragments[:, names.index(name)][ends], axis=1)

    yield from contacts[:, :-1].T
    faces, small = contacts[:, -1].astype(np.float64), of(VOXELS)[:, 0].astype(np.float64)
    yield from (np.log(faces), np.log(small), np.log(of(VOXELS)[:, 1].astype(np.float64)))
    yield faces / small ** (2 / 3)
    for name in _moments_of(CHANNELS):
        smaller, larger = of(name).T
        yield from (smaller, larger, larger - smaller)
    for channel in IMAGE_CHANNELS:
        name = f"{channel}_{MOMENTS[0]}"
        yield contacts[:, CONTACT_NAMES.index(name)] - of(name).mean(axis=1)
    for name in _descriptors(names):
        smaller, larger = of(name).T
        yield larger - smaller
    for name in _descriptors(names)[-1:]:
        yield of(name)[:, 0]

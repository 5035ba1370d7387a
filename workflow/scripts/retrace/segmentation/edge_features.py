"""What a classifier of edges sees: features of contacts and of fragments, and what follows of them.

The features of an edge come from the faces between its two fragments, all of which are in the block
of one of them and the next voxels; those of a fragment come from its own block. So they do not
depend on how blocks are divided among jobs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrace.compiled import compiled
from retrace.segmentation.contacts import Contacts, find_contacts
from retrace.segmentation.fragments import highest_value

QUANTILES = (10, 25, 50, 75, 90, 98)
"""Of the affinities of a contact, percent."""
AFFINITY, VOXELS, FACES, DESCRIPTOR = "affinity", "voxels", "faces", "lsds_"
CONTACT_NAMES = (*(f"q{quantile}" for quantile in QUANTILES), "mean", "deviation", "highest", FACES)
"""Features of a contact: of its affinities in [0, 1], and the number of its faces."""


@dataclass(frozen=True)
class EdgeTable:
    """Features of the edges of a volume, (E, F) float32, and the number of faces, (E,)."""

    names: tuple[str, ...]
    values: np.ndarray
    faces: np.ndarray


def fragment_names(descriptors: int) -> tuple[str, ...]:
    """The features of a fragment, of a prediction with so many channels of descriptors."""
    return (VOXELS, AFFINITY, *(f"{DESCRIPTOR}{channel}" for channel in range(descriptors)))


def contact_features(
    affinities: np.ndarray, fragments: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2) int32, u < v, sorted, and their features (E, CONTACT_NAMES) float32.

    `affinities` (C >= 3, Z, Y, X), uint8 or float in [0, 1]; `fragments` (Z, Y, X), compact ids.
    Quantiles are interpolated linearly, as by numpy.
    """
    contacts = find_contacts(affinities, fragments, highest_value(affinities))
    return contacts.edges, _describe(contacts)


def _describe(contacts: Contacts) -> np.ndarray:
    features = np.empty((len(contacts.edges), len(CONTACT_NAMES)), np.float32)
    _describe_contacts(contacts.starts, contacts.values, np.array(QUANTILES) / 100, features)
    return features


@compiled
def _describe_contacts(
    starts: np.ndarray, values: np.ndarray, quantiles: np.ndarray, features: np.ndarray
) -> None:
    for edge in range(len(features)):
        found = np.sort(values[starts[edge] : starts[edge + 1]])
        last, total = len(found) - 1, 0.0
        for value in found:
            total += value
        mean, squares = total / len(found), 0.0
        for value in found:
            squares += (value - mean) ** 2
        for index, quantile in enumerate(quantiles):
            place = quantile * last
            below = int(place)
            above = min(below + 1, last)
            step = np.float64(found[above]) - np.float64(found[below])
            features[edge, index] = found[below] + step * (place - below)
        features[edge, -4], features[edge, -3] = mean, np.sqrt(squares / len(found))
        features[edge, -2], features[edge, -1] = found[last], len(found)


def fragment_features(
    affinities: np.ndarray, descriptors: np.ndarray | None, fragments: np.ndarray
) -> np.ndarray:
    """Features (N, `fragment_names`) float32 of the fragments 1 ... N of `fragments` (Z, Y, X).

    Voxels, the mean of the first three affinities (C, Z, Y, X), and the means of `descriptors`
    (D, Z, Y, X).
    """
    ids, count = np.ascontiguousarray(fragments, np.int64), int(fragments.max(initial=0))
    voxels = np.bincount(ids.ravel(), minlength=count + 1)[1:]
    means = np.zeros(count)
    for channel in affinities[:3]:
        means += _sums(channel, ids, count) / (3 * highest_value(affinities))
    columns = [voxels, means / voxels]
    if descriptors is not None:
        highest = highest_value(descriptors)
        columns += [_sums(channel, ids, count) / (highest * voxels) for channel in descriptors]
    return np.stack(columns, axis=1).astype(np.float32)


@compiled
def _sums(channel: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """The sum of `channel` (Z, Y, X) in each fragment 1 ... `count`, (count,)."""
    sums = np.zeros(count + 1)
    for value, row in zip(channel.ravel(), ids.ravel()):  # noqa: B905 (numba has no `strict`)
        sums[row] += value
    return sums[1:]


def edge_table(
    contacts: np.ndarray, fragments: np.ndarray, names: tuple[str, ...], ends: np.ndarray
) -> EdgeTable:
    """All features of the edges: those of the contact, and of both fragments without an order.

    `contacts` (E, CONTACT_NAMES); `fragments` (N, names) as from `fragment_names`; `ends` (E, 2):
    rows of fragments. Of descriptors the differences count, and the smaller of the last ones,
    which for local shape descriptors are sizes.
    """
    columns = {name: contacts[:, i] for i, name in enumerate(CONTACT_NAMES[:-1])}
    faces = contacts[:, -1].astype(np.float64)
    of = {name: np.sort(fragments[:, i][ends], axis=1) for i, name in enumerate(names)}
    small, large = of[VOXELS].astype(np.float64).T
    columns |= {"log_faces": np.log(faces), "log_smaller": np.log(small)}
    columns["log_larger"] = np.log(large)
    columns["faces_of_surface"] = faces / small ** (2 / 3)
    columns |= {"smaller_affinity": of[AFFINITY][:, 0], "larger_affinity": of[AFFINITY][:, 1]}
    descriptors = [name for name in names if name.startswith(DESCRIPTOR)]
    columns |= {f"difference_{name}": of[name][:, 1] - of[name][:, 0] for name in descriptors}
    columns |= {f"smaller_{name}": of[name][:, 0] for name in descriptors[-1:]}
    values = np.stack([column.astype(np.float32) for column in columns.values()], axis=1)
    return EdgeTable(tuple(columns), values, faces)

"""A seeded watershed that gives what scikit-image's gives, voxel for voxel.

Voxels are flooded by height, those of one height in the order in which they were reached. Seeds
have been reached at the same time, so scikit-image's heap decides their order by how it happens to
be arranged. That heap is followed here exactly, but only as far as it matters: what comes after the
last height at which two seeds compete takes a place in the heap and no part in it, and waits in a
plain queue for its height.
"""

from __future__ import annotations

import numpy as np

from retrace.compiled import compiled

_OUTSIDE = -(1 << 31)
"""State of the voxels around the volume. Others hold -seed once flooded, before that the depth."""
_UNNUMBERED = _OUTSIDE + 1
_LAST = np.int64((1 << 63) - 1)
"""Key of what comes after the last height at which seeds compete."""
_TIME_BITS = 31
_ONE = np.uint64(1)


def flood_from_maxima(depths: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """The seed from which each voxel is flooded, (Z, Y, X) uint64, 1 ... n.

    `depths` (Z, Y, X) int32 >= 0, of which the largest are flooded first; seeds are the connected
    voxels where it equals `maxima` (Z, Y, X), numbered by their first voxels. Neighbours share a
    face. The same as `watershed(-depths, ndimage.label(depths == maxima)[0])`.
    """
    shape = depths.shape
    state = np.full([edge + 2 for edge in shape], _OUTSIDE, np.int32)
    highest = int(depths.max())
    levels = (highest - depths[depths == maxima]).astype(np.int64)
    seeds = np.empty(len(levels), np.int32)
    _place_seeds(depths, maxima, state, seeds)
    flat, steps = state.reshape(-1), _steps(state)
    _number_seeds(flat, seeds, steps)
    tie = _last_tie(flat, seeds, levels, steps, highest)
    ends = np.full((highest + 1 - tie, 2), -1, np.int32)
    queue = np.empty((depths.size, 2), np.int32)
    used = _flood_in_heap_order(flat, seeds, levels, steps, highest, tie, ends, queue)
    _flood_in_queue_order(flat, steps, highest - tie, ends, queue, used)
    return _without_margin(state)


def _steps(state: np.ndarray) -> np.ndarray:
    """Distance in memory of the six neighbours, in scikit-image's order: -z, -y, -x, +x, +y, +z."""
    _, height, width = state.shape
    return np.array([-height * width, -width, -1, 1, width, height * width])


@compiled
def _place_seeds(
    depths: np.ndarray, maxima: np.ndarray, state: np.ndarray, places: np.ndarray
) -> None:
    """Writes depths and, at seeds, _UNNUMBERED into `state`, and the flat places of the seeds."""
    depth, height, width = depths.shape
    used = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                state[z + 1, y + 1, x + 1] = depths[z, y, x]
                if depths[z, y, x] == maxima[z, y, x]:
                    state[z + 1, y + 1, x + 1] = _UNNUMBERED
                    places[used] = ((z + 1) * (height + 2) + y + 1) * (width + 2) + x + 1
                    used += 1


@compiled
def _number_seeds(state: np.ndarray, seeds: np.ndarray, steps: np.ndarray) -> None:
    """Gives connected voxels of seeds the state -number, in the order of their first voxels."""
    waiting = np.empty_like(seeds)
    number = 0
    for seed in seeds:
        if state[seed] != _UNNUMBERED:
            continue
        number += 1
        state[seed] = -number
        waiting[0], count = seed, 1
        while count:
            count -= 1
            place = waiting[count]
            for step in steps:
                if state[place + step] == _UNNUMBERED:
                    state[place + step] = -number
                    waiting[count] = place + step
                    count += 1


@compiled
def _last_tie(
    state: np.ndarray, seeds: np.ndarray, levels: np.ndarray, steps: np.ndarray, highest: int
) -> int:
    """The last level at which voxels of two seeds can flood neighbours, or -1.

    At any other level the order of its seed voxels cannot change what is flooded from where: they
    and all that they reach stay together in every queue.
    """
    first = np.zeros(highest + 1, np.int32)
    last = -1
    for i in range(len(seeds)):
        level, seed = levels[i], state[seeds[i]]
        if level <= last or first[level] == seed:
            continue
        spreads = False
        for step in steps:
            spreads |= state[seeds[i] + step] >= 0
        if not spreads:
            continue
        if first[level] == 0:
            first[level] = seed
        else:
            last = level
    return last


@compiled
def _append(ends: np.ndarray, queue: np.ndarray, used: int, level: int, place: int) -> int:
    """Puts a voxel at the end of a level's queue; the number of cells in use.

    `queue` (N, 2) has cells: a voxel and the next cell; `ends` (levels, 2) first and last cell.
    """
    queue[used, 0] = place
    queue[used, 1] = -1
    if ends[level, 0] < 0:
        ends[level, 0] = used
    else:
        queue[ends[level, 1], 1] = used
    ends[level, 1] = used
    return used + 1


@compiled
def _larger_heap(keys: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The heap in arrays of twice the size."""
    more_keys = np.full(2 * keys.size, _LAST, keys.dtype)
    more_places = np.empty(2 * places.size, places.dtype)
    for i in range(keys.size):
        more_keys[i], more_places[i] = keys[i], places[i]
    return more_keys, more_places


@compiled
def _rise(keys: np.ndarray, places: np.ndarray, node: np.uint64, key: int, place: int) -> None:
    """Adds an item at the last node of the heap, whose root is 1."""
    while node > _ONE:
        parent = node >> _ONE
        if key >= keys[parent]:
            break
        keys[node], places[node] = keys[parent], places[parent]
        node = parent
    keys[node], places[node] = key, place


@compiled
def _sink(keys: np.ndarray, places: np.ndarray, items: np.uint64) -> None:
    """Removes the root: the last of `items` takes its place and sinks below smaller ones."""
    key, place = keys[items], places[items]
    keys[items] = _LAST
    node, child = _ONE, _ONE << _ONE
    while child < items:
        left, right = keys[child], keys[child + _ONE]
        goes_right = right < left
        smaller = right if goes_right else left
        child += np.uint64(goes_right)
        if smaller >= key:
            break
        keys[node], places[node] = smaller, places[child]
        node = child
        child = node << _ONE
    if items > _ONE:
        keys[node], places[node] = key, place


@compiled
def _seed_heap(
    keys: np.ndarray,
    places: np.ndarray,
    seeds: np.ndarray,
    levels: np.ndarray,
    tie: int,
    ends: np.ndarray,
    queue: np.ndarray,
) -> int:
    """Pushes the voxels of seeds in the order of their places; the number of cells in use."""
    used = 0
    for i in range(len(seeds)):
        if levels[i] > tie:
            used = _append(ends, queue, used, levels[i] - tie, seeds[i])
        else:
            _rise(keys, places, np.uint64(i + 1), levels[i] << _TIME_BITS, seeds[i])
    return used


@compiled
def _flood_in_heap_order(
    state: np.ndarray,
    seeds: np.ndarray,
    levels: np.ndarray,
    steps: np.ndarray,
    highest: int,
    tie: int,
    ends: np.ndarray,
    queue: np.ndarray,
) -> int:
    """Floods up to the last tie; what remains is in `queue`, of which it returns the cells in use.

    A key is a level and a time; seeds have time 0. Keys beyond the last tie are _LAST: in which
    order those are moves none of the others.
    """
    keys, places = np.full(len(seeds) + 4096, _LAST), np.empty(len(seeds) + 4096, np.int32)
    used = _seed_heap(keys, places, seeds, levels, tie, ends, queue)
    items, time = np.uint64(len(seeds)), 0
    near = np.empty(len(steps), np.int32)
    while items > np.uint64(0) and keys[1] != _LAST:
        level, place = keys[1] >> _TIME_BITS, np.int64(places[1])
        for i in range(len(steps)):  # before the heap is put in order, which hides the waiting
            near[i] = state[place + steps[i]]
        seed = state[place]
        _sink(keys, places, items)
        items -= _ONE
        if items + np.uint64(8) > np.uint64(len(keys)):
            keys, places = _larger_heap(keys, places)
        for i in range(len(steps)):
            if near[i] < 0:
                continue
            neighbor = place + steps[i]
            state[neighbor] = seed
            reached = max(np.int64(highest - near[i]), level)
            items += _ONE
            if reached >= tie:
                used = _append(ends, queue, used, reached - tie, neighbor)
            else:
                time += 1
                _rise(keys, places, items, (reached << _TIME_BITS) | time, neighbor)
    return used


@compiled
def _flood_in_queue_order(
    state: np.ndarray,
    steps: np.ndarray,
    lowest: int,
    ends: np.ndarray,
    queue: np.ndarray,
    used: int,
) -> None:
    """Floods the rest, level by level, first in, first out."""
    for level in range(len(ends)):
        cell = ends[level, 0]
        while cell >= 0:
            place = queue[cell, 0]
            for step in steps:
                depth = state[place + step]
                if depth >= 0:
                    state[place + step] = state[place]
                    used = _append(ends, queue, used, max(lowest - depth, level), place + step)
            cell = queue[cell, 1]


@compiled
def _without_margin(state: np.ndarray) -> np.ndarray:
    depth, height, width = state.shape
    seeds = np.empty((depth - 2, height - 2, width - 2), np.uint64)
    for z in range(depth - 2):
        for y in range(height - 2):
            for x in range(width - 2):
                seeds[z, y, x] = -np.int64(state[z + 1, y + 1, x + 1])
    return seeds

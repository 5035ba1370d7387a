"""Tables of skeletons, as users provide them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrace.evaluation.skeletons import Skeletons


def write_skeletons(path: Path, skeletons: Skeletons) -> None:
    """Writes an .npz table that `read_skeletons` reads; the ids are the rows of the nodes."""
    np.savez_compressed(
        path,
        id=np.arange(len(skeletons.skeleton), dtype=np.uint64),
        position_nm=skeletons.position_nm,
        skeleton=skeletons.skeleton,
        edges=skeletons.edges.astype(np.uint64),
    )

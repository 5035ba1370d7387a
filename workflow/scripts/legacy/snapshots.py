"""Writes single batches as zarr stores (format 2, one chunk per array), like the modern engine.

This image has no zarr; retrace/training/snapshots.py writes the same arrays with it.
"""

import json
import os
import shutil

KEEP = 20
SUFFIX = ".zarr"


def write_array(folder, values, voxel_size_nm, offset_nm):
    """One array (Z, Y, X) or (C, Z, Y, X), uncompressed."""
    os.makedirs(folder)
    described = {
        "zarr_format": 2,
        "shape": values.shape,
        "chunks": values.shape,
        "dtype": values.dtype.str,
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    placed = {"resolution": list(voxel_size_nm), "offset": list(offset_nm)}
    for name, content in ((".zarray", described), (".zattrs", placed)):
        with open(os.path.join(folder, name), "w") as file:
            json.dump(content, file)
    with open(os.path.join(folder, ".".join("0" * values.ndim)), "wb") as file:
        file.write(values.tobytes())


def save(folder, iteration, pictures, voxel_size_nm):
    """Writes batch_ITERATION.zarr and deletes all but the newest; `pictures`: {name: (array, nm)}.

    A kill at any moment leaves complete snapshots, and unfinished ones under other names.
    """
    final = os.path.join(folder, "batch_%09d%s" % (iteration, SUFFIX))
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            if name.endswith(".partial"):
                shutil.rmtree(os.path.join(folder, name))
    for name, (values, offset_nm) in pictures.items():
        write_array(os.path.join(final + ".partial", name), values, voxel_size_nm, offset_nm)
    with open(os.path.join(final + ".partial", ".zgroup"), "w") as file:
        json.dump({"zarr_format": 2}, file)
    if os.path.isdir(final):
        delete(final)
    os.rename(final + ".partial", final)
    for name in sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))[:-KEEP]:
        delete(os.path.join(folder, name))


def delete(store):
    """Deletes a store; renamed first, because it is incomplete while its files are deleted."""
    os.rename(store, store + ".old.partial")
    shutil.rmtree(store + ".old.partial")

"""Checkpoints of the original programs: which is the latest, and what is restored of it."""

import glob
import os
import re
import sys

from tf1 import tf

STEM = "train_net_checkpoint"
FIRST_KERNEL = "/unet_layer_0_left_0/kernel"


def latest(folder):
    """Path without ending and iteration of the newest checkpoint; (None, 0) without one.

    By the files that are there, never by what the text file `checkpoint` names.
    """
    found = {}
    for path in glob.glob(os.path.join(folder, STEM + "_*.index")):
        match = re.search(r"_(\d+)\.index$", path)
        if match:
            found[int(match.group(1))] = path[: -len(".index")]
    return (found[max(found)], max(found)) if found else (None, 0)


def shapes(prefix):
    """{variable: shape} of a checkpoint."""
    return tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()


def names_like(prefix):
    """The settings of a network that give its variables the names they have in a checkpoint."""
    there = shapes(prefix)
    scopes = [name[: -len(FIRST_KERNEL)] for name in there if name.endswith(FIRST_KERNEL)]
    if len(scopes) != 1:
        sys.exit("error: %s holds no network of the LSD family" % prefix)
    old = scopes[0] + "/lsds_0/kernel" in there
    return {"scope": scopes[0], "lsd_layer": "lsds_0" if old else "embedding_0"}


def restore(session, prefix):
    """Fills the graph's variables; ends the program where the checkpoint lacks a weight of it.

    What else the graph has (slots of an optimiser that the checkpoint lacks) stays as it begins.
    """
    there = shapes(prefix)
    every = tf.global_variables()
    found = {v.op.name: v for v in every if there.get(v.op.name) == v.get_shape().as_list()}
    missing = sorted(v.op.name for v in tf.trainable_variables() if v.op.name not in found)
    if missing:
        sys.exit(
            "error: %s does not fit this network: %s is %s there; it may be of another dataset or "
            "network" % (prefix, missing[0], there.get(missing[0], "absent"))
        )
    tf.train.Saver(found).restore(session, prefix)
    print("[restore] %d of %d variables from %s" % (len(found), len(every), prefix), flush=True)

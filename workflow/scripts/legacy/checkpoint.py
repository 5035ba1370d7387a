"""Checkpoints of the original programs: finds the latest and restores it."""

import glob
import os
import re
import sys

from tf1 import tf

STEM = "train_net_checkpoint"
FIRST_KERNEL = "/unet_layer_0_left_0/kernel"


def latest(folder):
    """Path without suffix, and iteration, of the newest checkpoint; (None, 0) without one.

    The existing files decide, not the text file `checkpoint`.
    """
    prefixes = {}
    for path in glob.glob(os.path.join(folder, STEM + "_*.index")):
        match = re.search(r"_(\d+)\.index$", path)
        if match:
            prefixes[int(match.group(1))] = path[: -len(".index")]
    return (prefixes[max(prefixes)], max(prefixes)) if prefixes else (None, 0)


def shapes(prefix):
    """{variable: shape} of a checkpoint."""
    return tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()


def names_like(prefix):
    """Settings of a network that give its variables the names in a checkpoint."""
    stored = shapes(prefix)
    scopes = [name[: -len(FIRST_KERNEL)] for name in stored if name.endswith(FIRST_KERNEL)]
    if len(scopes) != 1:
        sys.exit("error: %s holds no network of the LSD family" % prefix)
    old = scopes[0] + "/lsds_0/kernel" in stored
    return {"scope": scopes[0], "lsd_layer": "lsds_0" if old else "embedding_0"}


def restore(session, prefix):
    """Restores the graph's variables; exits if the checkpoint lacks one of its weights.

    Other variables that the checkpoint lacks (slots of an optimiser) keep their initial values.
    """
    stored = shapes(prefix)
    variables = tf.global_variables()
    matching = {v.op.name: v for v in variables if stored.get(v.op.name) == v.get_shape().as_list()}
    missing = sorted(v.op.name for v in tf.trainable_variables() if v.op.name not in matching)
    if missing:
        sys.exit(
            "error: %s does not fit this network: %s is %s there; it may be of another dataset or "
            "network" % (prefix, missing[0], stored.get(missing[0], "absent"))
        )
    tf.train.Saver(matching).restore(session, prefix)
    print("[restore] %d of %d variables from %s" % (len(matching), len(variables), prefix), flush=True)

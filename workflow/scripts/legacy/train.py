"""Trains the graph of mknet.py on batches that lie ready, until an iteration.

    python train.py --net FOLDER --batches FOLDER --iterations N

Goes on from the latest train_net_checkpoint_*.index in --net, never from what the text file
`checkpoint` names. Batch i (from 0) is BATCHES/batch_%09d.npz with raw, gt_HEAD and weight_HEAD.
"""

import argparse
import glob
import json
import os
import re
import sys

import numpy as np

from tf1 import tf

STEM = "train_net_checkpoint"


def latest(folder):
    """Path without ending and iteration of the newest checkpoint; (None, 0) without one."""
    found = {}
    for path in glob.glob(os.path.join(folder, STEM + "_*.index")):
        match = re.search(r"_(\d+)\.index$", path)
        if match:
            found[int(match.group(1))] = path[: -len(".index")]
    return (found[max(found)], max(found)) if found else (None, 0)


def read_batch(folder, iteration, names):
    """{tensor name: array} of one batch."""
    path = os.path.join(folder, "batch_%09d.npz" % iteration)
    if not os.path.isfile(path):
        sys.exit("error: %s is missing; write the batches up to iteration %d" % (path, iteration))
    fed = {}
    with np.load(path) as arrays:
        for key, tensor in names.items():
            if key == "raw" or key.startswith(("gt_", "weight_")):
                fed[tensor] = arrays[key]
    return fed


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", required=True, help="folder of mknet.py")
    parser.add_argument("--batches", required=True)
    parser.add_argument("--iterations", required=True, type=int)
    parser.add_argument("--every", type=int, default=10000, help="distance of checkpoints")
    args = parser.parse_args(argv)
    with open(os.path.join(args.net, "train_net.json")) as file:
        names = json.load(file)
    tf.reset_default_graph()
    tf.train.import_meta_graph(os.path.join(args.net, "train_net.meta"))
    with tf.variable_scope("gunpowder"):
        counter = tf.get_variable(
            "iteration", [1], initializer=tf.zeros_initializer(), trainable=False
        )
        count = counter.assign_add([1.0])
    saver = tf.train.Saver(max_to_keep=0)
    prefix, done = latest(args.net)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        if prefix:
            saver.restore(session, prefix)
        for iteration in range(done, args.iterations):
            fed = read_batch(args.batches, iteration, names)
            _, loss, _ = session.run([names["optimizer"], names["loss"], count], fed)
            print("[train] %d/%d loss %.6f" % (iteration + 1, args.iterations, loss))
            if (iteration + 1) % args.every == 0 or iteration + 1 == args.iterations:
                path = os.path.join(args.net, "%s_%d" % (STEM, iteration + 1))
                saver.save(session, path, write_meta_graph=False)
        if args.iterations <= done:
            print("[train] already at iteration %d" % done)


if __name__ == "__main__":
    main()

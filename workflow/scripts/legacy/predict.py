"""Predicts one block with the graph of mknet.py and its latest checkpoint.

    python predict.py --net FOLDER --raw BLOCK.npy --output OUT.npz

BLOCK.npy is (C, Z, Y, X) float32 as the network reads it: raw in [-1, 1], descriptors in [0, 1].
OUT.npz has one array (C, Z', Y', X') float32 per head. Without a checkpoint nothing is predicted.
"""

import argparse
import json
import os
import sys

import numpy as np

from tf1 import tf
from train import latest


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", required=True, help="folder of mknet.py")
    parser.add_argument("--raw", required=True)
    parser.add_argument("--output", required=True)
    args = parser.parse_args(argv)
    with open(os.path.join(args.net, "config.json")) as file:
        names = json.load(file)
    prefix, iteration = latest(args.net)
    if prefix is None:
        sys.exit("error: no train_net_checkpoint_*.index in %s; train or fetch one" % args.net)
    tf.reset_default_graph()
    tf.train.import_meta_graph(os.path.join(args.net, "config.meta"))
    raw = np.load(args.raw)
    with tf.Session() as session:
        saver = tf.train.Saver()
        saver.restore(session, prefix)
        heads = [key for key in sorted(names) if key.startswith("pred_")]
        outputs = session.run([names[head] for head in heads], {names["raw"]: raw})
    np.savez(args.output, **{h[len("pred_") :]: v for h, v in zip(heads, outputs)})
    print("[predict] iteration %d -> %s" % (iteration, args.output))


if __name__ == "__main__":
    main()

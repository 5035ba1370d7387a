"""TensorFlow with the interface of version 1, for any installed version from 1.3 to 2.x.

Everything in this folder runs on Python 3.6 and TensorFlow 1.3, inside the legacy image.
"""

import os
import sys

import gpu

gpu.prepare()
try:
    import tensorflow
except ImportError as error:
    sys.exit(gpu.not_importable(error))

if hasattr(tensorflow, "compat") and hasattr(tensorflow.compat, "v1"):
    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
else:
    tf = tensorflow


def session():
    """A session with the threads of the job, after checking the graphics card."""
    gpu.check(tf.test.is_built_with_cuda())
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    return tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=threads))


def channels_last(array):
    """(C, Z, Y, X) -> (1, Z, Y, X, C), the only layout that TensorFlow can convolve on a CPU."""
    return tf.expand_dims(tf.transpose(array, [1, 2, 3, 0]), 0)


def channels_first(array):
    """(1, Z, Y, X, C) -> (C, Z, Y, X)."""
    return tf.transpose(tf.squeeze(array, 0), [3, 0, 1, 2])

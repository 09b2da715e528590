"""Worker processes for work that keeps one core busy each: TensorFlow in each, on one thread."""

import concurrent.futures
import multiprocessing
import os
import threading
from multiprocessing import connection

import tensorflow as tf


def open_pool(processes: int) -> concurrent.futures.ProcessPoolExecutor:
    """An executor whose workers leave the GPUs alone and end with the process that opened it."""
    return concurrent.futures.ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),  # TensorFlow does not survive a fork
        initializer=_start_worker,
    )


def _start_worker():
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def follow():  # a killed parent cannot stop its workers: they hold both ends of its pipes
        connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()

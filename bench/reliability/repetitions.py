"""The same training again and again, on any number of threads."""

import os
import sys

from bench.reliability.runs import finish, start

REPEATED = """
import hashlib, sys, threading
import numpy as np
import npgpt
from npgpt.core import threads

threads.FLOPS_PER_THREAD = 1.0  # as many threads as are asked for, however little there is to do
count, most, precision = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
config = npgpt.GPT2Config(block_size=32, vocab_size=70, n_layer=2, n_head=2, n_embd=32)
x = np.random.default_rng(0).integers(0, 70, (3, 33))

def digest():
    model = npgpt.GPT2(config, seed=1, precision=precision)
    for _ in range(2):
        model.forward_backward(x[:, :-1], x[:, 1:])
        model.update(1e-3)
    return hashlib.sha256(model.params.flat.tobytes()).hexdigest()

found = set()
for i in range(count):
    npgpt.set_threads(1 + i % most)
    found.add(digest())
def several():
    for _ in range(max(1, count // 40)):
        found.add(digest())
pool = [threading.Thread(target=several) for _ in range(4)]
for thread in pool: thread.start()
for thread in pool: thread.join()
print(len(found), *found)
"""


def repeat(count, most, precision):
    """Train a small model so many times, on 1 to `most` threads, then in four Python threads.

    -> a dict; raises AssertionError unless all have the same bits.
    """
    words = [sys.executable, "-c", REPEATED, str(count), str(most), precision]
    out, _ = finish(start(words, env={**os.environ, "NUMBA_NUM_THREADS": str(most)}))
    different = int(out.split()[0])
    assert different == 1, f"{different} different results"
    return {"precision": precision, "threads": most, "repetitions": count + 4 * max(1, count // 40)}

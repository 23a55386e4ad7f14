"""AdamW (Loshchilov and Hutter 2019): Adam with bias correction and decoupled weight decay."""

import numpy as np

CHUNK = 1 << 15


def adamw_update(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay, scale=1.0):
    """Step t = 1, 2, ... of p (N,) against scale times g (N,); p, m and v (N,) change in place.

    m and v are the running means of g and of g squared. They start at zero and so are too small by
    the factors 1 - beta1^t and 1 - beta2^t, which is made good before they are used.
    """
    # In pieces that stay in the cache: on whole buffers each line is a trip through memory.
    for i in range(0, p.size, CHUNK):
        pi, gi, mi, vi = (a[i : i + CHUNK] for a in (p, g, m, v))
        gi = scale * gi
        mi *= beta1
        mi += (1 - beta1) * gi
        vi *= beta2
        vi += (1 - beta2) * (gi * gi)
        pi *= 1 - lr * weight_decay
        pi -= lr / (1 - beta1**t) * mi / (np.sqrt(vi / (1 - beta2**t)) + eps)


def gradient_norm(g):
    """g (N,) -> the square root of the sum of its squares, a float."""
    return float(np.sqrt(sum(np.dot(gi, gi) for gi in np.split(g, range(CHUNK, g.size, CHUNK)))))

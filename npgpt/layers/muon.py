"""Muon (Jordan et al. 2024): a step along the momentum with all singular values near 1; doc/muon/.

https://kellerjordan.github.io/posts/muon/, with its coefficients and its number of iterations.
"""

import numpy as np

A, B, C = 3.4445, -4.7750, 2.0315  # of the polynomial A s + B s^3 + C s^5 of a singular value s
ITERATIONS = 5
EPS = 1e-7


def orthogonalize(x):
    """x (rows, cols) -> a matrix of the same singular vectors, its singular values near 1.

    Newton-Schulz's iteration: a polynomial of x x^T times x is the same polynomial of each singular
    value, and this one leads those in (0, 1] to about 0.7 to 1.2.
    """
    x = x / (np.linalg.norm(x) + EPS)  # no singular value is above the norm: all are up to 1
    tall = len(x) > x.shape[1]
    x = x.T if tall else x  # (n, k), n <= k: of x x^T and x^T x the smaller
    identity = np.eye(len(x), dtype=x.dtype)  # (n, n)
    for _ in range(ITERATIONS):
        gram = x @ x.T  # (n, n)
        x = (A * identity + B * gram + C * (gram @ gram)) @ x  # (n, k)
    return x.T if tall else x


def muon_update(p, g, m, lr, momentum, weight_decay, scale=1.0):
    """A step of the N matrices p (N, rows, cols) against scale times g; p and m change in place.

    m is the running mean of g. The step is orthogonalize(Nesterov's momentum), times sqrt(rows /
    cols) where a matrix is tall: then outputs change alike whatever their number.
    """
    rows, cols = p.shape[1:]
    rate = lr * max(1, rows / cols) ** 0.5
    for pi, gi, mi in zip(p, g, m, strict=True):  # each (rows, cols)
        gi = scale * gi
        mi *= momentum
        mi += (1 - momentum) * gi
        step = orthogonalize(momentum * mi + (1 - momentum) * gi)
        pi *= 1 - lr * weight_decay
        pi -= rate * step

"""Where a backward pass leaves the gradients of its parameters."""


def write_grads(gradients, out, add):
    """Return gradients; given arrays out, write (with add: add) them there and return out."""
    if out is None:
        return gradients
    for target, gradient in zip(out, gradients, strict=True):
        if gradient is not None:  # None: a matmul without a bias
            target[...] = target + gradient if add else gradient
    return out

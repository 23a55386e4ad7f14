"""Where a backward pass leaves the gradients of its parameters."""


def write_grads(gradients, out, add):
    """The gradients or, given arrays out for them, those: written there or, with add, added."""
    if out is None:
        return gradients
    for target, gradient in zip(out, gradients, strict=True):
        if gradient is not None:
            target[...] = target + gradient if add else gradient
    return out

"""Where a branch joins the residual stream: out = x + y. Backward, dout goes both ways as it is."""


def residual_add(x, y):
    """x and y of any one shape -> x + y."""
    return x + y

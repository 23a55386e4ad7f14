"""What is said of a wrong tensor besides its cause: of another shape, of a later update."""

from itertools import permutations

from npgpt.tracing.names import STEPS, split_name

MOST_AXES = 5  # whose orders are tried

# Of the first wrong number after updates of which the first is right.
UPDATE_HINTS = {
    "step_m": "m of the first update is right: are the gradients set to 0 before each backward"
    " pass, is m kept from update to update, and are the new parameters used?",
    "step_v": "m is right, so the gradients are: is v kept from update to update?",
    "step_params": "m and v are right: does t in 1 - beta^t count the updates, and are lr and the"
    " weight decay those of every update?",
    "step_loss": "the norms of the parameters are right: has the forward pass all the new ones?",
}


def shape_sentence(case):
    """What is wrong with a tensor of another shape, and whether its numbers are right."""
    shape, mine = case.value.shape, case.mine
    sentence = f"its shape is {mine.shape}, and must be {shape}"
    if mine.ndim == 1:
        sentence = f"it has {mine.size:,} numbers, and must have {case.value.size:,}, of {shape}"
        if mine.size != case.value.size:
            return f"{sentence}; is it another pair's?"
    if mine.size != case.value.size or mine.ndim > MOST_AXES:
        return sentence
    for order in permutations(range(mine.ndim)):
        prediction = case.judge.compared(case.name, mine.transpose(order).reshape(shape))
        if (abs(prediction - case.value) <= case.tolerance).all():
            how = f"with the axes in the order {list(order)}"
            if order == (1, 0):
                how = "but transposed"
            elif order == tuple(range(mine.ndim)):
                how = "and in the right order: it is only to be reshaped"
            return f"{sentence}; its numbers are right, {how}"
    return sentence


def hint(name):
    """Where to look, if no cause has been found for the first wrong tensor of all; or ""."""
    base, step = split_name(name)
    return UPDATE_HINTS[base] if base in STEPS and step > 1 else ""

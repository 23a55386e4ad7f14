"""Why a tensor is wrong: hypotheses, each tested against the numbers.

A hypothesis predicts the tensor that a mistake makes of MINE's own inputs. Where the prediction
meets MINE within rounding, and the right value does not, that is the cause.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from npgpt.core.parameters import TENSOR_NAMES
from npgpt.porting import backward_mistakes as backward
from npgpt.porting import forward_mistakes as forward
from npgpt.porting import general_mistakes as general
from npgpt.porting import update_mistakes as later
from npgpt.porting.rules import LINEARS, RULES
from npgpt.tracing.names import split_name

LEFT = 0.1  # of the difference: what a cause may leave unexplained
ROUNDING = 0.05  # of the tolerance: what is left below that is as good as nothing
BETTER = 0.5  # of what the best cause so far leaves, for a later one to be better


class Cause(NamedTuple):
    """A hypothesis about some tensors, "*" being all.

    predict(case) yields pairs: a prediction, and what the braces of the sentence stand for.
    """

    name: str
    about: str
    predict: Callable[[Any], Iterator[tuple]]
    sentence: str

    def is_about(self, case):
        """Whether the hypothesis is about this tensor."""
        names = {"*", case.rule, split_name(case.name)[0]}
        return not names.isdisjoint(self.about.split())


LNS, LN_RSTDS = "ln1 ln2 lnf", "ln1_rstd ln2_rstd lnf_rstd"
MATRICES = " ".join(f"d{names.split()[1]}w" for names in LINEARS.values())
BIASES = " ".join([*(f"d{names.split()[1]}b" for names in LINEARS.values()), "dln1b dln2b dlnfb"])
NORM_WEIGHTS = "dln1w dln2w dlnfw"
STREAMS = "dresidual2 dinput"
SUMS = f"{MATRICES} {BIASES} {NORM_WEIGHTS}"

# Tried in this order; the first of those that leave about the same unexplained is the cause.
CAUSES = (
    Cause(
        "padding", " ".join(TENSOR_NAMES[1:]), general.padding_read,
        "the rows that pad wte in the file are not skipped",
    ),
    Cause("targets", "losses", forward.without_targets, "{}"),
    Cause("not written", "*", general.zeros, "it is 0: never computed, or never copied out"),
    Cause("partly written", "*", general.unwritten, "it is right but for zeros at {}"),
    Cause("positions", "encoded", forward.positions, "{}"),
    Cause("embedding rows", "encoded", forward.token_rows, "it is made of {}"),
    Cause("epsilon", LN_RSTDS, forward.epsilons, "epsilon is {}"),
    Cause("variance", LN_RSTDS, forward.variances, "the variance {}"),
    Cause("rstd", LN_RSTDS, forward.not_rstd, "it is {}"),
    Cause("layernorm", LNS, forward.norm_outputs, "{}"),
    Cause("bias missing", "qkv attproj fch fcproj", forward.bias_missing, "{} is not added"),
    Cause("bias twice", "qkv attproj fch fcproj", forward.bias_twice, "{} is added twice"),
    Cause(
        "weight transposed", "qkv attproj fch fcproj logits", forward.weight_transposed,
        "{} is read as (in, out), but it is (out, in)",
    ),
    Cause("heads or q, k, v", "qkv", forward.qkv_orders, "its channels are right, but {}"),
    Cause("attention scale", "preatt", forward.score_scales, "the scores {}"),
    Cause("heads or q, k, v", "preatt", forward.score_layouts, "{}"),
    Cause("mask", "preatt", forward.diagonal_masked, "the mask is off by one: {}"),
    Cause("mask", "att", forward.masks, "the causal mask is wrong: {}"),
    Cause("softmax", "att", forward.softmaxes, "the softmax {}"),
    Cause("heads or q, k, v", "atty", forward.value_layouts, "{}"),
    Cause("heads merged", "atty", forward.head_merges, "the heads' outputs: {}"),
    Cause("GELU", "fch_gelu", forward.gelus, "{}"),
    Cause("softmax", "probs", forward.probabilities, "{}"),
    Cause("loss mean", "loss", forward.loss_means, "{}"),
    Cause("targets", "losses", forward.target_mistakes, "{}"),
    Cause("logit gradient", "dlogits", backward.logit_gradients, "{}"),
    Cause("layernorm gradient", "dlast", backward.norm_terms, "{}"),
    Cause("residual gradient", STREAMS, backward.skip_mistakes, "{}"),
    Cause("layernorm gradient", STREAMS, backward.norm_terms, "{}"),
    Cause("layernorm gradient", NORM_WEIGHTS, backward.norm_weight_gradients, "it is made of {}"),
    Cause("GELU gradient", "dfch", backward.gelu_gradients, "{}"),
    Cause("softmax gradient", "dpreatt", backward.softmax_gradients, "{}"),
    Cause("attention gradient", "dqkv", backward.qkv_gradients, "{}"),
    Cause("embedding gradient", "dwte", backward.embedding_gradients, "{}"),
    Cause("embedding gradient", "dwpe", backward.position_gradients, "{}"),
    Cause("overwritten", SUMS, backward.one_row_only, "{}: = for +="),
    Cause("AdamW", "step_m step_v step_params", later.updates, "{}"),
    Cause("loss before", "step_loss", later.losses_before, "it is the loss before the update"),
    Cause(
        "accumulated twice", f"{SUMS} dwte dwpe", general.twice,
        "it is twice what it should be: not set to 0 before it was added up again",
    ),
    Cause("wrong sign", "*", general.negated, "it has the wrong sign"),
    Cause("scaled", "*", general.scaled, "it is the right tensor times {}"),
    Cause("transposed", "*", general.transposed, "it is transposed: {} are exchanged"),
    Cause("left out", " ".join(RULES), general.left_out, "it is what comes out without {}"),
    Cause("wrong block", " ".join(RULES), general.other_parameters, "it has the parameters of {}"),
    Cause("wrong input", " ".join(RULES), general.other_input, "it is made of {}"),
    Cause("wrong block", "*", general.other_block, "it is {}"),
    Cause("shifted", "*", general.shifted, "position t has what belongs to {}"),
    Cause(
        "coarse precision", "*", general.coarser,
        "it may have been computed in {0}, whose roundings are as large as its errors; if it should"
        " be, --dtype {0} allows for them",
    ),
)  # fmt: skip


def find_cause(case):
    """The cause that explains a wrong tensor best -> its name and its sentence, or None."""
    if general.is_byte_swapped(case):
        return "byte order", "its numbers are big-endian: write their bytes in little-endian order"
    finite = np.isfinite(case.mine)
    if not finite.all():
        n = case.mine.size - int(finite.sum())
        return "not finite", f"{n} of its {case.mine.size} numbers are infinite or not a number"
    before = general.rms(case.mine - case.value)
    best, found = LEFT / BETTER, None
    with np.errstate(all="ignore"):
        for cause in CAUSES:
            if not cause.is_about(case) or found and cause.predict is general.coarser:
                continue
            for prediction, filling in cause.predict(case):
                left = unexplained(case, np.asarray(prediction)) / before
                if left < BETTER * best:
                    best, found = left, (cause.name, cause.sentence.format(filling))
                if best == 0:
                    return found
    return found


def unexplained(case, prediction):
    """The difference that a prediction leaves, 0 if tiny; infinite if rounding cannot make it."""
    if prediction.shape != case.mine.shape or not np.isfinite(prediction).all():
        return math.inf
    size, usual = general.rms(prediction), general.rms(case.value)
    tolerance = case.tolerance * max(1.0, size / usual if usual else 1.0)
    error = abs(case.mine - prediction)
    if (error > np.maximum(tolerance, 64 * case.u * size)).any():
        return math.inf
    return max(0.0, general.rms(error) - ROUNDING * general.rms(tolerance))

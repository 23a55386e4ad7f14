"""How finely each tensor of MINE can be judged: the unit roundoffs of its dtypes."""

from collections import Counter

from npgpt.porting.sources import is_parameter
from npgpt.tracing.names import INPUTS, STEPS, split_name

# The unit roundoff of each dtype: 2 to the power of minus its significant bits.
ROUNDOFFS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
KINDS = {"<f8": "float64", "<f4": "float32", "<f2": "float16", "bf16": "bfloat16"}


def computed_in(mine):
    """The dtype that most of MINE's activations and gradients have; of equally many, the coarser.

    The loss and the norms after updates count where there is nothing else: programs that compute in
    float32 often write them as float64.
    """
    names = [n for n in mine.expected.names if n in mine and not (n in INPUTS or is_parameter(n))]
    arrays = [n for n in names if split_name(n)[0] not in (*STEPS, "loss")]
    kinds = Counter(KINDS.get(mine.dtype(name)) for name in arrays or names)
    del kinds[None]
    return max(kinds, key=lambda kind: (kinds[kind], ROUNDOFFS[kind]), default="float32")


def stored_u(mine, name):
    """The unit roundoff of the dtype that a tensor of MINE has there; 0 for integers."""
    kind = KINDS.get(mine.dtype(name))
    return ROUNDOFFS[kind] if kind else 0.0


def dtypes_in_words(mine, dtype):
    """The dtype that MINE is computed in, and those of tensors that are stored in a coarser one."""
    coarser = {KINDS.get(mine.dtype(name), dtype) for name in mine.expected.names if name in mine}
    coarser = {kind for kind in coarser if ROUNDOFFS[kind] > ROUNDOFFS[dtype]}
    return " and ".join([dtype, *sorted(coarser, key=ROUNDOFFS.__getitem__)])

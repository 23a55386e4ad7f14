"""What a comparison finds of one tensor, and the numbers that its cause is found from."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npgpt.porting.rules import RULES, resolve, rule_of


@dataclass
class Finding:
    """What is to say of one tensor.

    status: "right" or "wrong"; "shape" where that is another one; "follows" where something before
    it is wrong, and it cannot be judged: what it is made of is not finite, or it has no rule and
    differs from EXPECTED's; "absent" in MINE, or in EXPECTED, which has nothing to make it of.
    """

    name: str
    status: str
    own_name: str = ""
    shape: tuple = ()
    made_of: tuple = ()  # the names of what it was computed from, empty if compared directly
    index: tuple = ()
    mine: float = math.nan
    expected: float = math.nan
    excess: float = 0.0  # the largest difference over its tolerance
    tolerance: float = 0.0  # at this index
    n_wrong: int = 0
    where: str = ""
    cause: str = ""
    sentence: str = ""
    hint: str = ""  # what to look at, where no cause is found
    suspects: tuple = ()  # what MINE lacks of that it is made of, and that nothing has shown right
    shared: tuple = ()  # those of the suspects that are an earlier wrong tensor's, too
    picture: Any = field(default=None, repr=False)
    case: Any = field(default=None, repr=False)  # whole arrays, until it has been explained


@dataclass
class Case:
    """A wrong tensor: mine, the value by its rule and the tolerance, all of one shape.

    u is the unit roundoff that it was judged with, inputs the names of what value is made of.
    """

    judge: Any
    name: str
    inputs: tuple
    u: float
    mine: np.ndarray
    value: np.ndarray
    tolerance: np.ndarray

    def __post_init__(self):
        self.L = self.judge.expected.config.n_layer
        self.rule, self.block = rule_of(self.name, self.L)
        self.sizes = self.judge.sizes._replace(u=self.u)

    def get(self, name):
        """A tensor that is named as in RULES, seen from this one's block; None if not there."""
        full = resolve(name, self.block, self.L)
        return self.judge.get(full)[0] if full in self.judge.expected.names else None

    def arrays(self):
        """The inputs of its rule."""
        return [self.judge.get(name)[0] for name in self.inputs]

    def make(self, *inputs):
        """What its rule makes of these inputs."""
        return RULES[self.rule][0](self.sizes, *inputs)[0]

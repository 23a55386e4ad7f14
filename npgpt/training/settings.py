"""The settings of a training run: the keys of a TOML file and the options of the trainer."""

import dataclasses
import difflib
import json
import math
import operator
import re
import tomllib
from dataclasses import dataclass

from npgpt.core.precision import PRECISION_HELP, PRECISIONS
from npgpt.data.batches import ORDERS
from npgpt.errors import ArgumentError, FileError
from npgpt.files import open_for_reading
from npgpt.model.optimizer import DECAYED_PARAMS, OPTIMIZERS
from npgpt.parallel.exchange import WIRES
from npgpt.parallel.sharded import SHARDED
from npgpt.training.schedules import SCHEDULES, learning_rate
from npgpt.wording import counted

# old name -> new name, for the runs of earlier versions
RENAMED = {"final_lr": "final_lr_fraction", "decay": "decayed_params"}
# nanoGPT's name, or that of a command-line option -> the setting
SYNONYMS = {
    "batch_size": "B", "seq_len": "T", "learning_rate": "lr", "max_iters": "steps",
    "warmup_iters": "warmup", "grad_clip": "clip", "eval_interval": "val_every",
    "eval_iters": "val_batches", "out_dir": "run", "log_interval": "log_every",
}  # fmt: skip
LARGEST_TOML = 1_000_000  # bytes
# A key of 50 parts, where one can stand. It never goes back, so that its time grows with the file's
# size alone.
MANY_PARTS = re.compile(
    rb"""(?m)(?:^|[{,\[])[ \t]*+"""
    rb"""(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){50}"""
)
# what a resumed run may change; all else would make it another run
ON_RESUME = (
    "train", "val", "steps", "lr", "muon_lr", "patience", "val_every", "val_batches",
    "sample_every", "sample_tokens", "sample_prompt", "log_every", "checkpoint_every", "keep",
    "precision", "recompute", "recompute_blocks", "threads", "shard_optimizer", "wire",
    "tensorboard",
)  # fmt: skip
ORDER_HELP = "order of batches: " + "; ".join(
    f"{name}: {order.help}" for name, order in ORDERS.items()
)


def setting(default, help, choices=None, lowest=None, above=None, highest=None, below=None):
    """A field of Settings with its help and its limits."""
    metadata = {
        "help": help, "choices": choices, "lowest": lowest, "above": above, "highest": highest,
        "below": below,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The settings of a run; the fields' metadata holds their help and limits."""

    run: str = setting("run", "folder of the run; it must not hold one yet")
    train: str = setting("", "token file to train on, or a pattern of its shards")
    val: str = setting("", "token file to validate on, or a pattern; none: no validation")
    order: str = setting("shuffle", ORDER_HELP, choices=ORDERS)
    seed: int = setting(0, "random seed of new weights, batches and samples", lowest=0)

    model: str = setting(
        "", "a published name, model file or folder to start from, or d6, d12, ... from scratch"
    )
    n_layer: int = setting(0, "from scratch: layers", lowest=0)
    n_head: int = setting(0, "from scratch: attention heads", lowest=0)
    n_embd: int = setting(0, "from scratch: channels", lowest=0)
    block_size: int = setting(
        0, "from scratch: longest context; 0: T, or 1024 with d6, d12, ...", lowest=0
    )
    vocab_size: int = setting(0, "from scratch: vocabulary size; 0: the tokenizer's", lowest=0)

    B: int = setting(4, "sequences per micro-batch", lowest=1)
    T: int = setting(64, "tokens per sequence", lowest=1)
    total_batch: int = setting(
        0,
        "tokens per update, a multiple of B * T (gradient accumulation); 0: B * T of each rank",
        lowest=0,
    )
    steps: int = setting(1000, "number of updates", lowest=1)
    overfit_one_batch: bool = setting(False, "train on the first batch alone, as a check")

    lr: float = setting(3e-4, "peak learning rate", above=0)
    warmup: int = setting(0, "updates of linear warmup", lowest=0)
    schedule: str = setting("cosine", "learning rate schedule after the warmup", choices=SCHEDULES)
    final_lr_fraction: float = setting(
        0.0,
        "final learning rate as a fraction of lr, such as 0.1; not with schedule constant",
        lowest=0,
        highest=1,
    )
    min_lr: float = setting(
        0.0, "final learning rate, such as 6e-5; instead of final_lr_fraction", lowest=0
    )
    wsd_decay: float = setting(
        0.2, "wsd: fraction of the steps in the decay phase", above=0, highest=1
    )
    optimizer: str = setting(
        "adamw", "optimizer; muon: of the blocks' matrices, AdamW of all else", choices=OPTIMIZERS
    )
    beta1: float = setting(
        0.9, "AdamW: decay rate of the first moment (gradients)", lowest=0, below=1
    )
    beta2: float = setting(
        0.95, "AdamW: decay rate of the second moment (squared gradients)", lowest=0, below=1
    )
    eps: float = setting(1e-8, "AdamW: added to the denominator for stability", above=0)
    weight_decay: float = setting(0.1, "AdamW: weight decay", lowest=0)
    decayed_params: str = setting(
        "matrices", "parameters that weight decay applies to", choices=DECAYED_PARAMS
    )
    muon_lr: float = setting(
        0.02, "Muon: peak learning rate; it follows the schedule of lr, which is AdamW's", above=0
    )
    muon_momentum: float = setting(0.95, "Muon: decay rate of the momentum", lowest=0, below=1)
    dropout: float = setting(
        0.0, "fraction of activations dropped out in training, such as 0.2", lowest=0, below=1
    )
    clip: float = setting(1.0, "clip gradients to this global norm; 0: no clipping", lowest=0)
    skip_loss_z: float = setting(
        0.0, "skip updates whose loss has a z-score above this; 0: never", lowest=0
    )
    skip_norm_z: float = setting(
        0.0, "skip updates whose gradient norm has a z-score above this; 0: never", lowest=0
    )

    val_every: int = setting(100, "updates between validations; 0: never", lowest=0)
    val_batches: int = setting(20, "batches per validation, of each rank; 0: all", lowest=0)
    patience: int = setting(
        0, "stop after this many validations without a lower loss; 0: never", lowest=0
    )
    sample_every: int = setting(0, "updates between samples; 0: never", lowest=0)
    sample_tokens: int = setting(100, "tokens per sample", lowest=1)
    sample_prompt: str = setting("", "prompt of the samples; none: end-of-text alone")
    log_every: int = setting(
        0,
        "updates between lines of progress; 0: a bar on a terminal, elsewhere some hundred lines",
        lowest=0,
    )
    checkpoint_every: int = setting(
        500,
        "updates between checkpoints; 0: only at the best validation losses and at the end",
        lowest=0,
    )
    keep: int = setting(2, "latest checkpoints to keep, besides the best", lowest=1)

    precision: str = setting("fp32", PRECISION_HELP, choices=PRECISIONS)
    recompute: bool = setting(
        False, "save memory: recompute cheap activations in the backward pass"
    )
    recompute_blocks: bool = setting(
        False, "save most memory: recompute whole blocks; a step takes up to a fifth longer"
    )
    threads: int = setting(
        0,
        "threads of a rank; 0: OMP_NUM_THREADS, or its share of the physical cores",
        lowest=0,
    )
    shard_optimizer: bool = setting(
        True, "several ranks: each keeps and updates only its part of AdamW's state"
    )
    wire: str = setting(
        "fp32", "several ranks: number format of the gradients that they exchange", choices=WIRES
    )
    tensorboard: bool = setting(False, "also write TensorBoard logs (needs the extra tensorboard)")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        if not self.run:
            raise ArgumentError("run must name a folder, not be empty")
        if self.total_batch % (self.B * self.T):
            raise ArgumentError(
                f"total_batch must be a multiple of B * T = {self.B * self.T},"
                f" not {self.total_batch}"
            )
        if self.min_lr > self.lr:
            raise ArgumentError(f"min_lr must be at most lr = {self.lr}, not {self.min_lr}")
        if self.min_lr and self.final_lr_fraction:
            raise ArgumentError("min_lr and final_lr_fraction do not go together: give one")

    @property
    def tokens_per_step(self):
        """The number of tokens per update, of all ranks."""
        return self.total_batch or self.B * self.T

    def share(self, ranks=1):
        """What each of so many ranks does of an update -> sequences and number of micro-batches.

        Its micro-batches are all alike, and of B sequences or, where that is not possible, the
        largest below. Raises ArgumentError where the ranks cannot do equally much.
        """
        rows = self.tokens_per_step // self.T
        if rows % ranks:
            raise ArgumentError(
                f"{ranks} ranks cannot share the {counted(rows, 'sequence')} of an update equally:"
                f" take a number of ranks that divides {rows}"
            )
        B = max(n for n in range(1, self.B + 1) if rows // ranks % n == 0)
        return B, rows // ranks // B

    def in_shards(self, ranks):
        """Whether each of so many ranks keeps its part of the optimizer's state, and not all of it.

        Raises ArgumentError for an optimizer that has no parts.
        """
        if ranks == 1 or not self.shard_optimizer:
            return False
        if self.optimizer not in SHARDED:
            raise ArgumentError(
                f"--optimizer {self.optimizer} updates whole matrices, so {ranks} ranks cannot keep"
                " its state in shards: give --no-shard-optimizer"
            )
        return True

    @property
    def model_options(self):
        """The options of GPT2 that the settings name."""
        recompute = "blocks" if self.recompute_blocks else self.recompute
        return {"precision": self.precision, "recompute": recompute}

    @property
    def effective_final_lr_fraction(self):
        """The final learning rate as a fraction of lr, by min_lr or by final_lr_fraction."""
        return self.min_lr / self.lr if self.min_lr else self.final_lr_fraction

    def learning_rate(self, step):
        """The learning rate of update `step`, counted from 0."""
        final = self.effective_final_lr_fraction
        return learning_rate(
            step, self.steps, self.lr, self.warmup, self.schedule, final, self.wsd_decay
        )


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def check(field, value):
    """Raise ArgumentError for a value of the wrong type or out of range, naming the setting."""
    kinds = {float: (int, float)}.get(field.type, field.type)
    if not isinstance(value, kinds) or (isinstance(value, bool) and field.type is not bool):
        raise ArgumentError(f"{field.name} must be of type {field.type.__name__}, not {value!r}")
    if field.type is str and any("\ud800" <= character <= "\udfff" for character in value):
        raise ArgumentError(f"{field.name} must be valid Unicode, not {value!r}")
    limits = field.metadata
    if field.type in (int, float) and abs(value) > 2**53:
        raise ArgumentError(f"{field.name} must be from -2^53 to 2^53")
    if limits["choices"] and value not in limits["choices"]:
        raise ArgumentError(
            f"{field.name} must be one of {', '.join(limits['choices'])}, not {value!r}"
        )
    if field.type is float and not math.isfinite(value):
        raise ArgumentError(f"{field.name} must be a finite number, not {value!r}")
    for limit, kept, words in (
        ("lowest", operator.ge, "at least"),
        ("above", operator.gt, "above"),
        ("highest", operator.le, "at most"),
        ("below", operator.lt, "below"),
    ):
        if limits[limit] is not None and not kept(value, limits[limit]):
            raise ArgumentError(f"{field.name} must be {words} {limits[limit]}, not {value!r}")


def make_settings(values, where=""):
    """Settings from a dict; raises ArgumentError, with a suggestion, for an unknown key.

    The message begins with `where`.
    """
    for key in values:
        if key not in FIELDS:
            raise ArgumentError(f"{where}{unknown_setting_message(key)}")
    try:
        return Settings(**values)
    except ArgumentError as error:
        raise ArgumentError(f"{where}{error}") from error


def unknown_setting_message(key):
    """The error message for an unknown key."""
    if (said := other_name_message(key)) is not None:
        return f"there is no setting {said}"
    near = difflib.get_close_matches(key, FIELDS, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(FIELDS)}"
    return f"there is no setting {key}; {hint}"


def other_name_message(key, spelled=str):
    """What a key that has another name is called, each spelled by a function; None for others."""
    if key == "final_lr":
        return (
            f"{spelled(key)}: {spelled('final_lr_fraction')} is a fraction of {spelled('lr')},"
            f" such as 0.1, and {spelled('min_lr')} a learning rate, such as 6e-5"
        )
    if key in (names := RENAMED | SYNONYMS):
        return f"{spelled(key)}; it is called {spelled(names[key])}"
    return None


def option_of(name):
    """The command line's option of a setting."""
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def read_toml(path):
    """Read a TOML file of settings -> a dict; its keys are checked by make_settings."""
    with open_for_reading(path) as (file, size):
        if size > LARGEST_TOML:
            raise FileError(f"{path}: {counted(size, 'byte')}, but {LARGEST_TOML:,} are the most")
        content = file.read()
    if MANY_PARTS.search(content):  # tomllib's time and memory grow with their square
        raise FileError(f"{path}: a key of more than 50 parts, but settings have one")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        raise FileError(f"{path}: not TOML: {error}") from error


def as_toml(settings, changed=False):
    """All of Settings, or those changed from their defaults, as the TOML that read_toml reads."""
    lines = [  # a JSON string is a TOML string but for DEL
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")
        for key, value in dataclasses.asdict(settings).items()
        if not changed or value != FIELDS[key].default
    ]
    return "".join(lines)

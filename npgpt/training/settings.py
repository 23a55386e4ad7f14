"""The settings of a training run: the keys of a TOML file and the options of the trainer."""

import dataclasses
import difflib
import json
import math
import operator
import tomllib
from dataclasses import dataclass

from npgpt.core.precision import PRECISIONS
from npgpt.data.batches import ORDERS
from npgpt.errors import ArgumentError, FileError
from npgpt.files import opened
from npgpt.model.optimizer import DECAYED_PARAMS, OPTIMIZERS
from npgpt.training.schedules import SCHEDULES

# What settings were called in the runs of earlier versions.
RENAMED = {"final_lr": "final_lr_fraction", "decay": "decayed_params"}


def setting(
    default, help, choices=None, lowest=None, above=None, highest=None, below=None, of_model=False
):
    """A field of Settings with its help, its limits, and whether it is an option of GPT2, too."""
    metadata = {
        "help": help, "choices": choices, "of_model": of_model,
        "lowest": lowest, "above": above, "highest": highest, "below": below,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What a run is made of. The fields' metadata has their help and their limits."""

    run: str = setting("run", "the folder of the run, which must not hold one yet")
    train: str = setting("", "token file to train on, or a pattern of its shards")
    val: str = setting("", "token file to validate on, or a pattern; none: no validation")
    order: str = setting("shuffle", "of the batches", choices=ORDERS)
    seed: int = setting(0, "of new weights, batches and samples", lowest=0)

    model: str = setting(
        "", "a published name, model file or folder to start from, or d6, d12, ... from scratch"
    )
    n_layer: int = setting(0, "from scratch: layers", lowest=0)
    n_head: int = setting(0, "from scratch: attention heads", lowest=0)
    n_embd: int = setting(0, "from scratch: channels", lowest=0)
    block_size: int = setting(0, "from scratch: longest context; 0: T", lowest=0)
    vocab_size: int = setting(0, "from scratch: tokens; 0: as many as the tokenizer has", lowest=0)

    B: int = setting(4, "sequences that are computed at a time", lowest=1)
    T: int = setting(64, "tokens of a sequence", lowest=1)
    total_batch: int = setting(
        0, "tokens of an update, a multiple of B * T (gradients add up); 0: B * T", lowest=0
    )
    steps: int = setting(1000, "updates", lowest=1)
    overfit_one_batch: bool = setting(False, "train on the first batch alone, as a check")

    lr: float = setting(3e-4, "the highest learning rate", above=0)
    warmup: int = setting(0, "updates over which it rises to that", lowest=0)
    schedule: str = setting("cosine", "how it falls from there", choices=SCHEDULES)
    final_lr_fraction: float = setting(
        0.0, "what it falls to, as a fraction of lr, such as 0.1", lowest=0, highest=1
    )
    min_lr: float = setting(
        0.0, "what it falls to, as a learning rate, such as 6e-5, instead of a fraction", lowest=0
    )
    wsd_decay: float = setting(
        0.2, "wsd: fraction of the steps in which it falls", above=0, highest=1
    )
    optimizer: str = setting("adamw", "what updates the parameters", choices=OPTIMIZERS)
    beta1: float = setting(0.9, "AdamW's memory of gradients", lowest=0, below=1)
    beta2: float = setting(0.95, "AdamW's memory of their squares", lowest=0, below=1)
    eps: float = setting(1e-8, "AdamW's guard of the division", above=0)
    weight_decay: float = setting(0.1, "AdamW's", lowest=0)
    decayed_params: str = setting("matrices", "what decay applies to", choices=DECAYED_PARAMS)
    clip: float = setting(1.0, "largest norm of the gradients; 0: any", lowest=0)
    skip_loss_z: float = setting(
        0.0, "skip updates whose loss is so many standard deviations up; 0: none", lowest=0
    )
    skip_norm_z: float = setting(0.0, "the same of the gradients' norm", lowest=0)

    val_every: int = setting(100, "updates between validations; 0: none", lowest=0)
    val_batches: int = setting(20, "batches of a validation; 0: all", lowest=0)
    patience: int = setting(
        0, "stop after so many validations without a lower loss; 0: never", lowest=0
    )
    sample_every: int = setting(0, "updates between samples; 0: none", lowest=0)
    sample_tokens: int = setting(100, "tokens of a sample", lowest=1)
    sample_prompt: str = setting("", "text that a sample goes on from; none: end-of-text")
    checkpoint_every: int = setting(500, "updates between checkpoints; 0: at the end", lowest=0)
    keep: int = setting(2, "checkpoints to keep, besides the best", lowest=1)

    precision: str = setting(
        "fp32", "how matrices are multiplied", choices=PRECISIONS, of_model=True
    )
    recompute: bool = setting(False, "save memory: compute cheap activations twice", of_model=True)
    threads: int = setting(0, "threads to compute with; 0: as many as physical cores", lowest=0)
    tensorboard: bool = setting(False, "also write TensorBoard's files (extra tensorboard)")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
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
    def accumulation(self):
        """The micro-batches of an update."""
        return max(1, self.total_batch // (self.B * self.T))

    @property
    def model_options(self):
        """The settings that are options of GPT2."""
        return {
            name: getattr(self, name)
            for name, field in FIELDS.items()
            if field.metadata["of_model"]
        }

    @property
    def final_fraction(self):
        """What the learning rate falls to, as a fraction of lr."""
        return self.min_lr / self.lr if self.min_lr else self.final_lr_fraction


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def check(field, value):
    """Refuse a value of the wrong kind or beyond its limits, naming the setting."""
    kinds = {float: (int, float)}.get(field.type, field.type)
    if not isinstance(value, kinds) or (isinstance(value, bool) and field.type is not bool):
        raise ArgumentError(
            f"{field.name} must be of the kind {field.type.__name__}, not {value!r}"
        )
    if field.type is str and any("\ud800" <= character <= "\udfff" for character in value):
        raise ArgumentError(f"{field.name} holds {value!r}, which is no text")
    limits = field.metadata
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
    """A dict -> Settings. Raises ArgumentError, which names the nearest key, for an unknown one."""
    for key in values:
        if key not in FIELDS:
            raise ArgumentError(f"{where}{unknown(key, FIELDS)}")
    return Settings(**values)


def unknown(key, known):
    """The sentence about a key that is none of the known ones."""
    if key == "final_lr":
        return (
            "there is no setting final_lr: final_lr_fraction is a fraction of lr, such as 0.1, and"
            " min_lr a learning rate, such as 6e-5"
        )
    near = difflib.get_close_matches(key, known, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"there is no setting {key}; {hint}"


def read_toml(path):
    """Read a TOML file of settings -> a dict; its keys are checked by make_settings."""
    with opened(path) as (file, _):
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FileError(f"{path}: not TOML: {error}") from error


def as_toml(settings):
    """All of Settings, as the TOML that read_toml reads."""
    lines = [  # a JSON string is a TOML string but for DEL
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")
        for key, value in dataclasses.asdict(settings).items()
    ]
    return "".join(lines)

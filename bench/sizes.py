"""The sizes that training steps are timed at: a model, a batch, and how many steps a round has."""

from dataclasses import dataclass

from npgpt import GPT2Config


@dataclass(frozen=True)
class Size:
    """A model and its batch (B, T); steps are so many that a round takes some seconds."""

    config: GPT2Config
    B: int
    T: int
    steps: int


V = 65  # tinyshakespeare's characters
SIZES = {
    "124M": Size(GPT2Config(), 4, 64, 5),
    "124M_T1024": Size(GPT2Config(), 4, 1024, 2),
    # config/train_shakespeare_char.py of nanoGPT, as its README has it for a CPU and as it is
    "nanogpt_cpu": Size(GPT2Config(64, V, n_layer=4, n_head=4, n_embd=128), 12, 64, 100),
    "L4_C256": Size(GPT2Config(128, V, n_layer=4, n_head=8, n_embd=256), 16, 128, 20),
    "shakespeare_char": Size(GPT2Config(256, V, n_layer=6, n_head=6, n_embd=384), 64, 256, 2),
}


def model_name(size):
    """What tables call the model of the size of this name."""
    config = SIZES[size].config
    if config == GPT2Config():
        return "GPT-2 124M"
    return f"{size} ({config.n_layer} layers, {config.n_embd} channels)"


def result_name(program, size, B, T):
    """The name of the file of a result; that of GPT-2 124M has B and T alone."""
    model = "" if SIZES[size].config == GPT2Config() else f"{size}_"
    return f"{program}_{model}{B}x{T}"


def add_size(parser):
    """Add --size, which choose_size reads."""
    presets = ", ".join(f"{name} (B={size.B}, T={size.T})" for name, size in SIZES.items())
    parser.add_argument(
        "--size", choices=SIZES, default="124M", metavar="NAME",
        help=f"the model, and its B and T: {presets}; default: 124M",
    )  # fmt: skip


def choose_size(parser, args):
    """Give the arguments without a value those of args.size; end the program where T is too long.

    Returns the model's GPT2Config.
    """
    size = SIZES[args.size]
    for name in ("B", "T", "steps"):
        if getattr(args, name, 0) is None:
            setattr(args, name, getattr(size, name))
    if args.T > size.config.block_size:
        parser.error(
            f"-T/--T/--seq-len: must be at most {size.config.block_size}, the block_size of"
            f" {args.size}, not {args.T}"
        )
    return size.config

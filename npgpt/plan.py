"""Predict what training takes on many machines like this one: step, memory, efficiency, time.

It measures this machine for about a minute, with a model of one block and one of three. How the
prediction is made is explained in doc/scale/scale.md.
"""

import argparse
import re
import sys

from npgpt.cli import Parser, add_seq_len, program
from npgpt.core.config import PUBLISHED, GPT2Config
from npgpt.core.parameters import count_parameters
from npgpt.core.precision import PRECISION_HELP, PRECISIONS
from npgpt.core.threads import physical_cores
from npgpt.errors import ArgumentError
from npgpt.formats.hub import MODELS
from npgpt.model.memory import available_memory, estimate
from npgpt.parallel.exchange import WIRES
from npgpt.parallel.measure import measure_machine
from npgpt.parallel.plan import Cluster, efficiency, predict
from npgpt.training.start import CHANNELS
from npgpt.wording import counted, size_text

BANDWIDTHS = {"b": 0.125, "B": 1.0}  # bytes a second
PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
MOST_NODES = 1024  # of the table


@program
def main(argv=None, prog=None):
    """Measure, predict and print."""
    args = parse(argv, prog)
    config = planned_config(args.model)
    T = config.block_size if args.T is None else args.T
    cluster = Cluster(args.nodes, args.ranks_per_node, args.bandwidth, args.latency)
    threads = args.threads or max(1, physical_cores() // args.ranks_per_node)
    shards = cluster.ranks if args.shard_optimizer else 1
    recompute = "blocks" if args.recompute_blocks else args.recompute
    need = estimate(config, args.B, T, recompute, shards=shards)
    grad_accum_steps = accumulation(args.total_batch, args.B * T * cluster.ranks)
    check_memory_to_measure(config, args, T, recompute)
    print(f"measuring {args.ranks_per_node} of the ranks on this machine ...", file=sys.stderr)
    machine = measure_machine(
        config, args.B, T, args.ranks_per_node, threads, args.precision, recompute
    )
    options = {
        "grad_accum_steps": grad_accum_steps, "sharded": args.shard_optimizer, "wire": args.wire,
    }  # fmt: skip
    step = predict(config, machine, cluster, **options)
    tokens = grad_accum_steps * args.B * T * cluster.ranks
    print(f"parameters    {count_parameters(config):,}")
    print(f"ranks         {cluster.ranks:,}, with {counted(threads, 'thread')} each")
    print(f"update        {tokens:,} tokens")
    print(f"memory a rank {need}")
    print(f"step          {seconds(step.total)}: compute {seconds(step.compute)},", end=" ")
    print(
        f"exchange {seconds(step.exchange)} (besides {seconds(step.hidden)} hidden by the", end=" "
    )
    print(f"backward pass), AdamW {seconds(step.update)}")
    print(f"efficiency    {efficiency(config, machine, cluster, **options):.3f}")
    print(
        f"time          {duration(args.tokens / tokens * step.total)} for {args.tokens:,.0f} tokens"
    )
    print("\nwith a batch that grows with the nodes:")
    print("  nodes        step  efficiency      tokens/s  time")
    nodes = 1
    while nodes <= MOST_NODES:
        other = Cluster(nodes, args.ranks_per_node, args.bandwidth, args.latency)
        total = predict(config, machine, other, **options).total
        speed = grad_accum_steps * args.B * T * other.ranks / total
        part = efficiency(config, machine, other, **options)
        time = duration(args.tokens / speed)
        print(f"{nodes:7,} {seconds(total):>11} {part:11.3f} {speed:13,.0f}  {time}")
        nodes *= 4
    return 0


def parse(argv, prog):
    """The command line -> its arguments."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "--model", required=True, choices=[*MODELS, *(f"d{n}" for n in CHANNELS)], metavar="NAME",
        help=f"{', '.join(MODELS)}, or d6, d12, ...",
    )  # fmt: skip
    for name, default, help in (
        ("--nodes", 1, "machines"),
        ("--ranks-per-node", 1, "ranks on each machine"),
    ):
        parser.add_argument(
            name, type=count, default=default, metavar="N", help=f"{help}; default: {default}"
        )
    parser.add_argument(
        "--bandwidth", type=bandwidth, default="10Gb/s", metavar="RATE",
        help="of a machine's link in each direction: 100Gb/s, 500Mb/s, 12GB/s; default: 10Gb/s",
    )  # fmt: skip
    parser.add_argument(
        "--latency", type=latency, default="20us", metavar="TIME",
        help="of a message: 2us, 0.1ms; default: 20us",
    )  # fmt: skip
    parser.add_argument(
        "-B", "--B", "--batch", "--batch-size", dest="B", type=count, default=4, metavar="N",
        help="sequences of a rank in a micro-batch; default: 4",
    )  # fmt: skip
    add_seq_len(parser, "tokens per sequence; default: the model's block_size")
    parser.add_argument(
        "--total-batch", type=count, metavar="N",
        help="tokens per update; default: one micro-batch of each rank",
    )  # fmt: skip
    parser.add_argument(
        "--tokens", type=float, default=1e10, metavar="N",
        help="tokens of the whole training; default: 1e10",
    )  # fmt: skip
    parser.add_argument("--threads", type=count, metavar="N", help="threads of a rank")
    parser.add_argument(
        "--shard-optimizer", action=argparse.BooleanOptionalAction, default=True,
        help="each rank keeps and updates only its part of the optimizer's state; default: yes",
    )  # fmt: skip
    parser.add_argument(
        "--wire", choices=WIRES, default="fp32", help="number format of exchanged gradients"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help=PRECISION_HELP)
    for option in ("--recompute", "--recompute-blocks"):
        parser.add_argument(option, action="store_true", help="as in npgpt train")
    args = parser.parse_args(argv)
    if not 0 < args.tokens < float("inf"):
        raise ArgumentError(f"--tokens must be a number above 0, not {args.tokens}")
    return args


def planned_config(name):
    """The GPT2Config of a published name or of d6, d12, ..."""
    if name in MODELS:
        return PUBLISHED[MODELS[name]]
    layers = int(name[1:])
    return GPT2Config(n_layer=layers, n_head=CHANNELS[layers] // 64, n_embd=CHANNELS[layers])


def accumulation(total_batch, micro_batch):
    """How many micro-batches of all ranks an update of total_batch tokens (None: of one) has."""
    if total_batch is None:
        return 1
    if total_batch % micro_batch:
        raise ArgumentError(
            f"--total-batch must be a multiple of {micro_batch:,}, a micro-batch of all ranks, not"
            f" {total_batch:,}"
        )
    return total_batch // micro_batch


def check_memory_to_measure(config, args, T, recompute):
    """Raise ArgumentError where models of three blocks do not fit into the memory."""
    sizes = GPT2Config(config.block_size, config.vocab_size, 3, config.n_head, config.n_embd)
    need = args.ranks_per_node * estimate(sizes, args.B, T, recompute).total
    free = available_memory()
    if free is not None and need > free:
        raise ArgumentError(
            f"to measure {counted(args.ranks_per_node, 'rank')} takes {size_text(need)} of memory,"
            f" but {size_text(free)} is available: take a smaller -B or fewer ranks"
        )


def count(text):
    """A whole number from 1."""
    if not text.isdecimal() or not 1 <= int(text) <= 2**53:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text}")
    return int(text)


def bandwidth(text):
    """100Gb/s, 12.5GB/s -> bytes a second."""
    match = re.fullmatch(r"([\d.]+) ?([kMGT]?)(b|B)(?:/s|ps|it/s)?", text)
    return quantity(
        match, text, "such as 100Gb/s or 12GB/s", lambda p, u: PREFIXES[p] * BANDWIDTHS[u]
    )


def latency(text):
    """2us, 0.1 ms -> seconds."""
    match = re.fullmatch(r"([\d.]+) ?()(s|ms|us|ns)", text)
    return quantity(match, text, "such as 2us or 0.1ms", lambda p, u: TIMES[u])


def quantity(match, text, such_as, unit):
    """The number of a match times its unit; an error of one sentence for anything else."""
    try:
        value = float(match[1]) * unit(match[2], match[3]) if match else 0.0
    except ValueError:
        value = 0.0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be a number with its unit, {such_as}, not {text}")
    return value


def seconds(value):
    """Seconds with three digits."""
    return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"


def duration(value):
    """Seconds as days and hours, or as minutes."""
    hours = value / 3600
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} hours" if hours >= 1 else f"{value / 60:.1f} minutes"


if __name__ == "__main__":
    sys.exit(main())

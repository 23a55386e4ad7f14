"""Results as Markdown: a title and a table for each program of bench, with what its columns are."""

import math
from statistics import median

from bench.results import slug

PRECISION_OF = {  # of npgpt's systems, against which a speed-up is given
    "npgpt": "fp32",
    "npgpt, bf16x3": "bf16x3",
    "npgpt, bf16": "bf16",
    "npgpt, int8": "int8",
}
SPEED_UPS = (
    "speed-up, PRECISION: the row's time divided by npgpt's in that precision; above 1, npgpt is"
    " faster."
)
PRODUCTS = {  # the speed-ups in a table of products: npgpt's system and the other one
    "fp32, NumPy": ("npgpt", "NumPy"),
    "fp32, PyTorch": ("npgpt", "PyTorch"),
    "bf16, PyTorch": ("npgpt, bf16", "PyTorch, bf16"),
    "bf16, PyTorch with casts": ("npgpt, bf16", "PyTorch, bf16 and casts"),
}


def text(result):
    """The whole section of a result, as a program prints it and the page has it."""
    return "\n".join([f"### {title(result)}", "", measured(result), "", *body(result), ""])


def title(result):
    return f"{TITLES[result['program']](result)}, on {slug(result['machine'])}"


def body(result):
    return BODIES[result["program"]](result)


def machine_name(machine):
    """A CPU with what it computes bf16 on, in a few words."""
    return f"{machine['cpu']} (bf16 hardware: {machine['bf16']})"


def measured(result):
    """On what, by which versions, at which commit and when a result was measured."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine_name(machine)}, {machine['threads']} threads, {machine['system']}; {versions};"
        f" commit {result['commit']}, {result['date']}."
    )


def number(value):
    """A number to three digits."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    return f"{value:.{max(0, digits)}f}"


def spread(values, scale=1.0):
    """The median of some values and, of several, their range."""
    middle, *ends = (number(scale * f(values)) for f in (median, min, max))
    return middle if len(values) == 1 else f"{middle} ({' to '.join(ends)})"


def table(columns, rows):
    """The lines of a table whose first column is text and whose others are numbers."""
    lines = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def speed_ups(seconds, own):
    """The cells of one row: its median time divided by npgpt's, for each precision."""
    return [f"{median(seconds) / median(its):.2f}" for its in own.values()]


def step(result):
    systems, tokens = result["systems"], result["B"] * result["T"]
    own = {
        PRECISION_OF[name]: run["seconds"] for name, run in systems.items() if name in PRECISION_OF
    }
    rows = [
        [
            name,
            spread(run["seconds"]),
            f"{tokens / median(run['seconds']):.0f}",
            f"{run['peak'] / 1e9:.2f}",
            *speed_ups(run["seconds"], own),
        ]
        for name, run in systems.items()
    ]
    limits = result["limit"]
    limit = [a + b for a, b in zip(limits["sgemm"], limits["adamw"], strict=True)]
    rows.append(["NumPy's products + AdamW", spread(limit), "", "", *speed_ups(limit, own)])
    seconds = result["breakdown"]["seconds"]
    whole = sum(seconds.values())
    shares = ", ".join(f"{name} {100 * part / whole:.1f} %" for name, part in seconds.items())
    return [
        *table(["system", "seconds", "tokens/s", "peak memory, GB", *heads(own)], rows),
        "",
        f"seconds: of a step, the median and the range over {result['rounds']} rounds of"
        f" {result['steps']} steps; tokens/s: from the median; peak memory: the process's largest"
        f" resident size. {SPEED_UPS} NumPy's products + AdamW: the step's matrix products by NumPy"
        " in float32, and AdamW's memory traffic at the speed of memory, one after the other and"
        " nothing else; faster than that is to multiply faster than NumPy.",
        "",
        f"Where npgpt's step in {result['breakdown']['precision']} spends its time: {shares}.",
    ]


def heads(own):
    return [f"speed-up, {precision}" for precision in own]


def lengths(result):
    rows = [
        [
            T,
            spread(run["seconds"]),
            spread(run["seconds"], 1000 / (result["B"] * int(T))),
            f"{run['peak'] / 1e9:.2f}",
        ]
        for T, run in result["lengths"].items()
    ]
    return [
        *table(["T", "seconds", "ms a token", "peak memory, GB"], rows),
        "",
        "seconds: of npgpt's step, the median and the range; ms a token: the same, divided by the"
        " B * T tokens of the step; peak memory: the process's largest resident size.",
    ]


def sample(result):
    systems = {**result["systems"], "reading float32 weights": result["limit"]}
    seconds = {name: [1 / speed for speed in speeds] for name, speeds in systems.items()}
    own = {PRECISION_OF[name]: its for name, its in seconds.items() if name in PRECISION_OF}
    rows = [
        [name, spread(speeds), *speed_ups(seconds[name], own)] for name, speeds in systems.items()
    ]
    return [
        *table(["system", "tokens/s", *heads(own)], rows),
        "",
        "tokens/s: one sample, greedy, with a key-value cache, the prompt's pass included; the"
        f" median and the range. {SPEED_UPS} reading float32 weights: the rate at which memory"
        " alone can deliver all weights once a token.",
    ]


def products(result):
    shapes, systems = result["products"], result["systems"]
    names = [f"{kind}: ({M}, {K}) @ ({K}, {N})" for kind, M, K, N, _ in shapes]
    counts = [count for *_, count in shapes]
    flops = [2e-9 * M * K * N for _, M, K, N, _ in shapes]
    flops.append(sum(n * work for n, work in zip(counts, flops, strict=True)))
    names.append("all of a step")
    seconds = {  # system -> rounds, each with the sum of a step behind its products
        name: [
            [*its, sum(n * s for n, s in zip(counts, its, strict=True))] for its in rounds
        ]
        for name, rounds in systems.items()
    }  # fmt: skip

    def ratios(ours, others, i):
        return [
            other[i] / own[i] for own, other in zip(seconds[ours], seconds[others], strict=True)
        ]

    speeds = [
        [name, *(f"{flops[i] / median(r[i] for r in rounds):.0f}" for rounds in seconds.values())]
        for i, name in enumerate(names)
    ]
    faster = [
        [name, *(spread(ratios(*pair, i)) for pair in PRODUCTS.values())]
        for i, name in enumerate(names)
    ]
    return [
        *table(["GFLOP/s", *systems], speeds),
        "",
        "GFLOP/s: of each matrix product of a step but attention's, the median over the rounds; all"
        " of a step: each product as often as a step of GPT-2 124M has it. npgpt's operands and"
        " results are always float32; PyTorch's in bf16 are bf16 or, with casts, float32 too.",
        "",
        *table(["speed-up", *PRODUCTS], faster),
        "",
        "speed-up: the other system's time divided by npgpt's in the same precision and round, the"
        " median and the range over the rounds; above 1, npgpt is faster.",
    ]


def kernels(result):
    rows = [
        [
            row["name"],
            spread(row["textbook"], 1000),
            spread(row["kernel"], 1000),
            number(median(row["textbook"]) / median(row["kernel"])),
            number(1000 * row["limit"]),
        ]
        for row in result["kernels"]
    ]
    return [
        *table(["kernel", "textbook, ms", "kernel, ms", "speed-up", "limit, ms"], rows),
        "",
        "textbook: the NumPy layer; kernel: its compiled twin; both the median and the range of"
        " seven calls. speed-up: the textbook's time divided by the kernel's. limit: what the bytes"
        " take at the speed of memory or the flops at the speed of NumPy's sgemm, whichever is"
        " longer; caches are faster than memory, so that a small layer can be below it.",
    ]


def trainer(result):
    ratios = [t / b for b, t in zip(result["bare"], result["trainer"], strict=True)]
    rows = [
        ["forward, backward, AdamW", spread(result["bare"]), ""],
        ["the trainer's step", spread(result["trainer"]), f"{100 * (median(ratios) - 1):+.1f} %"],
    ]
    return [
        *table(["step", "seconds", "added"], rows),
        "",
        "seconds: the median and the range. added: what batches, clipping, decay, log and progress"
        f" add, the median over {len(ratios)} pairs of steps in turn.",
    ]


def accuracy(result):
    rows = []
    for precision, found in result["precisions"].items():
        gradients = found["gradients"].values()
        cells = [found["logits"]["largest"], found["logits"]["l2"]]
        cells += [max(grad[key] for grad in gradients) for key in ("largest", "l2")]
        cells += [found["losses"][0], max(found["losses"])]
        rows.append([precision, *(f"{cell:.1e}" for cell in cells)])
    columns = [
        "precision", "logits", "logits, L2", "gradients", "gradients, L2", "first loss", "losses",
    ]  # fmt: skip
    count = len(next(iter(result["precisions"].values()))["losses"])
    return [
        *table(columns, rows),
        "",
        "Differences from PyTorch in float32 on the same weights and batch. logits, gradients: the"
        " largest absolute difference; L2: the norm of the difference divided by the norm of"
        " PyTorch's, of the gradients the largest among the sixteen tensors; first loss and losses:"
        f" the absolute difference before the first update, and the largest of {count} steps.",
    ]


BODIES = {
    "step": step, "lengths": lengths, "sample": sample, "products": products,
    "kernels": kernels, "accuracy": accuracy, "trainer": trainer,
}  # fmt: skip
TITLES = {
    "step": lambda r: f"Training step, B={r['B']}, T={r['T']}",
    "lengths": lambda r: f"Training step by T, B={r['B']}, {r['precision']}",
    "sample": lambda r: f"{r['tokens']} tokens after a prompt of {r['prompt_tokens']}",
    "products": lambda r: f"Matrix products, B={r['B']}, T={r['T']}",
    "kernels": lambda r: f"Kernels, B={r['B']}, T={r['T']}",
    "accuracy": lambda r: f"{r['parameters']:,} parameters, B={r['B']}, T={r['T']}",
    "trainer": lambda r: f"The trainer's step, B={r['B']}, T={r['T']}",
}

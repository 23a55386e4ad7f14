"""Results as Markdown: a title and a table for each program of bench, with what its columns are."""

import re
from statistics import median

from bench.cells import number, spread, table
from bench.parallel import tables as ranks
from bench.results import slug
from npgpt.wording import counted

SPEED_UP = (
    "npgpt's speed-up: the row's time divided by npgpt's in the same precision; above 1, npgpt is"
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


def model(result):
    """The model whose step was measured; the first results are all of one and do not say it."""
    return result.get("model", "GPT-2 124M")


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
    by_blas = ", npgpt's products by NumPy's BLAS" * (machine.get("products") == "blas")
    return (
        f"{machine_name(machine)}, {machine['threads']} threads, {machine['system']}{by_blas};"
        f" {versions};"
        f" commit {result['commit']}, {result['date']}."
    )


def precision_of(system):
    """The precision or the weight format that a system's name says; PyTorch's medium is bf16."""
    words = ["bf16" if word == "medium" else word for word in re.findall(r"\w+", system)]
    return next((word for word in words if word in ("bf16x3", "bf16", "int8", "int4")), "fp32")


def own_name(system):
    """npgpt's system that computes in the same precision as this one."""
    precision = precision_of(system)
    return "npgpt" if precision == "fp32" else f"npgpt, {precision}"


def speed_up(system, seconds):
    """The median time divided by that of npgpt in the same precision; empty for the latter."""
    own = own_name(system)
    if system == own or own not in seconds:
        return ""
    return f"{median(seconds[system]) / median(seconds[own]):.2f}"


def step(result):
    systems, tokens = result["systems"], result["B"] * result["T"]
    limits = result["limit"]
    products = "NumPy's products + AdamW"
    times = {name: run["seconds"] for name, run in systems.items()}
    times[products] = [a + b for a, b in zip(limits["sgemm"], limits["adamw"], strict=True)]
    rows = [
        [
            name,
            spread(run["seconds"]),
            f"{tokens / median(run['seconds']):.0f}",
            f"{run['peak'] / 1e9:.2f}",
            speed_up(name, times),
        ]
        for name, run in systems.items()
    ]
    rows.append([products, spread(times[products]), "", "", speed_up(products, times)])
    seconds = result["breakdown"]["seconds"]
    whole = sum(seconds.values())
    shares = ", ".join(f"{name} {100 * part / whole:.1f} %" for name, part in seconds.items())
    return [
        *table(["system", "seconds", "tokens/s", "peak memory, GB", "npgpt's speed-up"], rows),
        "",
        f"seconds: of a step, over {result['rounds']} rounds of {result['steps']} steps; tokens/s:"
        " from the median; peak memory: the largest resident size of the process."
        f" {SPEED_UP} NumPy's products + AdamW: the time that NumPy takes for the step's matrix"
        " products in float32, plus the time in which memory delivers the bytes of AdamW, without"
        " any other layer. A step in float32 that takes less time multiplies faster than NumPy.",
        "",
        f"Where npgpt's step in {result['breakdown']['precision']} spends its time: {shares}.",
    ]


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
        *table(["T", "seconds", "ms per token", "peak memory, GB"], rows),
        "",
        "seconds: of npgpt's step; ms per token: the same, divided by the B * T tokens of the step;"
        " peak memory: the largest resident size of the process.",
    ]


def sample(result):
    systems = {**result["systems"], "reading float32 weights": result["limit"]}
    seconds = {name: [1 / speed for speed in speeds] for name, speeds in systems.items()}
    rows = [[name, spread(speeds), speed_up(name, seconds)] for name, speeds in systems.items()]
    return [
        *table(["system", "tokens/s", "npgpt's speed-up"], rows),
        "",
        "tokens/s: of all samples, greedy, with a key-value cache; the pass over the prompts is"
        f" counted too. {SPEED_UP} reading float32 weights: how many times per second memory can"
        " deliver all weights, which the next tokens of all samples need once. What keeps its"
        " weights in fewer bytes can be faster.",
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
    compared = {head: pair for head, pair in PRODUCTS.items() if {*pair} <= {*systems}}
    faster = [
        [name, *(spread(ratios(*pair, i)) for pair in compared.values())]
        for i, name in enumerate(names)
    ]
    return [
        *table(["GFLOP/s", *systems], speeds),
        "",
        "GFLOP/s: of each matrix product of a step, except those in attention. all of a step: all"
        " these products together, each as often as a step computes it. npgpt's operands and"
        " results are always float32."
        + " PyTorch's in bf16 are bf16; with casts they are float32, as npgpt's are, and the casts"
        " are timed too." * ("PyTorch, bf16" in systems),
        "",
        *table(["npgpt's speed-up", *compared], faster),
        "",
        "npgpt's speed-up: the other system's time divided by npgpt's in the same precision and"
        f" round, over {len(seconds['npgpt'])} rounds; above 1, npgpt is faster.",
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
        *table(["kernel", "textbook, ms", "kernel, ms", "speed-up", "estimate, ms"], rows),
        "",
        "textbook: the NumPy layer; kernel: the compiled version of it. speed-up: the textbook's"
        " time divided by the kernel's. estimate: the time that the layer's bytes take at the"
        " measured speed of memory, or its flops at the speed of NumPy's sgemm, whichever is"
        " longer. It is no lower limit: a kernel takes less time where its arrays are in a cache,"
        " or where it multiplies faster than NumPy.",
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
        "added: what batches, clipping, decay, log and progress add to a step; the median over"
        f" {len(ratios)} pairs, each of a step without and a step with the trainer.",
    ]


def prepare(result):
    megabytes, threads = result["bytes"] / 1e6, result["machine"]["threads"]
    rows = [
        [
            name,
            spread(run["seconds"]),
            number(megabytes / median(run["seconds"]) / threads),
            f"{max(run['peak']) / 1e9:.2f}",
        ]
        for name, run in result["systems"].items()
    ]
    return [
        *table(["system", "seconds", "MB/s a core", "peak memory, GB"], rows),
        "",
        "seconds: until npgpt has split, encoded and written the text, its data limited to"
        f" {result['limit'] / 1e9:.0f} GB; and until tiktoken has only encoded it, on as many"
        " threads. peak memory: the largest resident size of the process.",
    ]


def explore(result):
    seconds, memory = result["seconds"], result["peak"] / 1e9
    rows = [
        ["the picture of a text is shown", spread(seconds["picture"])],
        ["a training step is shown", spread(seconds["step"])],
    ]
    return [
        *table(["GPT-2 124M", "seconds"], rows),
        "",
        f"seconds: in the browser, from the last letter or the click until all is drawn, for"
        f" {result['tokens'] + 1} tokens, {result['rounds']} times. The program's peak memory was"
        f" {memory:.2f} GB; `estimate` says {result['estimate'] / 1e9:.2f} GB. The new model that"
        f" learns to add made {result['addition_steps_per_second']:.0f} steps a second while the"
        " page showed them.",
    ]


def learn(result):
    systems, target = result["systems"], result["target"]

    def reached(runs):
        return target is None or max(runs["loss"]) <= target

    own = median(systems["npgpt"]["seconds"])
    rows = [
        [
            name,
            spread(runs["seconds"]),
            f"{median(runs['loss']):.3f} ({min(runs['loss']):.3f} to {max(runs['loss']):.3f})",
            f"{median(runs['steps']):.0f}",
            f"{median(runs['seconds']) / own:.2f}" if reached(runs) and target else "",
        ]
        for name, runs in systems.items()
    ]
    recipes = {}
    for name, settings in result["recipes"].items():
        text = ", ".join(f"{key} {value}" for key, value in settings.items())
        recipes.setdefault(text, []).append(name)
    return [
        *table(["system", "seconds", "validation loss", "steps", "speed-up"], rows),
        "",
        "seconds: of a whole process, its start, training and the validation at its end; validation"
        f" loss: of the last tenth of the text, with its range over the {result['rounds']} runs."
        " speed-up: the row's seconds divided by npgpt's, where all its runs got there."
        " npgpt computes in bf16 where the hardware can.",
        "",
        *(f"- {'; '.join(names)}: {text}." for text, names in recipes.items()),
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
        " largest absolute difference. L2: the norm of the difference divided by the norm of"
        " PyTorch's values; for the gradients, the largest among the sixteen tensors. first loss:"
        " the absolute difference before the first update; losses: the largest absolute difference"
        f" in {count} steps.",
    ]


BODIES = {
    "step": step, "lengths": lengths, "sample": sample, "products": products,
    "kernels": kernels, "accuracy": accuracy, "trainer": trainer, "learn": learn,
    "explore": explore, "prepare": prepare,
    "parallel": ranks.parallel, "parallel_losses": ranks.parallel_losses,
    "parallel_kills": ranks.parallel_kills, "parallel_network": ranks.parallel_network,
}  # fmt: skip
TITLES = {
    "step": lambda r: f"Training step of {model(r)}, B={r['B']}, T={r['T']}",
    "lengths": lambda r: f"Training step by T, B={r['B']}, {r['precision']}",
    "sample": lambda r: (
        f"{counted(r.get('B', 1), 'sample')} of {r['tokens']} tokens after a prompt of"
        f" {r['prompt_tokens']}"
    ),
    "products": lambda r: f"Matrix products of {model(r)}, B={r['B']}, T={r['T']}",
    "kernels": lambda r: f"Kernels, B={r['B']}, T={r['T']}",
    "accuracy": lambda r: f"{r['parameters']:,} parameters, B={r['B']}, T={r['T']}",
    "trainer": lambda r: f"The trainer's step, B={r['B']}, T={r['T']}",
    "prepare": lambda r: f"{r['bytes'] / 1e9:.1f} GB of text to GPT-2's tokens",
    "explore": lambda r: "The page of `npgpt explore`",
    "learn": lambda r: (
        f"Seconds to a loss of {r['goal']}" if r["target"] else f"The loss after {r['goal']}"
    ),
    "parallel": lambda r: f"GPT-2 124M on two cores, B={r['B']} a rank of two, T={r['T']}",
    "parallel_losses": lambda r: "Losses on 2 and 4 ranks beside those of one",
    "parallel_kills": lambda r: f"{len(r['kills'])} ranks lost",
    "parallel_network": lambda r: f"GPT-2 124M over a limited link, B={r['B']}, T={r['T']}",
}

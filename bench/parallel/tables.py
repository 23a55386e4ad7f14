"""Results of several ranks as Markdown: the tables and what their columns are."""

from statistics import median

from bench.cells import number, spread, table


def parallel(result):
    ways = result["ways"]
    base = median(next(iter(ways.values()))["seconds"])
    rows = []
    for name, way in ways.items():
        seconds = median(way["seconds"])
        cells = ["", "", ""]
        if way["bytes"]:
            exposed, copy = median(way["exposed"]), median(way["copy"])
            cells = [number(exposed), number(copy), f"{exposed / copy:.2f}"]
        rows.append([name, spread(way["seconds"]), f"{100 * (seconds / base - 1):+.1f} %", *cells])
    columns = ["way", "seconds", "against the first", "exposed, s", "copy limit, s", "ratio"]
    return [
        *table(columns, rows),
        "",
        f"{2 * result['B']} sequences of {result['T']} tokens a step in each way. exposed: how long"
        " rank 0 waits for others in a step, also because they are slower. copy limit: what one"
        " thread of each rank takes, all at once, to copy the bytes that a rank receives in a step."
        " ratio: exposed divided by it.",
    ]


def parallel_losses(result):
    rows = [
        [
            f"{run['order']}, {run['ranks']} ranks, {run['way']}", run["steps"], run["skipped"],
            *(f"{run[key]:.1e}" for key in ("largest of 50", "largest", "validation")),
        ]
        for run in result["runs"]
    ]  # fmt: skip
    rows.append(["shuffle, 2 ranks, one left out", "", "", f"{result['control']:.1e}", "", ""])
    columns = ["run", "steps", "skipped", "50 steps", "all steps", "validation"]
    return [
        *table(columns, [[str(cell) for cell in row] for row in rows]),
        "",
        "The largest differences to the losses of one rank that trains with all sequences: in the"
        " first 50 steps, in all, and of the validations. Two micro-batches an update, clipping,"
        " updates with a z-score above 1 skipped, but for bf16 (on the wire). whole: the"
        " optimizer is not in shards. one left out: the gradients of one rank are not added, which"
        " must show.",
    ]


def parallel_kills(result):
    kills, rows = result["kills"], []
    for name in ("SIGKILL", "SIGSTOP"):
        found = [kill for kill in kills if kill["signal"] == name]
        seconds = [kill["seconds"] for kill in found]
        others = [kill["largest difference"] for kill in found if not kill["same"]]
        same = sum(kill["same"] for kill in found)
        rows.append([
            name, str(len(found)), spread(seconds), str(same), str(len(others)),
            f"{max(others, default=0):.1e}",
        ])  # fmt: skip
    columns = ["signal", "times", "seconds to the end", "same bits", "other ranks", "difference"]
    return [
        *table(columns, rows),
        "",
        "One of two ranks gets a signal after a random step; it counts as lost after 5 s of"
        f" silence, and all must have ended after {result['stated']} s. Each time one sentence"
        " named the rank and why, and no checkpoint was damaged. Then the run went on to its end,"
        " on two ranks (same bits: as if nothing had happened) or on 1 or 4 (other ranks: the"
        " largest difference of a loss).",
    ]


def parallel_network(result):
    rows = []
    for rate, run in result["rates"].items():
        measured = median(run["seconds"])
        rows.append([
            rate, spread(run["seconds"]), number(run["predicted"]),
            f"{100 * (run['predicted'] / measured - 1):+.1f} %", number(median(run["exposed"])),
            number(run["exchange"]),
        ])  # fmt: skip
    columns = [
        "link", "measured, s", "predicted, s", "difference", "exposed, s", "predicted, s",
    ]  # fmt: skip
    return [
        *table(columns, rows),
        "",
        "Two ranks of one thread in network namespaces of their own, on one machine, with tc's tbf"
        " on both ends of the link. predicted: by `npgpt plan`'s functions, from this machine's"
        " figures and the rate of the link. exposed: how long rank 0 waits for the other.",
    ]

"""What a comparison has found, as text and as JSON."""

import json
import math
from dataclasses import astuple, dataclass

from npgpt.errors import FileError
from npgpt.porting.causes import find_cause
from npgpt.porting.compare import compare
from npgpt.tracing.names import INPUTS
from npgpt.wording import counted

EXPLAINED = 8  # wrong tensors whose causes are looked for, the first ones
LISTED = 12  # names in a line of the text


@dataclass
class Report:
    """The findings on every tensor of EXPECTED, in the order of computation."""

    expected: str
    mine: str
    dtype: str
    sizes: dict
    findings: list
    suspects: tuple  # what MINE lacks of that the first wrong tensor is made of

    def of(self, *statuses):
        """The findings of these statuses."""
        return [finding for finding in self.findings if finding.status in statuses]

    @property
    def wrong(self):
        """The findings of tensors that are wrong by themselves, the first one first."""
        return self.of("wrong", "shape")

    def as_json(self):
        """The report as what json.dumps takes."""
        return {
            "expected": self.expected,
            "mine": self.mine,
            "dtype": self.dtype,
            "sizes": self.sizes,
            "right": not self.wrong,
            "first_wrong": self.wrong[0].name if self.wrong else None,
            "not_in_mine_before_it": list(self.suspects),
            "tensors": [finding_as_json(finding) for finding in self.findings],
        }

    def __str__(self):
        sizes = ", ".join(f"{name} {value}" for name, value in self.sizes.items())
        right, absent = self.of("right"), self.of("absent")
        lines = [f"expected  {self.expected}", f"mine      {self.mine} ({self.dtype})", sizes, ""]
        if self.wrong:
            lines += first_lines(self.wrong[0], self)
            lines += later_lines(self.wrong[1:])
            lines += ["", f"right, made of what MINE has: {counted(len(right), 'tensor')}"]
        else:
            closest = max(right, key=lambda finding: finding.excess)
            lines.append(
                f"all right: {counted(len(right), 'tensor')}, each within what rounding can make"
            )
            lines.append(f"(the nearest to that limit: {closest.name}, {closest.excess:.2f} of it)")
        if follows := self.of("follows"):
            names = listed([finding.name for finding in follows])
            lines.append(f"wrong, as what is wrong before would make them: {names}")
        for where, alone in (("MINE", False), ("EXPECTED", True)):
            names = [finding.name for finding in absent if bool(finding.own_name) == alone]
            lines += [f"not in {where}: {listed(names)}"] if names else []
        return "\n".join(lines)


def first_lines(finding, report):
    """The lines of the text on the first wrong tensor."""
    names = [each.name for each in report.findings]
    before = report.findings[: names.index(finding.name)]
    right = [each.name for each in before if each.status == "right"]
    lines = [f"first wrong: {named(finding)}", *detail(finding)]
    if report.suspects:
        lines.append(f"  or the mistake is in {listed(report.suspects)}, which MINE does not have")
    if right:
        before = f"{counted(len(right), 'tensor')}, up to {right[-1]}"
        lines.append(f"  everything before it is right: {before}")
    else:
        lines.append("  nothing before it is in MINE")
    return lines


def later_lines(findings):
    """The lines on tensors that are wrong by themselves as well, a line each."""
    lines = ["", "wrong by themselves, too:"] if findings else []
    for finding in findings[:LISTED]:
        cause = f"{finding.cause}: " if finding.cause else ""
        lines.append(f"  {named(finding)}: {cause}{finding.sentence or 'no cause was recognised'}")
    more = len(findings) - LISTED
    return [*lines, f"  and {more} more"] if more > 0 else lines


def named(finding):
    own = "" if finding.own_name in ("", finding.name) else f", there {finding.own_name}"
    return f"{finding.name} {shape_text(finding.shape)}{own}"


def shape_text(shape):
    return "(" + ", ".join(map(str, shape)) + ")"


def detail(finding):
    """What is wrong with a tensor, and why."""
    if finding.status == "shape":
        return [f"  {finding.sentence}"]
    index = f"at {list(finding.index)}: " if finding.index else ""
    lines = [
        f"  {index}{finding.mine:.9g}, expected {finding.expected:.9g};"
        f" {times(finding.excess)} what rounding can make"
    ]
    size = math.prod(finding.shape)
    where = f", only at {finding.where}" if finding.where else ""
    lines.append(f"  wrong are {finding.n_wrong:,} of {counted(size, 'number')}{where}")
    cause = f"{finding.cause}: {finding.sentence}" if finding.cause else "no cause was recognised"
    lines.append(f"  cause: {cause}")
    return lines


def times(excess):
    if excess < 100:
        return f"{excess:.1f} times"
    return f"{excess:,.0f} times" if excess < 1e6 else "over a million times"


def listed(names):
    names = list(names)
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def finding_as_json(finding):
    """A finding without its arrays; numbers that JSON has no word for are null."""
    content = {
        name: getattr(finding, name)
        for name in ("name", "status", "own_name", "mine", "expected", "excess", "tolerance",
                     "n_wrong", "where", "cause", "sentence")
    }  # fmt: skip
    content = {name: number_or_null(value) for name, value in content.items()}
    return {
        **content,
        "shape": list(finding.shape),
        "index": list(finding.index),
        "made_of": list(finding.made_of),
    }


def number_or_null(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_report(expected, mine, dtype=None):
    """Compare MINE with EXPECTED and explain what is wrong -> a Report."""
    if "config" in mine and (theirs := mine.read("config").tolist()) != [*astuple(expected.config)]:
        raise FileError(
            f"{mine.file.path}: is of another model than {expected.path}: its block_size,"
            f" vocab_size, n_layer, n_head and n_embd are {theirs}"
        )
    findings, judge = compare(expected, mine, dtype)
    judged = [f for f in findings if f.status != "absent" and f.name not in INPUTS]
    if not judged:
        raise FileError(f"{mine.file.path}: no tensor that can be compared with {expected.path}")
    wrong = [finding for finding in findings if finding.status == "wrong"]
    for finding in wrong[:EXPLAINED]:
        finding.cause, finding.sentence = find_cause(finding.case) or ("", "")
    first = next((f for f in findings if f.status in ("wrong", "shape")), None)
    c = expected.config
    sizes = {"B": expected.B, "T": expected.T, "C": c.n_embd, "L": c.n_layer, "NH": c.n_head,
             "V": c.vocab_size}  # fmt: skip
    return Report(
        str(expected.path), str(mine.file.path), judge.dtype, sizes, findings,
        suspects(first, judge) if first else (),
    )  # fmt: skip


def suspects(finding, judge):
    """What MINE lacks among what a tensor is made of, and among what that is made of."""
    found, pending = [], list(finding.made_of)
    while pending:
        name = pending.pop()
        if name not in judge.mine and judge.inputs_of(name) and name not in found:
            found.append(name)
            pending += judge.inputs_of(name)
    order = judge.expected.names
    return tuple(sorted(found, key=order.index))


def json_text(report):
    return json.dumps(report.as_json(), indent=1) + "\n"

"""What a comparison has found, as text and as JSON."""

import json
import math
from collections import Counter
from dataclasses import astuple, dataclass

import numpy as np

from npgpt.errors import FileError
from npgpt.porting.causes import find_cause
from npgpt.porting.compare import compare
from npgpt.porting.hints import hint, shape_sentence
from npgpt.porting.pictures import Picture
from npgpt.porting.places import index_in_words
from npgpt.porting.precision import dtypes_in_words
from npgpt.tracing.names import INPUTS, SETTINGS, split_name
from npgpt.wording import counted

EXPLAINED = 8  # wrong tensors whose causes are looked for, the first ones
LISTED = 12  # names in a line of the text
NOT_NEEDED = (*INPUTS, SETTINGS)  # of MINE: EXPECTED has them


@dataclass
class Report:
    """The findings on every tensor of EXPECTED, in the order of computation."""

    expected: str
    mine: str
    dtype: str
    sizes: dict
    findings: list
    unknown: list  # what MINE has under names that are none, with what they may be meant for

    def of(self, *statuses):
        """The findings of these statuses."""
        return [finding for finding in self.findings if finding.status in statuses]

    @property
    def wrong(self):
        """The findings of tensors that are wrong by themselves, the first one first."""
        return self.of("wrong", "shape")

    @property
    def n_needed(self):
        """How many tensors a whole trace has, of those that MINE has to make."""
        return sum(f.status != "absent" or f.name not in NOT_NEEDED for f in self.findings)

    def as_json(self):
        """The report as what json.dumps takes."""
        return {
            "expected": self.expected,
            "mine": self.mine,
            "dtype": self.dtype,
            "sizes": self.sizes,
            "right": not self.wrong,
            "first_wrong": self.wrong[0].name if self.wrong else None,
            "not_in_mine_before_it": list(self.wrong[0].suspects) if self.wrong else [],
            "unknown": self.unknown,
            "tensors": [finding_as_json(finding) for finding in self.findings],
        }

    def __str__(self):
        sizes = ", ".join(f"{name} {value}" for name, value in self.sizes.items())
        right, absent = self.of("right"), self.of("absent")
        lines = [f"expected  {self.expected}", f"mine      {self.mine} ({self.dtype})", sizes, ""]
        if self.wrong:
            lines += first_lines(self.wrong[0], self)
            shared = [each for each in self.wrong if each.shared and not each.cause]
            lines += later_lines([each for each in self.wrong[1:] if each not in shared])
            if shared:
                names = listed(without_blocks(shared, self.findings))
                missing = {name for each in shared for name in each.shared}
                missing = [finding for finding in self.findings if finding.name in missing]
                missing = listed(without_blocks(missing, self.findings))
                lines += ["", f"wrong, perhaps by the same mistake, in {missing}: {names}"]
            lines += ["", f"right, made of what MINE has: {counted(len(right), 'tensor')}"]
        else:
            closest = max(right, key=lambda finding: finding.excess)
            some = f"{len(right)} of " if len(right) < self.n_needed else ""
            number = counted(max(self.n_needed, len(right)), "tensor")
            lines.append(f"all right: {some}{number}, each within what rounding can make")
            if closest.excess:
                lines.append(f"({closest.name} is the nearest to that: {closest.excess:.2g} of it)")
        if follows := self.of("follows"):
            names = listed(without_blocks(follows, self.findings))
            lines.append(f"not to be judged after what is wrong before: {names}")
        for where, alone in (("MINE", False), ("EXPECTED", True)):
            lacking = [f for f in absent if bool(f.own_name) == alone and f.name not in NOT_NEEDED]
            names = listed(without_blocks(lacking, self.findings))
            lines += [f"not in {where}: {names}"] if names else []
        if self.unknown:
            lines.append(f"not compared, under names that are none: {listed(self.unknown)}")
        return "\n".join(lines)


def first_lines(finding, report):
    """The lines of the text on the first wrong tensor."""
    names = [each.name for each in report.findings]
    before = report.findings[: names.index(finding.name)]
    right = [each.name for each in before if each.status == "right"]
    lines = [f"first wrong: {named(finding)}", *detail(finding)]
    if finding.suspects:
        lines.append(
            f"  or the mistake is in {listed(finding.suspects)}, which MINE does not have: write"
            " them, too, to see where it is"
        )
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
        line = f"  {named(finding)}: {cause}{finding.sentence or 'no cause was recognised'}"
        if finding.suspects:
            line += f"; or it is in {listed(finding.suspects)}, which MINE does not have"
        lines.append(line)
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
    at = index_in_words(finding.name, finding.index)
    index = f"at {at}: " if at else ""
    lines = [f"  {index}{finding.mine:.9g}, expected {finding.expected:.9g}"]
    if math.isfinite(finding.mine):
        lines[0] += f"; {times(finding.excess)} what rounding can make"
    size = math.prod(finding.shape)
    where = f", only at {finding.where}" if finding.where else ""
    are = "is" if finding.n_wrong == 1 else "are"
    lines.append(f"  {finding.n_wrong:,} of {counted(size, 'number')} {are} wrong{where}")
    cause = f"cause: {finding.cause}: {finding.sentence}"
    lines.append(f"  {cause if finding.cause else 'no cause was recognised'}")
    return [*lines, f"  {finding.hint}"] if finding.hint else lines


def times(excess):
    if excess < 100:
        return f"{excess:.1f} times"
    return f"{excess:,.0f} times" if excess < 1e6 else "over a million times"


def listed(names):
    names = list(names)
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def without_blocks(findings, every):
    """The names of findings: without a number where all blocks, or updates, are among them."""
    all_of = Counter(split_name(finding.name)[0] for finding in every)
    here = Counter(split_name(finding.name)[0] for finding in findings)
    names = []
    for finding in findings:
        base = split_name(finding.name)[0]
        names.append(base if here[base] == all_of[base] else finding.name)
    return dict.fromkeys(names)


def finding_as_json(finding):
    """A finding without its picture; numbers that JSON has no word for are null."""
    content = {
        name: getattr(finding, name)
        for name in ("name", "status", "own_name", "mine", "expected", "excess", "tolerance",
                     "n_wrong", "where", "cause", "sentence", "hint")
    }  # fmt: skip
    content = {name: number_or_null(value) for name, value in content.items()}
    return {
        **content,
        "shape": list(finding.shape),
        "index": list(finding.index),
        "made_of": list(finding.made_of),
        "suspects": list(finding.suspects),
        "shared_suspects": list(finding.shared),
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
    explained = []

    def explain(finding):
        if finding.status == "shape":
            finding.sentence = shape_sentence(finding.case)
        elif len(explained) < EXPLAINED:
            finding.cause, finding.sentence = find_cause(finding.case) or ("", "")
            finding.hint = "" if explained or finding.cause else hint(finding.name)
            finding.picture = Picture.of(finding.case, finding.index)
            explained.append(finding)

    with np.errstate(all="ignore"):  # MINE's numbers may be anything
        findings, judge = compare(expected, mine, dtype, explain)
    judged = [f for f in findings if f.status != "absent" and f.name not in INPUTS]
    if not judged:
        raise FileError(f"{mine.file.path}: no tensor that can be compared with {expected.path}")
    c = expected.config
    sizes = {"B": expected.B, "T": expected.T, "C": c.n_embd, "L": c.n_layer, "NH": c.n_head,
             "V": c.vocab_size}  # fmt: skip
    return Report(
        str(expected.path), str(mine.file.path), dtypes_in_words(mine, judge.dtype), sizes,
        findings, mine.unknown(),
    )  # fmt: skip


def json_text(report):
    return json.dumps(report.as_json(), indent=1) + "\n"

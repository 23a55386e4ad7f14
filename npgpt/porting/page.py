"""A report as one HTML file with its pictures inside, light or dark as the reader's system is."""

from html import escape

import numpy as np

from npgpt.porting.pictures import excess_chart, heat_map, scatter
from npgpt.porting.report import detail, named, shape_text
from npgpt.tracing.names import block_of, split_name

STYLE = """
:root { --back: #fff; --text: #1b1f24; --faint: #667; --line: #d5d9de; --right: #2f7d4f;
  --wrong: #b3202c; --absent: #b9bec5; --card: #f6f7f9; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --text: #e4e7ea; --faint: #98a0a8;
  --line: #343a40; --right: #4fae78; --wrong: #f0616d; --absent: #4a5057; --card: #1d2125; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.faint { color: var(--faint); } .bad { color: var(--wrong); } .good { color: var(--right); }
pre { white-space: pre-wrap; background: var(--card); padding: .7rem 1rem; overflow-x: auto; }
.map { overflow-x: auto; } .map table { border-collapse: separate; border-spacing: 3px; }
.map th { font-weight: normal; color: var(--faint); font-size: .8rem; text-align: right; }
.map td { font-size: .7rem; padding: .1rem .3rem; color: #fff; border-radius: 3px; }
td.right, rect.right { background: var(--right); fill: var(--right); }
td.wrong, td.shape, rect.wrong { background: var(--wrong); fill: var(--wrong); }
td.follows { background: var(--faint); color: var(--back); }
td.absent { background: var(--absent); color: var(--back); }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
figcaption { font-size: .8rem; color: var(--faint); }
img { width: 14rem; height: 14rem; image-rendering: pixelated; border: 1px solid var(--line); }
svg { max-width: 100%; } svg line { stroke: var(--faint); stroke-dasharray: 4 3; }
.scatter { width: 14rem; border: 1px solid var(--line); } .scatter circle { fill: var(--wrong);
  fill-opacity: .5; } .chart { border: 1px solid var(--line); width: 100%; }
table.list { border-collapse: collapse; font-size: .85rem; width: 100%; }
.list th, .list td { text-align: left; padding: .15rem .5rem;
  border-bottom: 1px solid var(--line); }
.list td.number { font-variant-numeric: tabular-nums; }
"""


def page(report):
    """The HTML of a Report."""
    wrong = report.wrong
    title = f"First wrong: {wrong[0].name}" if wrong else "All right"
    sizes = ", ".join(f"{name} {value}" for name, value in report.sizes.items())
    parts = [
        f'<h1 class="{"bad" if wrong else "good"}">{escape(title)}</h1>',
        f'<p class="faint">{escape(report.mine)} ({report.dtype}), compared with'
        f" {escape(report.expected)}. {sizes}.</p>",
        f"<pre>{escape(str(report))}</pre>",
        "<h2>In the order of computation</h2>",
        f'<div class="map">{status_map(report.findings)}</div>',
        "<p>Each tensor's largest difference, by what rounding can make of it; the dashed line is"
        f" 1, the scale logarithmic.</p>{excess_chart(report.findings)}",
        *(pictures(f) for i, f in enumerate(wrong) if f.picture and (f.cause or i == 0)),
        "<h2>Every tensor</h2>",
        table(report.findings),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def status_map(findings):
    """A table of all tensors' statuses: a row for the forward pass of each block, and so on."""
    rows = {}
    for finding in findings:
        block, base = block_of(finding.name), split_name(finding.name)[0]
        if base.startswith("step_"):
            row = "updates"
        elif base.startswith("d"):
            row = "backward, head and embedding" if block is None else f"backward, block {block}"
        elif block is not None:
            row = f"block {block}" if "_" in base or base[-1] not in "wb" else f"weights {block}"
        else:
            row = "inputs, embedding and head"
        rows.setdefault(row, []).append(finding)
    return "<table>" + "".join(
        f"<tr><th>{row}</th>" + "".join(
            f'<td class="{f.status}" title="{escape(f.name)}: {f.status}">'
            f"{escape(split_name(f.name)[0])}</td>"
            for f in cells
        ) + "</tr>"
        for row, cells in rows.items()
    ) + "</table>"  # fmt: skip


def pictures(finding):
    """The pictures of a wrong tensor: expected, MINE, their difference, one over the other."""
    picture = finding.picture
    value, mine = picture.value, picture.mine
    difference = mine - value
    scale = abs(value).max() or 1.0
    finite = abs(difference[np.isfinite(difference)])
    most = finite.max() if finite.size and finite.max() > 0 else 1.0
    figures = [
        (heat_map(value, scale), f"expected, red is +{scale:.3g}"),
        (heat_map(mine, scale), "mine, on the same scale"),
        (heat_map(difference, most), f"mine - expected, red is +{most:.3g}"),
    ]
    images = "".join(
        f'<figure><img src="{image}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
        for image, caption in figures
    )
    source = f"expected is made of {escape(', '.join(finding.made_of))}"
    if not finding.made_of:
        source = "expected is EXPECTED's own"
    dots = scatter(picture.points)
    dots = f"<figure>{dots}<figcaption>mine (up) over expected</figcaption></figure>"
    lines = "<br>".join(escape(line.strip()) for line in detail(finding))
    return (
        f"<h2>{escape(named(finding))}</h2><p>{lines}</p>"
        f'<p class="faint">Shown: {picture.what} of {shape_text(finding.shape)}; {source}.</p>'
        f'<div class="pictures">{images}{dots}</div>'
    )


def table(findings):
    """All findings, a row each."""
    rows = "".join(
        f'<tr><td>{escape(f.name)}</td><td class="{f.status}-text">{f.status}</td>'
        f'<td>{shape_text(f.shape)}</td><td class="number">{number(f)}</td>'
        f"<td>{escape(f.cause)}</td></tr>"
        for f in findings
    )
    head = "<tr><th>tensor</th><th></th><th>shape</th><th>by its limit</th><th>cause</th></tr>"
    return f'<table class="list">{head}{rows}</table>'


def number(finding):
    return f"{finding.excess:.3g}" if finding.status in ("right", "wrong") else ""

"""A report as one HTML file with its pictures inside, light or dark as the reader's system is."""

from html import escape

import numpy as np

from npgpt.porting.pictures import excess_chart, heat_map, scatter
from npgpt.porting.report import detail, listed, named, shape_text
from npgpt.tracing.names import block_of, split_name

STYLE = """
:root { --back: #fff; --text: #1b1f24; --faint: #667; --line: #d5d9de; --right: #2f7d4f;
  --wrong: #b3202c; --absent: #d5d9de; --card: #f6f7f9; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --text: #e4e7ea; --faint: #98a0a8;
  --line: #343a40; --right: #4fae78; --wrong: #f0616d; --absent: #2b3036; --card: #1d2125; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.faint { color: var(--faint); } .bad { color: var(--wrong); } .good { color: var(--right); }
pre { white-space: pre-wrap; background: var(--card); padding: .7rem 1rem; font-size: .85rem; }
.map { display: grid; grid-template-columns: max-content 1fr; gap: .5rem .7rem; }
.map dt { color: var(--faint); font-size: .8rem; }
.map dd { margin: 0; display: flex; flex-wrap: wrap; gap: 3px; }
.map span { font-size: .75rem; padding: .05rem .35rem; color: var(--back); border-radius: 3px; }
@media (max-width: 40rem) { .map { grid-template-columns: 1fr; gap: .2rem; }
  .map dd { margin-bottom: .5rem; } }
.map .right { background: var(--right); } .map .wrong, .map .shape { background: var(--wrong); }
.map .follows { background: var(--faint); } .map .absent { background: var(--absent);
  color: var(--faint); }
rect.right { fill: var(--right); } rect.wrong { fill: var(--wrong); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr));
  gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .8rem; color: var(--faint); }
img, .scatter { display: block; box-sizing: border-box; width: 100%; aspect-ratio: 1;
  border: 1px solid var(--line); }
img { image-rendering: pixelated; }
svg line { stroke: var(--faint); stroke-dasharray: 4 3; }
.scatter circle { fill: var(--wrong); fill-opacity: .5; }
.chart { border: 1px solid var(--line); width: 100%; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: left; padding: .15rem 1rem .15rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; }
td.wrong, td.shape { color: var(--wrong); } td.absent, td.follows { color: var(--faint); }
"""


def page(report):
    """The HTML of a Report."""
    wrong = report.wrong
    title = f"First wrong: {wrong[0].name}" if wrong else "All right"
    parts = [
        f'<h1 class="{"bad" if wrong else "good"}">{escape(title)}</h1>',
        f"<pre>{escape(str(report))}</pre>",
        "<h2>In the order of computation</h2>",
        status_map(report.findings),
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
    """All tensors, coloured by their statuses: a row for the forward pass of each block, ..."""
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
    return '<dl class="map">' + "".join(
        f"<dt>{row}</dt><dd>" + "".join(
            f'<span class="{f.status}" title="{escape(f.name)}: {f.status}">'
            f"{escape(f.name if row == 'updates' else split_name(f.name)[0])}</span>"
            for f in cells
        ) + "</dd>"
        for row, cells in rows.items()
    ) + "</dl>"  # fmt: skip


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
    source = f"expected is made of {escape(listed(finding.made_of))}"
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
        f'<tr><td>{escape(f.name)}</td><td class="{f.status}">{f.status}</td>'
        f"<td>{shape_text(f.shape)}</td><td>{number(f)}</td>"
        f"<td>{escape(f.cause)}</td></tr>"
        for f in findings
    )
    head = "<tr><th>tensor</th><th></th><th>shape</th><th>of its limit</th><th>cause</th></tr>"
    return f'<div class="wide"><table>{head}{rows}</table></div>'


def number(finding):
    return f"{finding.excess:.3g}" if finding.status in ("right", "wrong") else ""

"""Pictures of a comparison without a drawing library: PNG by zlib, SVG by hand."""

import base64
import struct
import zlib
from dataclasses import dataclass
from html import escape

import numpy as np

LARGEST = 160  # rows and columns of a tensor that are shown
DOTS = 1500
# Blue to grey to red, for negative, 0 and positive.
ENDS = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], float)


@dataclass
class Picture:
    """What is drawn of a wrong tensor: numbers around its worst one, and some of all of them."""

    what: str
    value: np.ndarray
    mine: np.ndarray
    points: np.ndarray  # (2, n): right numbers and MINE's

    @classmethod
    def of(cls, case, index):
        """Copy the numbers out of a Case, whose arrays may be large."""
        at, what = window(case.value.shape, index)
        chosen = np.linspace(0, case.value.size - 1, min(DOTS, case.value.size)).astype(int)
        points = np.stack([case.value.reshape(-1)[chosen], case.mine.reshape(-1)[chosen]])
        return cls(what, case.value[at].copy(), case.mine[at].copy(), points)


def window(shape, index):
    """The last two axes around an index, at most LARGEST each -> a slice and what it is."""
    if len(shape) < 2:
        return (slice(None),) * len(shape), "all of it"
    cuts = []
    for size, at in zip(shape[-2:], index[-2:], strict=True):
        start = max(0, min(at - LARGEST // 2, size - LARGEST))
        cuts.append(slice(start, min(size, start + LARGEST)))
    lead = index[:-2]
    words = [*map(str, lead), *(f"{cut.start}:{cut.stop}" for cut in cuts)]
    return (*lead, *cuts), f"[{', '.join(words)}]"


def heat_map(array, scale):
    """A picture of a matrix, a pixel a number, as the src of an img."""
    matrix = np.atleast_2d(array)
    with np.errstate(invalid="ignore", over="ignore"):
        level = np.clip(np.nan_to_num(matrix / scale, nan=1, posinf=1, neginf=-1), -1, 1)
    up = level[..., None] > 0
    ends = np.where(up, ENDS[2], ENDS[0])
    pixels = ENDS[1] + abs(level[..., None]) * (ends - ENDS[1])
    return "data:image/png;base64," + base64.b64encode(png(pixels.astype(np.uint8))).decode()


def png(pixels):
    """pixels (height, width, 3), uint8 -> the bytes of a PNG file."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def scatter(points):
    """An SVG of MINE's numbers over the right ones; on the diagonal they are equal."""
    value, mine = points[:, np.isfinite(points).all(0)]
    if not value.size:
        return ""
    low, high = min(value.min(), mine.min()), max(value.max(), mine.max())
    span = high - low or 1.0

    def place(x):
        return 10 + 220 * (x - low) / span

    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.5"/>'
        for x, y in zip(place(value), 240 - place(mine), strict=True)
    )
    return (
        '<svg viewBox="0 0 240 240" class="scatter" role="img" aria-label="MINE over expected">'
        f'<line x1="10" y1="230" x2="230" y2="10"/>{dots}</svg>'
    )


def excess_chart(findings):
    """An SVG of each tensor's largest difference, in units of the limit, in order."""
    judged = [f for f in findings if f.status in ("right", "wrong")]
    if not judged:
        return ""
    width, height = 900, 220
    levels = np.log10([min(max(f.excess, 1e-4), 1e8) for f in judged])
    low, high = -4, max(1.0, levels.max())

    def y(level):
        return 10 + (height - 20) * (high - level) / (high - low)

    step = width / len(judged)
    bars = "".join(
        f'<rect x="{i * step:.2f}" width="{max(step - 0.5, 0.5):.2f}" y="{y(level):.1f}"'
        f' height="{y(low) - y(level):.1f}" class="{f.status}"><title>{escape(f.name)}:'
        f" {f.excess:.3g} times the limit</title></rect>"
        for i, (f, level) in enumerate(zip(judged, levels, strict=True))
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" class="chart" role="img"'
        ' aria-label="each tensor\'s largest difference by its limit, in order of computation">'
        f'{bars}<line x1="0" x2="{width}" y1="{y(0):.1f}" y2="{y(0):.1f}"/></svg>'
    )

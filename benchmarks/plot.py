"""The ratios to native as an SVG: a line a row, a dot a contender, on a logarithmic scale."""

from __future__ import annotations

import math
from html import escape

from benchmarks.contenders import NATIVE
from benchmarks.report import Report, number

LEFT, RIGHT, TOP, LINE, WIDTH = 190, 30, 70, 20, 900
LEAST = 0.1
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000"]


class Scale:
    def __init__(self, most: float) -> None:
        self.low = math.log10(LEAST)
        self.high = max(1.0, math.ceil(math.log10(max(most, 1)) * 2) / 2)

    def x(self, ratio: float) -> float:
        share = (math.log10(max(ratio, LEAST)) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        values = [factor * 10.0**power for power in range(-1, 7) for factor in (1, 2, 5)]
        return [value for value in values if self.low <= math.log10(value) <= self.high + 1e-9]


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def legend(names: list[str]) -> list[str]:
    parts, x = [], float(LEFT)
    for name, colour in zip(names, COLOURS * 2, strict=False):
        parts.append(f'<circle cx="{x:.1f}" cy="36" r="5" fill="{colour}"/>')
        parts.append(text(x + 9, 40, name))
        x += 28 + 7 * len(name)
    parts.append(f'<path d="M{x:.1f} 29v14" stroke="#c00" stroke-width="2"/>')
    parts.append(text(x + 7, 40, "target"))
    return parts


def draw(report: Report) -> str:
    names = [one.name for one in report.contenders if one.name != NATIVE]
    rows = [row for row in report.rows if any(report.ratio(row, name) is not None for name in names)]
    ratios = [ratio for row in rows for name in names if (ratio := report.ratio(row, name)) is not None]
    scale = Scale(max(ratios, default=1))
    height = TOP + LINE * len(rows) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        text(LEFT, 18, "Time as a multiple of native (less is better, logarithmic)"),
        *legend(names),
    ]
    for tick in scale.ticks():
        x = scale.x(tick)
        colour = "#888" if tick == 1 else "#ddd"
        parts.append(f'<path d="M{x:.1f} {TOP - 6}V{height - 14}" stroke="{colour}"/>')
        parts.append(text(x, TOP - 10, f"{tick:g}×", "middle", "#666"))
    for i, row in enumerate(rows):
        y = TOP + LINE * i + LINE / 2
        parts.append(text(LEFT - 10, y + 4, row.name, "end"))
        limit = report.limit(row)
        if limit is not None:
            parts.append(f'<path d="M{scale.x(limit):.1f} {y - 8}v16" stroke="#c00" stroke-width="2"/>')
        for name, colour in zip(names, COLOURS * 2, strict=False):
            ratio = report.ratio(row, name)
            if ratio is not None:
                about = escape(f"{row.name}, {name}: {number(ratio)}×")
                parts.append(
                    f'<circle cx="{scale.x(ratio):.1f}" cy="{y}" r="5" fill="{colour}" fill-opacity="0.85">'
                    f"<title>{about}</title></circle>"
                )
    return "\n".join([*parts, "</svg>", ""])

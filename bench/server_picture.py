"""Picture of the comparison of servers: features as marks with a few words, CPU time per million records as bars."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from bench.picture import BAR, FONTS, INK, OURS, PEER, QUIET, RULE, text

MARKS = {"right": OURS, "partly": "#e0a030", "wrong": "#c2483c", "not probed": RULE}
SAID = {"right": "as AWS has it", "partly": "in part", "wrong": "not"}

WIDTH, MARGIN, GAP = 1390, 32, 48
LABELS = 196
TOP = 132
LINE, PAD = 15, 12
CHARACTERS = 25
"""How many fit in a cell's line."""

BARS_LABELS, ROW_HEIGHT = 176, 26
LONGEST = 2.2
"""Bars longer than this many times the middle one are cut, and marked."""


def draw(report: dict[str, Any]) -> str:
    """Return the SVG for the report of `servers.py`."""
    matrix, bottom = _matrix(report)
    bars, height = _bars(report, bottom + 40)
    names = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    machine = f"{report['processor']}, {report['cores']} cores"
    foot = f"{names}; Python {report['python']}, Node.js {report['node']}; {machine}; {report['date']}"
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 44}" width="{WIDTH}" '
            f'height="{height + 44}" font-family="{FONTS}" role="img">'
        ),
        "<title>Local Kinesis servers: what they do, and what a million records cost them</title>",
        f'<rect width="{WIDTH}" height="{height + 44}" fill="#ffffff"/>',
        text(MARGIN, 42, "Local Kinesis servers", 22, INK, weight=600),
        text(MARGIN, 66, "Findings for each server, all of one run.", 14, QUIET),
        *_legend(),
        *matrix,
        *bars,
        text(MARGIN, height + 22, foot, 12, QUIET),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    parts, x = [], WIDTH - MARGIN - 256
    for grade, said in SAID.items():
        parts += [_mark(x, 34, grade), text(x + 12, 38, said, 13, QUIET)]
        x += 120 if grade == "right" else 78
    return parts


def _mark(x: float, y: float, grade: str) -> str:
    """A dot: full, half or hollow, so that it says the same without its colour."""
    colour = MARKS[grade]
    ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{{}}" stroke="{colour}" stroke-width="1.5"/>'
    if grade == "right":
        return ring.format(colour)
    half = f'<path d="M {x:.1f} {y - 4.5:.1f} A 4.5 4.5 0 0 0 {x:.1f} {y + 4.5:.1f} Z" fill="{colour}"/>'
    return ring.format("#ffffff") + (half if grade == "partly" else "")


def _matrix(report: dict[str, Any]) -> tuple[list[str], float]:
    """Return the table's parts, and the coordinate of its end."""
    names = list(report["cells"])
    column = (WIDTH - 2 * MARGIN - LABELS) / len(names)
    parts = []
    for number, name in enumerate(names):
        ours = name == "kinstream"
        x = MARGIN + LABELS + number * column
        parts.append(text(x, TOP - 18, name, 14, OURS if ours else INK, weight=600))
    y: float = TOP
    for row in report["rows"]:
        cells = [report["cells"][name].get(row, {"said": "", "grade": "not probed"}) for name in names]
        said = [wrap(cell["said"], CHARACTERS) or [""] for cell in cells]
        height = LINE * max(len(lines) for lines in said) + PAD
        parts.append(f'<line x1="{MARGIN}" y1="{y - 8}" x2="{WIDTH - MARGIN}" y2="{y - 8}" stroke="{RULE}"/>')
        parts.append(text(MARGIN, y + 9, row, 13, INK))
        for number, (cell, lines) in enumerate(zip(cells, said, strict=True)):
            x = MARGIN + LABELS + number * column
            parts.append(_mark(x + 4.5, y + 5, cell["grade"]))
            parts += [text(x + 16, y + 9 + LINE * line, words, 12, INK) for line, words in enumerate(lines)]
        y += height
    return parts, y


def _bars(report: dict[str, Any], top: float) -> tuple[list[str], float]:
    """Return the bars' parts, and the coordinate of their end."""
    width = (WIDTH - 2 * MARGIN - GAP) / 2
    how = "Shorter is better. Driven by the same client over HTTP/1.1, JSON. Bars with a gap are cut."
    parts = [
        text(MARGIN, top, "Server CPU seconds for a million records", 18, INK, weight=600),
        text(MARGIN, top + 22, how, 13, QUIET),
    ]
    bottom = top
    for number, (operation, title) in enumerate((("put", "PutRecords, 500 x 100 B"), ("get", "GetRecords, 100 B"))):
        x, y = MARGIN + number * (width + GAP), top + 62
        speeds = [s for s in report["speeds"] if s["operation"] == operation and s["client"] == "kinstream"]
        speeds.sort(key=lambda s: float(s["cpu_seconds_per_million"]))
        values = [float(s["cpu_seconds_per_million"]) for s in speeds]
        longest = min(max(values, default=1), LONGEST * values[len(values) // 2]) if values else 1
        room = width - BARS_LABELS - 150
        parts.append(text(x, y - 8, title, 14, INK, weight=600))
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + width}" y2="{y}" stroke="{RULE}"/>')
        for speed, value in zip(speeds, values, strict=True):
            y += ROW_HEIGHT
            ours = speed["way"].startswith("kinstream")
            colour = OURS if ours else PEER
            length = max(2.0, min(value, longest) / longest * room)
            parts.append(text(x, y, speed["way"], 13, INK, weight=600 if ours else 400))
            at = x + BARS_LABELS
            parts.append(f'<rect x="{at}" y="{y - 10}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>')
            if value > longest:
                gap = at + length - 22
                parts.append(f'<path d="M {gap} {y + 3} l 5 -14 h 6 l -5 14 Z" fill="#ffffff"/>')
            rate = speed["thousand_records_per_second"]
            figure = f"{value:.1f}" if value < 100 else f"{value:.0f}"
            parts.append(text(at + length + 7, y, figure, 12, INK))
            fast = f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
            parts.append(text(x + width, y, f"{fast} k records/s", 11, QUIET, anchor="end"))
        bottom = max(bottom, y)
    return parts, bottom + 16

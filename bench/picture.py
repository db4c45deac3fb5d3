"""Pictures of the results: bars of CPU seconds per million records, in panels, as SVG."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from bench.figures import with_versions

ROWS = [
    ("boto3", "json", "boto3"),
    ("aiobotocore", "json", "aiobotocore"),
    ("capo-kinesis", "json", "capo-kinesis"),
    ("kinstream", "json", "kinstream, JSON"),
    ("kinstream", "cbor", "kinstream, CBOR"),
]
PANELS = [("put", 100), ("put", 1024), ("get", 100), ("get", 1024)]
TITLES = {"put": "put_records(500)", "get": "get_records"}
PEERS = {
    ("boto3", "aggregated"): "boto3 + aws-kinesis-agg",
    ("boto3", "deaggregated"): "boto3 + aws-kinesis-agg",
    ("async-kinesis", "aggregated"): "async-kinesis, KPL",
    ("async-kinesis", "deaggregated"): "async-kinesis, KPL",
    ("async-kinesis", "as shipped"): "async-kinesis as shipped",
}
SIZES = {100: "100 B", 1024: "1 KiB"}

Key = tuple[str, int, str, str, bool]
"""Operation, size, client, format, TLS."""

WIDTH, MARGIN, GAP = 1080, 32, 40
PANEL_WIDTH = (WIDTH - 2 * MARGIN - GAP) // 2
TOP, VALUES = 96, 44
CUT = 3.0
ROW_HEIGHT, BAR = 38, 12
FOOT_CHARACTERS = 150

FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
INK, QUIET, RULE = "#1c2430", "#667085", "#e4e7ec"
PEER, PEER_TLS = "#98a2b3", "#d0d5dd"
OURS, OURS_TLS = "#0b6e4f", "#7cc4a4"


@dataclass(frozen=True)
class Bars:
    """A row of a panel: its label, and its bars without and over TLS.

    Attributes:
        label: Its name.
        plain, tls: The figures. None: not measured.
        ours: Whether it is kinstream.
        note: Said at the right end.
    """

    label: str
    plain: float | None
    tls: float | None = None
    ours: bool = False
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """A title, a note at its right end, and rows."""

    title: str
    right: str
    rows: list[Bars]


def draw(report: dict[str, Any]) -> str:
    """Return the SVG for the report of `wire.py`."""
    figures: dict[Key, float] = {
        (cell["operation"], cell["size"], cell["client"], cell["wire"], cell["tls"]): cell["cpu_seconds_per_million"]
        for cell in report["cells"]
        if cell["loop"] != "asyncio"
    }
    ratios: dict[Key, float] = {
        (ratio["operation"], ratio["size"], ratio["peer"], ratio["wire"], ratio["tls"]): ratio["ratio"]
        for ratio in report["ratios"]
    }
    panels = []
    for operation, size in PANELS:
        rows = []
        for client, wire, label in ROWS:
            plain, tls = (figures.get((operation, size, client, wire, tls)) for tls in (False, True))
            times = [
                f"{peer} / {ratios[key]:.1f}"
                for peer in ("boto3", "capo-kinesis")
                if client == "kinstream" and (key := (operation, size, peer, wire, False)) in ratios
            ]
            rows.append(Bars(label, plain, tls, client == "kinstream", ", ".join(times)))
        panels.append(Panel(TITLES[operation], f"{SIZES[size]} a record", rows))
    method = report["method"]
    return page(
        "Client CPU seconds for a million records",
        "Shorter is better. In green: what part of a peer's, without TLS.",
        panels,
        report,
        f"pages of {method['records_in_a_page']} records; in flight: {method['in_flight']}.",
        labels=138,
    )


def flows(report: dict[str, Any], title: str, whats: tuple[str, ...]) -> str:
    """Return the SVG for the report of `produce.py` or `consume.py`: our rows in the better of our formats."""
    panels = []
    for what in whats:
        for size in sorted({cell["size"] for cell in report["cells"] if cell["what"] == what}):
            cells = [cell for cell in report["cells"] if (cell["what"], cell["size"]) == (what, size)]
            panels.append(Panel(_capital(what), f"{SIZES[size]} a record", _flow_rows(cells)))
    frames = [cell for cell in report["cells"] if cell["what"] == "fan-out, frames"]
    if frames:
        rows = [
            Bars(
                f"{cell['client']}, {cell['way']}",
                None,
                cell["cpu_seconds_per_million"],
                cell["client"] == "kinstream",
                f"{cell['megabytes_per_second']:.0f} MB/s",
            )
            for cell in sorted(frames, key=lambda cell: -cell["cpu_seconds_per_million"])
        ]
        panels.append(Panel("Fan-out: frames, both checksums", "1 KiB a record", rows))
        pushed = [cell for cell in report["cells"] if cell["what"] == "fan-out, records"]
        panels.append(Panel("Fan-out: records", "1 KiB a record", _flow_rows(pushed)))
    return page(
        title,
        "Shorter is better. Bars with a gap are cut. In bold: kinstream; 'pure': nothing compiled.",
        panels,
        report,
        f"{report['method']['shards']} shards.",
        labels=186,
    )


def _flow_rows(cells: list[dict[str, Any]]) -> list[Bars]:
    by_row: dict[tuple[str, str, bool, str], dict[bool, float]] = {}
    for cell in cells:
        if cell["wire"] != "auto":
            row = (cell["client"], cell["way"], cell["pure"], cell["wire"])
            by_row.setdefault(row, {})[cell["tls"]] = cell["cpu_seconds_per_million"]
    best: dict[tuple[str, str, bool], tuple[str, dict[bool, float]]] = {}
    for (client, way, pure, wire), figures in by_row.items():
        known = best.get((client, way, pure))
        if known is None or _first(figures) < _first(known[1]):
            best[client, way, pure] = wire, figures
    rows = []
    for (client, way, pure), (wire, figures) in best.items():
        ours = client == "kinstream"
        way = way.removesuffix(" aggregated").removesuffix(" deaggregated")
        label = (
            f"{way}, {wire.upper()}{', pure' if pure else ''}" if ours else PEERS.get((client, way), f"{client}, {way}")
        )
        rows.append(Bars(label, figures.get(False), figures.get(True), ours))
    return sorted(rows, key=lambda row: row.ours)


def _first(figures: dict[bool, float]) -> float:
    return figures.get(False) or figures[True]


def _capital(said: str) -> str:
    return said[:1].upper() + said[1:]


def growth(report: dict[str, Any]) -> str:
    """Return the SVG for the report of `--growth`: a panel for each kind of growth."""
    by_kind: dict[str, list[Bars]] = {}
    for cell in report["cells"]:
        kind, _, number = cell["what"].rpartition(": ")
        by_kind.setdefault(kind, []).append(Bars(number, cell["cpu_seconds_per_million"], ours=True))
    panels = [Panel(kind, f"{report['cells'][0]['size']} B a record", rows) for kind, rows in by_kind.items()]
    return page(
        "Cost of growth",
        "CPU seconds for a million records, kinstream alone. Flat is good.",
        panels,
        report,
        "limits on.",
        labels=138,
    )


def page(title: str, subtitle: str, panels: list[Panel], report: dict[str, Any], foot: str, *, labels: int) -> str:
    """Return the SVG of panels in two columns. `labels` is the width of the rows' names."""
    parts = []
    y = TOP
    for first in range(0, len(panels), 2):
        pair = panels[first : first + 2]
        for column, panel in enumerate(pair):
            parts += _panel(panel, MARGIN + column * (PANEL_WIDTH + GAP), y, labels)
        y += 60 + ROW_HEIGHT * max(len(panel.rows) for panel in pair)
    about = f"Python {report['python']}; {report['processor']}, {report['cores']} cores; {report['date']}"
    rounds = f"Median of {report['method']['rounds']} rounds against a canned-answer endpoint on loopback; "
    lines = [*textwrap.wrap(f"{with_versions(report)}; {about}", FOOT_CHARACTERS), rounds + foot]
    height = y + 16 + 18 * len(lines)
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
                f'height="{height}" font-family="{FONTS}" role="img">'
            ),
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            text(MARGIN, 42, title, 22, INK, weight=600),
            text(MARGIN, 66, subtitle, 14, QUIET),
            *_legend(),
            *parts,
            *(text(MARGIN, y + 18 * number, line, 12, QUIET) for number, line in enumerate(lines, 1)),
            "</svg>\n",
        ]
    )


def _legend() -> list[str]:
    x, y = WIDTH - MARGIN - 292, 34
    said = [(OURS, OURS_TLS, "kinstream", 0), (PEER, PEER_TLS, "others", 1)]
    parts = []
    for plain, tls, name, line in said:
        at = y + line * 22
        parts += [
            text(x, at + 10, name, 13, INK),
            f'<rect x="{x + 84}" y="{at}" width="26" height="{BAR}" rx="2" fill="{plain}"/>',
            text(x + 116, at + 10, "plain", 13, QUIET),
            f'<rect x="{x + 172}" y="{at}" width="26" height="{BAR}" rx="2" fill="{tls}"/>',
            text(x + 204, at + 10, "over TLS", 13, QUIET),
        ]
    return parts


def _panel(panel: Panel, x: int, y: int, labels: int) -> list[str]:
    room = PANEL_WIDTH - labels - VALUES
    values = sorted((max(row.plain or 0.0, row.tls or 0.0) for row in panel.rows), reverse=True)
    # One client that costs many times more than the next one would leave the others no length: its bar is cut.
    longest = next((v for v, after in zip(values, [*values[1:], *values[-1:]], strict=True) if v < CUT * after), 1.0)
    parts = [
        text(x, y + 22, panel.title, 15, INK, weight=600),
        text(x + PANEL_WIDTH, y + 22, panel.right, 13, QUIET, anchor="end"),
        f'<line x1="{x}" y1="{y + 32}" x2="{x + PANEL_WIDTH}" y2="{y + 32}" stroke="{RULE}"/>',
    ]
    for number, row in enumerate(panel.rows):
        top = y + 42 + number * ROW_HEIGHT
        parts.append(text(x, top + 17, row.label, 13, INK, weight=600 if row.ours else 400))
        for tls, value in enumerate((row.plain, row.tls)):
            if value is None:
                continue
            colour = ((OURS, OURS_TLS) if row.ours else (PEER, PEER_TLS))[tls]
            at, length = top + tls * (BAR + 2), min(room, max(2.0, value * room / longest))
            shown = f"{value:.2f}" if value < 10 else f"{value:.1f}"
            parts += [
                f'<rect x="{x + labels}" y="{at}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
                text(x + labels + length + 6, at + 10, shown, 11, QUIET if tls else INK),
            ]
            if value > longest:
                gap = x + labels + room - 24
                parts.append(f'<path d="M{gap} {at + BAR + 1}l6 -{BAR + 2}h4l-6 {BAR + 2}z" fill="#ffffff"/>')
        if row.note and row.plain is None:  # in its place
            parts.append(text(x + labels, top + 10, row.note, 11, QUIET))
        elif row.note:
            parts.append(text(x + PANEL_WIDTH, top + 17, row.note, 12, OURS, anchor="end"))
    return parts


def text(x: float, y: float, said: str, size: int, colour: str, *, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(said)}</text>"
    )

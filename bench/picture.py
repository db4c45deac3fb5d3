"""The result as a picture: bars of CPU seconds for a million records, four panels, drawn as SVG by hand."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

ROWS = [
    ("boto3", "json", "boto3"),
    ("aiobotocore", "json", "aiobotocore"),
    ("capo-kinesis", "json", "capo-kinesis"),
    ("kinstream", "json", "kinstream, JSON"),
    ("kinstream", "cbor", "kinstream, CBOR"),
]
PANELS = [("put", 100), ("put", 1024), ("get", 100), ("get", 1024)]
TITLES = {"put": "put_records(500)", "get": "get_records"}
SIZES = {100: "100 B", 1024: "1 KiB"}

Key = tuple[str, int, str, str, bool]
"""Operation, size, client, format, TLS."""

WIDTH, MARGIN, GAP = 1080, 32, 40
PANEL_WIDTH = (WIDTH - 2 * MARGIN - GAP) // 2
TOP, PANEL_HEIGHT = 96, 250
LABELS, VALUES = 138, 44
ROW_HEIGHT, BAR = 38, 12

FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
INK, QUIET, RULE = "#1c2430", "#667085", "#e4e7ec"
PEER, PEER_TLS = "#98a2b3", "#d0d5dd"
OURS, OURS_TLS = "#0b6e4f", "#7cc4a4"


def draw(report: dict[str, Any]) -> str:
    """Return the SVG for what `wire.py` reports."""
    height = TOP + 2 * PANEL_HEIGHT + 52
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'font-family="{FONTS}" role="img">'
        ),
        "<title>Client CPU seconds for a million Kinesis records</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(MARGIN, 42, "Client CPU seconds for a million records", 22, INK, weight=600),
        text(MARGIN, 66, "Shorter is better. In green: what part of a peer's, without TLS.", 14, QUIET),
        *_legend(),
    ]
    figures = {
        (cell["operation"], cell["size"], cell["client"], cell["wire"], cell["tls"]): cell["cpu_seconds_per_million"]
        for cell in report["cells"]
        if cell["loop"] != "asyncio"
    }
    ratios = {
        (ratio["operation"], ratio["size"], ratio["peer"], ratio["wire"], ratio["tls"]): ratio["ratio"]
        for ratio in report["ratios"]
    }
    for number, (operation, size) in enumerate(PANELS):
        x = MARGIN + (number % 2) * (PANEL_WIDTH + GAP)
        y = TOP + (number // 2) * PANEL_HEIGHT
        parts += _panel(figures, ratios, operation, size, x, y)
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    method = report["method"]
    parts += [
        text(
            MARGIN,
            height - 34,
            f"{versions}; Python {report['python']}; {report['processor']}, {report['cores']} cores; {report['date']}",
            12,
            QUIET,
        ),
        text(
            MARGIN,
            height - 16,
            f"Median of {method['rounds']} rounds against a canned-answer endpoint on loopback; pages of "
            f"{method['records_in_a_page']} records; in flight: {method['in_flight']}.",
            12,
            QUIET,
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


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


def _panel(figures: dict[Key, float], ratios: dict[Key, float], operation: str, size: int, x: int, y: int) -> list[str]:
    def of(client: str, wire: str, tls: bool) -> float | None:
        return figures.get((operation, size, client, wire, tls))

    here = [value for (o, s, *_), value in figures.items() if (o, s) == (operation, size)]
    scale = (PANEL_WIDTH - LABELS - VALUES) / max(here, default=1.0)
    parts = [
        text(x, y + 22, TITLES[operation], 15, INK, weight=600),
        text(x + PANEL_WIDTH, y + 22, f"{SIZES[size]} a record", 13, QUIET, anchor="end"),
        f'<line x1="{x}" y1="{y + 32}" x2="{x + PANEL_WIDTH}" y2="{y + 32}" stroke="{RULE}"/>',
    ]
    for number, (client, wire, label) in enumerate(ROWS):
        top = y + 42 + number * ROW_HEIGHT
        ours = client == "kinstream"
        parts.append(text(x, top + 17, label, 13, INK, weight=600 if ours else 400))
        for tls in (False, True):
            value = of(client, wire, tls)
            if value is None:
                continue
            colour = ((OURS, OURS_TLS) if ours else (PEER, PEER_TLS))[tls]
            at, length = top + tls * (BAR + 2), max(2.0, value * scale)
            parts.append(
                f'<rect x="{x + LABELS}" y="{at}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
            )
            parts.append(
                text(
                    x + LABELS + length + 6,
                    at + 10,
                    f"{value:.2f}" if value < 10 else f"{value:.1f}",
                    11,
                    INK if not tls else QUIET,
                )
            )
        if ours:
            times = [
                f"{peer} / {ratios[key]:.1f}"
                for peer in ("boto3", "capo-kinesis")
                if (key := (operation, size, peer, wire, False)) in ratios
            ]
            if times:
                parts.append(text(x + PANEL_WIDTH, top + 17, ", ".join(times), 12, OURS, anchor="end"))
    return parts


def text(x: float, y: float, said: str, size: int, colour: str, *, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(said)}</text>"
    )

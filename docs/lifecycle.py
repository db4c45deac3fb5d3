"""Draws the lifecycle of a shard in docs/DESIGN.md from its table. Run it after changing `consume/shard/lifecycle.py`."""

from __future__ import annotations

from pathlib import Path

from kinstream.consume.shard.lifecycle import TABLE, State

PAGE = Path(__file__).parent / "DESIGN.md"
BEGIN, END = "<!-- lifecycle of a shard -->\n", "<!-- end of lifecycle of a shard -->"


def diagram() -> str:
    """Return the diagram: an arrow for each pair of states, with the transitions between them."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for state, row in TABLE.items():
        for transition, following in row.items():
            arrows.setdefault((state, following), []).append(transition)
    shown = [(before, ", ".join(names), after) for (before, after), names in arrows.items()]
    width, length = max(map(len, State)), max(len(names) for _, names, _ in shown)
    lines = [f"{'(start)':{width}} --{'-' * length}--> {State.WAITING}"]
    previous: State | None = None
    for before, names, after in shown:
        lines += [""] * (before is not previous)
        lines.append(f"{before:{width}} --{names:-<{length}}--> {after}")
        previous = before
    lines += ["", *(f"{state:{width}} (end)" for state in State if state.final)]
    return "".join(f"{line}\n" for line in lines)


def updated(page: str) -> str:
    """Return the page with the diagram as it is now."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}```text\n{diagram()}```\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))

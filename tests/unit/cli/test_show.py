"""The demo's output fits the terminal, moves only on a terminal, and cannot be controlled by data."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kinstream import HashKeyRange, SequenceNumberRange, Shard
from kinstream.cli.demo import conclude
from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.journey import Outcome
from kinstream.cli.demo.read import ShardRead
from kinstream.cli.demo.show import Bars, Lines, show_on
from kinstream.cli.demo.verdict import Verdict, judge
from kinstream.produce.statistics import Counts

HALF = 2**127
FLIGHT = Event("1", b'{"day":7,"hour":5,"minute":9}')


def console(*, terminal: bool, width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False, _environ={})


def written(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def found(
    shard_id: str = "shardId-000000000000", *, ending: str | None = None, last: Event | None = FLIGHT
) -> ShardRead:
    shard = Shard(shard_id, HashKeyRange("0", str(HALF - 1)), SequenceNumberRange("1", ending), "shardId-000000000012")
    return ShardRead(shard, 12_345, 2_097_152, FLIGHT, last)


def outcome_of(shards: list[ShardRead], verdict: Verdict) -> Outcome:
    nothing = Counts().snapshot(failures_unobserved=0, buffered_records=0, buffered_bytes=0, waiting_puts=0)
    return Outcome(shards, verdict, nothing)


def test_a_pipe_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    pipe = console(terminal=False)
    with show_on(pipe) as show:
        assert isinstance(show, Lines)
        show.begin("write", 25_000)
        for _ in range(50):
            show.advance("write", 500)
    assert written(pipe).splitlines() == [
        "write: 10,000 of 25,000 records",
        "write: 20,000 of 25,000 records",
        "write: 25,000 of 25,000 records",
    ]


def test_a_shard_with_nothing_in_it_gets_no_line_in_a_pipe() -> None:
    pipe = console(terminal=False)
    with show_on(pipe) as show:
        show.begin("read", 0)
        show.advance("read", 0)
    assert written(pipe) == ""


def test_a_terminal_gets_a_bar_that_ends_full() -> None:
    terminal = console(terminal=True)
    with show_on(terminal) as show:
        assert isinstance(show, Bars)
        show.begin("write", 1_500)
        show.advance("write", 500)
        show.advance("write", 1_000)
        show.say("half way")
    assert " 1,500 /  1,500" in written(terminal)
    assert "half way" in written(terminal)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines() -> None:
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(show_on(dumb), Lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_names_from_the_service_cannot_control_the_terminal(terminal: bool) -> None:
    screen = console(terminal=terminal)
    with show_on(screen) as show:
        show.say("split \x1b[2J[red]x")
        show.begin("read \x1b]0;", 1)
        show.advance("read \x1b]0;", 1)
    sent = judge([FLIGHT], 1, [FLIGHT])
    conclude(outcome_of([found("\x1b[2J[b]")], sent), screen)
    assert r"split \x1b[2J[red]x" in written(screen)
    assert r"read \x1b]0;" in written(screen)
    assert r"\x1b[2J[b]" in written(screen)
    assert "\x1b[2J" not in written(screen)
    assert "\x1b]0;" not in written(screen)


def test_the_table_has_a_row_for_each_shard_and_fits_80_columns() -> None:
    pipe = console(terminal=False)
    outcome = outcome_of([found(ending="9"), found("shardId-000000000013", last=None)], judge([FLIGHT], 1, [FLIGHT]))
    assert conclude(outcome, pipe) == 0
    lines = written(pipe).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines]
    assert ["shard", "state", "from", "keys", "records", "KiB", "first", "last"] in rows
    assert ["shardId-000000000000", "closed", "12", "50.0%", "12,345", "2,048", "7", "05:09", "7", "05:09"] in rows
    assert ["shardId-000000000013", "open", "12", "50.0%", "12,345", "2,048", "7", "05:09", "-"] in rows
    assert ["all", "shards", "24,690", "4,096"] in rows


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (70, ["shard", "state", "from", "keys", "records", "KiB"]),
        (50, ["shard", "state", "records", "KiB"]),
        (40, ["shard", "records"]),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns_and_whole_cells(width: int, columns: list[str]) -> None:
    narrow = console(terminal=False, width=width)
    conclude(outcome_of([found(ending="9")], judge([FLIGHT], 1, [FLIGHT])), narrow)
    lines = written(narrow).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines]
    assert columns in rows
    cells = {
        "shard": "shardId-000000000000",
        "state": "closed",
        "from": "12",
        "keys": "50.0%",
        "records": "12,345",
        "KiB": "2,048",
    }
    assert [cells[column] for column in columns] in rows


def test_bars_on_a_narrow_terminal_show_whole_counts_and_no_rate() -> None:
    narrow = console(terminal=True, width=50)
    with show_on(narrow) as show:
        show.begin("read shardId-000000000000", 1_500)
        show.advance("read shardId-000000000000", 1_500)
    assert " 1,500 /  1,500" in written(narrow)
    assert "/s" not in written(narrow)


def test_the_last_line_is_the_verdict_and_a_bad_one_is_a_bad_status() -> None:
    pipe = console(terminal=False)
    assert conclude(outcome_of([], judge([FLIGHT], 1, [])), pipe) == 1
    assert written(pipe).splitlines()[-1] == "demo: 1 written, 0 read, 1 lost, 0 duplicated, order per key kept"


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"day":"x","hour":1,"minute":2}', b'{"day":1}'])
def test_a_record_that_is_not_a_flight_does_not_break_the_table(data: bytes) -> None:
    pipe = console(terminal=False)
    conclude(outcome_of([found(last=Event("1", data))], judge([FLIGHT], 1, [FLIGHT])), pipe)
    assert any(line.split()[-3:] == ["7", "05:09", "?"] for line in written(pipe).splitlines())

"""Both forms of the store, held to the same expectations."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinstream.errors import ConfigError
from kinstream.local.state.model import RecordsExpired
from kinstream.local.state.state import State
from kinstream.local.storage.database import DURABILITIES, PURGE_BYTES, PURGE_ROWS, SqliteStore
from kinstream.local.storage.record_store import Chunk, MemoryStore, Store, Write, pack

BIG = 1 << 40


def chunk(number: int, first: int, arrival: int, *data: bytes, key: str = "k") -> Chunk:
    return Chunk(
        number, first, arrival, len(data), sum(len(d) + len(key) for d in data), pack([(key, d) for d in data])
    )


def read(
    store: Store, number: int, place: int, *, limit: int = 10_000, size: int = BIG
) -> list[tuple[int, int, bytes]]:
    """Return records as (place, arrival, data)."""
    return [
        (slice_.first + offset, slice_.arrival, record.data)
        for slice_ in store.read(number, place, limit=limit, size=size)
        for offset, record in enumerate(slice_.records)
    ]


@pytest.fixture(params=["memory", "disk"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path)
    yield store
    store.close()


async def test_callback_receives_writes_that_can_be_read(store: Store) -> None:
    seen: list[list[int]] = []

    def watch(writes: Sequence[Write]) -> None:
        seen.append(
            [place for write in writes if isinstance(write, Chunk) for place, *_ in read(store, write.number, 1)]
        )

    store.on_write = watch
    writing = asyncio.ensure_future(store.write([chunk(1, 1, 5, b"a"), chunk(2, 1, 5, b"b")]))
    await store.write([chunk(1, 2, 5, b"c")])
    await writing
    assert [places for told in seen for places in told].count(2) >= 1
    assert len(seen) == 2


async def test_records_are_read_from_a_position_onward(store: Store) -> None:
    await store.write([chunk(7, 1, 100, b"a", b"b", b"c"), chunk(8, 1, 100, b"other")])
    await store.write([chunk(7, 4, 200, b"d")])
    everything = [(1, 100, b"a"), (2, 100, b"b"), (3, 100, b"c"), (4, 200, b"d")]
    for place in range(6):
        assert read(store, 7, place) == everything[max(0, place - 1) :]
    assert read(store, 6, 0) == read(store, 9, 0) == []
    assert read(store, 8, 1) == [(1, 100, b"other")]


async def test_read_stops_at_its_limit_within_a_chunk(store: Store) -> None:
    await store.write([chunk(1, 1, 5, b"a", b"b", b"c"), chunk(1, 4, 6, b"d", b"e")])
    for limit in range(1, 6):
        assert [r[2] for r in read(store, 1, 1, limit=limit)] == [b"a", b"b", b"c", b"d", b"e"][:limit]
        assert [r[2] for r in read(store, 1, 3, limit=limit)] == [b"c", b"d", b"e"][:limit]


async def test_read_stops_before_its_size_but_returns_at_least_one_record(store: Store) -> None:
    await store.write([chunk(1, 1, 5, b"x" * 9, b"y" * 9), chunk(1, 3, 6, b"z" * 99)])
    assert [r[0] for r in read(store, 1, 1, size=10)] == [1]
    assert [r[0] for r in read(store, 1, 1, size=19)] == [1]
    assert [r[0] for r in read(store, 1, 1, size=20)] == [1, 2]
    assert [r[0] for r in read(store, 1, 1, size=119)] == [1, 2]
    assert [r[0] for r in read(store, 1, 1, size=120)] == [1, 2, 3]
    assert [r[0] for r in read(store, 1, 3, size=1)] == [3]


async def test_newest_record_is_that_of_the_last_write(store: Store) -> None:
    assert store.newest(1) == (0, 0)
    await store.write([chunk(1, 1, 5, b"a", b"b")])
    await store.write([chunk(1, 3, 9, b"c")])
    assert store.newest(1) == (3, 9)


NUMBERS = itertools.count(1000)


@given(arrivals=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=12), wanted=st.integers(-2, 70))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_find_returns_the_first_record_at_a_time_or_later(
    store: Store, arrivals: list[tuple[int, int]], wanted: int
) -> None:
    number = next(NUMBERS)
    moment, place, expected, writes = 0, 1, None, []
    for step, count in arrivals:
        moment += step
        writes += [chunk(number, place, moment, *[b"x"] * count)]
        if expected is None and moment >= wanted:
            expected = place
        place += count
    await store.write(writes)
    assert store.find(number, wanted) == (expected or place)


async def test_records_of_a_deleted_stream_are_removed(store: Store) -> None:
    state = State()
    await store.write([*state.create("a", 2, 1000.0), *state.advance(1000.0)])
    first, second = state.stream("a").shards
    await store.write([chunk(first.number, 1, 5, b"x"), chunk(second.number, 1, 5, b"y"), chunk(99, 1, 5, b"z")])
    await store.write([*state.delete("a", 1000.0), *state.advance(1000.0)])
    for _ in range(500):
        if not read(store, first.number, 1) and not read(store, second.number, 1):
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("still there")
    assert read(store, 99, 1) == [(1, 5, b"z")]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the removals of the writer thread, which run while it is idle."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_expired_records_are_removed_and_others_keep_their_positions(store: Store) -> None:
    await store.write(
        [chunk(1, 1, 100, b"a", b"b"), chunk(1, 3, 200, b"c"), chunk(1, 4, 300, b"d"), chunk(2, 1, 100, b"z")]
    )
    await store.write([RecordsExpired(1, 201)])
    await until(lambda: read(store, 1, 0) == [(4, 300, b"d")])
    assert read(store, 1, 2) == [(4, 300, b"d")]
    assert read(store, 1, 5) == []
    assert store.find(1, 0) == store.find(1, 201) == store.find(1, 300) == 4
    assert store.find(1, 301) == 5
    assert read(store, 2, 1) == [(1, 100, b"z")]
    assert store.newest(1) == (4, 300)


async def test_shard_without_records_continues_after_its_last_position(store: Store) -> None:
    await store.write([chunk(1, 1, 100, b"a", b"b")])
    await store.write([RecordsExpired(1, 101)])
    await until(lambda: read(store, 1, 0) == [])
    assert store.newest(1) == (2, 100)
    assert store.find(1, 101) == 3
    await store.write([chunk(1, 3, 200, b"c")])
    assert read(store, 1, 0) == read(store, 1, store.find(1, 101)) == [(3, 200, b"c")]


async def test_position_of_the_newest_record_survives_its_removal(tmp_path: Path) -> None:
    state = State()
    store = SqliteStore(tmp_path)
    await store.write([*state.create("a", 1, 1000.0), *state.advance(1000.0)])
    (placement,) = state.place(state.stream("a"), [bytes(16)] * 3, 1000.0)
    number = placement.shard.number
    await store.write([chunk(number, 1, placement.arrival, b"a", b"b", b"c")])
    await store.write(state.trim(1000.0 + 25 * 3600))
    await until(lambda: read(store, number, 0) == [])
    store.close()

    store = SqliteStore(tmp_path)
    again = State()
    again.restore(*store.load())
    assert store.newest(number) == (3, 1_000_000)
    (placement,) = again.place(again.stream("a"), [bytes(16)], 1000.0 + 25 * 3600)
    assert placement.first == 4
    store.close()


async def test_interrupted_removal_is_completed_at_the_next_start(tmp_path: Path) -> None:
    later = 1000.0 + 25 * 3600
    state = State()
    store = SqliteStore(tmp_path)
    await store.write([*state.create("a", 1, 1000.0), *state.advance(1000.0)])
    (placement,) = state.place(state.stream("a"), [bytes(16)] * 3, 1000.0)
    number = placement.shard.number
    await store.write([chunk(number, 1, placement.arrival, b"a", b"b", b"c")])
    # The shard is written as being without records, but they are still there.
    await store.write([event for event in state.trim(later) if not isinstance(event, RecordsExpired)])
    store.close()

    store = SqliteStore(tmp_path)
    again = State()
    again.restore(*store.load())
    assert len(read(store, number, 0)) == 3
    await store.write(again.trim(later))
    await until(lambda: read(store, number, 0) == [])
    store.close()


async def test_disk_space_of_expired_records_is_reused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    sizes = []
    for day in range(1, 7):
        # More chunks than are removed in one step.
        await asyncio.gather(
            *(store.write([chunk(1, day * 1000 + n, day, bytes(20_000))]) for n in range(PURGE_ROWS + 50))
        )
        await store.write([RecordsExpired(1, day + 1)])
        await until(lambda: read(store, 1, 0) == [])
        sizes.append((tmp_path / "kinesis.sqlite3").stat().st_size)
    assert sizes[-1] < 1.5 * sizes[1], sizes
    store.close()


async def test_expired_records_are_removed_during_continuous_writes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.write([chunk(1, n, 1, b"x") for n in range(1, 10 * PURGE_ROWS)])
    place = 0

    async def keep_writing() -> None:
        nonlocal place
        while True:
            place += 1
            await store.write([chunk(2, place, 5, b"y")])

    await store.write([RecordsExpired(1, 2)])
    writers = [asyncio.create_task(keep_writing()) for _ in range(3)]
    await until(lambda: read(store, 1, 0) == [])
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    store.close()


async def test_large_chunks_are_removed_one_by_one(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    large = bytes(PURGE_BYTES // 2 + 1)
    await store.write([chunk(1, place, place, large) for place in range(1, 5)])
    await store.write([RecordsExpired(1, 4)])
    await until(lambda: [r[0] for r in read(store, 1, 0)] == [4])
    store.close()


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_both_durabilities_persist_writes(tmp_path: Path, durability: str) -> None:
    store = SqliteStore(tmp_path, durability)
    await store.write([chunk(1, 1, 5, b"x")])
    assert read(store, 1, 1) == [(1, 5, b"x")]
    store.close()
    with sqlite3.connect(tmp_path / "kinesis.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM chunks").fetchone() == (1,)
    database.close()


async def test_key_survives_and_differs_between_folders(tmp_path: Path) -> None:
    keys = []
    for folder in ("a", "a", "b"):
        store = SqliteStore(tmp_path / folder)
        keys.append(store.key)
        store.close()
    assert keys[0] == keys[1] != keys[2]
    assert {len(key) for key in keys} == {32}


async def test_streams_and_shards_are_loaded_with_their_newest_positions(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    state = State(transition=5.0)
    await store.write(
        [*state.create("a", 2, 1000.0, max_record_kib=2048), *state.create("b", 1, 1000.0, on_demand=True)]
    )
    await store.write(state.advance(1005.0))
    stream = state.stream("a")
    placements = state.place(stream, [bytes(16)] * 3, 1006.0)
    await store.write([chunk(p.shard.number, p.first, p.arrival, *[b"x"] * len(p.members)) for p in placements])
    await store.write(state.split("a", stream.shards[0].id, "1000", 1007.0))
    store.close()

    store = SqliteStore(tmp_path)
    again = State(transition=5.0)
    again.restore(*store.load())
    assert {n: (s.settings, s.shards) for n, s in again.streams.items()} == {
        n: (s.settings, s.shards) for n, s in state.streams.items()
    }
    assert store.newest(stream.shards[0].number) == (3, 1_006_000)
    # A pending split is completed.
    await store.write(again.advance(1012.0))
    state.advance(1012.0)
    assert again.stream("a").shards == state.stream("a").shards
    store.close()


async def test_shard_numbers_are_not_reused_before_their_records_are_removed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    state = State()
    await store.write(state.create("a", 3, 1000.0))
    await store.write([*state.delete("a", 1000.0), *state.advance(1000.0)])
    store.close()
    with sqlite3.connect(tmp_path / "kinesis.sqlite3") as database:
        database.execute("INSERT OR IGNORE INTO doomed VALUES (3)")
    database.close()
    store = SqliteStore(tmp_path)
    assert store.load().next_number == 4
    store.close()


async def test_write_is_atomic(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.write([chunk(1, 1, 5, b"there")])
    with pytest.raises(OSError, match="cannot be written"):
        await store.write([chunk(2, 1, 5, b"new"), chunk(1, 1, 5, b"twice")])
    assert read(store, 2, 1) == []
    assert store.newest(2) == (0, 0)
    with pytest.raises(OSError, match="failed earlier"):
        await store.write([chunk(2, 1, 5, b"after")])
    store.close()
    store = SqliteStore(tmp_path)
    store.load()
    assert read(store, 1, 1) == [(1, 5, b"there")]
    assert read(store, 2, 1) == []
    store.close()


async def test_queued_writes_are_stored_in_order(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await asyncio.gather(*(store.write([chunk(1, place, place, b"x")]) for place in range(1, 201)))
    assert [r[0] for r in read(store, 1, 1)] == list(range(1, 201))
    store.close()


async def test_write_of_a_cancelled_caller_is_stored(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    told: list[Sequence[Write]] = []
    store.on_write = told.append
    task = asyncio.create_task(store.write([chunk(1, 1, 5, b"x")]))
    await asyncio.sleep(0)
    task.cancel()
    await store.write([chunk(1, 2, 6, b"y")])
    assert len(told) == 2
    assert [r[0] for r in read(store, 1, 1)] == [1, 2]
    store.close()


def _newer(folder: Path) -> None:
    SqliteStore(folder).close()
    with sqlite3.connect(folder / "kinesis.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def _foreign(folder: Path) -> None:
    with sqlite3.connect(folder / "kinesis.sqlite3") as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()


def _garbage(folder: Path) -> None:
    (folder / "kinesis.sqlite3").write_bytes(b"not a database " * 1000)


def _a_file(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_newer, "its format is 99, but this version of kinstream supports 1"),
        (_foreign, "the database of another application"),
        (_garbage, "its database cannot be used"),
        (_a_file, "cannot be used as a folder"),
    ],
)
async def test_unusable_folder_is_reported(tmp_path: Path, spoil: Callable[[Path], None], text: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(ConfigError, match=text) as caught:
        SqliteStore(folder)
    assert str(folder) in str(caught.value)


async def test_damaged_database_is_reported_when_it_is_read(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "kinesis.sqlite3") as database:
        database.execute("INSERT INTO streams VALUES ('orders', '{')")
    database.close()
    store = SqliteStore(tmp_path)
    with pytest.raises(ConfigError, match="its database cannot be read"):
        store.load()
    store.close()


async def test_folder_belongs_to_one_store_at_a_time(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path)
    with pytest.raises(ConfigError, match="in use by another local Kinesis"):
        SqliteStore(tmp_path)
    first.close()
    SqliteStore(tmp_path).close()

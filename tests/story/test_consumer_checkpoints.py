"""Checkpoints: only records that were not completed are read again, and a checkpoint never goes back."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.leases import store_leases, stored_leases, take_lease
from tests.doubles.river import Catch, River, river

from kinstream import (
    Checkpoints,
    ClosedError,
    ConfigError,
    ConsumeError,
    Consumer,
    Fleet,
    Handling,
    LeaseLost,
    MemoryLeaseStore,
    NotFound,
    Polling,
    Position,
    ReceivedRecord,
    Record,
    SQLiteLeaseStore,
    UsageError,
    events,
)
from kinstream.kpl.builder import Builder


@pytest.fixture
async def stream() -> AsyncIterator[River]:
    async with river(1) as made:
        yield made


def consumer(stream: River, store: Any, **options: Any) -> Consumer:
    return Consumer(
        "events", application="app", lease_store=store, client=stream.client, **({"until": "now"} | options)
    )


async def taken(reader: Consumer, count: int) -> list[int]:
    """Read `count` records, and break off while the last one is being handled."""
    found: list[int] = []
    async with aclosing(aiter(reader)) as records:
        async for record in records:
            found.append(int(record.data))
            if len(found) == count:
                break
    return found


async def test_restarted_consumer_continues_with_the_record_that_was_being_handled(
    stream: River, tmp_path: Path
) -> None:
    await stream.write(100)
    first = SQLiteLeaseStore(tmp_path / "checkpoints.db")
    async with consumer(stream, first) as reader:
        assert await taken(reader, 40) == list(range(40))
    again = SQLiteLeaseStore(tmp_path / "checkpoints.db")
    async with consumer(stream, again) as reader:
        assert [int(record.data) async for record in reader] == list(range(39, 100))
    async with consumer(stream, again) as reader:
        assert [record async for record in reader] == []


@pytest.mark.parametrize("kind", [MemoryLeaseStore, SQLiteLeaseStore])
async def test_restarted_before_anything_is_done_it_begins_with_the_record_that_it_was_started_at(
    stream: River, tmp_path: Path, kind: Any
) -> None:
    await stream.write(5)
    shard_id = "shardId-000000000000"
    async with Consumer("events", start="TRIM_HORIZON", until="now", client=stream.client) as reader:
        numbers = [record.sequence_number async for record in reader]
    store = MemoryLeaseStore() if kind is MemoryLeaseStore else SQLiteLeaseStore(tmp_path / "checkpoints.db")
    async with consumer(stream, store, start={shard_id: Position.at(numbers[2])}) as reader:
        assert await taken(reader, 1) == [2]
    assert (await stored_leases(store))[shard_id].checkpoint == Position.at(numbers[2])
    async with consumer(stream, store) as reader:
        assert [int(record.data) async for record in reader] == [2, 3, 4]


async def test_stored_checkpoint_wins_over_the_start(stream: River) -> None:
    await stream.write(100)
    store = MemoryLeaseStore()
    async with consumer(stream, store) as reader:
        await taken(reader, 40)
    async with consumer(stream, store, start="LATEST") as reader:
        assert len([record async for record in reader]) == 61


def aggregate(*numbers: int) -> Record:
    builder = Builder(1 << 20, 1000)
    for number in numbers:
        builder.add(f"key-{number}", None, b"%d" % number)
    return Record(builder.finish(), "a")


async def test_checkpoint_inside_an_aggregate_is_exact(stream: River) -> None:
    await stream.put([aggregate(0, 1, 2, 3), aggregate(4, 5, 6)])
    store = MemoryLeaseStore()
    async with consumer(stream, store) as reader:
        assert await taken(reader, 3) == [0, 1, 2]
    (lease,) = (await stored_leases(store)).values()
    assert lease.checkpoint.subsequence_number == 1
    async with consumer(stream, store) as reader:
        records = [record async for record in reader]
    assert [(int(record.data), record.subsequence_number) for record in records] == [
        (2, 2),
        (3, 3),
        (4, 0),
        (5, 1),
        (6, 2),
    ]


async def test_end_of_a_shard_is_written_once_its_last_record_is_done_and_names_its_children(stream: River) -> None:
    await stream.write(20)
    await stream.split("shardId-000000000000")
    store = MemoryLeaseStore()
    async with consumer(stream, store) as reader:
        await taken(reader, 20)
    assert not (await stored_leases(store))["shardId-000000000000"].checkpoint.ended
    async with consumer(stream, store) as reader:
        assert [int(record.data) async for record in reader] == [19]
    leases = await stored_leases(store)
    assert leases["shardId-000000000000"].checkpoint.ended
    assert leases["shardId-000000000000"].children == ("shardId-000000000001", "shardId-000000000002")
    assert leases["shardId-000000000001"].parents == ("shardId-000000000000",)


async def test_manual_checkpoints_are_the_only_ones(stream: River) -> None:
    await stream.write(100)
    store = MemoryLeaseStore()
    async with consumer(stream, store, checkpoints="manual") as reader:
        async for record in reader:
            if int(record.data) in (30, 10):  # going back changes nothing
                await record.checkpoint()
    async with consumer(stream, store, checkpoints="manual") as reader:
        assert [int(record.data) async for record in reader] == list(range(31, 100))
    async with consumer(stream, store, checkpoints="manual", handling=Handling(max_batch_records=10)) as reader:
        async for batch in reader.batches():
            if int(batch[0].data) == 50:  # batches begin at the manual checkpoint: the record before
                await batch.checkpoint()
    async with consumer(stream, store, checkpoints="manual") as reader:
        assert [int(record.data) async for record in reader] == list(range(60, 100))


async def test_manually_checkpointed_shard_ends_only_with_its_last_record(stream: River) -> None:
    await stream.write(10)
    await stream.split("shardId-000000000000")
    await stream.write(10)
    store = MemoryLeaseStore()
    kept: list[ReceivedRecord[bytes]] = []
    async with consumer(stream, store, checkpoints="manual", until=None) as reader:
        async for record in reader:
            kept.append(record)
            if len(kept) == 20:
                assert not (await stored_leases(store))["shardId-000000000000"].checkpoint.ended
                await kept[8].checkpoint()
                assert (await stored_leases(store))["shardId-000000000000"].checkpoint == Position.after(
                    kept[8].sequence_number, 0
                )
                await kept[9].checkpoint()
                ended = (await stored_leases(store))["shardId-000000000000"]
                assert ended.checkpoint.ended
                assert len(ended.children) == 2
                break


async def test_manual_checkpoint_never_passes_records_that_are_still_being_handled(stream: River) -> None:
    await stream.write(20, keys=20)
    store = MemoryLeaseStore()
    free = asyncio.Event()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        if int(record.data) == 5:
            await free.wait()
        if int(record.data) == 15:
            await record.checkpoint()
            (lease,) = (await stored_leases(store)).values()
            assert not lease.checkpoint.is_number or int(lease.checkpoint.sequence_number) < int(record.sequence_number)
            free.set()

    async with consumer(stream, store, checkpoints="manual", handling=Handling(concurrency=20)) as reader:
        await reader.run(handle)
    async with consumer(stream, store) as reader:
        assert [int(record.data) async for record in reader] == list(range(16, 20))


async def test_lost_lease_ends_its_shard_but_not_the_iteration(stream: River) -> None:
    await stream.write(50)
    await stream.split("shardId-000000000000")
    store = MemoryLeaseStore()
    seen: list[events.Event] = []
    first = consumer(stream, store, until=None, observer=seen.append)
    records = aiter(first)
    for _ in range(10):
        record = await anext(records)
    await take_lease(store, "shardId-000000000000")
    with pytest.raises(LeaseLost):
        await record.checkpoint()
    assert events.ShardLeaseLost("shardId-000000000000") in seen
    following = asyncio.ensure_future(anext(records))
    done, _ = await asyncio.wait([following], timeout=0.2)
    assert not done, "reading continues with other shards, of which there is none"
    await first.close()
    with pytest.raises(StopAsyncIteration):
        await following


async def test_end_time_is_refused_while_another_worker_holds_leases(stream: River) -> None:
    await stream.write(5)
    store = MemoryLeaseStore()
    first = consumer(stream, store, until=None)
    records = aiter(first)
    await anext(records)
    second = consumer(stream, store)
    with pytest.raises(UsageError, match="until: other workers of the application hold leases"):
        await anext(aiter(second))
    await second.close()
    await first.close()


async def test_time_of_a_latest_start_is_kept(stream: River) -> None:
    await stream.write(10)
    await asyncio.sleep(0.02)
    store = MemoryLeaseStore()
    started = asyncio.Event()
    reader = consumer(stream, store, start="LATEST", until=None, observer=lambda event: started.set())
    waiting = asyncio.ensure_future(anext(aiter(reader)))
    await started.wait()
    await asyncio.sleep(0.3)
    waiting.cancel()
    await asyncio.wait([waiting])
    await reader.close()
    await stream.write(10)
    async with consumer(stream, store, start="LATEST") as again:
        assert set(range(10, 20)) <= {int(record.data) async for record in again}


async def test_killed_before_its_first_checkpoint_it_continues_from_its_start_and_not_from_a_later_latest(
    stream: River,
) -> None:
    await stream.write(10)
    store, begun = MemoryLeaseStore(), asyncio.Event()
    reader = consumer(stream, store, start="LATEST", until=None, observer=lambda event: begun.set())
    running = asyncio.create_task(reader.run(lambda record: None))
    await begun.wait()
    kept = MemoryLeaseStore()  # its leases as a SIGKILL leaves them
    await store_leases(kept, (await stored_leases(store)).values())
    await reader.close()
    await running
    await stream.write(10)
    async with consumer(stream, kept, start="LATEST") as again:
        assert set(range(10, 20)) <= {int(record.data) async for record in again}


async def test_replay_until_now_reads_all_from_a_server_whose_clock_was_moved(stream: River) -> None:
    stream.server.advance(3600)
    await stream.write(10)
    async with consumer(stream, MemoryLeaseStore()) as reader:
        assert len([record async for record in reader]) == 10
    async with consumer(stream, MemoryLeaseStore(), fetch=Polling(max_records=3)) as reader:
        assert len([record async for record in reader]) == 10


async def test_checkpoints_are_stored_while_reading_continues(stream: River) -> None:
    await stream.write(10)
    store = MemoryLeaseStore()
    async with consumer(stream, store, until=None, checkpoints=Checkpoints(interval=0.05)) as reader:
        async for record in reader:
            if int(record.data) == 9:
                while not (lease := (await stored_leases(store))["shardId-000000000000"]).checkpoint.is_number:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                break
    assert int(lease.checkpoint.sequence_number) < int(record.sequence_number)


async def test_record_outlives_its_reading_but_can_be_checkpointed_no_more(stream: River) -> None:
    await stream.write(1)
    async with Consumer("events", start="TRIM_HORIZON", client=stream.client) as reader:
        record = await anext(aiter(reader))
    copied = pickle.loads(pickle.dumps(record))
    assert copied == record == copy.deepcopy(record)
    assert (copied.data, copied.shard_id) == (b"0", "shardId-000000000000")
    with pytest.raises(ClosedError):
        await copied.checkpoint()


async def test_record_of_a_single_request_has_nothing_to_checkpoint(stream: River) -> None:
    await stream.write(1)
    async with Consumer("events", client=stream.client) as reader:
        place = await reader.get_shard_iterator("shardId-000000000000", "TRIM_HORIZON")
        (record,) = (await reader.get_records(place)).records
    assert record.shard_id == ""
    with pytest.raises(UsageError, match="get_records"):
        await record.checkpoint()


async def test_pause_holds_a_shard_and_resume_continues_without_gap_or_repetition(stream: River) -> None:
    await stream.split("shardId-000000000000")
    await stream.write(400)
    catch = Catch()
    held: str | None = None
    since = 0
    async with Consumer(
        "events", start="TRIM_HORIZON", client=stream.client, fetch=Polling(idle_interval=0.05)
    ) as reader:
        async for record in reader:
            catch.add(record)
            if len(catch) == 20:
                held = record.shard_id
                reader.pause(held)
                since = 0
            elif held is not None:
                assert record.shard_id != held
                since += 1
                if since == 60:
                    assert {s.state for s in reader.status() if s.shard_id == held} == {"PAUSED"}
                    reader.resume(held)
                    held = None
            if len(catch) == 400:
                break
    catch.check(400)


async def test_pause_of_all_holds_handlers_too(stream: River) -> None:
    await stream.write(100)
    catch = Catch()
    reader = Consumer("events", start="TRIM_HORIZON", client=stream.client, fetch=Polling(idle_interval=0.05))
    reached = asyncio.Event()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        catch.add(record)
        if len(catch) == 50:
            reader.pause()
            reached.set()

    running = asyncio.create_task(reader.run(handle))
    await reached.wait()
    await asyncio.sleep(0.3)
    assert len(catch) == 50
    reader.resume()
    while len(catch) < 100:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await reader.close()
    await running
    catch.check(100)


async def test_seek_reads_again_from_there_and_moves_the_checkpoint(stream: River) -> None:
    await stream.write(60)
    store = MemoryLeaseStore()
    numbers: list[int] = []
    places: dict[int, str] = {}
    async with consumer(stream, store) as reader:
        async for record in reader:
            number = int(record.data)
            numbers.append(number)
            places[number] = record.sequence_number
            if len(numbers) == 30:
                await reader.seek(record.shard_id, Position.at(places[10]))
                assert (await stored_leases(store))[record.shard_id].checkpoint == Position.at(places[10])
    assert numbers == [*range(30), *range(10, 60)]


async def test_shards_that_cannot_be_paused_or_moved_are_refused(stream: River) -> None:
    async with consumer(stream, MemoryLeaseStore()) as reader:
        for steer in (reader.pause, reader.resume):
            with pytest.raises(UsageError, match="not being read"):
                steer()
        with pytest.raises(UsageError, match="not being read"):
            await reader.seek("shardId-000000000000", "LATEST")
        assert reader.status() == []
        await stream.write(1)
        async for _ in reader:
            with pytest.raises(UsageError, match="shardId-7"):
                reader.pause("shardId-7")
            with pytest.raises(ConfigError, match="SHARD_END"):
                await reader.seek("shardId-000000000000", "SHARD_END")
            with pytest.raises(UsageError, match="already"):
                await anext(aiter(reader))


async def test_one_that_is_closed_reads_no_more_and_ends_who_reads(stream: River) -> None:
    await stream.write(10)
    reader = consumer(stream, MemoryLeaseStore(), until=None)
    count = 0
    async for _ in reader:
        count += 1
        if count == 5:
            await reader.close()
    assert count == 5
    with pytest.raises(ClosedError):
        await anext(aiter(reader))


async def test_status_has_position_lag_and_time_left_in_retention(stream: River) -> None:
    await stream.write(10)
    async with Consumer("events", start="TRIM_HORIZON", client=stream.client, fetch=Polling(max_records=3)) as reader:
        async for _ in reader:
            (status,) = reader.status()
            assert status.state == "READING"
            assert status.lag is not None
            assert status.unread_expires_in is None or 0 < status.unread_expires_in <= 24 * 3600
            break


async def test_lag_grows_while_a_shard_is_paused_or_its_records_wait(stream: River) -> None:
    await stream.write(3)
    reader = Consumer("events", start="TRIM_HORIZON", client=stream.client, fetch=Polling(idle_interval=0.05))
    done: list[int] = []
    free = asyncio.Event()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        if int(record.data) == 3:
            await free.wait()
        done.append(int(record.data))

    def lag() -> float:
        (status,) = reader.status()
        assert status.lag is not None
        assert (status.lag > 0) == (status.unread_expires_in is not None)
        return status.lag

    running = asyncio.create_task(reader.run(handle))
    while len(done) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    (idle,) = reader.status()
    assert idle.lag is not None
    assert idle.last_success is not None
    assert idle.last_error is None
    assert idle.lag <= time.time() - idle.last_success + 0.01  # nothing but the time since the last response
    await stream.write(1)
    while lag() < 0.3:  # its record waits for the handler  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    free.set()
    while len(done) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    reader.pause()
    paused = lag()
    while lag() < paused + 0.3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await reader.close()
    await running


async def test_stream_that_is_deleted_ends_reading_with_an_error(stream: River) -> None:
    await stream.write(5)
    reader = Consumer("events", start="TRIM_HORIZON", client=stream.client, fetch=Polling(idle_interval=0.05))
    records = aiter(reader)
    for _ in range(5):
        await anext(records)
    await stream.client.call("DeleteStream", {"StreamName": "events"})
    with pytest.raises(ConsumeError) as caught:
        await anext(records)
    await reader.close()
    assert caught.value.shard_id == "shardId-000000000000"


async def test_shard_that_is_sought_in_by_hand_is_not_done_by_what_was_checkpointed_before(stream: River) -> None:
    await stream.write(10)
    store = MemoryLeaseStore()
    async with consumer(stream, store, checkpoints="manual") as reader:
        async for record in reader:
            if int(record.data) == 9:
                await record.checkpoint()
    await stream.write(10)
    await stream.split("shardId-000000000000")
    async with consumer(stream, store, checkpoints="manual", until=None) as reader:
        records = aiter(reader)
        record = await anext(records)
        async for last in records:
            if int(last.data) == 19:
                await last.checkpoint()
                break
        await reader.seek(record.shard_id, "TRIM_HORIZON")
        numbers = [int((await anext(records)).data) for _ in range(20)]
        with pytest.raises(TimeoutError):  # the children have nothing
            async with asyncio.timeout(0.3):
                await anext(records)
    assert numbers == list(range(20))
    async with consumer(stream, store, checkpoints="manual") as reader:
        assert [int(record.data) async for record in reader] == list(range(20))


async def test_checkpoint_by_hand_is_written_or_raises(stream: River) -> None:
    await stream.write(10)
    store = MemoryLeaseStore()
    reader = consumer(stream, store, until=None, checkpoints="manual")
    records = aiter(reader)
    record = await anext(records)
    await take_lease(store, record.shard_id)
    for _ in range(2):
        with pytest.raises(LeaseLost):
            await record.checkpoint()
    await reader.close()


@pytest.mark.parametrize("busy", [True, False])
async def test_checkpoint_file_that_was_deleted_under_a_running_consumer_is_noticed(
    stream: River, tmp_path: Path, caplog: pytest.LogCaptureFixture, busy: bool
) -> None:
    path = tmp_path / "checkpoints.db"
    await stream.write(5)
    failed: list[events.Event] = []
    reader = consumer(
        stream, SQLiteLeaseStore(path), until=None, checkpoints=Checkpoints(interval=0.05), observer=failed.append
    )
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def handle(record: ReceivedRecord[bytes]) -> None:
        await seen.put(int(record.data))

    running = asyncio.create_task(reader.run(handle))
    for _ in range(5):
        await seen.get()
    other = SQLiteLeaseStore(path)
    while not (await stored_leases(other))["shardId-000000000000"].checkpoint.is_number:  # noqa: ASYNC110
        await asyncio.sleep(0.01)

    path.unlink()
    if busy:
        await stream.write(1)
        await seen.get()
        while not any(isinstance(event, events.CheckpointFailed) for event in failed):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(NotFound, match="deleted or replaced"):
            await reader.close()
    else:
        await reader.close()
    with suppress(NotFound):
        await running
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("deleted or replaced while in use" in warning for warning in warnings)


@pytest.mark.parametrize("replaced", [False, True])
async def test_reading_ends_with_an_error_if_the_checkpoint_file_stays_deleted(
    stream: River, tmp_path: Path, replaced: bool
) -> None:
    path = tmp_path / "checkpoints.db"
    reader = consumer(stream, SQLiteLeaseStore(path), until=None, fleet=Fleet(failover=1))
    running = asyncio.create_task(reader.run(lambda record: None))
    while not reader.status():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    path.unlink()
    if replaced:
        path.write_bytes(b"")
    with pytest.raises(NotFound, match="deleted or replaced"):
        await running
    with suppress(NotFound):
        await reader.close()

"""Scenarios of an application with workers of several kinds, run with any of them. Each prints one line with its figures.

The first kind starts the application. A KCL of version 3.5 must not start it together with another one: both create the same
row, and one of them ends.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.interop.application import Application
from tests.interop.deliveries import Deliveries
from tests.interop.worker_process import WorkerProcess

Kinds = tuple[str, ...]

STEALING = {"java-2.7.2", "kcl-rs"}
"""Workers that take leases from running owners without a handoff, as version 2 of the KCL does."""


def check_duplicates(application: Application, found: Deliveries, kinds: Kinds = ()) -> None:
    """Check that no record was delivered twice, unless workers of these kinds steal leases, or a lease expired."""
    if not STEALING.intersection(kinds):
        unexplained = application.unexplained(found)
        assert not unexplained, f"delivered twice, without a kill, a steal or an expired lease: {unexplained}"


async def begin(application: Application, kinds: Kinds) -> WorkerProcess:
    """Start the first worker, and wait until it owns all leases."""
    one = await application.start(kinds[0])
    await application.until(application.all_owned, "the first worker has all leases")
    return one


async def join(application: Application, kind: str, **options: object) -> WorkerProcess:
    """Start a worker, and wait until it has its share of the leases and delivers records."""
    worker = await application.start(kind, **options)
    await application.until(application.balanced, f"{worker.worker_id} has its share of the leases")
    before = len(worker.records)
    await application.until(lambda: len(worker.records) > before, f"{worker.worker_id} delivers records")
    return worker


async def share(application: Application, kinds: Kinds) -> None:
    """A second worker takes its share of the leases, while records are written."""
    await application.create(4)
    one = await begin(application, kinds)
    async with application.writing():
        await application.until(lambda: len(one.records) > 100, "the first worker delivers records")
        await join(application, kinds[1])
    await application.until(application.all_delivered, "all records are delivered")
    check_duplicates(application, application.figures(f"share {'+'.join(kinds)}"), kinds)


async def resume(application: Application, kinds: Kinds, *, free: bool = False) -> None:
    """A worker resumes at the checkpoints of another that was stopped in the middle of aggregates.

    Args:
        application: The application.
        kinds: The worker that is stopped, and the worker that resumes.
        free: Remove the owner of the leases, for workers that keep it when they stop.
    """
    await application.create(2)
    await application.write(2000)
    took = await _read_a_part(application, kinds[0], 300)
    while not any(row.subsequence > 0 for row in application.table.rows().values()):
        assert not application.all_delivered()
        took = await _read_a_part(application, kinds[0], 20)  # all shards stopped between two aggregates
    rows = application.table.rows()
    assert not application.all_delivered()
    assert any(row.subsequence > 0 for row in rows.values())
    if free:
        for shard in rows:
            application.table.free(shard)
    two = await application.start(kinds[1])
    await application.until(lambda: len(two.of("initialized")) >= 2, "the second worker has both shards")
    starts = {event.shard: event.detail for event in two.of("initialized")}
    assert starts == {shard: row.text for shard, row in rows.items()}
    await application.until(application.all_delivered, "all records are delivered")
    found = application.figures(f"resume {'+'.join(kinds)}", f"the stop took {took:.1f} s")
    check_duplicates(application, found)


async def _read_a_part(application: Application, kind: str, records: int) -> float:
    """Run a worker until it has read more than a number of records. Returns the seconds that its stop took."""
    worker = await application.start(kind, record_micros=5000)
    await application.until(lambda: len(worker.records) > records, "the first worker is in the middle of the records")
    return await application.stop(worker)


async def leave(application: Application, kinds: Kinds) -> None:
    """The leases of a worker that stops in an orderly way are taken over by the other one."""
    await _end_first(application, kinds, kills=False)


async def kill(application: Application, kinds: Kinds) -> None:
    """The leases of a worker that was killed are taken over by the other one."""
    await _end_first(application, kinds, kills=True)


async def _end_first(application: Application, kinds: Kinds, *, kills: bool) -> None:
    await application.create(4)
    one = await begin(application, kinds)
    async with application.writing():
        two = await join(application, kinds[1])
        held = application.owners()[one.worker_id]
        if kills:
            one.kill()
        else:
            await application.stop(one)
        await application.until(application.all_owned, "the second worker has all leases")
        await application.until(lambda: len(takeovers(one, two, held)) == len(held), "it delivers their records")
    await application.until(application.all_delivered, "all records are delivered")
    slowest = max(takeovers(one, two, held))
    found = application.figures(
        f"{'kill' if kills else 'leave'} {'+'.join(kinds)}", f"the takeover took {slowest:.1f} s"
    )
    if not kills:
        check_duplicates(application, found, kinds)


def takeovers(ended: WorkerProcess, other: WorkerProcess, held: Iterable[str]) -> list[float]:
    """Return the seconds from the last record of a worker that ended to the next one by the other, for each shard with both."""
    last = {record.shard: record.time for record in ended.records}
    after = [(record.shard, record.time - last[record.shard]) for record in other.records if record.shard in last]
    first = dict(reversed([(shard, seconds) for shard, seconds in after if seconds > 0]))
    return [first[shard] for shard in held if shard in first]


async def reshard(application: Application, kinds: Kinds) -> None:
    """Two workers finish a split and a merge, while records are written."""
    await application.create(4)
    await begin(application, kinds)
    async with application.writing():
        await join(application, kinds[1])
        await application.split("shardId-000000000000")
        await application.merge("shardId-000000000002", "shardId-000000000003")
        await application.until(lambda: reshards_finished(application), "the reshards are finished")
    await application.until(application.all_delivered, "all records are delivered")
    rows = application.table.rows()
    for child in ("shardId-000000000004", "shardId-000000000005"):
        assert rows[child].parents == {"shardId-000000000000"}
    assert rows["shardId-000000000006"].parents == {"shardId-000000000002", "shardId-000000000003"}
    check_duplicates(application, application.figures(f"reshard {'+'.join(kinds)}"), kinds)


def reshards_finished(application: Application) -> bool:
    """Return True if the parents are finished or cleaned up, and each child has delivered records and is owned."""
    rows = application.table.rows()
    parents = [f"shardId-{number:012}" for number in (0, 2, 3)]
    children = {f"shardId-{number:012}" for number in (4, 5, 6)}
    finished = all(parent not in rows or rows[parent].finished for parent in parents)
    read = {record.shard for worker in application.workers.values() for record in worker.records}
    return finished and read >= children and application.all_owned()


async def several_streams(application: Application, kinds: Kinds) -> None:
    """Two workers share the shards of two streams and finish a split in one of them, and the first one leaves."""
    await application.create(2, streams=2)
    one = await begin(application, kinds)
    parent, children = (
        [f"{application.streams[1]}:shardId-{number:012}" for number in numbers] for numbers in ((0,), (2, 3))
    )

    def split_finished() -> bool:
        rows = application.table.rows()
        read = {record.shard for worker in application.workers.values() for record in worker.records}
        finished = all(shard not in rows or rows[shard].finished for shard in parent)
        return finished and read >= set(children) and application.all_owned()

    async with application.writing():
        await join(application, kinds[1])
        await application.split(*parent)
        await application.until(split_finished, "the split is finished")
        await application.stop(one)
        await application.until(application.all_owned, "the second worker has all leases")
    await application.until(application.all_delivered, "all records are delivered")
    check_duplicates(application, application.figures(f"several streams {'+'.join(kinds)}"), kinds)


async def relay(application: Application, kinds: Kinds) -> None:
    """The only worker is joined and then replaced by one of the next kind, while records are written."""
    await application.create(2)
    one = await begin(application, kinds)
    async with application.writing():
        for kind in kinds[1:]:
            two = await join(application, kind)
            await application.stop(one)
            await application.until(application.all_owned, f"{two.worker_id} has all leases")
            one = two
    await application.until(application.all_delivered, "all records are delivered")
    check_duplicates(application, application.figures(f"relay {' -> '.join(kinds)}"), kinds)


async def migrate(application: Application, kinds: Kinds) -> None:
    """Two workers of each kind replace those of the kind before, one by one, while records are written."""
    await application.create(4)
    present = [await begin(application, kinds)]
    async with application.writing():
        present.append(await join(application, kinds[0]))
        for kind in kinds[1:]:
            for _ in range(2):
                await application.stop(present.pop(0))
                present.append(await join(application, kind))
    await application.until(application.all_delivered, "all records are delivered")
    check_duplicates(application, application.figures(f"migrate {' -> '.join(kinds)}"), kinds)


async def pause(application: Application, kinds: Kinds) -> None:
    """A worker that was suspended past its leases, and continues, stores no checkpoint over those of the other worker."""
    await application.create(4)
    one = await begin(application, kinds)
    async with application.writing():
        await join(application, kinds[1])
        one.suspend()
        await application.until(
            lambda: not any(row.owner == one.worker_id for row in application.unfinished().values()),
            "the second worker has taken all leases",
        )
        one.resume()
        await application.until(application.balanced, "the leases are balanced again")
    await application.until(application.all_delivered, "all records are delivered")
    application.figures(f"pause {'+'.join(kinds)}")

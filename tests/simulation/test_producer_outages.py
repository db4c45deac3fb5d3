"""What a producer logs while its requests fail for longer than a moment."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tests.doubles.kinesis import Kinesis
from tests.doubles.network import Fate, Faults, Network
from tests.doubles.virtual_loop import LoopClock, simulate

from kinstream import Aggregation, Client, Credentials, Producer, Resending

STREAM = "orders"


class Ground:
    """A service, and times at which operations fail.

    Args:
        fates: What becomes of operations, by their names: seconds from and to, and the fate.
        shards: How many shards the stream has; 0: there is no stream.
    """

    def __init__(self, fates: dict[str, tuple[float, float, Fate]], *, shards: int = 1) -> None:
        self.service = Kinesis(LoopClock(), quotas=False)
        if shards:
            self.service.ask("CreateStream", StreamName=STREAM, ShardCount=shards)
        self.network = Network(self.service, 1, lambda now, operation: self.weather(now, operation, fates), keeps=False)

    def weather(self, now: float, operation: str, fates: dict[str, tuple[float, float, Fate]]) -> Faults:
        start, end, fate = fates.get(operation) or fates.get("all") or (0.0, 0.0, Fate.FINE)
        return Faults.always(fate if start <= now < end else Fate.FINE)

    def producer(self, **options: Any) -> Producer:
        client = Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            clock=LoopClock(),
            transport=self.network.connect(),
        )
        return Producer(STREAM, client=client, **options)


async def write(ground: Ground, seconds: float, **options: Any) -> None:
    """Put a record every half second for so long, and wait for each."""
    producer = ground.producer(**({"resend": Resending(deadline=3600)} | options))
    deliveries = []
    for number in range(int(seconds * 2)):
        deliveries.append(asyncio.ensure_future(_result(await producer.put(b"canary", f"k{number}"))))
        await asyncio.sleep(0.5)
    await asyncio.gather(*deliveries, return_exceptions=True)
    await producer.close()
    await producer.client.close()


async def _result(delivery: Any) -> Any:
    return await delivery


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return what the producer logged at a level."""
    return [one.getMessage() for one in caplog.records if one.name == "kinstream.producer" and one.levelno == level]


@pytest.mark.parametrize("fate", [Fate.UNSENT, Fate.BLACK_HOLE, Fate.BROKEN_BEFORE, Fate.CUT_BEFORE])
@pytest.mark.parametrize("shards", [1, 4])
def test_endpoint_that_is_gone_for_half_a_minute(caplog: pytest.LogCaptureFixture, fate: Fate, shards: int) -> None:
    async def story() -> None:
        await write(Ground({"all": (10.0, 38.0, fate)}, shards=shards), 60)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    (warning,) = lines(caplog, logging.WARNING)
    assert "orders: PutRecords failed: " in warning
    assert "the records are sent again" in warning
    (info,) = lines(caplog, logging.INFO)
    assert "orders: PutRecords works again after" in info
    assert "canary" not in caplog.text


def test_outage_of_minutes_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        await write(Ground({"all": (10.0, 310.0, Fate.UNSENT)}, shards=4), 400)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    warnings = lines(caplog, logging.WARNING)
    assert 5 <= len(warnings) <= 6
    assert "has failed for" in warnings[-1]
    assert "failures)" in warnings[-1]
    assert len(lines(caplog, logging.INFO)) == 1


def test_endpoint_that_never_was_there_is_named_by_both_operations(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        await write(Ground({"all": (0.0, 20.0, Fate.UNSENT)}), 40)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    warnings = lines(caplog, logging.WARNING)
    assert len(warnings) == 2
    assert any("describing the stream failed: ConnectFailed" in line for line in warnings)
    assert any("PutRecords failed: ConnectFailed" in line for line in warnings)
    assert len(lines(caplog, logging.INFO)) == 2


@pytest.mark.parametrize(("seconds", "told"), [(5.0, 0), (45.0, 1)])
def test_throttling_is_no_failure_until_nothing_was_accepted_for_ten_seconds(
    caplog: pytest.LogCaptureFixture, seconds: float, told: int
) -> None:
    async def story() -> None:
        await write(Ground({"PutRecords": (10.0, 10.0 + seconds, Fate.THROTTLED)}), 100)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    warnings = lines(caplog, logging.WARNING)
    assert len(warnings) == told
    assert len(lines(caplog, logging.INFO)) == told
    if told:
        assert "ProvisionedThroughputExceededException" in warnings[0]
        assert "more shards" in warnings[0]


@pytest.mark.parametrize("aggregate", [Aggregation(), None])
def test_wrong_stream_is_the_first_line(caplog: pytest.LogCaptureFixture, aggregate: Aggregation | None) -> None:
    async def story() -> None:
        await write(Ground({}, shards=0), 2, aggregate=aggregate)

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    warnings = lines(caplog, logging.WARNING)
    assert "NotFound: " in warnings[0]
    assert "orders" in warnings[0]
    assert "check the stream's name, region and account" in warnings[0]
    assert "not aggregated" not in caplog.text


def test_shards_that_cannot_be_listed(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        await write(Ground({"ListShards": (0.0, 30.0, Fate.BROKEN_BEFORE)}), 60, aggregate=Aggregation())

    with caplog.at_level(logging.INFO, "kinstream"):
        simulate(story)
    (warning,) = lines(caplog, logging.WARNING)
    assert "describing the stream failed: ServiceUnavailable: ListShards" in warning
    (info,) = lines(caplog, logging.INFO)
    assert "describing the stream works again" in info

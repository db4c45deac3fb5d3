"""The benchmarks of whole pipelines run: their endpoint answers rightly, and their client cells measure."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import canned, consume, picture, produce
from bench.ground import Endpoint, NotPossible, endpoint
from bench.rounds import Case, Measured, Results, Rounds, Row, compared, report
from tests.contract.servers.processes import running

from kinstream import Client, ConnectionOptions, Consumer, Credentials, Producer, Record, WireFormat

ROOT = Path(__file__).parents[2]
SHARDS = produce.SHARDS
SIZE = 100


@pytest.fixture(scope="module")
def at() -> Iterator[Endpoint]:
    def answers(place: Path) -> list[str]:
        pushed, _ = canned.for_fan_out(place, SIZE, 1)
        return [
            *canned.for_producers(place, [1, SHARDS]),
            *canned.for_consumers(place, [SIZE], SHARDS, 20, [SHARDS]),
            *pushed,
        ]

    try:
        with endpoint(answers) as running:
            yield running
    except NotPossible as reason:
        pytest.skip(str(reason))


def client(at: Endpoint, url: str, wire: str) -> Client:
    return Client(
        region="us-east-1",
        credentials=Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        endpoint_url=url,
        wire_format=WireFormat(wire),
        connection=ConnectionOptions(ca_bundle=at.ca),
    )


@pytest.mark.parametrize("wire", ["json", "cbor"])
@pytest.mark.parametrize("shards", [1, SHARDS])
async def test_the_endpoint_names_the_shard_whose_range_holds_each_hash_key(
    at: Endpoint, wire: str, shards: int
) -> None:
    source = random.Random(shards)
    records = [
        Record(
            canned.text(source, SIZE),
            canned.key(source, 1000) + "é" * source.randrange(60),  # keys of more than one block of MD5 too
            str(source.randrange(2**128)) if source.random() < 0.5 else None,
        )
        for _ in range(500)
    ]
    async with client(at, at.tls or at.plain, wire) as kinesis:
        answer = await Producer(canned.produce_stream(shards), client=kinesis).put_records(records)
        listed = await Consumer(canned.produce_stream(shards), client=kinesis).get_shards()
    ranges = {
        shard.shard_id: (int(shard.hash_key_range.starting_hash_key), int(shard.hash_key_range.ending_hash_key))
        for shard in listed
    }
    assert len(ranges) == shards
    assert len(answer.results) == len(records)
    assert len({result.sequence_number for result in answer.results}) == len(records)
    for record, result in zip(records, answer.results, strict=True):
        digest = hashlib.md5(record.partition_key.encode()).digest()
        hash_key = int(record.explicit_hash_key or int.from_bytes(digest, "big"))
        low, high = ranges[result.shard_id or ""]
        assert low <= hash_key <= high


async def test_pages_continue_with_greater_sequence_numbers(at: Endpoint) -> None:
    async with client(at, at.plain, "json") as kinesis:
        consumer = Consumer(canned.consume_stream("plain", SIZE, SHARDS), client=kinesis)
        iterator = await consumer.get_shard_iterator("shardId-000000000005", "TRIM_HORIZON")
        numbers: list[int] = []
        for _ in range(3):
            page = await consumer.get_records(iterator)
            numbers += [int(record.sequence_number) for record in page.records]
            iterator = page.next_shard_iterator or ""
    assert len(numbers) == 60
    assert numbers == sorted(set(numbers))


async def test_idle_shards_have_nothing(at: Endpoint) -> None:
    async with client(at, at.plain, "cbor") as kinesis:
        consumer = Consumer(canned.consume_stream("idle", SIZE, SHARDS), client=kinesis)
        page = await consumer.get_records(await consumer.get_shard_iterator("shardId-000000000001", "TRIM_HORIZON"))
    assert page.records == []
    assert page.next_shard_iterator


def rows() -> list[Row]:
    plain = Case(produce.PUT, SIZE, False)
    packed = Case(produce.AGGREGATED, SIZE, False)
    wanted = {
        (produce.PUT, "put_records"),
        (produce.PUT, "put"),
        (produce.AGGREGATED, "put_many aggregated"),
        (consume.GET, "get_records"),
        (consume.GET, "run"),
        (consume.DEAGGREGATED, "batches deaggregated"),
    }
    found = [row for case in (plain, packed) for row in produce.rows_of(case)]
    for what in (consume.GET, consume.DEAGGREGATED):
        found += consume.rows_of(Case(what, SIZE, False))
    return [
        row for row in found if row.ours and not row.pure and row.wire == "json" and (row.case.what, row.way) in wanted
    ]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.case.what}: {row.way}")
def test_a_cell_of_ours_measures(at: Endpoint, row: Row) -> None:
    rounds = Rounds(at, 1, 0.05)
    done = rounds.run(row, sys.executable)
    assert isinstance(done, dict), done
    assert done["records"] > 0
    assert done["cpu"] > 0


def test_a_cell_of_kcl_rs_measures_with_leases_of_its_own(at: Endpoint) -> None:
    if importlib.util.find_spec("kcl_rs") is None:
        pytest.skip("kcl-rs is not installed")
    with running("moto") as dynamodb:
        (row,) = consume.lease_rows(Case(consume.DEAGGREGATED, SIZE, False), dynamodb.url, (), windows=2)
        brief = tuple(option for option in row.options if option[0] not in ("warm_up", "seconds"))
        done = Rounds(at, 1, 0.5).run(replace(row, options=brief), sys.executable)
    assert isinstance(done, dict), done
    assert len(done["windows"]) == 2
    assert all(window["records"] > 0 for window in done["windows"])
    assert done["memory"] > 0


def test_a_subscription_is_measured_but_for_its_first_tenth(at: Endpoint) -> None:
    if at.http2 is None:
        pytest.skip("no OpenSSL to build the endpoint with")
    row = consume.fan_out_rows(at, 1_000_000, 0)[0]
    done = Rounds(at, 1, 0.05).run(row, sys.executable)
    assert isinstance(done, dict), done
    assert done["bytes"] > 500_000


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"/python (.*\bbench[./]\w+)", (ROOT / "Makefile").read_text())))
)
def test_each_benchmark_of_the_makefile_is_a_module_that_can_be_imported(command: str) -> None:
    option, module = command.split()
    assert option == "-m"
    script = f"import importlib; importlib.import_module({module!r})"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_results_are_printed_compared_and_drawn() -> None:
    results: Results = {}
    for case in (Case(produce.PUT, 100, False), Case(produce.PUT, 100, True)):
        for row in produce.rows_of(case):
            cost = 1.0 if row.ours else 6.0
            results[row] = Measured([cost] * 3, [100.0] * 3, [10.0] * 3, [0.1] * 3)
    ratios = produce.ratios_of(results)
    to_capo = [r for r in ratios if r.row.way == "put_many" and r.row.wire == "json" and r.peer.peer == produce.CAPO]
    as_installed = [(r.ratio, r.target, r.verdict) for r in to_capo if not r.row.pure]
    assert as_installed == [(6.0, 5.2, "met"), (6.0, 4.5, "met")]
    first, second = list(results)[:2]
    assert compared(results, second, first, 2.0, "rate").verdict == "missed"
    rounds = Rounds(Endpoint("", None, None, "", 0), 3, 1.5, versions={"kinstream": "1"})
    said = report(rounds, results, ratios, {"shards": SHARDS})
    drawn = picture.flows(json.loads(json.dumps(said)), "Title", (produce.PUT,))
    assert drawn.startswith("<svg")
    assert "put_many, JSON" in drawn

"""The benchmark of latency measures consumers and producers on the local Kinesis, and reports a client that fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from bench.ground import NotPossible
from bench.latency import (
    CONSUMERS,
    PRODUCERS,
    Place,
    Row,
    Run,
    Subject,
    local_kinesis,
)
from bench.produce import KINSTREAM
from bench.rounds import Peer
from tests.contract.servers.processes import running

RATE, SECONDS = 100.0, 0.5


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with local_kinesis() as addresses, running("moto") as dynamodb:
        yield Place(*addresses, dynamodb.url)


def run_of(place: Place) -> Run:
    return Run(place, 1, RATE, SECONDS, 0.3, lambda peer: sys.executable)


@pytest.mark.parametrize(
    "row", [Row(KINSTREAM, "fan-out, leases"), Row(KINSTREAM, "put", writes=True)], ids=lambda row: row.label
)
def test_a_client_is_measured(place: Place, row: Row) -> None:
    run = run_of(place)
    run.measure([row])
    assert run.left_out == {}
    found = run.found[row]
    assert 0 < found.p50[0] <= found.p99[0]
    assert found.first[0] > 0
    assert found.idle[0] >= 0
    assert found.memory > 10


def test_a_client_that_cannot_be_installed_is_left_out_with_the_reason(place: Place) -> None:
    def python(peer: Peer) -> str:
        raise NotPossible(f"{peer.name} is not for this machine")

    run = Run(place, 1, RATE, SECONDS, 0.3, python)
    run.measure([row := Row(KINSTREAM, "polling, no leases")])
    assert run.left_out == {row.label: "kinstream is not for this machine"}
    assert run.found == {}


def test_a_process_that_ends_is_reported_with_its_last_words() -> None:
    subject = Subject(Row(KINSTREAM, "put"), [sys.executable, "-c", "raise SystemExit('no such option')"])
    try:
        with pytest.raises(NotPossible, match="it ended: no such option"):
            subject.response(30)
    finally:
        subject.end()


def test_each_row_has_a_label_of_its_own() -> None:
    rows = (*CONSUMERS, *PRODUCERS)
    assert len({row.label for row in rows}) == len(rows)

"""The persistent format: a database, tokens and iterators of an earlier commit are read with the same results.

`format_1` has the dump of a database and the responses of the server that wrote it (aecab4d): two streams with closed shards,
encryption, tags, a policy, a consumer and a pending change, and records removed with their stream. A change of the format needs a
new version number in `storage/database.py`, and then a folder of its own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kinstream.local.operations.table import Operations
from kinstream.local.state.model import Account, Change, Consumer, Settings, Shard
from kinstream.local.state.resharding import Reshard
from kinstream.local.state.state import State
from kinstream.local.storage.database import SqliteStore
from kinstream.local.wire.formats import JSON
from kinstream.testing import ManualClock

FORMAT_1 = Path(__file__).parent / "format_1"
EARLIER: dict[str, Any] = json.loads((FORMAT_1 / "responses.json").read_text(encoding="utf-8"))
STORED_NAMES = {
    Account: "started ends",
    Change: "shards on_demand retention_hours max_record_kib metrics key_id warm_mibps",
    Consumer: "name created status until tags policy",
    Reshard: "shard adjacent at",
    Settings: "name created status until pending on_demand retention_hours lost max_record_kib metrics encryptions warm_mibps"
    " spread counted switched tags policy consumers",
    Shard: "number index start end created origin parent adjacent closed ending_place last_place arrival trimmed",
}
"""Members of the JSON documents in the database. The dump has not all of them, because defaults are left out."""
REQUESTS = {f"{index:02d} {one['operation']}": one for index, one in enumerate(EARLIER["responses"])}


@pytest.fixture
async def operations(tmp_path: Path) -> AsyncIterator[Operations]:
    with closing(sqlite3.connect(tmp_path / "kinesis.sqlite3")) as database:
        database.executescript((FORMAT_1 / "kinesis.sql").read_text(encoding="utf-8"))
    store = SqliteStore(tmp_path)
    state = State(transition=10.0)
    state.restore(*store.load())
    yield Operations(state, store, ManualClock(EARLIER["now"]))
    store.close()


async def _response(operations: Operations, operation: str, request: dict[str, Any]) -> Any:
    shape = operations.shape(operation)
    assert shape is not None
    response = await operations.call(operation, JSON.decode(json.dumps(request).encode(), shape), "us-east-1")
    assert isinstance(response, msgspec.Struct)
    return json.loads(JSON.encode(response))


@pytest.mark.parametrize("name", REQUESTS)
async def test_request_has_the_response_of_the_server_that_wrote_the_data(operations: Operations, name: str) -> None:
    earlier = REQUESTS[name]
    assert await _response(operations, earlier["operation"], earlier["request"]) == earlier["response"]


def test_every_record_of_the_database_is_among_the_responses() -> None:
    read = [r["response"]["Records"] for r in EARLIER["responses"] if r["operation"] == "GetRecords"]
    assert sum(map(len, read)) == 4 * 5 + 7


async def test_pending_change_takes_effect_when_it_is_due(operations: Operations) -> None:
    before = await _response(operations, "DescribeStreamSummary", {"StreamName": "orders"})
    await operations.catch_up(EARLIER["now"] + 10)
    after = await _response(operations, "DescribeStreamSummary", {"StreamName": "orders"})
    counts = [summary["StreamDescriptionSummary"]["OpenShardCount"] for summary in (before, after)]
    assert counts == [2, 4]


@pytest.mark.parametrize("stored", STORED_NAMES)
def test_stored_members_keep_their_names(stored: type[msgspec.Struct]) -> None:
    assert [field.encode_name for field in msgspec.structs.fields(stored)] == STORED_NAMES[stored].split()


@pytest.mark.parametrize(("table", "stored"), [("shards", Shard), ("streams", Settings)])
def test_documents_are_encoded_as_by_the_server_that_wrote_them(table: str, stored: type[msgspec.Struct]) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript((FORMAT_1 / "kinesis.sql").read_text(encoding="utf-8"))
        documents = [document for (document,) in database.execute(f"SELECT document FROM {table}")]
    assert documents
    assert [msgspec.json.encode(msgspec.json.decode(text, type=stored)).decode() for text in documents] == documents

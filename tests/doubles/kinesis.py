"""A Kinesis without sockets: the operations of the local server, called in process. Tests can change and read its state."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import msgspec

from kinstream.aws.transport import Response
from kinstream.clock import Clock
from kinstream.local.operations.table import Operations
from kinstream.local.state import sequence
from kinstream.local.state.model import Shard, Status, Stream
from kinstream.local.state.quotas import Quotas
from kinstream.local.state.request_error import RequestError
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import MemoryStore
from kinstream.local.wire.formats import WIRES, WireFormat
from kinstream.local.wire.signature import Verifier

REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Written:
    """A Kinesis record that a shard holds."""

    shard_id: str
    sequence_number: str
    partition_key: str
    data: bytes
    arrival: float


class Kinesis:
    """The service: state, store and quotas of one account.

    Args:
        clock: Its time.
        quotas: Whether it has quotas.
        transition: Seconds for which a stream is UPDATING while it reshards.
        signed: Whether signatures are checked: that costs more than all the rest.
    """

    def __init__(self, clock: Clock, *, quotas: bool = True, transition: float = 0.0, signed: bool = False) -> None:
        self.clock = clock
        self.state = State(transition=transition)
        self.store = MemoryStore()
        self._behind = Operations(self.state, self.store, clock)
        # The store notifies the subscriptions of the operations that were created last.
        self._operations = Operations(self.state, self.store, clock, Quotas() if quotas else None)
        self._verifier = Verifier("local", "local", clock) if signed else None
        self._answered = 0

    def ask(self, operation: str, **params: Any) -> Any:
        """Ask behind the clients' backs: no network, no quotas. Raises RequestError."""
        shape = self._behind.shape(operation)
        assert shape is not None
        told = at_once(self._behind.call(operation, msgspec.convert(params, shape), REGION))
        return None if told is None else msgspec.to_builtins(told, builtin_types=(bytes,))

    def decode(self, operation: str, headers: dict[str, str], body: bytes) -> Any:
        """Return a request as the service sees it. Raises RequestError."""
        shape = self._operations.shape(operation)
        assert shape is not None, operation
        return WIRES[headers["content-type"]].decode(body, shape)

    def verify(self, headers: dict[str, str], body: bytes) -> None:
        """Check a request's signature, if they are checked. Raises RequestError."""
        if self._verifier is not None:
            self._verifier.verify("POST", "/", headers.items(), body)

    def act(self, operation: str, request: Any) -> Any:
        """Execute a request, and return the answer. Raises RequestError."""
        return at_once(self._operations.call(operation, request, REGION))

    def answer(self, wire: WireFormat, told: Any, status: int = 200) -> Response:
        """Return an answer as it goes over the network."""
        self._answered += 1
        headers = {
            "content-type": wire.content_type,
            "x-amzn-requestid": f"request-{self._answered}",
            "date": formatdate(self.clock.wall(), usegmt=True),
        }
        return Response(status, headers, b"" if told is None else wire.encode(told))

    def refusal(self, wire: WireFormat, refused: RequestError) -> Response:
        """Return a refusal as it goes over the network."""
        return self.answer(wire, {"__type": refused.code, "message": refused.message}, refused.status)

    def stream(self, name: str) -> Stream:
        """Return a stream as it is now."""
        at_once(self._behind.catch_up(self.clock.wall()))
        return self.state.stream(name)

    @property
    def subscribed(self) -> int:
        """How many subscriptions are open."""
        return len(self._operations.subscriptions)

    def shards(self, name: str) -> list[Shard]:
        """Return all shards of a stream, closed ones included."""
        return self.stream(name).shards

    def reshard(self, name: str, choose: Any) -> str:
        """Split or merge somewhere, or do nothing while the stream cannot; `choose` is a `random.Random`."""
        stream = self.stream(name)
        if stream.settings.status is not Status.ACTIVE:
            return ""
        place = choose.randrange(len(stream.open))
        shard = stream.open[place]
        low, high = int.from_bytes(shard.start, "big"), int.from_bytes(shard.end, "big")
        if place and choose.random() < 0.5:
            self.ask(
                "MergeShards", StreamName=name, ShardToMerge=stream.open[place - 1].id, AdjacentShardToMerge=shard.id
            )
            return f"merge {stream.open[place - 1].id} {shard.id}"
        if high - low < 1000:
            return ""
        at = choose.choice([(low + high + 1) // 2, choose.randrange(low + 2, high)])
        self.ask("SplitShard", StreamName=name, ShardToSplit=shard.id, NewStartingHashKey=str(at))
        return f"split {shard.id}"

    def written(self, name: str) -> list[Written]:
        """Return all Kinesis records of a stream, shard by shard in the shards' order."""
        found = []
        for shard in self.shards(name):
            place = 1
            while slices := self.store.read(shard.number, place, limit=10_000, size=2**62):
                for first, arrival, _, kept in slices:
                    number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
                    for record in kept:
                        found.append(Written(shard.id, str(number), record.partition_key, record.data, arrival / 1000))
                        number += sequence.STEP
                    place = first + len(kept)
        return found


def at_once(call: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("memory is not waited for")

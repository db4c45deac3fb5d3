"""A network that fails by plan: requests go to a `Kinesis` in process, and a seed determines their failures.

The fate of a request (`Fate`) is drawn when it is sent. It is one that a client can meet: the client cannot know whether a
request that was cut off was carried out, and some are carried out long after the client gave up.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any
from weakref import WeakSet

from tests.doubles.kinesis import Kinesis
from tests.doubles.pushing import PushedAnswer, PushFate, PushFaults, WholeAnswer

from kinstream.aws.transport import SLOW_LINE_BYTES_PER_SECOND, Response, StreamedResponse
from kinstream.errors import ConnectionFailed, ConnectionLost, RequestTimedOut
from kinstream.local.operations import responses
from kinstream.local.operations.subscriptions import Subscription
from kinstream.local.state.request_error import RequestError
from kinstream.local.wire.event_encoder import CONTENT_TYPE
from kinstream.local.wire.formats import JSON, WIRES, WireFormat

THROUGHPUT = "ProvisionedThroughputExceededException"
FOREIGN = b"<html><body>Please log in to the network</body></html>"


class Fate(StrEnum):
    """Result of a request on its path to the service and back."""

    FINE = "fine"
    UNSENT = "unsent"
    """No connection."""
    CUT_BEFORE = "cut_before"
    """The connection ends, and the request was never acted on."""
    CUT_AFTER = "cut_after"
    """The request was acted on, the answer is lost."""
    LATE = "late"
    """The connection ends, and the request is acted on up to half a minute later."""
    BROKEN_BEFORE = "broken_before"
    """HTTP 500, not acted on."""
    BROKEN_AFTER = "broken_after"
    """HTTP 500, but it was acted on."""
    THROTTLED = "throttled"
    """The whole request is too fast."""
    PARTIAL = "partial"
    """Some of the records of a put are not written, and the answer says which."""
    MISCOUNTED = "miscounted"
    """Acted on; the answer has a result too few or too many."""
    TRUNCATED = "truncated"
    """Acted on; a 200 with a body that is cut short."""
    FOREIGN = "foreign"
    """Something else answers 200, in HTML."""
    BLACK_HOLE = "black_hole"
    """Nothing ever comes back; whether it was acted on is anyone's guess."""
    LORIS = "loris"
    """Acted on; an answer comes byte by byte, for an hour."""
    EXPIRED = "expired"
    """The credentials' token has expired."""
    ITERATOR = "iterator"
    """The shard iterator has expired."""


UNKNOWN = frozenset(
    {
        Fate.CUT_BEFORE,
        Fate.CUT_AFTER,
        Fate.LATE,
        Fate.BROKEN_BEFORE,
        Fate.BROKEN_AFTER,
        Fate.MISCOUNTED,
        Fate.TRUNCATED,
        Fate.FOREIGN,
        Fate.BLACK_HOLE,
        Fate.LORIS,
    }
)
"""After these a client cannot know whether its put was done."""

_ACTED = frozenset(
    {Fate.FINE, Fate.CUT_AFTER, Fate.LATE, Fate.BROKEN_AFTER, Fate.PARTIAL, Fate.MISCOUNTED, Fate.TRUNCATED, Fate.LORIS}
)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How likely each fault is, from 0 to 1 a request.

    Attributes:
        latency: Seconds of a request's way, each way: least and most.
        entry: In a put that fails in part, how likely each record is not to be written.
        stays: Maximum seconds that a late request is in flight.
        push: Failures of a subscription that has begun.
    """

    unsent: float = 0.0
    cut_before: float = 0.0
    cut_after: float = 0.0
    late: float = 0.0
    broken_before: float = 0.0
    broken_after: float = 0.0
    throttled: float = 0.0
    partial: float = 0.0
    miscounted: float = 0.0
    truncated: float = 0.0
    foreign: float = 0.0
    black_hole: float = 0.0
    loris: float = 0.0
    expired: float = 0.0
    iterator: float = 0.0
    latency: tuple[float, float] = (0.002, 0.03)
    entry: float = 0.3
    stays: float = 30.0
    push: PushFaults = field(default_factory=PushFaults)

    @classmethod
    def always(cls, fate: Fate) -> Faults:
        """Return faults of which one comes with every request; none for `Fate.FINE`."""
        if fate is Fate.FINE:
            return cls()
        chances: dict[str, Any] = {fate.value: 1.0}
        return cls(**chances)

    def draw(self, chance: random.Random) -> Fate:
        """Return a fate."""
        left = chance.random()
        for fate in _DRAWN:
            left -= getattr(self, fate.value)
            if left < 0:
                return fate
        return Fate.FINE

    def total(self) -> float:
        """Return how likely it is that something goes wrong."""
        return float(sum(getattr(self, fate.value) for fate in _DRAWN))


_DRAWN = [Fate(one.name) for one in fields(Faults) if one.name not in ("latency", "entry", "stays", "push")]


@dataclass
class Trip:
    """One request's way. Times are the loop's.

    Attributes:
        request: As the service sees it.
        acted: When the service acted on it; None: it never did.
        ended: When its client had an answer or an error, or gave it up.
        known: Whether its answer, whole and right, came back to a client that still waited.
        results: Of a put, the result of each record: its shard and sequence number, or None if it was not written.
        codes: Of a put, the error code of each record; "" for one that was written.
        subscription: The subscription that the service pushes in response.
    """

    number: int
    operation: str
    sent: float
    fate: Fate
    size: int
    request: Any = None
    undecodable: RequestError | None = None
    refused: str = ""
    acted: float | None = None
    ended: float = float("inf")
    known: bool = False
    results: list[tuple[str, str] | None] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    subscription: Subscription | None = None

    @property
    def unknown(self) -> bool:
        """True if the client cannot know whether the records of a put were written."""
        return not self.known and self.fate is not Fate.UNSENT


class Network:
    """The way to a service, for all clients.

    Args:
        service: The service that receives the requests.
        seed: Seed of the failures that are drawn.
        weather: Possible failures at a time (of the loop, in seconds), for an operation.

    Attributes:
        trips: All requests so far.
        fates: How often each fate was drawn.
        push_fates: How often each fate of a subscription was drawn.
        keeps: Whether trips are kept: long simulations do without, and look at each by `watch`.
    """

    def __init__(
        self,
        service: Kinesis,
        seed: int,
        weather: Callable[[float, str], Faults] | Faults | None = None,
        *,
        keeps: bool = True,
    ) -> None:
        self.service = service
        self.random = random.Random(seed)
        faults = weather if isinstance(weather, Faults) else Faults()
        self.weather: Callable[[float, str], Faults] = weather if callable(weather) else lambda now, operation: faults
        self.trips: list[Trip] = []
        self.fates: Counter[Fate] = Counter()
        self.push_fates: Counter[PushFate] = Counter()
        self.keeps = keeps
        self.sent = 0
        self.watch: Callable[[Trip], None] | None = None
        self._last_arrival = 0.0

    async def calm(self) -> None:
        """Wait until no request is in flight, late ones included."""
        await asyncio.sleep(max(0.0, self._last_arrival - asyncio.get_running_loop().time()) + 0.001)

    def connect(self) -> LocalTransport:
        """Return a transport for one client."""
        return LocalTransport(self)

    def draw(self, operation: str, size: int) -> tuple[Trip, Faults]:
        """Return a new request's trip, and its possible failures."""
        now = asyncio.get_running_loop().time()
        faults = self.weather(now, operation)
        fate = faults.draw(self.random)
        of = "PutRecords" if fate in (Fate.PARTIAL, Fate.MISCOUNTED) else "GetRecords"
        if operation != of and fate in (Fate.PARTIAL, Fate.MISCOUNTED, Fate.ITERATOR):
            fate = Fate.FINE
        self.fates[fate] += 1
        self.sent += 1
        trip = Trip(self.sent, operation, now, fate, size)
        if self.keeps:
            self.trips.append(trip)
        return trip, faults

    def arrives(self, delay: float, arrive: Callable[[], None]) -> None:
        """Let a request arrive later, whatever its client does in the meantime."""
        loop = asyncio.get_running_loop()
        self._last_arrival = max(self._last_arrival, loop.time() + delay)
        loop.call_later(delay, arrive)

    def serve(self, trip: Trip, faults: Faults, headers: dict[str, str], body: bytes) -> Response:
        """Let the service act on a request, and return its answer."""
        service = self.service
        trip.acted = asyncio.get_running_loop().time()
        try:
            service.verify(headers, body)
            if trip.undecodable is not None:
                raise trip.undecodable
            partial = trip.fate is Fate.PARTIAL
            told = self._in_part(trip, faults) if partial else service.act(trip.operation, trip.request)
        except RequestError as refused:
            trip.refused = refused.code
            return service.refusal(_wire(headers), refused)
        if isinstance(told, Subscription):
            trip.subscription = told
            if trip.ended < trip.acted:
                told.close()  # its client has gone
            answer = service.answer(_wire(headers), None)
            return Response(200, {**answer.headers, "content-type": CONTENT_TYPE}, b"")
        if isinstance(told, responses.PutRecords):
            trip.results = [_place(result) for result in told.records]
            trip.codes = [result.error_code or "" for result in told.records]
            if trip.fate is Fate.MISCOUNTED:
                told = _miscounted(told, self.random)
        return service.answer(_wire(headers), told)

    def refuse(self, code: str, status: int, headers: dict[str, str]) -> Response:
        """Return an error answer of a service that does not look at the request."""
        return self.service.refusal(_wire(headers), RequestError(code, "It was drawn.", status=status))

    def _in_part(self, trip: Trip, faults: Faults) -> responses.PutRecords:
        """Do a put without some of its records."""
        request = trip.request
        entries = request.records
        failed = [self.random.random() < faults.entry for _ in entries]
        request.records = [entry for entry, fails in zip(entries, failed, strict=True) if not fails]
        done = responses.PutRecords(0, [], "NONE")
        try:
            if request.records:
                done = self.service.act(trip.operation, request)
        finally:
            request.records = entries
        results = iter(done.records)
        code = self.random.choice([THROUGHPUT, THROUGHPUT, "InternalFailure"])
        refusal = responses.PutRecordsEntry(error_code=code, error_message="It was drawn.")
        merged = [refusal if fails else next(results) for fails in failed]
        return responses.PutRecords(done.failed_record_count + sum(failed), merged, done.encryption_type)


class LocalTransport:
    """One client's connections over a `Network`."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._waiting: set[asyncio.Future[Any]] = set()
        self._pushes: WeakSet[PushedAnswer] = WeakSet()
        self._closed = False

    async def post(self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float) -> Response:
        """Send a POST, and return the response."""
        answer, _, _ = await self._send(headers, body, progress)
        return answer

    async def stream(
        self, url: str, headers: list[tuple[str, str]], body: bytes, *, progress: float
    ) -> StreamedResponse:
        """Send a POST, and return the stream that is pushed in response."""
        answer, trip, faults = await self._send(headers, body, progress)
        if trip.subscription is None or answer.headers["content-type"] != CONTENT_TYPE:
            return WholeAnswer(answer)
        network = self._network
        fate = faults.push.draw(network.random)
        network.push_fates[fate] += 1
        wire = _wire({name.lower(): value for name, value in headers})
        pushed = PushedAnswer(answer, trip.subscription, wire, fate, faults.latency, network.random)
        self._pushes.add(pushed)
        return pushed

    async def _send(
        self, headers: list[tuple[str, str]], body: bytes, progress: float
    ) -> tuple[Response, Trip, Faults]:
        if self._closed:
            raise ConnectionLost("the connections were closed", sent=False)
        network = self._network
        by_name = {name.lower(): value for name, value in headers}
        operation = by_name["x-amz-target"].partition(".")[2]
        trip, faults = network.draw(operation, len(body))
        try:
            trip.request = network.service.decode(operation, by_name, body)
        except RequestError as refused:
            trip.undecodable = refused
        try:
            answer = await self._carry(trip, faults, by_name, body, progress)
        except BaseException:
            if trip.subscription is not None:
                trip.subscription.close()
            raise
        else:
            trip.known = answer.status != 500 and trip.fate not in UNKNOWN
            return answer, trip, faults
        finally:
            trip.ended = asyncio.get_running_loop().time()
            if network.watch is not None:
                network.watch(trip)

    async def _carry(
        self, trip: Trip, faults: Faults, headers: dict[str, str], body: bytes, progress: float
    ) -> Response:
        network, fate = self._network, trip.fate
        chance = network.random
        there, back = chance.uniform(*faults.latency), chance.uniform(*faults.latency)
        if fate is Fate.UNSENT:
            await self._wait(there)
            raise ConnectionFailed("no connection: it was drawn", sent=False)
        answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        acted = fate in _ACTED or (fate in (Fate.BLACK_HOLE, Fate.FOREIGN) and chance.random() < 0.5)
        if acted:
            late = chance.uniform(0, faults.stays) if fate is Fate.LATE else 0.0

            def arrive() -> None:
                answer = network.serve(trip, faults, headers, body)
                if not answered.done():
                    answered.set_result(answer)

            network.arrives(there + late, arrive)
        if fate in (Fate.CUT_BEFORE, Fate.CUT_AFTER, Fate.LATE):
            await self._wait(there + back)
            raise ConnectionLost("the connection broke: it was drawn", sent=None)
        if fate is Fate.BLACK_HOLE:
            patience = progress + len(body) / SLOW_LINE_BYTES_PER_SECOND
            await self._wait(patience)
            raise RequestTimedOut(f"no response within {patience:.3g} s", sent=None)
        await self._wait(there + back + (3600 if fate is Fate.LORIS else 0))
        if fate is Fate.THROTTLED:
            code = THROUGHPUT if trip.operation.startswith(("Put", "Get")) else "LimitExceededException"
            return network.refuse(code, 400, headers)
        if fate is Fate.ITERATOR:
            return network.refuse("ExpiredIteratorException", 400, headers)
        if fate is Fate.EXPIRED:
            return network.refuse("ExpiredTokenException", 400, headers)
        if fate in (Fate.BROKEN_BEFORE, Fate.BROKEN_AFTER):
            return network.refuse("InternalFailure", 500, headers)
        if fate is Fate.FOREIGN:
            return Response(200, {"content-type": "text/html"}, FOREIGN)
        answer = await answered
        if fate is Fate.TRUNCATED and answer.body:
            return Response(answer.status, answer.headers, answer.body[: chance.randrange(len(answer.body))])
        return answer

    async def _wait(self, seconds: float) -> None:
        """Wait, unless the connections are closed in the meantime."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _end, over)
        self._waiting.add(over)
        try:
            await over
        finally:
            timer.cancel()
            self._waiting.discard(over)

    async def close(self) -> None:
        """Close all connections. Requests that wait for a response fail."""
        self._closed = True
        for pushed in self._pushes:
            pushed.lose()
        for over in self._waiting:
            if not over.done():
                over.set_exception(ConnectionLost("the connections were closed", sent=None))


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def _wire(headers: dict[str, str]) -> WireFormat:
    return WIRES.get(headers["content-type"], JSON)


def _place(result: responses.PutRecordsEntry) -> tuple[str, str] | None:
    if result.shard_id is None or result.sequence_number is None:
        return None
    return result.shard_id, result.sequence_number


def _miscounted(told: responses.PutRecords, chance: random.Random) -> responses.PutRecords:
    """Return an answer with a result too few or too many."""
    results = list(told.records)
    if chance.random() < 0.5:
        del results[chance.randrange(len(results))]
    else:
        results.insert(chance.randrange(len(results) + 1), results[0])
    return responses.PutRecords(told.failed_record_count, results, told.encryption_type)

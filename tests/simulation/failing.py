"""A service on the virtual clock, and times at which its operations fail."""

from __future__ import annotations

from tests.doubles.kinesis import Kinesis
from tests.doubles.network import Fate, Faults, Network
from tests.doubles.virtual_loop import LoopClock

from kinstream import Client, Credentials

STREAM = "orders"

Fates = dict[str, tuple[float, float, Fate]]
"""The fates of operations by their names, or of "all": seconds from and to, and the fate."""


class FailingService:
    """A service with operations that fail at known times.

    Args:
        fates: The failures.
        shards: How many shards the stream has; 0: there is no stream.
    """

    def __init__(self, fates: Fates, *, shards: int = 1) -> None:
        self.fates = fates
        self.service = Kinesis(LoopClock(), quotas=False)
        if shards:
            self.service.ask("CreateStream", StreamName=STREAM, ShardCount=shards)
        self.network = Network(self.service, 1, self.weather, keeps=False)

    def weather(self, now: float, operation: str) -> Faults:
        start, end, fate = self.fates.get(operation) or self.fates.get("all") or (0.0, 0.0, Fate.FINE)
        return Faults.always(fate if start <= now < end else Fate.FINE)

    def client(self) -> Client:
        return Client(
            region="us-east-1",
            credentials=Credentials("local", "local"),
            endpoint_url="http://127.0.0.1:1",
            clock=LoopClock(),
            transport=self.network.connect(),
        )

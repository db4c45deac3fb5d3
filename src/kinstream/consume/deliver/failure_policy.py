"""FailurePolicy of one shard: retries failed records, and then stops the shard, skips them, or writes them to the dead letter."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from kinstream.clock import Clock
from kinstream.config import ErrorPolicy
from kinstream.consume.deliver.dead_letter import DeadLetters
from kinstream.consume.deliver.handler import failure
from kinstream.consume.report import Reporter
from kinstream.consume.stop import sleep_unless
from kinstream.errors import ConsumeError
from kinstream.events import HandlerFailed
from kinstream.record import ReceivedRecord

Retry: TypeAlias = Callable[[], Awaitable[object]]
"""Calls the handler with the same records again."""


class Interrupted(Exception):
    """Delivery stops while a record's next attempt is pending: the record is not completed."""


def _outcome(then: Any) -> str:
    """Return the outcome of records after their last attempt, according to `ErrorPolicy.then`."""
    return (
        {"stop": "stopped", "skip": "skipped"}.get(then, "dead-lettered") if isinstance(then, str) else "dead-lettered"
    )


class FailurePolicy:
    """Retries failed records and then applies `ErrorPolicy.then`.

    Args:
        option: The application's error policy.
        clock: Waits between attempts.
        announce: Reports failed calls, and each record after its last attempt.
        stopping: Set when delivery is to stop.
        dead_letters: Writes dead letters to a stream.
    """

    def __init__(
        self,
        option: ErrorPolicy,
        clock: Clock,
        announce: Reporter,
        stopping: asyncio.Event,
        dead_letters: DeadLetters,
    ) -> None:
        self._option = option
        self._clock = clock
        self._announce = announce
        self._stopping = stopping
        self._dead_letters = dead_letters
        self._abandoned = False

    def abandon(self) -> None:
        """Ignore later failures: another worker handles the records of the shard."""
        self._abandoned = True

    @property
    def stopping(self) -> bool:
        """True if delivery is to stop."""
        return self._stopping.is_set()

    async def failed(
        self, shard_id: str, records: Sequence[ReceivedRecord[bytes]], error: Exception, retry: Retry
    ) -> None:
        """Retry failed records up to the maximum number of attempts, then skip them, write them to the dead letter, or raise.

        Args:
            shard_id: Their shard.
            records: The failed record, or batch.
            error: The handler's exception.
            retry: Calls the handler with them again.

        Raises:
            ConsumeError: They cannot be handled, and the shard stops before them.
            Interrupted: Delivery is to stop.
        """
        if self._abandoned:
            raise Interrupted
        delay = self._option.initial_delay
        for _ in range(self._option.max_attempts - 1):
            self._announce.handler_failed(shard_id, error, delay)
            if await sleep_unless(self._stopping, self._clock, delay):
                raise Interrupted
            delay = min(delay * 2, self._option.max_delay)
            try:
                await retry()
            except BaseException as raised:  # noqa: BLE001 - the handler is user code
                error = failure(raised)
            else:
                self._announce.handled(shard_id)
                return
        if self._abandoned:
            raise Interrupted
        self._announce.last_attempt_failed()
        await self.decide(shard_id, records, error, self._option.max_attempts)

    async def decide(
        self, shard_id: str, records: Sequence[ReceivedRecord[bytes]], error: Exception, attempts: int
    ) -> None:
        """Apply `ErrorPolicy.then` to records that cannot be handled. Raises as `failed`."""
        then = self._option.then
        self._announce.gave_up(shard_id, records, error, attempts, _outcome(then))
        if then == "stop":
            self._report(shard_id, records, error, attempts, "stopped")
            first = records[0]
            raise ConsumeError(
                f"{shard_id}: the record with sequence number {first.sequence_number} could not be handled in"
                f" {attempts} {'attempt' if attempts == 1 else 'attempts'} ({type(error).__name__}); the shard stops before it"
                " (ErrorPolicy has other actions)",
                shard_id=shard_id,
            ) from error
        if then != "skip":
            for record in records:
                try:
                    await self._dead_letter(then, record, error, attempts)
                except BaseException as raised:  # noqa: BLE001 - the dead letter is user code
                    refused = failure(raised)
                    self._announce.gave_up(shard_id, [record], refused, attempts, "dead letter refused")
                    self._report(shard_id, [record], refused, attempts, "stopped")
                    raise ConsumeError(
                        f"{shard_id}: the dead letter failed on the record with sequence number"
                        f" {record.sequence_number} ({type(refused).__name__}); the shard stops before it",
                        shard_id=shard_id,
                    ) from refused
        self._report(shard_id, records, error, attempts, _outcome(then))

    async def _dead_letter(self, then: Any, record: ReceivedRecord[bytes], error: Exception, attempts: int) -> None:
        if hasattr(then, "put_record"):
            await self._dead_letters.write(then, record, error, time=self._clock.wall(), attempts=attempts)
            return
        outcome = then(record, error)
        if inspect.isawaitable(outcome):
            await outcome

    def _report(
        self,
        shard_id: str,
        records: Sequence[ReceivedRecord[bytes]],
        error: Exception,
        attempts: int,
        outcome: str,
    ) -> None:
        for record in records:
            position = (shard_id, record.sequence_number, record.subsequence_number)
            self._announce(HandlerFailed(*position, error, attempts, outcome))

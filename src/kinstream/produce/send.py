"""Sender: sends one batch as one request, once. Retries are up to the pipeline, record by record.

The client's own retries are off here, because the two would multiply: a request with one throttled record in a hundred would be
sent three times. The client's retry quota is charged all the same, and shows when the service is down.
"""

from __future__ import annotations

from kinstream.aws import kinesis
from kinstream.aws.attempts import THROTTLE_COST, TRANSIENT_COST
from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.config import RetryPolicy
from kinstream.errors import KinesisError
from kinstream.produce.batch import Batch
from kinstream.produce.pending import KEYLESS, count_attempt
from kinstream.record import PutRecordResult

ONCE = RetryPolicy(max_attempts=1)


class Sender:
    """Sends batches to a stream.

    Args:
        client: Carries the requests.
        stream: The stream.
        timeout: Maximum seconds of one request.
    """

    def __init__(self, client: Client, stream: Stream, timeout: float) -> None:
        self._client = client
        self._stream = stream
        self._timeout = timeout

    async def send(self, batch: Batch) -> list[PutRecordResult]:
        """Send a request. Return one result for each of its entries.

        Raises:
            KinesisError: It failed as a whole.
        """
        client = self._client
        omitted = KEYLESS if batch.omits_keys else None
        request = kinesis.put_checked_records(client.codec, self._stream, batch.entries, omitted)
        try:
            result = await client.send(request, retry=ONCE, within=self._timeout)
        except KinesisError as error:
            _count_signed_again(batch, error.attempts)
            raise
        _count_signed_again(batch, result.attempts)
        return result.results

    def spend(self, error: KinesisError) -> bool:
        """Charge a retry to the client's retry quota. Return True if the quota was not empty."""
        return self._client.quota.take(THROTTLE_COST if error.throttled else TRANSIENT_COST)


def _count_signed_again(batch: Batch, sent: int) -> None:
    """Count the requests of a batch except the last one, which is counted with its outcome.

    The client retries a request if its credentials had expired or its date was wrong.
    """
    if sent > 1:
        for entry in batch.entries:
            count_attempt(entry, sent - 1)

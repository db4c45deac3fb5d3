"""Read all shards of a stream from TRIM_HORIZON, ten records per call with a pause between calls, until Ctrl-C.

By default it connects to `kinstream local`. Set the environment variables below to connect to AWS.
"""

import os
import threading
import time
from typing import Any

from kinstream import KinesisError, ReceivedRecord, ShardIteratorType
from kinstream.callbacks import Consumer

REGION = os.environ.get("AWS_REGION", "us-east-1")
ACCESS_KEY_ID = os.environ.get("AWS_ACCESS_KEY_ID", "local")
SECRET_ACCESS_KEY = os.environ.get("AWS_SECRET_ACCESS_KEY", "local")
ENDPOINT_URL = os.environ.get("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:4567")
STREAM_NAME = os.environ.get("STREAM_NAME", "events")
PAUSE = float(os.environ.get("PAUSE", "10"))

consumer = Consumer(REGION, ACCESS_KEY_ID, SECRET_ACCESS_KEY, STREAM_NAME, endpoint_url=ENDPOINT_URL)
known: set[str] = set()  # needs no lock, because callbacks run one at a time


def start_new_shards(error: KinesisError | None, shard_ids: list[str]) -> None:
    if error is not None:
        print(f"get_shards failed: {error}", flush=True)
    for shard_id in shard_ids:
        if shard_id not in known:
            known.add(shard_id)
            start(shard_id)


def start(shard_id: str) -> None:
    """Get an iterator for the beginning of a shard, and read from there."""

    def begin(error: KinesisError | None, shard_iterator: str | None) -> None:
        if error is not None:
            print(f"get_shard_iterator failed: {error}", flush=True)
        else:
            read(shard_id, {"shard_iterator": shard_iterator, "limit": 10})

    consumer.get_shard_iterator(shard_id, ShardIteratorType.TRIM_HORIZON, None, begin)


def read(shard_id: str, options: dict[str, Any]) -> None:
    """Read the next records of a shard, and continue after a pause."""

    def received(
        error: KinesisError | None,
        records: list[ReceivedRecord[Any]],
        millis_behind_latest: int,
        next_options: dict[str, Any] | None,
    ) -> None:
        if error is not None:
            print(f"reading {shard_id} failed: {error}", flush=True)
            return
        for record in records:
            print(f"{shard_id} {record.partition_key}: {record.data}", flush=True)
        if next_options is not None:
            timer = threading.Timer(PAUSE, read, (shard_id, next_options))
            timer.daemon = True
            timer.start()
        else:
            print(f"{shard_id} was closed and has been read completely", flush=True)
            consumer.get_shards(start_new_shards)  # it was split or merged, so read its child shards

    consumer.get_records(options, received)


consumer.get_shards(start_new_shards)
try:
    while True:
        time.sleep(1)
except KeyboardInterrupt:
    consumer.close()

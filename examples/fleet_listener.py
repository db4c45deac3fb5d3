"""A fleet worker that collects the records of each shard into files, and checkpoints only what a file holds.

A listener writes the file of a shard before another worker continues with it, so a handoff repeats no record. After a crash, the
next worker reads the records again that are in no file. End it by SIGTERM. It has the environment variables of `fleet_worker.py`,
and `FOLDER`, the folder of the files.
"""

import asyncio
import json
import os
from pathlib import Path

from kinstream import Consumer, Credentials, ReceivedRecord, RecordBatch, ShardAssignment, SQLiteLeaseStore

REGION = os.environ.get("AWS_REGION", "us-east-1")
ENDPOINT_URL = os.environ.get("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:4567")
ACCESS_KEY_ID = os.environ.get("AWS_ACCESS_KEY_ID", "local")
SECRET_ACCESS_KEY = os.environ.get("AWS_SECRET_ACCESS_KEY", "local")
STREAM_NAME = os.environ.get("STREAM_NAME", "events")
LEASES = os.environ.get("LEASES", "leases.db")
FOLDER = Path(os.environ.get("FOLDER", "files"))
FILE_RECORDS = int(os.environ.get("FILE_RECORDS", "1000"))
FILE_SECONDS = float(os.environ.get("FILE_SECONDS", "60"))


class Files:
    """Records of the shards of this worker that are in no file yet. Also the consumer's listener."""

    def __init__(self) -> None:
        self._records: dict[str, list[ReceivedRecord[bytes]]] = {}
        self._writing = asyncio.Lock()

    def assigned(self, shard: ShardAssignment) -> None:
        """Start without records: those that another worker had collected are read again, after the checkpoint."""
        self._records[shard.shard_id] = []

    async def revoked(self, shard: ShardAssignment) -> None:
        """Write the last file, also when this worker stops. The next worker begins when this has returned."""
        await self.write(shard.shard_id)

    async def ended(self, shard: ShardAssignment) -> None:
        """Write the last file of a shard that was split or merged. Its children are read once this is checkpointed."""
        await self.write(shard.shard_id)

    def lost(self, shard: ShardAssignment) -> None:
        """Discard the records: another worker reads them again."""
        self._records.pop(shard.shard_id, None)

    async def handle(self, batch: RecordBatch) -> None:
        """Collect the records of one batch."""
        self._records[batch.shard_id].extend(batch)
        if len(self._records[batch.shard_id]) >= FILE_RECORDS:
            await self.write(batch.shard_id)

    async def write(self, shard_id: str) -> None:
        """Write the records of a shard to a file, and then store their checkpoint."""
        async with self._writing:
            records = self._records.get(shard_id)
            if not records:
                return
            self._records[shard_id] = []
            lines = "".join(json.dumps([record.partition_key, record.data.decode()]) + "\n" for record in records)
            path = FOLDER / f"{shard_id}-{records[0].sequence_number}-{records[0].subsequence_number or 0}.jsonl"
            await asyncio.to_thread(path.write_text, lines)
            await records[-1].checkpoint()
            print(f"{path.name}: {len(records)} records", flush=True)

    async def write_often(self) -> None:
        """Write the records of all shards every minute."""
        while True:
            await asyncio.sleep(FILE_SECONDS)
            for shard_id in list(self._records):
                await self.write(shard_id)


async def main() -> None:
    files = Files()
    consumer = Consumer(
        STREAM_NAME,
        application="files",
        lease_store=SQLiteLeaseStore(LEASES),
        checkpoints="manual",
        listener=files,
        region=REGION,
        credentials=Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY),
        endpoint_url=ENDPOINT_URL,
    )
    async with consumer:
        writing = asyncio.create_task(files.write_often())
        await consumer.run_batches(files.handle)
        writing.cancel()


FOLDER.mkdir(exist_ok=True)
asyncio.run(main())

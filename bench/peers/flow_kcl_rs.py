"""kcl-rs, by polling: its own loop calls a record processor for each shard, which counts the records."""

from __future__ import annotations

import os
import time
from importlib.metadata import version

from flow import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Meter, asked, print_windows
from lease_table import fresh_leases

flow = asked()
meter = Meter()
os.environ |= {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    "AWS_ENDPOINT_URL": flow.dynamodb,
    "AWS_ENDPOINT_URL_KINESIS": flow.url,
}
if flow.ca is not None:
    os.environ["SSL_CERT_FILE"] = flow.ca

import kcl_rs  # noqa: E402, it reads the environment

START_SECONDS = 40


class Counter(kcl_rs.RecordProcessorBase):
    """Counts the records of a shard."""

    def initialize(self, initialize_input: kcl_rs.InitializeInput) -> None: ...

    def process_records(self, process_records_input: kcl_rs.ProcessRecordsInput) -> None:
        records = process_records_input.records
        for record in records:
            data = record.data
        if records:
            flow.check(len(data) == flow.size)
        meter.count += len(records)

    def lease_lost(self, lease_lost_input: kcl_rs.LeaseLostInput) -> None: ...

    def shard_ended(self, shard_ended_input: kcl_rs.ShardEndedInput) -> None: ...

    def shutdown_requested(self, shutdown_requested_input: kcl_rs.ShutdownRequestedInput) -> None: ...


scheduler = kcl_rs.Scheduler(
    stream_name=flow.stream,
    application_name=fresh_leases(flow.dynamodb, flow.shards),
    record_processor_factory=Counter,
    worker_identifier="worker",
    region=REGION,
    initial_position="TRIM_HORIZON",
    retrieval_mode="POLLING",
    idle_time_between_reads_millis=200,
    shard_sync_interval_millis=1,
)
scheduler.start()
deadline = time.monotonic() + START_SECONDS
while meter.count == 0:
    flow.check(time.monotonic() < deadline)
    time.sleep(0.02)
time.sleep(flow.warm_up)
windows = []
for _ in range(flow.windows):
    meter.begin()
    time.sleep(flow.seconds)
    windows.append(meter.measured())
print_windows(windows, version("kcl-rs"), meter.memory())
os._exit(0)

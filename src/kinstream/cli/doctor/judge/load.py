"""Findings about the load of shards: writes against quotas, throttled requests, and hot partition keys. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kinstream.cli.doctor.finding import Check, Finding, Severity, listed
from kinstream.cli.doctor.judge.sample import KeyCount, ShardSample
from kinstream.cli.time_span import time_span
from kinstream.service_quotas import SHARD_READ_BYTES_PER_SECOND

HIGH, FULL = 0.8, 0.95
"""Shares of a shard's quota from which it is hot, and at its quota."""
BUSY = 0.5
"""Share of a shard's write quota from which a hot key in it is a warning. Below, it is a note."""
HOT_KEY = 0.5
"""Share of a shard's user records or bytes from which a partition key is hot."""
FEWEST = 50
"""Minimum user records of a sample that shows hot keys."""
REFUSED = 0.01
"""Share of throttled records from which writes are a problem. Producers retry them, and records arrive later."""


class StreamMetrics(msgspec.Struct, frozen=True):
    """Metrics of CloudWatch over the last minutes. None: it has no data of the metric.

    Attributes:
        seconds: The time span.
        records_in: Records written.
        writes_throttled: Records whose write was throttled.
        reads_throttled: GetRecords calls that were throttled.
        iterator_age: Maximum age of the last record of a GetRecords response, in seconds.
        read_bytes: Bytes that were read from each shard, by its id. Empty without shard-level metrics.
    """

    seconds: float
    records_in: float | None = None
    writes_throttled: float | None = None
    reads_throttled: float | None = None
    iterator_age: float | None = None
    read_bytes: dict[str, float] = msgspec.field(default_factory=dict)


class Sampling(msgspec.Struct, frozen=True):
    """Samples of the open shards of a stream.

    Attributes:
        stream: Name of the stream.
        on_demand: True if the stream is in on-demand mode.
        seconds: Age of the oldest record of a sample. A sample with the maximum of records may end long before now.
        most_records: Maximum records of a sample.
        open_shards: Number of open shards.
        samples: Samples of all of them, or of some if there are many.
    """

    stream: str
    on_demand: bool
    seconds: float
    most_records: int
    open_shards: int
    samples: tuple[ShardSample, ...]


def judge_writes(sampling: Sampling) -> list[Finding]:
    """Return the findings about the writes of each shard, and about shards that could not be read."""
    samples = sampling.samples
    findings = [
        Finding(
            Check.SHARDS,
            Severity.WARNING,
            f"{one.shard_id}: could not be read: {one.problem}",
            None,
            {"shardId": one.shard_id},
        )
        for one in samples
        if one.problem is not None
    ]
    shares = {one.shard_id: one.load.share for one in samples if one.load is not None}
    if not shares:
        return findings
    busiest = max(shares, key=shares.__getitem__)
    most, mean = shares[busiest], sum(shares.values()) / len(shares)
    several = "" if sampling.open_shards == len(samples) else f", of which {len(samples):,} were sampled"
    found = (
        f"{sampling.open_shards:,} open shards{several}: the busiest, {busiest}, has {_percent(most)} of its write quota, and the"
        f" mean is {_percent(mean)} (a sample of up to {sampling.most_records:,} records of each, from"
        f" {time_span(sampling.seconds)} ago on)"
    )
    details = {
        "openShards": sampling.open_shards,
        "sampledShards": len(samples),
        "busiestShardId": busiest,
        "busiestShare": round(most, 4),
        "meanShare": round(mean, 4),
    }
    hot = [shard_id for shard_id, share in shares.items() if share >= HIGH]
    if not hot:
        return [*findings, Finding(Check.SHARDS, Severity.OK, found, None, details)]
    found += f". Hot: {listed(hot)}"
    if sampling.on_demand:
        todo = "The stream is on-demand and adds shards by itself, unless one key causes the load: see the findings about keys"
    elif len(hot) * 2 > len(shares):
        todo = f"Add shards: kinstream reshard {sampling.stream} --shards {2 * sampling.open_shards}"
    else:
        todo = f"Split the hot shard, unless one key causes its load: kinstream reshard {sampling.stream} --split {busiest}"
    severity = Severity.PROBLEM if most >= FULL else Severity.WARNING
    return [*findings, Finding(Check.SHARDS, severity, found, todo, {**details, "hotShardIds": hot})]


def judge_own_reads(samples: Sequence[ShardSample]) -> list[Finding]:
    """Return the finding about reads of this command that were throttled, because other consumers use the quota."""
    throttled = {one.shard_id: one.throttled for one in samples if one.throttled}
    if not throttled:
        return []
    found = (
        f"GetRecords was throttled {sum(throttled.values()):,} times (ProvisionedThroughputExceeded) in {listed(throttled)}: the"
        " consumers that poll these shards use all of their 5 calls or 2 MiB a second"
    )
    todo = (
        "Lower Polling(reads_per_second=...) of the consumers, or give an application its own quota by EnhancedFanOut()"
    )
    return [Finding(Check.SHARDS, Severity.WARNING, found, todo, {"throttledReads": throttled})]


def judge_metrics(metrics: StreamMetrics) -> list[Finding]:
    """Return the findings about throttled requests, and reads of each shard, from CloudWatch."""
    span = time_span(metrics.seconds)
    findings = []
    refused, written = metrics.writes_throttled or 0.0, metrics.records_in or 0.0
    share = refused / (refused + written) if refused else 0.0
    details = {"recordsIn": metrics.records_in, "writesThrottled": metrics.writes_throttled, "seconds": metrics.seconds}
    if refused:
        severity = Severity.PROBLEM if share >= REFUSED else Severity.WARNING
        found = (
            f"{refused:,.0f} writes were throttled in the last {span} (ProvisionedThroughputExceeded),"
            f" {100 * share:.2g} % of all"
        )
        todo = "Add shards, split the hot one, or spread its hot key. Aggregation() saves the quota of records"
        findings.append(Finding(Check.SHARDS, severity, found, todo, details))
    else:
        found = f"no write was throttled in the last {span}, and {written:,.0f} records were written"
        findings.append(Finding(Check.SHARDS, Severity.OK, found, None, details))
    if metrics.reads_throttled:
        found = f"{metrics.reads_throttled:,.0f} reads were throttled in the last {span}: polling consumers share a shard's quota"
        todo = "Lower Polling(reads_per_second=...) of the consumers, or use EnhancedFanOut()"
        findings.append(
            Finding(Check.SHARDS, Severity.WARNING, found, todo, {"readsThrottled": metrics.reads_throttled})
        )
    if metrics.read_bytes:
        busiest = max(metrics.read_bytes, key=metrics.read_bytes.__getitem__)
        used = metrics.read_bytes[busiest] / metrics.seconds / SHARD_READ_BYTES_PER_SECOND
        severity = Severity.WARNING if used >= HIGH else Severity.OK
        found = f"the most read shard, {busiest}, has {_percent(used)} of its polling quota of 2 MiB a second"
        remedy = "Use EnhancedFanOut() for an application" if severity is Severity.WARNING else None
        findings.append(
            Finding(Check.SHARDS, severity, found, remedy, {"shardId": busiest, "readShare": round(used, 4)})
        )
    return findings


def judge_keys(sampling: Sampling) -> list[Finding]:
    """Return the findings about hot partition keys, and about records that are not valid aggregates."""
    findings = []
    user_records, largest = 0, 0
    for sample in sampling.samples:
        keys = sample.keys
        if keys is None:
            continue
        user_records += keys.user_records
        largest = max(largest, keys.user_records)
        if keys.damaged:
            text = (
                f"{sample.shard_id}: {keys.damaged:,} of {keys.records:,} records begin as a KPL aggregate, but are not valid."
                " Consumers receive them as plain records"
            )
            todo = "Find their producer: kinstream tail shows their keys"
            findings.append(Finding(Check.KEYS, Severity.WARNING, text, todo, {"shardId": sample.shard_id}))
        if keys.user_records >= FEWEST and keys.top and keys.share(keys.top[0]) >= HOT_KEY:
            findings.append(_hot_key(sample, keys.top[0]))
    if findings:
        return findings
    if largest < FEWEST:
        found = f"not checked: no shard got {FEWEST} user records in the last {time_span(sampling.seconds)}"
        return [Finding(Check.KEYS, Severity.NOTE, found, "Take a longer sample, such as --sample 24h")]
    found = (
        f"no partition key has half of the records or bytes of a shard, in a sample of {user_records:,} user records"
    )
    return [Finding(Check.KEYS, Severity.OK, found, None, {"userRecords": user_records})]


def _hot_key(sample: ShardSample, count: KeyCount) -> Finding:
    keys = sample.keys
    assert keys is not None
    share = keys.share(count)
    busy = sample.load is not None and sample.load.share >= BUSY
    name = "no partition key" if count.key is None else f"the partition key {count.key!r}"
    inside = f", inside {keys.aggregates:,} aggregates" if keys.aggregates else ""
    found = (
        f"{sample.shard_id}: {name} has {_percent(share)} of the records or bytes: {count.records:,} of {keys.user_records:,}"
        f" user records, {count.bytes:,} of {keys.bytes:,} bytes, of {keys.keys:,} keys{inside}"
    )
    todo = "A key belongs to one shard, so more shards do not divide its load. If its records need no order, add a suffix to it"
    if not busy:
        todo += ". The shard has capacity left"
    details = {
        "shardId": sample.shard_id,
        "partitionKey": count.key,
        "share": round(share, 4),
        "records": count.records,
        "userRecords": keys.user_records,
        "aggregates": keys.aggregates,
    }
    return Finding(Check.KEYS, Severity.WARNING if busy else Severity.NOTE, found, todo, details)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"

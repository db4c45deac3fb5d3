"""Operations on stream settings: retention, encryption, monitoring, mode, record size, throughput, record distribution."""

from __future__ import annotations

from kinstream import service_quotas
from kinstream.local.operations import requests, responses
from kinstream.local.operations.naming import CallContext, parse_stream_arn, stream_arn, stream_name
from kinstream.local.operations.requests import METRICS
from kinstream.local.state.model import ACCOUNT, Change, Stream
from kinstream.local.state.request_error import invalid, limit_exceeded, validation
from kinstream.local.state.state import State, within_a_day
from kinstream.local.storage.record_store import Store

ENCRYPTIONS_A_DAY = 25
"""Maximum times in 24 hours that encryption of a stream can be started, and that it can be stopped (API reference)."""

MODES_A_DAY = 2
"""Maximum changes of the mode of a stream in 24 hours (developer guide, "Choose the data stream capacity mode")."""

WARM_MAX_MIBPS = 10 * 1024
"""Maximum warm throughput of a stream, 10 GiB per second (API reference, `UpdateStreamWarmThroughput`)."""


class SettingsOperations:
    """The operations on stream settings. A stream is UPDATING for a while after a change."""

    def __init__(self, state: State, store: Store) -> None:
        self._state = state
        self._store = store

    async def increase_retention(self, request: requests.StreamRetentionPeriod, call: CallContext) -> None:
        """IncreaseStreamRetentionPeriod. The current period is accepted too, and changes nothing."""
        stream, hours = self._retention(request)
        current = stream.settings.retention_hours
        if hours < current:
            raise invalid(
                f"Requested retention period ({hours} hours) for stream {stream.name} can not be shorter than existing "
                f"retention period ({current} hours). Use DecreaseRetentionPeriod API."
            )
        if hours != current:
            await self._change(stream, Change(retention_hours=hours), call)

    async def decrease_retention(self, request: requests.StreamRetentionPeriod, call: CallContext) -> None:
        """DecreaseStreamRetentionPeriod. The current period is accepted too, and changes nothing."""
        stream, hours = self._retention(request)
        current = stream.settings.retention_hours
        if hours > current:
            raise invalid(
                f"Requested retention period ({hours} hours) for stream {stream.name} can not be longer than existing "
                f"retention period ({current} hours). Use IncreaseRetentionPeriod API."
            )
        if hours != current:
            await self._change(stream, Change(retention_hours=hours), call)

    async def start_encryption(self, request: requests.StreamEncryption, call: CallContext) -> None:
        """StartStreamEncryption. Any key id is accepted, and records are not encrypted, because KMS is not simulated."""
        stream = self._encryption(request, "StartStreamEncryption", call)
        await self._change(stream, Change(key_id=request.key_id), call)

    async def stop_encryption(self, request: requests.StreamEncryption, call: CallContext) -> None:
        """StopStreamEncryption."""
        stream = self._encryption(request, "StopStreamEncryption", call)
        await self._change(stream, Change(key_id=""), call)

    async def enable_monitoring(
        self, request: requests.EnhancedMonitoring, call: CallContext
    ) -> responses.EnhancedMonitoring:
        """EnableEnhancedMonitoring."""
        stream = self._state.active(stream_name(request))
        return await self._monitor(stream, {*stream.settings.metrics, *_metrics(request)}, call)

    async def disable_monitoring(
        self, request: requests.EnhancedMonitoring, call: CallContext
    ) -> responses.EnhancedMonitoring:
        """DisableEnhancedMonitoring."""
        stream = self._state.active(stream_name(request))
        return await self._monitor(stream, {*stream.settings.metrics} - _metrics(request), call)

    async def update_mode(self, request: requests.UpdateStreamMode, call: CallContext) -> None:
        """UpdateStreamMode. The stream keeps its shards, but an on-demand stream has at least `ON_DEMAND_SHARDS`."""
        stream = self._state.active(parse_stream_arn(request.stream_arn))
        details, warm = request.stream_mode_details, request.warm_mibps
        on_demand = details is not None and details.stream_mode == "ON_DEMAND"
        if warm is not None:
            if not on_demand:
                raise invalid("WarmThroughputMiBps can only be specified for a stream in ON_DEMAND mode.")
            check_warm(self._state, warm, call.now)
        settings = stream.settings
        if on_demand == settings.on_demand and warm is None:
            return
        switched = within_a_day(settings.switched, call.now)
        if on_demand != settings.on_demand:
            if len(switched) >= MODES_A_DAY:
                raise limit_exceeded(
                    f"Stream {stream.name} under account {ACCOUNT} has reached the limit of {MODES_A_DAY} UpdateStreamMode "
                    "operations in a rolling 24-hour period."
                )
            switched.append(int(call.now * 1000))
        # A stream keeps its shards when its mode changes (developer guide, "Switch between capacity modes").
        shards = warm if warm is not None and warm > len(stream.open) else None
        change = Change(on_demand=on_demand, warm_mibps=warm, shards=shards)
        await self._store.write(self._state.change(stream.name, change, call.now, switched=switched))

    async def update_record_size(self, request: requests.UpdateMaxRecordSize, call: CallContext) -> None:
        """UpdateMaxRecordSize."""
        stream = self._state.active(parse_stream_arn(request.stream_arn))
        await self._change(stream, Change(max_record_kib=request.max_record_kib), call)

    async def update_warm_throughput(
        self, request: requests.UpdateStreamWarmThroughput, call: CallContext
    ) -> responses.UpdateStreamWarmThroughput:
        """UpdateStreamWarmThroughput. The stream gets the necessary shards, and keeps them."""
        stream = self._state.active(stream_name(request))
        warm = request.warm_mibps or 0
        if not stream.settings.on_demand:
            raise validation(
                f"Request is invalid. Stream {stream.name} under account {ACCOUNT} is in Provisioned mode."
            )
        check_warm(self._state, warm, call.now)
        before = warm_throughput(stream)
        shards = warm if warm > len(stream.open) else None
        await self._change(stream, Change(warm_mibps=warm, shards=shards), call)
        current = before.current if before else len(stream.open)
        return responses.UpdateStreamWarmThroughput(
            stream_arn(stream, call), stream.name, responses.WarmThroughput(warm, current)
        )

    async def update_distribution(
        self, request: requests.UpdateStreamRecordDistributionStrategy, call: CallContext
    ) -> None:
        """UpdateStreamRecordDistributionStrategy. It takes effect immediately."""
        stream = self._state.active(parse_stream_arn(request.stream_arn))
        spread = request.record_distribution_strategy == "AUTO"
        if spread and not stream.settings.on_demand:
            raise invalid("RecordDistributionStrategy AUTO is only supported for a stream in ON_DEMAND mode.")
        await self._store.write(self._state.update(stream.name, spread=spread))

    async def _change(self, stream: Stream, change: Change, call: CallContext) -> None:
        await self._store.write(self._state.change(stream.name, change, call.now))

    def _retention(self, request: requests.StreamRetentionPeriod) -> tuple[Stream, int]:
        """Return the stream and the requested hours. Raises RequestError if they are out of range."""
        stream = self._state.active(stream_name(request))
        hours = request.retention_period_hours or 0
        if hours < service_quotas.RETENTION_DEFAULT_HOURS:
            raise invalid(
                f"Minimum allowed retention period is {service_quotas.RETENTION_DEFAULT_HOURS} hours. Requested "
                f"retention period ({hours} hours) is too short."
            )
        if hours > service_quotas.RETENTION_MAX_HOURS:
            raise invalid(
                f"Maximum allowed retention period is {service_quotas.RETENTION_MAX_HOURS} hours. Requested "
                f"retention period ({hours} hours) is too long."
            )
        return stream, hours

    def _encryption(self, request: requests.StreamEncryption, operation: str, call: CallContext) -> Stream:
        """Return the stream if its encryption can be started or stopped. Raises RequestError."""
        if request.encryption_type != "KMS":
            raise invalid("KMS is the only valid EncryptionType.")
        stream = self._state.active(stream_name(request))
        starts = operation == "StartStreamEncryption"
        alike = [e.since for e in stream.settings.encryptions if bool(e.key_id) == starts]
        if len(within_a_day(alike, call.now)) >= ENCRYPTIONS_A_DAY:
            raise limit_exceeded(
                f"Stream {stream.name} under account {ACCOUNT} has reached the limit of {ENCRYPTIONS_A_DAY} {operation} "
                "operations in a rolling 24-hour period."
            )
        return stream

    async def _monitor(self, stream: Stream, desired: set[str], call: CallContext) -> responses.EnhancedMonitoring:
        current = stream.settings.metrics
        metrics = [name for name in METRICS if name in desired]
        await self._change(stream, Change(metrics=metrics), call)
        return responses.EnhancedMonitoring(stream.name, current, metrics, stream_arn(stream, call))


def check_warm(state: State, warm: int, now: float) -> None:
    """Refuse a warm throughput that is out of range or not available to the account."""
    if not state.account.committed(now):
        raise validation(
            "Warm throughput can only be specified in an account that has MinimumThroughputBillingCommitment enabled."
        )
    if warm > WARM_MAX_MIBPS:
        raise limit_exceeded(f"WarmThroughputMiBps {warm} is more than the limit of {WARM_MAX_MIBPS} for a stream.")


def encryption_type(stream: Stream) -> str:
    """Return the encryption type of records that are written now."""
    return "NONE" if stream.settings.key_id is None else "KMS"


def warm_throughput(stream: Stream) -> responses.WarmThroughput | None:
    """Return the warm throughput of a stream as in descriptions, or None if it was never set."""
    warm = stream.settings.warm_mibps
    if warm is None:
        return None
    pending = stream.settings.pending
    target = pending.warm_mibps if isinstance(pending, Change) and pending.warm_mibps is not None else warm
    return responses.WarmThroughput(target, warm)


def _metrics(request: requests.EnhancedMonitoring) -> set[str]:
    named = {*(request.shard_level_metrics or [])}
    return {*METRICS} if "ALL" in named else named

"""Operations on the account: limits and settings."""

from __future__ import annotations

from kinstream.local.operations import requests, responses
from kinstream.local.operations.naming import CallContext
from kinstream.local.state.model import Account
from kinstream.local.state.state import DAY_MILLIS, ON_DEMAND_STREAMS, SHARD_LIMIT, State
from kinstream.local.storage.record_store import Store

COMMITMENT_MILLIS = DAY_MILLIS
"""Minimum duration of a minimum throughput billing commitment (developer guide, On-demand Advantage: 24 hours)."""


class AccountOperations:
    """The operations on the account."""

    def __init__(self, state: State, store: Store) -> None:
        self._state = state
        self._store = store

    async def describe_limits(self, request: requests.Nothing, call: CallContext) -> responses.DescribeLimits:
        """DescribeLimits."""
        on_demand = sum(stream.settings.on_demand for stream in self._state.streams.values())
        return responses.DescribeLimits(SHARD_LIMIT, self._state.open_shards(), on_demand, ON_DEMAND_STREAMS)

    async def describe_settings(self, request: requests.Nothing, call: CallContext) -> responses.AccountSettings:
        """DescribeAccountSettings."""
        return _response(self._state.account, call)

    async def update_settings(
        self, request: requests.UpdateAccountSettings, call: CallContext
    ) -> responses.AccountSettings:
        """UpdateAccountSettings. A cancelled commitment continues until its minimum duration is over."""
        wanted = request.minimum_throughput_billing_commitment
        account, now = self._state.account, int(call.now * 1000)
        committed = account.committed(call.now)
        if wanted is not None and wanted.status == "ENABLED":
            changed = Account(started=account.started if committed else now)
        elif committed and account.ends is None:
            changed = Account(started=account.started, ends=max(now, (account.started or 0) + COMMITMENT_MILLIS))
        else:
            changed = account
        if changed != account:
            await self._store.write(self._state.set_account(changed))
        return _response(changed, call)


def _response(account: Account, call: CallContext) -> responses.AccountSettings:
    commitment = responses.MinimumThroughputBillingCommitment("DISABLED")
    if account.started is not None:
        commitment.started_at = account.started / 1000
        if account.committed(call.now):
            commitment.status = "ENABLED" if account.ends is None else "ENABLED_UNTIL_EARLIEST_ALLOWED_END"
            commitment.earliest_allowed_end_at = (account.started + COMMITMENT_MILLIS) / 1000
        elif account.ends is not None:
            commitment.ended_at = account.ends / 1000
    return responses.AccountSettings(commitment)

"""The account: its limits and its settings, and who it is (AWS STS, which some Kinesis clients ask too)."""

from __future__ import annotations

import uuid
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from kinstream.local import answers, requests
from kinstream.local.naming import Call
from kinstream.local.refusal import Refused
from kinstream.local.state import ACCOUNT, DAY_MILLIS, ON_DEMAND_STREAMS, SHARD_LIMIT, Account, State
from kinstream.local.store import Store

COMMITMENT_MILLIS = DAY_MILLIS
"""How long a commitment to a minimum throughput holds at least (developer guide, On-demand Advantage: 24 hours)."""

_STS = "https://sts.amazonaws.com/doc/2011-06-15/"
_STS_VERSION = "2011-06-15"


class AccountSettings:
    """The operations on the account."""

    def __init__(self, state: State, store: Store) -> None:
        self._state = state
        self._store = store

    async def describe_limits(self, request: requests.Nothing, call: Call) -> answers.DescribeLimits:
        """DescribeLimits."""
        on_demand = sum(stream.settings.on_demand for stream in self._state.streams.values())
        return answers.DescribeLimits(SHARD_LIMIT, self._state.open_shards(), on_demand, ON_DEMAND_STREAMS)

    async def describe_settings(self, request: requests.Nothing, call: Call) -> answers.AccountSettings:
        """DescribeAccountSettings."""
        return _answer(self._state.account, call)

    async def update_settings(self, request: requests.UpdateAccountSettings, call: Call) -> answers.AccountSettings:
        """UpdateAccountSettings. A commitment that is ended goes on until it has lasted its least time."""
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
            await self._store.write(self._state.commit(changed))
        return _answer(changed, call)


def _answer(account: Account, call: Call) -> answers.AccountSettings:
    commitment = answers.MinimumThroughputBillingCommitment("DISABLED")
    if account.started is not None:
        commitment.started_at = account.started / 1000
        if account.committed(call.now):
            commitment.status = "ENABLED" if account.ends is None else "ENABLED_UNTIL_EARLIEST_ALLOWED_END"
            commitment.earliest_allowed_end_at = (account.started + COMMITMENT_MILLIS) / 1000
        elif account.ends is not None:
            commitment.ended_at = account.ends / 1000
    return answers.AccountSettings(commitment)


def caller_identity(body: bytes) -> bytes:
    """Answer a request to AWS STS, which is a form. Only GetCallerIdentity is there.

    Raises:
        Refused: It is another one.
    """
    try:
        form = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise Refused("MalformedInput", "The request is no form.") from None
    action, version = (form.get(name, [""])[0] for name in ("Action", "Version"))
    if action != "GetCallerIdentity" or version != _STS_VERSION:
        raise Refused("InvalidAction", f"Could not find operation {action} for version {version}")
    result = f"<Arn>arn:aws:iam::{ACCOUNT}:root</Arn><UserId>{ACCOUNT}</UserId><Account>{ACCOUNT}</Account>"
    return (
        f'<GetCallerIdentityResponse xmlns="{_STS}"><GetCallerIdentityResult>{result}</GetCallerIdentityResult>'
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    ).encode()


def refusal(refused: Refused) -> bytes:
    """Return a refusal as AWS STS gives it."""
    return (
        f'<ErrorResponse xmlns="{_STS}"><Error><Type>Sender</Type><Code>{escape(refused.code)}</Code>'
        f"<Message>{escape(refused.message)}</Message></Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
    ).encode()

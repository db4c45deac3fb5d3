"""Operations on resource policies of streams and consumers. Policies are stored but not enforced."""

from __future__ import annotations

import json

from kinstream.local.operations import requests, responses
from kinstream.local.operations.naming import CallContext, find_consumer, parse_consumer_arn, parse_stream_arn
from kinstream.local.state.request_error import invalid, not_found
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import Store

MAX_POLICY_CHARACTERS = 20_480
"""Maximum length of a policy (developer guide, "Share your data stream": 20 KB)."""


class PolicyOperations:
    """The operations on resource policies."""

    def __init__(self, state: State, store: Store) -> None:
        self._state = state
        self._store = store

    async def put_resource_policy(self, request: requests.PutResourcePolicy, call: CallContext) -> None:
        """PutResourcePolicy."""
        policy = request.policy or ""
        _check(policy)
        await self._store_policy(request.resource_arn or "", policy)

    async def get_resource_policy(
        self, request: requests.ResourceRequest, call: CallContext
    ) -> responses.GetResourcePolicy:
        """GetResourcePolicy. The response is an empty policy if the resource has no policy, as with AWS."""
        return responses.GetResourcePolicy(self._policy(request.resource_arn or "") or "{}")

    async def delete_resource_policy(self, request: requests.ResourceRequest, call: CallContext) -> None:
        """DeleteResourcePolicy."""
        arn = request.resource_arn or ""
        if self._policy(arn) is None:
            raise not_found(f"No resource policy found for resource ARN {arn}.")
        await self._store_policy(arn, None)

    def _policy(self, arn: str) -> str | None:
        found = parse_consumer_arn(arn)
        if found is None:
            return self._state.stream(parse_stream_arn(arn)).settings.policy
        return find_consumer(self._state, found)[1].policy

    async def _store_policy(self, arn: str, policy: str | None) -> None:
        found = parse_consumer_arn(arn)
        if found is None:
            events = self._state.update(parse_stream_arn(arn), policy=policy)
        else:
            events = self._state.update_consumer(*find_consumer(self._state, found), policy=policy)
        await self._store.write(events)


def _check(policy: str) -> None:
    """Refuse a text that is not a policy. Raises RequestError."""
    if len(policy) > MAX_POLICY_CHARACTERS:
        raise invalid(f"The policy is longer than {MAX_POLICY_CHARACTERS} characters.")
    try:
        document = json.loads(policy)
    except (ValueError, RecursionError):
        raise invalid("The policy is not in the valid JSON format.") from None
    if not isinstance(document, dict) or not isinstance(document.get("Statement"), (dict, list)):
        raise invalid("The policy has no Statement.")

"""Operations on registered consumers (enhanced fan-out): register, describe, list, deregister."""

from __future__ import annotations

import msgspec

from kinstream.local.operations import requests, responses
from kinstream.local.operations.naming import (
    CallContext,
    check_token_age,
    consumer_arn,
    consumer_not_found,
    find_consumer,
    millis,
    parse_consumer_arn,
    parse_stream_arn,
    stream_arn,
)
from kinstream.local.operations.tag_operations import tags_after
from kinstream.local.operations.tokens import ConsumersPage, TokenCodec
from kinstream.local.state.model import ACCOUNT, Consumer, Stream
from kinstream.local.state.request_error import invalid, not_found
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import Store

LIST_CONSUMERS = 100
"""Maximum consumers in a ListStreamConsumers response (API reference, `ListStreamConsumers`)."""


class ConsumerOperations:
    """The operations on registered consumers."""

    def __init__(self, state: State, store: Store, tokens: TokenCodec) -> None:
        self._state = state
        self._store = store
        self._tokens = tokens

    async def register(
        self, request: requests.RegisterStreamConsumer, call: CallContext
    ) -> responses.RegisterStreamConsumer:
        """RegisterStreamConsumer."""
        stream, name = self._state.stream(parse_stream_arn(request.stream_arn)), request.consumer_name or ""
        tags = tags_after(request.tags or {}, f"consumer {name}")
        events = self._state.register(stream.name, name, call.now, tags)
        response = _response(stream, stream.settings.consumers[name], call)
        await self._store.write(events)
        return responses.RegisterStreamConsumer(response)

    async def describe(self, request: requests.ConsumerRequest, call: CallContext) -> responses.DescribeStreamConsumer:
        """DescribeStreamConsumer."""
        stream, consumer = self._find(request)
        return responses.DescribeStreamConsumer(
            responses.ConsumerDescription(
                consumer_name=consumer.name,
                consumer_arn=consumer_arn(stream, consumer, call),
                consumer_status=consumer.status.value,
                consumer_creation_timestamp=consumer.created / 1000,
                stream_arn=stream_arn(stream, call),
            )
        )

    async def deregister(self, request: requests.ConsumerRequest, call: CallContext) -> None:
        """DeregisterStreamConsumer."""
        await self._store.write(self._state.deregister(*self._find(request), call.now))

    async def list(self, request: requests.ListStreamConsumers, call: CallContext) -> responses.ListStreamConsumers:
        """ListStreamConsumers."""
        stream = self._state.stream(parse_stream_arn(request.stream_arn))
        page = self._page(request, stream, call)
        consumers = stream.settings.consumers
        names = sorted(name for name in consumers if name > page.after)
        chosen = names[: min(request.max_results or LIST_CONSUMERS, LIST_CONSUMERS)]
        more = len(chosen) < len(names)
        token = msgspec.structs.replace(page, after=chosen[-1], issued=int(call.now * 1000)) if more else None
        return responses.ListStreamConsumers(
            [_response(stream, consumers[name], call) for name in chosen],
            self._tokens.encode(token) if token else None,
        )

    def _page(self, request: requests.ListStreamConsumers, stream: Stream, call: CallContext) -> ConsumersPage:
        """Return the position at which the listing starts. Raises RequestError."""
        created = stream.settings.created
        created_at = request.stream_creation_timestamp
        if request.next_token is None:
            if created_at is not None and millis(created_at) // 1000 != created // 1000:
                raise not_found(f"Stream {stream.name} under account {ACCOUNT} not found.")
            return ConsumersPage(stream.name, created, "", 0)
        if created_at is not None:
            raise invalid("NextToken and StreamCreationTimestamp cannot be provided together.")
        page = self._tokens.decode(request.next_token, ConsumersPage)
        if page is None or (page.stream, page.created) != (stream.name, created):
            raise invalid("NextToken is invalid.")
        check_token_age(page.issued, call)
        return page

    def _find(self, request: requests.ConsumerRequest) -> tuple[Stream, Consumer]:
        """Return the consumer that a request names, and its stream. Raises RequestError unless it names exactly one."""
        if request.consumer_arn is not None:
            found = parse_consumer_arn(request.consumer_arn)
            if found is None:
                raise invalid(f"ConsumerARN {request.consumer_arn} is invalid.")
            if request.consumer_name not in (None, found.name):
                raise invalid("ParsedConsumerArn and ConsumerARN name different consumers.")
            if request.stream_arn is not None and parse_stream_arn(request.stream_arn) != found.stream:
                raise invalid("StreamARN and ConsumerARN name different streams.")
            return find_consumer(self._state, found)
        if request.stream_arn is None or request.consumer_name is None:
            raise invalid("Either ConsumerARN, or StreamARN and ParsedConsumerArn should be provided.")
        stream = self._state.stream(parse_stream_arn(request.stream_arn))
        consumer = stream.settings.consumers.get(request.consumer_name)
        if consumer is None:
            raise consumer_not_found(request.consumer_name, stream)
        return stream, consumer


def _response(stream: Stream, consumer: Consumer, call: CallContext) -> responses.ConsumerResponse:
    return responses.ConsumerResponse(
        consumer_name=consumer.name,
        consumer_arn=consumer_arn(stream, consumer, call),
        consumer_status=consumer.status.value,
        consumer_creation_timestamp=consumer.created / 1000,
    )

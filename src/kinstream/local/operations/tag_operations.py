"""Operations on the tags of streams and consumers, by stream name and by ARN."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kinstream.local.operations import requests, responses
from kinstream.local.operations.naming import (
    CallContext,
    find_consumer,
    parse_consumer_arn,
    parse_stream_arn,
    stream_name,
)
from kinstream.local.state.model import ACCOUNT
from kinstream.local.state.request_error import invalid
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import Store

MAX_TAGS = 50
"""Maximum tags of a stream or consumer (API reference, `AddTagsToStream`, `TagResource`)."""

LIST_TAGS = 50
"""Tags in a ListTagsForStream response if no limit is given, which are all tags."""

_OTHER = re.compile(r"[^\w\s.:/=+\-@%]")
_RESERVED = "aws:"


class TagOperations:
    """The operations on tags."""

    def __init__(self, state: State, store: Store) -> None:
        self._state = state
        self._store = store

    async def add_tags_to_stream(self, request: requests.AddTagsToStream, call: CallContext) -> None:
        """AddTagsToStream."""
        await self._tag_stream(stream_name(request), request.tags or {})

    async def list_tags_for_stream(
        self, request: requests.ListTagsForStream, call: CallContext
    ) -> responses.ListTagsForStream:
        """ListTagsForStream."""
        stream = self._state.stream(stream_name(request))
        after = request.exclusive_start_tag_key or ""
        found = [tag for tag in _responses(stream.settings.tags) if tag.key > after]
        page = found[: request.limit or LIST_TAGS]
        return responses.ListTagsForStream(page, len(page) < len(found))

    async def remove_tags_from_stream(self, request: requests.RemoveTagsFromStream, call: CallContext) -> None:
        """RemoveTagsFromStream. Absent tags are ignored."""
        await self._untag_stream(stream_name(request), request.tag_keys or [])

    async def tag_resource(self, request: requests.TagResource, call: CallContext) -> None:
        """TagResource."""
        arn, tags = request.resource_arn or "", request.tags or {}
        found = parse_consumer_arn(arn)
        if found is None:
            await self._tag_stream(parse_stream_arn(arn), tags)
            return
        stream, consumer = find_consumer(self._state, found)
        after = tags_after(tags, f"consumer {consumer.name}", consumer.tags)
        await self._store.write(self._state.update_consumer(stream, consumer, tags=after))

    async def untag_resource(self, request: requests.UntagResource, call: CallContext) -> None:
        """UntagResource."""
        arn, keys = request.resource_arn or "", request.tag_keys or []
        found = parse_consumer_arn(arn)
        if found is None:
            await self._untag_stream(parse_stream_arn(arn), keys)
            return
        stream, consumer = find_consumer(self._state, found)
        await self._store.write(self._state.update_consumer(stream, consumer, tags=_without(consumer.tags, keys)))

    async def list_tags_for_resource(
        self, request: requests.ResourceRequest, call: CallContext
    ) -> responses.ListTagsForResource:
        """ListTagsForResource."""
        arn = request.resource_arn or ""
        found = parse_consumer_arn(arn)
        if found is None:
            return responses.ListTagsForResource(_responses(self._state.stream(parse_stream_arn(arn)).settings.tags))
        _, consumer = find_consumer(self._state, found)
        return responses.ListTagsForResource(_responses(consumer.tags))

    async def _tag_stream(self, name: str, tags: dict[str, str]) -> None:
        before = self._state.active(name).settings.tags
        await self._store.write(self._state.update(name, tags=tags_after(tags, f"stream {name}", before)))

    async def _untag_stream(self, name: str, keys: list[str]) -> None:
        before = self._state.active(name).settings.tags
        await self._store.write(self._state.update(name, tags=_without(before, keys)))


def tags_after(tags: dict[str, str], resource: str, before: dict[str, str] | None = None) -> dict[str, str]:
    """Return the tags of a stream or consumer after adding new ones. Raises RequestError if one is not allowed.

    Args:
        tags: Tags to add.
        resource: Kind and name of the resource, for error messages.
        before: Existing tags.
    """
    texts = [*tags, *tags.values()]
    if any(_OTHER.search(text) for text in texts):
        raise invalid(
            "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @."
        )
    prefix = f"Failed to add tags to {resource} under account {ACCOUNT} because"
    if any("%" in text for text in texts):
        raise invalid(
            f"{prefix} some tags contained illegal characters. The allowed characters are Unicode letters, white-spaces, "
            "'_',',','/','=','+','-','@'."
        )
    if any(key.lower().startswith(_RESERVED) for key in tags):
        raise invalid(f"{prefix} tag keys that begin with {_RESERVED} are reserved.")
    after = {**(before or {}), **tags}
    if len(after) > MAX_TAGS:
        raise invalid(
            f"{prefix} a given {resource.partition(' ')[0]} cannot have more than {MAX_TAGS} tags associated with it."
        )
    return after


def _without(tags: dict[str, str], keys: Iterable[str]) -> dict[str, str]:
    gone = {*keys}
    return {key: value for key, value in tags.items() if key not in gone}


def _responses(tags: dict[str, str]) -> list[responses.Tag]:
    return [responses.Tag(key, tags[key]) for key in sorted(tags)]

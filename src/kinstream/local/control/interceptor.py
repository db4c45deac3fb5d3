"""Interceptors: the choice of the treatment of intercepted calls, and of the fault of a subscription.

A treatment is an action that returns a `Reply`, before or after the call is applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import msgspec

from kinstream.config import number, text, whole_number
from kinstream.errors import ConfigError
from kinstream.local.control import subscription_faults
from kinstream.local.control.interception import Action, InterceptedRequest, Interception, Parameters, members_of
from kinstream.local.control.reply import ConnectionDrop, Reply
from kinstream.local.control.subscription_faults import Fault
from kinstream.local.state.request_error import RequestError

_INJECTED = "Injected by an interception of the local Kinesis."
_STATUS = {"InternalFailure": 500, "InternalFailureException": 500, "ServiceUnavailable": 503}
"""HTTP status of the errors that are not client errors."""

Entries: TypeAlias = Iterable[int] | Callable[[Parameters], bool]
Changes: TypeAlias = Mapping[str, Any] | Callable[[Parameters], Mapping[str, Any]]
SetAction: TypeAlias = Callable[[Callable[[Interception], Action]], Interception]


class Interceptor:
    """Choice of the treatment of selected calls. Each method sets the interception and returns it."""

    def __init__(self, set_action: SetAction, operation: str | None, after_applying: bool) -> None:
        self._set_action = set_action
        self._operation = operation
        self._after_applying = after_applying

    @property
    def after_applying(self) -> Interceptor:
        """Return an interceptor that acts once the call has been applied: records are written, and then the call fails."""
        return Interceptor(self._set_action, self._operation, True)

    def after_events(self, events: int) -> SubscriptionInterceptor:
        """Return an interceptor that acts once the subscription has pushed this many events.

        Args:
            events: Number of events, including those without records. The first event follows immediately. 0 to 1e9.
        """
        if self._operation != "SubscribeToShard":
            raise ConfigError("after_events: only SubscribeToShard sends events")
        whole_number("events", events, 0, 10**9)
        return SubscriptionInterceptor(self._set_action, events)

    def watch(self) -> Interception:
        """Handle the call as usual, and record it."""
        return self._set(self._apply)

    def fail(self, code: str, message: str = _INJECTED, *, status: int | None = None) -> Interception:
        """Respond with an error.

        Args:
            code: Error code, such as "ProvisionedThroughputExceededException".
            message: Error message.
            status: HTTP status. None selects 500 for InternalFailure, 503 for ServiceUnavailable and 400 for all others.
        """
        text("code", code)
        chosen = _STATUS.get(code, 400) if status is None else status
        whole_number("status", chosen, 400, 599)

        async def action(intercepted: InterceptedRequest) -> Reply:
            if self._after_applying:
                await intercepted.apply()
            raise RequestError(code, message, status=chosen)

        return self._set(action)

    def fail_entries(
        self, entries: Entries, code: str = "ProvisionedThroughputExceededException", message: str = _INJECTED
    ) -> Interception:
        """Report some records of a PutRecords call as failed. They are written only with `after_applying`.

        Args:
            entries: Indexes of the records in the request, from 0, or a function that returns True for the parameters of
                a record that fails.
            code: Error code of the records.
            message: Error message of the records.
        """
        if self._operation != "PutRecords":
            raise ConfigError("fail_entries: only PutRecords has entries")
        text("code", code)
        chosen = entries if callable(entries) else frozenset(entries)

        async def action(intercepted: InterceptedRequest) -> Reply:
            return await _fail_entries(
                intercepted, chosen, {"ErrorCode": code, "ErrorMessage": message}, self._after_applying
            )

        return self._set(action)

    def delay(self, seconds: float) -> Interception:
        """Delay the call, or with `after_applying` its response.

        Args:
            seconds: Delay in seconds. 0 to 3600.
        """
        number("seconds", seconds, 0, 3600)

        async def action(intercepted: InterceptedRequest) -> Reply:
            if self._after_applying:
                reply = await intercepted.apply()
                await asyncio.sleep(seconds)
                return reply
            await asyncio.sleep(seconds)
            return await intercepted.apply()

        return self._set(action)

    def hold(self) -> Interception:
        """Hold the call, or with `after_applying` its response, until the interception is released."""

        def hold(interception: Interception) -> Action:
            async def action(intercepted: InterceptedRequest) -> Reply:
                if self._after_applying:
                    reply = await intercepted.apply()
                    await interception.until_released()
                    return reply
                await interception.until_released()
                return await intercepted.apply()

            return action

        return self._set_action(hold)

    def drop_connection(self, *, after_bytes: int = 0, reset: bool = False) -> Interception:
        """Close the connection instead of responding. Other requests in flight on it are lost too.

        Args:
            after_bytes: Bytes of the response body to send first, after its headers. Above 0 only with `after_applying`,
                because the response does not exist before.
            reset: True to end with a connection reset instead of a close. Only if nothing is sent first.
        """
        whole_number("after_bytes", after_bytes, 0, 2**31)
        if after_bytes and not self._after_applying:
            raise ConfigError(
                "after_bytes: the response does not exist before the call is applied. "
                "Use after_applying.drop_connection(after_bytes=...)."
            )
        if after_bytes and reset:
            raise ConfigError("reset: cannot be combined with after_bytes, because a reset may overtake these bytes")

        async def action(intercepted: InterceptedRequest) -> Reply:
            reply = await intercepted.apply() if self._after_applying else Reply()
            return replace(reply, drop=ConnectionDrop(after_bytes, reset))

        return self._set(action)

    def respond(
        self,
        status: int = 200,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Interception:
        """Respond with any status, body and headers.

        Args:
            status: HTTP status.
            body: Bytes to send unchanged, or members to encode in the format of the request (JSON or CBOR).
            headers: Headers that replace the usual ones of the same name. An empty value removes a header.
        """
        whole_number("status", status, 200, 599)
        if isinstance(body, Mapping):
            body = dict(body)
            try:
                msgspec.json.encode(body)
            except TypeError as error:
                raise ConfigError(f"body: {error}") from None
        header_values = dict(headers or {})
        for name, value in header_values.items():
            if not (name.isascii() and name.replace("-", "").isalnum() and value.isascii() and value.isprintable()):
                raise ConfigError(f"headers: {name!r} is not a valid header")

        async def action(intercepted: InterceptedRequest) -> Reply:
            if self._after_applying:
                await intercepted.apply()
            return Reply(body, status=status, headers=header_values)

        return self._set(action)

    def change(self, changes: Changes) -> Interception:
        """Change the parameters of the call, or with `after_applying` the members of its response.

        Args:
            changes: Members that replace those of the same name, or a function from all members to all members. None
                removes a member.
        """
        if not callable(changes) and not isinstance(changes, Mapping):
            raise ConfigError("changes: must be a mapping of members or a function")

        async def action(intercepted: InterceptedRequest) -> Reply:
            if self._after_applying:
                reply = await intercepted.apply()
                return reply if reply.subscription else Reply(_changed(members_of(reply.body), changes))
            changed = _changed(intercepted.call.parameters, changes)
            try:
                request = msgspec.convert(changed, type(intercepted.request), builtin_types=(bytes,))
            except msgspec.ValidationError as error:
                raise RequestError("SerializationException", f"Changed by an interception: {error}") from None
            return await intercepted.apply(request)

        return self._set(action)

    @staticmethod
    async def _apply(intercepted: InterceptedRequest) -> Reply:
        return await intercepted.apply()

    def _set(self, action: Action) -> Interception:
        return self._set_action(lambda _: action)


class SubscriptionInterceptor:
    """Faults of a subscription after a number of events. Each method sets the interception and returns it."""

    def __init__(self, set_action: SetAction, events: int) -> None:
        self._set_action = set_action
        self._events = events

    def drop_connection(self) -> Interception:
        """Close the connection in the middle of the next event. Other requests in flight on it are lost too."""
        return self._set(lambda _: subscription_faults.drop_connection(self._events))

    def corrupt(self, at: int = -5) -> Interception:
        """Invert one byte of the next event. Later events are intact.

        Args:
            at: Index of the byte in the message, from the end if negative. The default is the last byte of the payload.
                0 to 3 are the length, 8 to 11 the CRC of the prelude, -4 to -1 the CRC of the message.
        """
        whole_number("at", at, -(2**31), 2**31)
        return self._set(lambda _: subscription_faults.corrupt(self._events, at))

    def fail(self, code: str, message: str = _INJECTED) -> Interception:
        """End the subscription with an exception event.

        Args:
            code: Error code, such as "InternalFailureException".
            message: Error message.
        """
        error = RequestError(text("code", code), message)
        return self._set(lambda _: subscription_faults.fail(self._events, error))

    def silence(self) -> Interception:
        """Send nothing more, as on a half-open connection, until the interception is released or cancelled."""
        return self._set(lambda interception: subscription_faults.silence(self._events, interception.until_released))

    def end(self) -> Interception:
        """End the subscription early, without an error."""
        return self._set(lambda _: subscription_faults.end(self._events))

    def _set(self, fault: Callable[[Interception], Fault]) -> Interception:
        def inject(interception: Interception) -> Action:
            async def action(intercepted: InterceptedRequest) -> Reply:
                return replace(await intercepted.apply(), fault=fault(interception))

            return action

        return self._set_action(inject)


def _changed(members: Parameters, changes: Changes) -> Parameters:
    changed = changes(members) if callable(changes) else {**members, **changes}
    return {name: member for name, member in changed.items() if member is not None}


async def _fail_entries(
    intercepted: InterceptedRequest,
    chosen: frozenset[int] | Callable[[Parameters], bool],
    failure: dict[str, str],
    after_applying: bool,
) -> Reply:
    """Return the response to a PutRecords call in which some entries fail."""
    request: Any = intercepted.request
    entries = intercepted.call.parameters.get("Records", [])
    if not entries:
        return await intercepted.apply()
    results: list[Any]
    fails = [chosen(entry) if callable(chosen) else index in chosen for index, entry in enumerate(entries)]
    if after_applying:
        response = members_of((await intercepted.apply()).body)
        results = response["Records"]
    else:
        remaining = [entry for entry, failing in zip(request.records or [], fails, strict=True) if not failing]
        reduced = msgspec.structs.replace(request, records=remaining)
        response = (
            members_of((await intercepted.apply(reduced)).body)
            if remaining
            else {"EncryptionType": "NONE", "Records": []}
        )
        written = iter(response["Records"])
        results = [None if failing else next(written) for failing in fails]
    reported: list[Any] = [failure if failing else result for failing, result in zip(fails, results, strict=True)]
    response["Records"] = reported
    response["FailedRecordCount"] = len([result for result in reported if result.get("ErrorCode")])
    return Reply(response)

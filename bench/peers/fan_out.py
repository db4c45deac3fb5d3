"""One subscription over TLS: its bytes fetched by a transport, its frames decoded with both checksums.

kinstream's own transport and, under the same decoder (kinstream.aws.event_decoder), those of awscrt, aiohttp and httpx. The
first tenth of the bytes is not measured.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from flow import Meter, asked, in_loop

from kinstream.aws.event_decoder import MessageDecoder

flow = asked()
meter = Meter()
decoder = MessageDecoder()
PLACE = urlsplit(flow.url)
WINDOW_BYTES, FRAME_BYTES = 1 << 20, 1 << 18
"""HTTP/2 windows that kinstream requests. The other transports request the same if they can."""
HEADERS = {
    "X-Amz-Target": "Kinesis_20131202.SubscribeToShard",
    "Content-Type": f"application/x-amz-{flow.wire}-1.1",
}
BODY = json.dumps(
    {
        "ConsumerARN": flow.arn,
        "ShardId": "shardId-000000000000",
        "StartingPosition": {"Type": "TRIM_HORIZON"},
    }
).encode()


def take(chunk: bytes | memoryview) -> None:
    """Decode what has come."""
    for message in decoder.feed(chunk):
        flow.check(message.text(":message-type") == "event")
        if message.text(":event-type") == "SubscribeToShardEvent":
            meter.count += flow.event_records
    meter.size += len(chunk)
    meter.pushed(flow.records)


async def over_kinstream() -> None:
    from kinstream.aws.transport import HttpTransport
    from kinstream.clock import SystemClock
    from kinstream.config import ConnectionOptions

    transport = HttpTransport(
        flow.url, ConnectionOptions(ca_bundle=flow.ca), ca_bundle=None, progress=6.0, clock=SystemClock()
    )
    answer = await transport.stream(flow.url, list(HEADERS.items()), BODY, progress=6.0)
    while (chunk := await answer.read(20.0)) is not None:
        take(chunk)
    meter.end("kinstream")
    await answer.close()
    await transport.close()


async def over_aiohttp() -> None:
    import aiohttp  # type: ignore[import-not-found]

    context = ssl.create_default_context(cafile=flow.ca)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), read_bufsize=WINDOW_BYTES) as session,
        session.post(flow.url, data=BODY, headers=HEADERS) as response,
    ):
        async for chunk in response.content.iter_any():
            take(chunk)
    meter.end("aiohttp")


async def over_httpx() -> None:
    import httpx  # type: ignore[import-not-found]

    context = ssl.create_default_context(cafile=flow.ca)
    async with (
        httpx.AsyncClient(http2=True, verify=context) as client,
        client.stream("POST", flow.url, content=BODY, headers=HEADERS) as response,
    ):
        flow.check(response.http_version == "HTTP/2")
        async for chunk in response.aiter_raw():
            take(chunk)
    meter.end("httpx")


async def over_awscrt() -> None:
    from awscrt.aio.http import AIOHttp2ClientConnection  # type: ignore[import-not-found]

    connection = await AIOHttp2ClientConnection.new(**_awscrt_options())
    stream = connection.request(_awscrt_request())
    flow.check(await stream.get_response_status_code() == 200)
    while chunk := await stream.get_next_response_chunk():
        take(chunk)
    await stream.wait_for_completion()
    meter.end("awscrt")


async def over_awscrt_callbacks() -> None:
    """The same with no event loop of Python's: chunks are decoded in the thread that reads them."""
    from awscrt.http import Http2ClientConnection

    def on_body(http_stream: object, chunk: bytes, **_: object) -> None:
        take(chunk)

    connection = await asyncio.wrap_future(Http2ClientConnection.new(**_awscrt_options()))
    stream = connection.request(_awscrt_request(), on_body=on_body)
    stream.activate()
    flow.check(await asyncio.wrap_future(stream.completion_future) == 200)
    meter.end("awscrt")


def _awscrt_options() -> dict[str, Any]:
    from awscrt import http, io  # type: ignore[import-not-found]

    tls = io.TlsContextOptions()
    tls.override_default_trust_store_from_path(None, flow.ca)
    tls.alpn_list = ["h2"]
    connection = io.ClientTlsContext(tls).new_connection_options()
    connection.set_server_name(PLACE.hostname)
    return {
        "host_name": PLACE.hostname,
        "port": PLACE.port,
        "tls_connection_options": connection,
        "initial_settings": [
            http.Http2Setting(http.Http2SettingID.ENABLE_PUSH, 0),
            http.Http2Setting(http.Http2SettingID.INITIAL_WINDOW_SIZE, WINDOW_BYTES),
            http.Http2Setting(http.Http2SettingID.MAX_FRAME_SIZE, FRAME_BYTES),
        ],
    }


def _awscrt_request() -> Any:
    from awscrt import http

    headers = http.HttpHeaders([(":scheme", "https"), (":authority", PLACE.netloc)])
    headers.add_pairs([(name.lower(), value) for name, value in HEADERS.items()])
    headers.add("content-length", str(len(BODY)))
    return http.HttpRequest("POST", "/", headers, BytesIO(BODY))


TRANSPORTS = {
    "kinstream": over_kinstream,
    "aiohttp": over_aiohttp,
    "httpx": over_httpx,
    "awscrt": over_awscrt_callbacks if "callbacks" in flow.way else over_awscrt,
}
in_loop(TRANSPORTS[flow.client]())

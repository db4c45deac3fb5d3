"""Client of the DynamoDB API, for lease tables."""

from __future__ import annotations

from kinstream.aws.credentials import Provider
from kinstream.aws.dynamodb import CONTENT_TYPE, Item, Page
from kinstream.aws.request import Request
from kinstream.aws.service import DYNAMODB
from kinstream.aws.service_client import ServiceClient
from kinstream.aws.transport import Transport
from kinstream.clock import SYSTEM_CLOCK, Clock
from kinstream.config import ConnectionOptions, RetryPolicy, Timeouts
from kinstream.credentials import Credentials
from kinstream.usage import checks_options


@checks_options
class DynamoDBClient(ServiceClient):
    """Client of the DynamoDB API for asyncio. Its `send` sends the requests of `aws.dynamodb`.

    It shares signing, retries, clock correction and transport with the Kinesis client, and reads the same configuration.

    Args:
        region: Region such as "eu-central-1". None: from the AWS configuration.
        credentials: `Credentials`, or an async function that returns them. None: the default credential chain.
        endpoint_url: URL of the endpoint. None: from the AWS configuration (`AWS_ENDPOINT_URL_DYNAMODB`, `AWS_ENDPOINT_URL`,
            profile), else AWS's endpoint of the region.
        profile: Profile of `~/.aws/config`. None: from the AWS configuration.
        timeouts: Timeouts of attempts and calls.
        retry: Retries. None: from the AWS configuration, else 4 attempts with an initial delay of 25 ms, as in the SDKs.
        connection: CA bundle, proxy, connection pool, plain http.
        clock: Source of time. Tests pass another.
        transport: Network. Tests pass another. None: HTTP.

    Raises:
        ConfigError: An argument is invalid.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        credentials: Credentials | Provider | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
        timeouts: Timeouts = Timeouts(),
        retry: RetryPolicy | None = None,
        connection: ConnectionOptions = ConnectionOptions(),
        clock: Clock = SYSTEM_CLOCK,
        transport: Transport | None = None,
    ) -> None:
        super().__init__(
            DYNAMODB,
            CONTENT_TYPE,
            region=region,
            credentials=credentials,
            endpoint_url=endpoint_url,
            profile=profile,
            timeouts=timeouts,
            retry=retry,
            connection=connection,
            clock=clock,
            transport=transport,
        )

    async def all_items(self, request: Request[Page]) -> list[Item]:
        """Return the items of all pages of a query or scan. It is no snapshot: items may change between two pages.

        Args:
            request: Request for the first page.

        Raises:
            KinesisError: Any error of `send`, for any of the pages.
        """
        items: list[Item] = []
        following: Request[Page] | None = request
        while following is not None:
            page = await self.send(following)
            items += page.items
            following = page.next
        return items

"""Environment variables by which kinstream and the AWS SDKs reach a given Kinesis endpoint."""

from __future__ import annotations

from kinstream.credentials import Credentials


def environment(
    *, endpoint_url: str, region: str | None = None, credentials: Credentials | None = None
) -> dict[str, str]:
    """Return the environment variables for options of a client.

    Other services than Kinesis keep their endpoints.

    Args:
        endpoint_url: Endpoint of Kinesis.
        region: Region. None: that of the AWS configuration.
        credentials: Long-term credentials. None: those of the AWS configuration.
    """
    variables = {"AWS_ENDPOINT_URL_KINESIS": endpoint_url}
    if region is not None:
        variables["AWS_REGION"] = variables["AWS_DEFAULT_REGION"] = region  # boto3 reads only the second
    if credentials is not None:
        variables["AWS_ACCESS_KEY_ID"] = credentials.access_key_id
        variables["AWS_SECRET_ACCESS_KEY"] = credentials.secret_access_key
    return variables

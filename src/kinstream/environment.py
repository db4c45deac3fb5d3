"""Environment variables by which kinstream and the AWS SDKs reach a given Kinesis endpoint."""

from __future__ import annotations


def environment(endpoint_url: str, region: str, access_key_id: str, secret_access_key: str) -> dict[str, str]:
    """Return the environment variables for an endpoint of Kinesis. Other services keep their endpoints.

    Args:
        endpoint_url: The endpoint.
        region: The region.
        access_key_id: Access key ID of long-term credentials.
        secret_access_key: Secret access key.
    """
    return {
        "AWS_ENDPOINT_URL_KINESIS": endpoint_url,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,  # boto3 reads only this one
        "AWS_ACCESS_KEY_ID": access_key_id,
        "AWS_SECRET_ACCESS_KEY": secret_access_key,
    }

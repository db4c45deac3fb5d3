"""Facts about the credentials that the chain of AWS finds."""

from __future__ import annotations

from kinstream.aws.credentials import AwsChain
from kinstream.cli.doctor.judge.credentials import CredentialFacts

KEY_ID_CHARACTERS = 16
"""Minimum characters of an access key ID of AWS (IAM API reference, `AccessKey`). The end of a shorter one is not shown."""


async def credential_facts(chain: AwsChain) -> CredentialFacts:
    """Return facts about the credentials, without the secret.

    Args:
        chain: The chain. Its provider may send requests, such as to STS or to the metadata of an instance.

    Raises:
        CredentialsError: None were found, or their source failed.
        ConfigError: They contain characters that credentials of AWS do not have.
    """
    found = await chain.credentials()
    key_id = found.access_key_id
    key_end = key_id[-4:] if len(key_id) >= KEY_ID_CHARACTERS else None
    return CredentialFacts(chain.provider, key_end, found.session_token is not None, found.expiration)

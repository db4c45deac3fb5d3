"""Findings about credentials: their provider and their expiry, never their secret. Pure."""

from __future__ import annotations

import msgspec

from kinstream.cli.doctor.finding import Check, Finding, Severity
from kinstream.cli.time_span import time_span
from kinstream.consume.fetch.position import time_text

SOON = 900.0
"""Seconds before the expiration from which credentials that are not refreshed cause a warning."""

PROVIDERS = {
    "env": "the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "shared-credentials-file": "the file of credentials, ~/.aws/credentials",
    "config-file": "the configuration file, ~/.aws/config",
    "ec2-credentials-file": "the file that AWS_CREDENTIAL_FILE names",
    "boto-config": "the configuration file of Boto",
    "custom-process": "the credential_process of the profile",
    "assume-role": "a role that the profile assumes",
    "assume-role-with-web-identity": "a role for a web identity token, such as that of a Kubernetes service account",
    "sso": "IAM Identity Center (aws sso login)",
    "login": "a console session (aws login)",
    "container-role": "the role of the container",
    "iam-role": "the role of the instance",
}
"""Descriptions of botocore's credential providers (botocore, `credentials.py`, `METHOD` of each provider)."""

_NOT_REFRESHED = frozenset({"env", "shared-credentials-file", "config-file", "ec2-credentials-file", "boto-config"})


class CredentialFacts(msgspec.Struct, frozen=True):
    """Facts about credentials. None of them is secret.

    Attributes:
        provider: Name of botocore's provider. None: unknown.
        key_end: The last four characters of the access key ID. None: it is shorter than those of AWS.
        temporary: True if they have a session token.
        expiration: Their expiration in seconds since 1970. None: unknown, or they do not expire.
    """

    provider: str | None
    key_end: str | None
    temporary: bool
    expiration: float | None


def judge_credentials(facts: CredentialFacts, now: float) -> Finding:
    """Return the finding about credentials that were found.

    Args:
        facts: The facts.
        now: Time of this machine, in seconds since 1970.
    """
    provider = facts.provider or "unknown"
    found = f"found by the provider {provider}: {PROVIDERS.get(provider, 'no description')}"
    if facts.key_end is not None:
        found += f", access key ID ****{facts.key_end}"
    details = {"provider": facts.provider, "temporary": facts.temporary, "expiration": facts.expiration}
    refreshed = provider not in _NOT_REFRESHED
    severity = Severity.OK
    todo: str | None = None
    if facts.expiration is not None:
        left = facts.expiration - now
        if left <= 0:
            found += f". They expired {time_span(-left)} ago, by this machine's clock"
            severity, todo = Severity.PROBLEM, "Renew them, or correct this machine's clock"
        else:
            found += f". They expire at {time_text(facts.expiration)[:19]}Z, in {time_span(left)}"
            if refreshed:
                found += ", and are refreshed before"
            elif left < SOON:
                severity, todo = Severity.WARNING, "Renew them before a process that uses them is started"
    elif facts.temporary:
        found += ". They are temporary, and their source does not contain their expiration"
        severity, todo = (
            Severity.NOTE,
            "Use a profile, whose credentials are refreshed, for processes that run for hours",
        )
    else:
        found += ". They are long-term credentials, which do not expire"
    return Finding(Check.CREDENTIALS, severity, found, todo, details)


def judge_missing(problem: str) -> Finding:
    """Return the finding that credentials or the configuration of AWS cannot be read.

    Args:
        problem: Text of the error.
    """
    return Finding(
        Check.CREDENTIALS,
        Severity.PROBLEM,
        problem,
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws/config with --profile",
    )


def judge_rejected(problem: str) -> Finding:
    """Return the finding that the service rejected the credentials or the signature.

    Args:
        problem: Text of the error.
    """
    return Finding(
        Check.CREDENTIALS,
        Severity.PROBLEM,
        f"rejected: {problem}",
        "Check that they belong to the account, and that --profile and the environment variables select the intended ones",
    )

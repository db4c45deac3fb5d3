"""Findings about permissions: the denied requests of consumers, producers and fleets, and the policy that grants them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from kinstream.cli.doctor.finding import Check, Finding, Severity, listed
from kinstream.cli.iam.policy import Role, document, iam_policy


class Outcome(StrEnum):
    """Result of an action, as far as permissions are concerned."""

    ALLOWED = "allowed"
    DENIED = "denied"


PURPOSE = {
    Role.CONSUMER: ("kinesis:GetShardIterator", "kinesis:GetRecords"),
    Role.PRODUCER: ("kinesis:PutRecord", "kinesis:PutRecords"),
}
"""Actions that only a process of the role needs. Credentials without any of them are probably not meant for the role."""
_ANY_APPLICATION = "APPLICATION"


class Target(msgspec.Struct, frozen=True):
    """Resources that a process uses.

    Attributes:
        stream: Name of the stream.
        region: Its region.
        account: Its account ID. "*": unknown.
        application: Name of the application. None: none was named.
        table: DynamoDB table of its leases. None: not in DynamoDB, or none was named.
        fan_out: True if a consumer is registered with the name of the application.
        kms_key: ARN of the stream's KMS key. None: none of the account's own.
    """

    stream: str
    region: str
    account: str = "*"
    application: str | None = None
    table: str | None = None
    fan_out: bool = False
    kms_key: str | None = None


def judge_permissions(outcomes: Mapping[str, Outcome], target: Target) -> list[Finding]:
    """Return the findings about the requests of each role.

    Args:
        outcomes: Outcomes of actions. Unknown ones are missing.
        target: The resources.
    """
    usable = {role: any(outcomes.get(one) is Outcome.ALLOWED for one in own) for role, own in PURPOSE.items()}
    return [_judge_role(role, outcomes, target, usable) for role in PURPOSE]


def policy_of(role: Role, target: Target) -> dict[str, Any]:
    """Return the IAM policy of a role for these resources. Without a lease table, it has no statements about DynamoDB."""
    statements = iam_policy(
        target.application or _ANY_APPLICATION,
        target.stream,
        role,
        table=target.table,
        region=target.region,
        account=target.account,
        fan_out=target.application if target.fan_out else None,
        kms_key=target.kms_key,
    )
    if target.table is None:
        statements = [one for one in statements if not any(action.startswith("dynamodb:") for action in one.actions)]
    return document(statements)


def _judge_role(role: Role, outcomes: Mapping[str, Outcome], target: Target, usable: Mapping[Role, bool]) -> Finding:
    policy = policy_of(role, target)
    needed = sorted({action for statement in policy["Statement"] for action in statement["Action"]})
    refused = [action for action in needed if outcomes.get(action) is Outcome.DENIED]
    unknown = [action for action in needed if action not in outcomes]
    details = {"role": role.value, "denied": refused, "notChecked": unknown}
    rest = f". Not checked, because they change something or got no response: {listed(unknown, 12)}" if unknown else ""
    if not refused:
        allowed = len(needed) - len(unknown)
        text = f"{role.value}: {allowed} of {len(needed)} requests are allowed, and none is denied{rest}"
        severity = Severity.OK if allowed else Severity.NOTE
        return Finding(Check.PERMISSIONS, severity, text, None, details)
    found = f"{role.value}: denied: {', '.join(refused)}{rest}"
    todo = f"Attach the IAM policy of a {role.value}, which is printed with the findings"
    named = role is Role.CONSUMER and target.application is not None
    if usable[role] or named or not any(usable.values()):
        return Finding(Check.PERMISSIONS, Severity.PROBLEM, found, todo, details, policy)
    other = next(one for one in usable if usable[one])
    found += f". These credentials may be meant for a {other.value} only"
    return Finding(Check.PERMISSIONS, Severity.NOTE, found, f"If not: {todo[0].lower()}{todo[1:]}", details, policy)

"""Findings about credentials, the endpoint, the clock and permissions."""

from __future__ import annotations

import pytest

from kinstream.cli.doctor.finding import Severity
from kinstream.cli.doctor.judge.credentials import CredentialFacts, judge_credentials
from kinstream.cli.doctor.judge.endpoint import Reached, is_of_aws, judge_clock, judge_endpoint
from kinstream.cli.doctor.judge.permissions import Outcome, Target, judge_permissions
from kinstream.cli.iam.policy import Role

NOW = 1_800_000_000.0
OK, NOTE, WARNING, PROBLEM = Severity.OK, Severity.NOTE, Severity.WARNING, Severity.PROBLEM
A, D = Outcome.ALLOWED, Outcome.DENIED


@pytest.mark.parametrize(
    ("provider", "temporary", "expires_in", "severity"),
    [
        ("env", False, None, OK),
        ("env", True, None, NOTE),
        ("env", True, 899, WARNING),
        ("env", True, 901, OK),
        ("iam-role", True, 60, OK),
        ("iam-role", True, 0, PROBLEM),
        ("sso", True, -5, PROBLEM),
        (None, False, None, OK),
    ],
)
def test_expiry_of_credentials(
    provider: str | None, temporary: bool, expires_in: float | None, severity: Severity
) -> None:
    expiration = None if expires_in is None else NOW + expires_in
    found = judge_credentials(CredentialFacts(provider, "WXYZ", temporary, expiration), NOW)
    assert found.severity is severity
    assert (found.todo is None) is (severity is OK)
    assert "****WXYZ" in found.found
    assert f"by the provider {provider or 'unknown'}:" in found.found


@pytest.mark.parametrize(
    ("url", "seconds", "severities"),
    [
        ("https://kinesis.eu-west-1.amazonaws.com", 0.02, [OK]),
        ("https://kinesis.eu-west-1.amazonaws.com", 0.15, [NOTE]),
        ("https://kinesis.eu-west-1.amazonaws.com", 1.0, [WARNING]),
        ("http://127.0.0.1:4567", 0.001, [OK]),
        ("http://kinesis.test:4567", 0.001, [OK, WARNING]),
    ],
)
def test_latency_and_tls_of_an_endpoint(url: str, seconds: float, severities: list[Severity]) -> None:
    found = judge_endpoint(Reached(url, (9.0, seconds, seconds, 5.0)))
    assert [one.severity for one in found] == severities
    assert ("without TLS" in found[0].found) is url.startswith("http:")


def test_endpoints_of_aws_are_recognized() -> None:
    hosts = [
        "kinesis.eu-west-1.amazonaws.com",
        "kinesis.cn-north-1.amazonaws.com.cn",
        "1.data-kinesis.us-east-1.api.aws",
    ]
    assert all(is_of_aws(f"https://{host}") for host in hosts)
    assert not any(is_of_aws(url) for url in ("http://localhost:4567", "https://amazonaws.com.test"))


@pytest.mark.parametrize(
    ("ahead", "severity"),
    [
        (0.0, OK),
        (1.9, OK),
        (3.0, NOTE),
        (-59.0, NOTE),
        (60.0, WARNING),
        (-239.0, WARNING),
        (240.0, PROBLEM),
        (-600.0, PROBLEM),
    ],
)
def test_severity_of_a_wrong_clock(ahead: float, severity: Severity) -> None:
    found = judge_clock(ahead)
    assert found.severity is severity
    if severity is not OK:
        assert ("is 10.0 min ahead of" in found.found) is (ahead == -600.0)


READS = {
    "kinesis:DescribeStreamSummary": A,
    "kinesis:ListShards": A,
    "kinesis:GetShardIterator": A,
    "kinesis:GetRecords": A,
}
WRITES = {"kinesis:PutRecord": A, "kinesis:PutRecords": A}
NO_READS = {"kinesis:GetShardIterator": D, "kinesis:GetRecords": D}
NO_WRITES = {"kinesis:PutRecord": D, "kinesis:PutRecords": D}


@pytest.mark.parametrize(
    ("outcomes", "application", "severities"),
    [
        (READS | WRITES, None, [OK, OK]),
        (READS, None, [OK, OK]),
        (READS | NO_WRITES, None, [OK, NOTE]),
        (READS | WRITES | NO_READS, None, [NOTE, OK]),
        (READS | WRITES | NO_READS, "billing", [PROBLEM, OK]),
        (READS | WRITES | {"kinesis:GetRecords": D}, None, [PROBLEM, OK]),
        (READS | WRITES | {"kinesis:ListShards": D}, None, [PROBLEM, PROBLEM]),
        (NO_READS | NO_WRITES, None, [PROBLEM, PROBLEM]),
        ({}, None, [NOTE, NOTE]),
    ],
    ids=["all", "no-dry-run", "reader", "writer", "application", "no-records", "no-shards", "nothing", "unknown"],
)
def test_denied_requests_of_each_role(
    outcomes: dict[str, Outcome], application: str | None, severities: list[Severity]
) -> None:
    found = judge_permissions(outcomes, Target("events", "eu-west-1", application=application))
    assert [one.severity for one in found] == severities
    assert [one.details["role"] for one in found] == [Role.CONSUMER, Role.PRODUCER]
    assert [one.policy is not None for one in found] == [bool(one.details["denied"]) for one in found]


def test_policy_has_the_lease_table_and_the_fan_out_of_the_application() -> None:
    target = Target("events", "eu-west-1", "123456789012", "billing", "leases", fan_out=True)
    outcomes = READS | {"kinesis:SubscribeToShard": D, "dynamodb:Scan": A}
    consumer = judge_permissions(outcomes, target)[0]
    assert consumer.details["denied"] == ["kinesis:SubscribeToShard"]
    assert "dynamodb:PutItem" in consumer.details["notChecked"]
    assert consumer.policy is not None
    resources = {resource for statement in consumer.policy["Statement"] for resource in statement["Resource"]}
    stream = "arn:aws:kinesis:eu-west-1:123456789012:stream/events"
    assert {stream, f"{stream}/consumer/billing:*", "arn:aws:dynamodb:eu-west-1:123456789012:table/leases"} <= resources

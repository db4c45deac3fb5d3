"""The commands `kinstream leases` and `kinstream lag` with tables of the Kinesis Client Library (KCL), on moto."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from bench.ground import NotPossible
from tests.contract.servers.processes import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Running, install, running
from tests.contract.test_dynamodb_leases import load

from kinstream import Credentials, DynamoDBLeaseStore
from kinstream.cli.leases.access import observe_table
from kinstream.cli.leases.show import lines
from kinstream.cli.leases.survey import stream_names, survey

RECORDED = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "conformance" / "kcl_tables").glob("*.json")
    if not path.stem.endswith("-requests")
)
NUMBERS = count(1)
SHARD = "shardId-000000000000"


@pytest.fixture(scope="module")
def moto() -> Iterator[Running]:
    try:
        install("moto")
        with running("moto") as server:
            yield server
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture
def theirs(moto: Running) -> Any:
    """boto3's client of the same server."""
    keys = {"aws_access_key_id": ACCESS_KEY_ID, "aws_secret_access_key": SECRET_ACCESS_KEY}
    return boto3.client("dynamodb", region_name=REGION, endpoint_url=moto.url, **keys)


@pytest.fixture
def app() -> str:
    return f"commands-{next(NUMBERS)}"


def run(moto: Running, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    surroundings = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": moto.url,
        **environment,
    }
    command = [sys.executable, "-m", "kinstream", *arguments]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=60, check=False)


def make_table(theirs: Any, name: str, key: str, items: list[dict[str, Any]]) -> None:
    theirs.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for item in items:
        theirs.put_item(TableName=name, Item=item)


@pytest.mark.parametrize("state", RECORDED)
async def test_every_recorded_state_is_shown_at_80_and_160_columns(
    moto: Running, theirs: Any, app: str, state: str
) -> None:
    load(theirs, app, state)
    store = DynamoDBLeaseStore(
        endpoint_url=moto.url, region=REGION, credentials=Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    )
    table = store.table(app, "")
    observation = await observe_table(table, 0, failover=10)
    await table.close()
    names: dict[str | None, tuple[str | None, None]] = {
        identifier: (name, None) for identifier, name in stream_names(observation.view).items()
    }
    report = survey(
        observation, application=app, store=f"DynamoDB table {app}", streams=names or {None: (None, None)}, notes=[]
    )
    assert report.damaged == []
    assert report.leases
    assert report.mode in {"2X", "3X", "3X_TABLES", "UPGRADE_FROM_2X", "UNDECIDED"}
    for width in (80, 160):
        shown = list(lines(report, width))
        assert max(map(len, shown)) <= width
        for lease in report.leases:
            assert any(line.startswith(f"{lease.shard_id}  {lease.state.value}") for line in shown)


def test_handoff_of_java_workers_is_shown(moto: Running, theirs: Any, app: str) -> None:
    load(theirs, app, "kcl-3.4.2-handoff-during")
    shown = run(moto, "leases", app, "--observe", "1")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Mode 3X_TABLES: a leader assigns the leases (KCL 3.0 to 3.4)." in shown.stdout
    assert "handed off to worker-2: worker-1 does not renew it" in shown.stdout
    document = json.loads(run(moto, "leases", app, "--observe", "0", "--json").stdout)
    assert {worker["kind"] for worker in document["workers"]} == {"KCL"}
    assert document["leader"]["lock_seconds"] == 5.0


def test_leases_of_java_workers_are_released(moto: Running, theirs: Any, app: str) -> None:
    load(theirs, app, "kcl-2.7.2-killed")
    before = theirs.scan(TableName=app)["Items"]
    mine = {item["leaseKey"]["S"] for item in before if item.get("leaseOwner", {}).get("S") == "worker-3"}
    finished = {item["leaseKey"]["S"] for item in before if item["checkpoint"]["S"] == "SHARD_END"}
    assert mine - finished
    done = run(moto, "leases", "release", app, "--worker", "worker-3", "--failover", "1", "--yes")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        f"{len(mine - finished)} of {len(mine - finished)} steps were executed.",
    )
    after = {item["leaseKey"]["S"]: item for item in theirs.scan(TableName=app)["Items"]}
    assert {key for key, item in after.items() if "leaseOwner" not in item} == mine - finished
    unchanged = [item for item in before if item["leaseKey"]["S"] not in mine - finished]
    assert all(after[item["leaseKey"]["S"]] == item for item in unchanged)


def test_table_that_does_not_exist_is_not_created(moto: Running, theirs: Any, app: str) -> None:
    shown = run(moto, "leases", app)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert f"DescribeTable of table '{app}': ResourceNotFoundException: " in shown.stderr
    assert "check the table's name, region and account" in shown.stderr
    assert app not in theirs.list_tables()["TableNames"]
    make_table(theirs, app, "leaseKey", [])
    elsewhere = run(moto, "leases", app, AWS_REGION="eu-west-3")
    assert (elsewhere.returncode, "ResourceNotFoundException" in elsewhere.stderr) == (1, True)


def test_table_that_is_not_a_lease_table_is_refused(moto: Running, theirs: Any, app: str) -> None:
    make_table(theirs, app, "id", [])
    shown = run(moto, "leases", "billing", "--table", app)
    assert shown.returncode == 1
    assert shown.stderr == (
        f"kinstream leases: table '{app}': is not a lease table. Its key is id, and that of a lease table is leaseKey. Check"
        " --table\n"
    )


def test_damaged_rows_are_reported_and_the_others_shown(moto: Running, theirs: Any, app: str) -> None:
    lease = {"leaseKey": {"S": SHARD}, "leaseCounter": {"N": "3"}, "checkpoint": {"S": "TRIM_HORIZON"}}
    damaged = [
        {**lease, "leaseKey": {"S": "shardId-1\x1b[2J"}, "leaseCounter": {"S": "x"}},
        {"leaseKey": {"S": "Leader"}, "entityType": {"S": "LEADER"}, "ownerName": {"N": "3"}},
    ]
    make_table(theirs, app, "leaseKey", [lease, *damaged])
    shown = run(moto, "leases", app, "--observe", "0")
    assert shown.returncode == 0
    assert f"{SHARD}  free" in shown.stdout
    assert "row 'Leader': column 'ownerName' has an invalid value" in shown.stdout
    assert "lease 'shardId-1\\x1b[2J': column 'leaseCounter' has an invalid value" in shown.stdout
    assert "\x1b" not in shown.stdout
    document = json.loads(run(moto, "leases", app, "--observe", "0", "--json").stdout)
    assert sorted(row["key"] for row in document["damaged"]) == ["Leader", "shardId-1\x1b[2J"]


@pytest.mark.parametrize("missing", ["credentials", "region"])
def test_missing_configuration_is_one_line(moto: Running, tmp_path: Path, missing: str) -> None:
    empty = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": str(tmp_path / "none")}
    gone = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""} if missing == "credentials" else {"AWS_REGION": ""}
    shown = run(moto, "leases", "billing", **empty, **gone, AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "none"))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("kinstream leases: no ")
    assert missing in shown.stderr
    assert shown.stderr.count("\n") == 1

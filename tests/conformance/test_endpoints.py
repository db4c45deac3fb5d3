"""Our endpoints compared with those of botocore's own rule-set engine, with the rules of the service models."""

import itertools
from typing import Any

import botocore.session
import pytest
from botocore.endpoint_provider import EndpointProvider

from kinstream.aws.codec import BLOB_FIELDS, TIMESTAMP_FIELDS
from kinstream.aws.endpoint import DATA_OPERATIONS, QUEUE, aws_endpoint

ACCOUNT = "123456789012"
SESSION = botocore.session.Session()
LOADER = SESSION.get_component("data_loader")
MODEL: dict[str, Any] = LOADER.load_service_model("kinesis", "service-2")
PARTITIONS: dict[str, Any] = LOADER.load_data("partitions")
RULES = EndpointProvider(LOADER.load_service_model("kinesis", "endpoint-rule-set-1"), PARTITIONS)
DYNAMODB_RULES = EndpointProvider(LOADER.load_service_model("dynamodb", "endpoint-rule-set-1"), PARTITIONS)
REGIONS = sorted(
    (region, partition["id"])
    for partition in PARTITIONS["partitions"]
    for region in partition["regions"]
    if not region.endswith("-global")  # a name for the partition, of which Kinesis has no endpoint
)


def botocore_endpoint(region: str, operation: str, arns: dict[str, str], *, fips: bool, dual_stack: bool) -> str:
    context = MODEL["operations"][operation]["staticContextParams"]
    parameters: dict[str, Any] = {name: given["value"] for name, given in context.items()}
    parameters |= {"Region": region, "UseFIPS": fips, "UseDualStack": dual_stack, **arns}
    return str(RULES.resolve_endpoint(**parameters).url)


@pytest.mark.parametrize(("region", "partition"), REGIONS)
def test_endpoint_is_botocores(region: str, partition: str) -> None:
    stream = {"StreamARN": f"arn:{partition}:kinesis:{region}:{ACCOUNT}:stream/orders"}
    for operation, arns in (
        ("PutRecords", {}),
        ("PutRecords", stream),
        ("SplitShard", {}),
        ("SplitShard", stream),
        ("ReceiveQueueRecords", {}),
        ("ListQueues", {}),
    ):
        for fips, dual_stack in itertools.product((False, True), (False, True)):
            account = ACCOUNT if arns else None
            ours = aws_endpoint(region, operation=operation, account=account, fips=fips, dual_stack=dual_stack)
            theirs = botocore_endpoint(region, operation, arns, fips=fips, dual_stack=dual_stack)
            assert ours == theirs, (operation, arns)


@pytest.mark.parametrize("region", [region for region, _ in REGIONS])
def test_dynamodb_endpoint_is_botocores(region: str) -> None:
    for fips, dual_stack in itertools.product((False, True), (False, True)):
        ours = aws_endpoint(region, service="dynamodb", fips=fips, dual_stack=dual_stack)
        theirs = DYNAMODB_RULES.resolve_endpoint(Region=region, UseFIPS=fips, UseDualStack=dual_stack)
        assert ours == theirs.url


@pytest.mark.parametrize("operation", MODEL["operations"])
def test_every_operation_goes_to_the_models_plane(operation: str) -> None:
    static = MODEL["operations"][operation]["staticContextParams"]
    assert (operation in DATA_OPERATIONS) == (static["OperationType"]["value"] == "data")
    assert (QUEUE in operation) == (static.get("ResourceType", {}).get("value") == "queue")


def members_of(kind: str) -> set[str]:
    shapes = MODEL["shapes"]
    return {
        name
        for shape in shapes.values()
        for name, member in shape.get("members", {}).items()
        if shapes[member["shape"]]["type"] == kind
    }


def test_blobs_and_timestamps_are_the_models() -> None:
    assert members_of("blob") <= BLOB_FIELDS
    assert members_of("timestamp") <= TIMESTAMP_FIELDS

"""Environment variables for the options of a client."""

from __future__ import annotations

from kinstream.credentials import Credentials
from kinstream.environment import environment


def test_options_that_are_missing_have_no_variable() -> None:
    assert environment(endpoint_url="http://a") == {"AWS_ENDPOINT_URL_KINESIS": "http://a"}
    assert environment(endpoint_url="http://a", region="eu-west-1", credentials=Credentials("id", "secret")) == {
        "AWS_ENDPOINT_URL_KINESIS": "http://a",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }

"""Environment variables that redirect Kinesis, and nothing else."""

from __future__ import annotations

from kinstream.environment import environment


def test_only_kinesis_is_redirected() -> None:
    assert environment("http://127.0.0.1:4567", "eu-west-1", "key id", "secret") == {
        "AWS_ENDPOINT_URL_KINESIS": "http://127.0.0.1:4567",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "key id",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }

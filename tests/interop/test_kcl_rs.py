"""Workers of kcl-rs and kinstream share an application that is compatible with version 2 of the Kinesis Client Library."""

from __future__ import annotations

import os

import pytest
from tests.interop import scenarios
from tests.interop.application import Application

MIXED = pytest.mark.parametrize(
    "kinds", [("kcl-rs", "kinstream"), ("kinstream", "kcl-rs")], ids=["kcl-rs+kinstream", "kinstream+kcl-rs"]
)


@pytest.mark.skipif(not os.environ.get("KINSTREAM_INTEROP"), reason="without kinstream: runs with `make interop`")
@pytest.mark.parametrize("kinds", [("kcl-rs", "kcl-rs")], ids=["kcl-rs+kcl-rs"])
async def test_kcl_rs_resumes_inside_an_aggregate_if_the_leases_are_free(
    application: Application, kinds: tuple[str, ...]
) -> None:
    await scenarios.resume(application, kinds, free=True)


@MIXED
async def test_a_second_worker_takes_its_share_of_the_leases(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.share(application, kinds)


@pytest.mark.parametrize("kinds", [("kinstream", "kcl-rs")], ids=["kinstream+kcl-rs"])
async def test_kcl_rs_resumes_at_the_checkpoint_of_kinstream(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.resume(application, kinds)


@pytest.mark.parametrize("kinds", [("kcl-rs", "kinstream")], ids=["kcl-rs+kinstream"])
async def test_kinstream_resumes_at_the_checkpoint_of_kcl_rs(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.resume(application, kinds, free=True)


@pytest.mark.parametrize("kinds", [("kinstream", "kcl-rs")], ids=["kinstream+kcl-rs"])
async def test_a_split_and_a_merge_are_finished(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.reshard(application, kinds)

"""Arguments of `kinstream leases`, `lag` and `iam`: the default action, and values that are refused."""

from __future__ import annotations

import pytest

from kinstream.cli.leases import with_action
from kinstream.cli.main import main


@pytest.mark.parametrize(
    ("argv", "completed"),
    [
        (["leases", "billing"], ["leases", "show", "billing"]),
        (["leases", "--json", "billing"], ["leases", "show", "--json", "billing"]),
        (["leases", "show", "billing"], ["leases", "show", "billing"]),
        (["leases", "show", "show"], ["leases", "show", "show"]),
        (["leases", "release", "billing"], ["leases", "release", "billing"]),
        (["leases", "reset", "billing"], ["leases", "reset", "billing"]),
        (["leases", "--help"], ["leases", "--help"]),
        (["leases"], ["leases"]),
        (["lag", "billing"], ["lag", "billing"]),
        ([], []),
    ],
)
def test_show_is_the_default_action(argv: list[str], completed: list[str]) -> None:
    assert with_action(argv) == completed


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["leases"], "arguments are required: ACTION"),
        (["leases", "show"], "arguments are required: APPLICATION"),
        (["leases", "billing", "--observe", "-1"], "--observe: must be a number of seconds from 0, not '-1'"),
        (["leases", "billing", "--observe", "nan"], "--observe: must be a number of seconds from 0, not 'nan'"),
        (["leases", "billing", "--observe", "soon"], "--observe: must be a number of seconds from 0, not 'soon'"),
        (["leases", "billing", "--failover", "0.5"], "--failover: must be 1 to 3600 seconds, not '0.5'"),
        (["leases", "billing", "--bogus"], "kinstream leases show: error: unrecognized arguments: --bogus"),
        (["leases", "release", "billing"], "one of the arguments --shard --worker is required"),
        (["leases", "release", "billing", "--shard", "a", "--worker", "b"], "not allowed with argument --shard"),
        (["leases", "reset", "billing"], "arguments are required: --stream, --to"),
        (
            ["leases", "reset", "billing", "--stream", "s", "--to", "2026-01-31"],
            "--to: must be TRIM_HORIZON, LATEST, a time",
        ),
        (
            ["leases", "reset", "billing", "--stream", "s", "--to", "yesterday"],
            "or seconds since 1970, not 'yesterday'",
        ),
        (["lag", "billing"], "arguments are required: --stream"),
        (["lag", "billing", "--stream", "s", "--max-lag", "-1"], "--max-lag: must be a number of seconds from 0"),
        (["iam", "billing"], "arguments are required: --stream"),
    ],
)
def test_wrong_arguments_are_named_and_end_with_status_2(
    argv: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert problem in " ".join(capsys.readouterr().err.split())

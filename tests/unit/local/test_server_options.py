"""Options of the local server are checked in its constructor."""

from __future__ import annotations

from typing import Any

import pytest

from kinstream.errors import ConfigError
from kinstream.local import Limits, Server


@pytest.mark.parametrize(
    ("option", "wrong", "says"),
    [
        ("quotas", None, "quotas=None: must be True or False"),
        ("quotas", "no", "quotas='no': must be True or False"),
        ("allow_remote", None, "allow_remote=None: must be True or False"),
        ("clock", None, "clock: must be a kinstream.clock.Clock, not None"),
        ("clock", 0.0, "clock: must be a kinstream.clock.Clock, not float"),
        ("limits", None, "limits: must be a kinstream.local.Limits, not NoneType"),
        ("limits", Limits, "limits: must be a kinstream.local.Limits, not type"),
        ("host_names", None, "host_names: must be a list of names, not NoneType"),
        ("host_names", "kinesis", "host_names: must be a list of names, not a string"),
    ],
)
def test_wrong_option_is_named_with_its_valid_values(option: str, wrong: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Server(**{option: wrong})
    assert caught.value.details == says

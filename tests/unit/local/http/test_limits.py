"""Limits for clients, which check themselves."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from kinstream.errors import ConfigError
from kinstream.local import Limits


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Limits)])
@pytest.mark.parametrize("value", [-1, None, "5", True, 10**12])
def test_limit_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"Limits\.{field}="):
        Limits(**{field: value})


def test_each_limit_is_described() -> None:
    for field in dataclasses.fields(Limits):
        assert re.search(rf"^\s+{field.name}: ", Limits.__doc__ or "", re.MULTILINE)

"""Each compiled function has a check that compares it with its twin in pure Python, and all checks pass."""

from __future__ import annotations

import sys

import pytest
from tests.doubles.compiled import compiled_or_skip
from tests.property import test_speed, test_speed_aggregates, test_speed_produce
from tests.property.checks import CHECKS

from kinstream import Consumer, Producer, speed  # noqa: F401 - all functions with twins
from kinstream.speed import TWINS

FAST = compiled_or_skip()
CHECKED_IN = (test_speed, test_speed_aggregates, test_speed_produce)
"""The modules that register the checks when they are imported."""


@pytest.mark.parametrize("name", sorted(TWINS))
def test_compiled_function_returns_what_its_twin_returns(name: str) -> None:
    assert CHECKS.get(name), f"no check compares {name} with its twin: add one to tests/property"
    for check in CHECKS[name]:
        check()


def test_each_compiled_function_has_a_twin() -> None:
    assert {name for name in dir(FAST) if not name.startswith("_")} == set(TWINS)


@pytest.mark.skipif(speed.compiled is None, reason="the package runs in pure Python")
@pytest.mark.parametrize("name", sorted(TWINS))
def test_compiled_function_is_bound_without_a_wrapper_unless_it_may_decline(name: str) -> None:
    twin = TWINS[name]
    bound = getattr(sys.modules[twin.pure.__module__], name)
    assert bound is not twin.pure
    assert (bound is getattr(FAST, name)) is not twin.may_decline


def test_checks_name_functions_that_exist() -> None:
    assert set(CHECKS) == set(TWINS)

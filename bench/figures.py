"""Figures with the range of their rounds, and with no more digits than the rounds agree on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

MOST_DECIMALS = 2


def decimals(values: Sequence[float]) -> int:
    """Return the number of decimals that the noise of rounds leaves: the first digit in which the rounds differ is the last."""
    middle, noise = statistics.median(values), (max(values) - min(values)) / 2
    least = max(noise, abs(middle) / 100)  # three digits at most
    if least == 0:
        return 0
    return min(MOST_DECIMALS, max(0, -math.floor(math.log10(least))))


def with_range(values: Sequence[float]) -> str:
    """Return the median of rounds, and the lowest and the highest one, such as "1.54 (1.48-1.61)"."""
    digits = decimals(values)
    middle, low, high = (f"{_rounded(value, values, digits):,.{digits}f}" for value in _three(values))
    return f"{middle} ({low}-{high})"


def median(values: Sequence[float]) -> str:
    """Return the median of rounds alone."""
    digits = decimals(values)
    return f"{_rounded(statistics.median(values), values, digits):,.{digits}f}"


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _rounded(value: float, values: Sequence[float], digits: int) -> float:
    """Round to the digits of the noise, also to tens and hundreds."""
    noise = (max(values) - min(values)) / 2
    tens = math.floor(math.log10(noise)) if noise >= 10 else 0
    return round(value, digits) if tens == 0 else round(value, -tens)


def with_versions(report: Mapping[str, Any]) -> str:
    """Return the clients of a report with their versions, which some names have already."""
    return ", ".join(
        name if name.endswith(version) else f"{name} {version}" for name, version in report["versions"].items()
    )

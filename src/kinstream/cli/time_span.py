"""Time spans as text for people. Pure."""

_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))


def time_span(seconds: float) -> str:
    """Return a time span as text, with one decimal: in seconds below two minutes, then in minutes, hours and days."""
    for unit, size in _UNITS:
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"

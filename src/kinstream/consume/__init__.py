"""Consuming: discover -> lease -> fetch (poll | fan-out) -> deaggregate -> deliver -> checkpoint."""

"""Producing: admit -> route -> aggregate -> pace -> batch -> send -> settle; begin with `pipeline`."""

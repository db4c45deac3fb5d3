"""Producing: admit -> route -> aggregate -> pace -> batch -> send -> settle. Read `pipeline` first."""

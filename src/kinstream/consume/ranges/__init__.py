"""Positions and ranges of single shards, for engines that keep their own offsets; begin with `read`."""

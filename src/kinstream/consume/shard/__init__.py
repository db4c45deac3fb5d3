"""One shard being read, from its lease to its end; begin with `reader`."""

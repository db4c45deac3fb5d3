"""Hash keys, the shard map, and the lineage of shards."""

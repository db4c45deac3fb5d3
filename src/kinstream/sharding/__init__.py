"""Hash keys and shards: where a record belongs."""

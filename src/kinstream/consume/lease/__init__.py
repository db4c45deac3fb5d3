"""Leases: the owner and the checkpoint of each shard."""

"""Leases: who reads a shard, and how far its records are done."""

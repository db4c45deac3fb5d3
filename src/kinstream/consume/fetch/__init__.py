"""Fetching: pages of records come from shards, by polling or by enhanced fan-out."""

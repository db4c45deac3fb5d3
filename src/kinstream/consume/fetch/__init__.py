"""Fetching: reads pages of records from shards, by polling or by enhanced fan-out."""

"""Aggregated records in the format of the KPL: many user records in one Kinesis record."""

"""Delivery of records to a handler: one by one, in batches, or concurrently by key, with retries and the failure policy."""

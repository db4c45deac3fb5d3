"""The wire client: build, sign, send, parse, with retries round it."""

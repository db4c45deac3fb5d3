"""Clients of the Kinesis and DynamoDB APIs: endpoints, credentials, signatures, wire formats, HTTP, retries."""

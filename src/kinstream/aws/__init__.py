"""Client of the Kinesis API: endpoints, credentials, signatures, wire formats, HTTP, retries."""

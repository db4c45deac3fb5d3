"""Wire formats of the local Kinesis: JSON, CBOR, event streams and the forms of STS, and the verification of signatures."""

"""Operations of the Kinesis API: request and response types, constraints, and the rules of each operation."""

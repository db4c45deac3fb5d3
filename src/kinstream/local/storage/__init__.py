"""Storage of streams and records: in memory, or in a SQLite database."""

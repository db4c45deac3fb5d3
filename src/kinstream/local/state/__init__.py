"""State of streams, shards and consumers, as pure commands and values: the modules import no I/O, clock or random source."""

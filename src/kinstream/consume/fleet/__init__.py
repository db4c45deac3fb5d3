"""The workers that share the shards of a stream: the decisions of each worker, and the task that executes them."""

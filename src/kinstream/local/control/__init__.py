"""Control of the local Kinesis by tests: interceptions of calls, faults of subscriptions, and the clock."""

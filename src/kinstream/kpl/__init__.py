"""The KPL's aggregated records: many records of a user in one record of Kinesis."""

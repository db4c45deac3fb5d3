"""Names of the DynamoDB tables of the Kinesis Client Library (KCL), their keys, and the index. Pure.

The lease table has the name of the application, unless it was configured. KCL 3.5 keeps rows of all kinds in it. KCL 3.0 to 3.4
has two more tables, and KCL 2 has leases only.
"""

from __future__ import annotations

KEY = "leaseKey"
"""Key of the lease table (KCL, `DynamoDBLeaseSerializer`)."""
INDEX_NAME = "LeaseOwnerToLeaseKeyIndex"
"""Name of the index of the leases by their owners (KCL 3, `DynamoDBLeaseRefresher`)."""
COORDINATOR_TABLE = "{}-CoordinatorState"
"""Name of the table of the leader's lock and the version, for an application (KCL 3.0 to 3.4, `CoordinatorStateTableConfig`)."""
COORDINATOR_KEY = "key"
"""Key of that table."""
WORKERS_TABLE = "{}-WorkerMetricStats"
"""Name of the table of the workers, for an application (KCL 3.0 to 3.4, `WorkerMetricsTableConfig`)."""
WORKERS_KEY = "wid"
"""Key of that table."""
MIGRATED = "TABLE_MIGRATION_STATUS_COMPLETE"
"""Value of `tm` in the row `TableMigration3.5` once all rows are in the lease table, although the other tables remain."""

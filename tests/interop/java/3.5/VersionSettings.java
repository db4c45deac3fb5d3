import software.amazon.kinesis.coordinator.CoordinatorConfig;
import software.amazon.kinesis.leases.LeaseAssignmentStrategy;
import software.amazon.kinesis.leases.LeaseManagementConfig;

/** Settings that only some versions have. */
final class VersionSettings {
    private VersionSettings() {}

    static void apply(CoordinatorConfig config, Options options) {
        config.clientVersionConfig(CoordinatorConfig.ClientVersionConfig.valueOf(
                options.text("client_version", "CLIENT_VERSION_CONFIG_3X")));
    }

    static void apply(LeaseManagementConfig config, Options options) {
        config.leaseAssignmentIntervalMillis(options.number("assignment_millis", 4000));
        config.leaseAssignmentStrategy(
                LeaseAssignmentStrategy.valueOf(options.text("assignment_strategy", "LEASE_COUNT_BASED")));
        config.dynamoDbLockBasedLeaderLeaseDurationInMillis(options.number("leader_lease_millis", 5000));
        config.dynamoDbLockBasedLeaderHeartbeatPeriodInMillis(options.number("leader_heartbeat_millis", 1000));
        // Twice this time is the validity of the rows of all workers. Those of kinstream are written once in a failover time.
        config.workerUtilizationAwareAssignmentConfig()
                .workerMetricsReporterFreqInMillis(options.number("metrics_millis", 4000));
    }
}
